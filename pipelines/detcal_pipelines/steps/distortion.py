"""Steps of the distortion of a detector's optics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize
from pydantic import Field

from detcal.distortion import DistortionMap, GridPoints, OverlapMatrix, build_overlaps, correct_distortion, fit_distortion
from detcal.distortion.memory import correct_distortion_bytes, fit_distortion_bytes
from detcal.distortion.points import as_picture
from detcal.frames.needs import Needs
from detcal.frames.once import find_now
from detcal.simulate import hole_grid
from detcal.stores import load
from detcal.stores.calibrations import from_dataset
from detcal_pipelines.pictures import Picture, image, pictures_of, with_points
from detcal_pipelines.steps.sources import Ends, FramesSource, Shape, Variance, modified_times
from detcal_pipelines.steps.step import Block, CalibrationSource, Kind, MaskSource, ReadyRecipe, Step, opened

GRID = ("mask", "shape", "pixel_size_m", "origin_m")  # options that decide the matrix


class FitDistortion(Step[GridPoints | None]):
    """Find the distortion of a detector from an image of a hole grid."""

    operation: Literal["fit_distortion"] = "fit_distortion"
    mirrors = (fit_distortion,)
    ready_recipe = ReadyRecipe(
        "From an image of a hole grid to a distortion of a detector.", "grid.edf", "distortion.zarr",
        writes="corners_m (y + 1, x + 1, axis), mask (y, x), and the dots; as `.nxs` a detector for pyFAI too",
    )  # fmt: skip

    pitch_m: float = Field(gt=0, examples=[5e-3])
    method: Literal["auto", "polynomial", "cubic"] = Field(
        "auto", description="polynomial; cubic: with local cubics through what it misses; auto: whichever predicts better"
    )
    order: int | None = Field(None, ge=1, le=30, description="of the polynomial; default: the best", examples=[5])
    points: CalibrationSource | None = Field(
        None, description="dots that find_grid_points found and `save` wrote, in place of finding them", examples=["points.zarr"]
    )
    dots: Literal["auto", "bright", "dark"] = Field("auto")
    dot_diameter_px: float | None = Field(None, gt=1, description="pixels; default: found from the image", examples=[20.0])
    spacing_px: float | None = Field(None, gt=1, description="pixels; default: found from the image", examples=[97.0])
    mask: MaskSource | None = Field(None, description="pixels not to look at: an image (not 0: bad), or a response", examples=["mask.edf"])

    @property
    def gives(self) -> Kind:
        return "calibration"

    def prepare(self) -> GridPoints | None:
        return None if self.points is None else self.points.load(GridPoints, "dots", "detcal.save(find_grid_points(…))")

    def build(self, data: Any, ready: GridPoints | None) -> DistortionMap:
        options = self.options_of(fit_distortion) | {"points": ready, "mask": None}
        picture = as_picture(data, opened(self.mask))
        key = tokenize(picture, self.model_dump_json(), modified_times(self))
        return fit_once(Fit(key, picture, options))

    def task_bytes(self, block: Block, ready: GridPoints | None) -> Needs:
        return fit_distortion_bytes(block.image_shape, block.source.data.chunksize[0], block.itemsize)

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], GridPoints | None]) -> dict[str, list[Picture]]:
        """The grid with the dots that were used, and how far pixels are displaced."""
        dots = result.point_y.values, result.point_x.values
        moved = xr.DataArray(from_dataset(result.compute()).displacement_px, dims=("y", "x", "axis"), attrs={"units": "px"})
        return {
            "The image of the grid, and the dots that were used": [with_points(each, *dots) for each in pictures_of(data)[:1]],
            "By how much corners of pixels are displaced": [image(f"along {axis}", moved[..., place]) for place, axis in enumerate("yx")],
        }

    def contents(self, result: DistortionMap) -> str:
        return f"{len(result.point_y)} dots, {result.shape} pixels"

    def try_out(self, data: Any) -> Any:
        grid = hole_grid((96, 96), pitch_px=16.0)
        options = self.options_of(fit_distortion, "pitch_m", "points", "dots", "dot_diameter_px", "spacing_px") | {"mask": None}
        return fit_distortion(grid.image.astype(data.dtype), 1.0, **options).corners_m


@dataclass(frozen=True)
class Fit:
    """What is fitted: the mean of the frames, whatever their blocks, NaN where nothing is known; equal to others of the same content."""

    content: str
    picture: Any = field(compare=False)
    options: Mapping[str, Any] = field(compare=False)


@lru_cache(maxsize=1)
def fit_once(fit: Fit) -> DistortionMap:
    """The map of an image: a run builds its steps to check them, to plan, and to run, and a fit of a large image takes half a minute."""
    return fit_distortion(fit.picture, **fit.options)


class CorrectDistortion(Step[OverlapMatrix]):
    """Bring frames to where an ideal detector would have them."""

    operation: Literal["correct_distortion"] = "correct_distortion"
    mirrors = (correct_distortion, build_overlaps)
    fills_lanes = True
    ready_recipe = ReadyRecipe(
        "From the frames of a distorting camera to those of an ideal one.", output="straight.zarr",
        writes="float32 (frame, y, x); variance, coverage and mask on request; also `.edf`",
    )  # fmt: skip

    distortion: CalibrationSource = Field(
        description="what fit_distortion wrote, a NeXus detector file, or a Fit2D .spline", examples=["distortion.zarr"]
    )
    conserve: Literal["counts", "mean"] = Field(
        "counts", description="counts: none of the counts is lost or added; mean: of the readings over the covered area"
    )
    variance: Variance | None = Field(
        None,
        description='"poisson": the counts; or of the frames, as many: a path, or { path, dataset, frames, flip }',
        examples=["poisson"],
    )
    coverage: bool = Field(False, description="give coverage too, the part of the area of a pixel that is covered, and a mask")
    mask: MaskSource | None = Field(None, description="bad pixels: an image (not 0: bad), or a response", examples=["mask.edf"])
    shape: Literal["cover"] | Shape | None = Field(
        None, description='rows and columns of the result; "cover": as many as hold all pixels', examples=["cover"]
    )
    pixel_size_m: Ends | None = Field(None, description="(y, x) of the result, m; default: the map's", examples=[[5e-5, 5e-5]])
    origin_m: Ends | None = Field(None, description="(y, x) of the outer corner of the first pixel, m", examples=[[0.0, 0.0]])
    dummy: float | None = Field(None, description="stands for no reading, and in the corrected frames for NaN", examples=[-1])

    @property
    def gives(self) -> Kind:
        return "frames" if self.variance is None and not self.coverage else "table"

    @property
    def product(self) -> str:
        return "variance or coverage"

    def prepare(self) -> OverlapMatrix:
        warp = self.distortion.load(DistortionMap, "a distortion of a detector", "fit_distortion", load)  # detectors of other programs too
        return find_now(build_overlaps(warp, **self.options_of(build_overlaps) | {"mask": opened(self.mask)}))

    def build(self, data: Any, ready: OverlapMatrix) -> Any:
        variance = opened(self.variance) if isinstance(self.variance, FramesSource) else self.variance
        return correct_distortion(data, ready, **self.options_of(correct_distortion, *GRID) | {"variance": variance})

    def task_bytes(self, block: Block, ready: OverlapMatrix) -> Needs:
        own = correct_distortion_bytes(
            block.image_shape, ready.shape, block.depth, block.itemsize, ready.data.size, self.variance is not None
        )
        given = 0
        if isinstance(self.variance, FramesSource):  # as it is read and as it is decoded
            given = 2 * block.depth * block.image_shape[0] * block.image_shape[1] * self.variance.open(block.depth).dtype.itemsize
        # images of a dataset are written one by one, and are taken apart for that
        apart = 2 * block.result.nbytes * block.depth // len(block.data) if isinstance(block.result, xr.Dataset) else 0
        return own + Needs(task=apart + given)

    def try_out(self, data: Any) -> Any:
        corners = np.stack(np.meshgrid(*2 * [np.arange(5.0)], indexing="ij"), axis=-1)
        even = DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((4, 4), np.bool_))
        given = data if isinstance(self.variance, FramesSource) else self.variance
        return correct_distortion(data, even, **self.options_of(correct_distortion, *GRID) | {"variance": given})
