"""Steps of the distortion of a detector's optics."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from pydantic import Field

from detcal.distortion import DistortionMap, GridPoints, OverlapMatrix, build_overlaps, correct_distortion, fit_distortion, uncorrect
from detcal.distortion.memory import correct_distortion_bytes, fit_distortion_bytes, uncorrect_bytes
from detcal.frames.needs import Needs
from detcal.frames.once import find_now
from detcal.simulate import hole_grid
from detcal.stores import load
from detcal.stores.calibrations import from_dataset
from detcal_pipelines.pictures import Picture, image, pictures_of, with_points
from detcal_pipelines.steps.sources import Ends, FramesSource, Shape, Variance
from detcal_pipelines.steps.step import Block, CalibrationSource, Kind, MaskSource, ReadyRecipe, Step, opened

GRID = ("mask", "shape", "pixel_size_m", "origin_m")  # options that decide the matrix


class Known(NamedTuple):
    """What is known of the image of a grid: its dots, and pixels that are not looked at."""

    points: GridPoints | None
    mask: Any


class FitDistortion(Step[Known]):
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

    def prepare(self) -> Known:
        points = None if self.points is None else self.points.load(GridPoints, "dots", "detcal.save(find_grid_points(…))")
        return Known(points, opened(self.mask))

    def build(self, data: Any, ready: Known) -> DistortionMap:
        return fit_distortion(data, **self.options_of(fit_distortion) | ready._asdict())

    def task_bytes(self, block: Block, ready: Known) -> Needs:
        return fit_distortion_bytes(block.image_shape, block.source.data.chunksize[0], block.itemsize)

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], Known]) -> dict[str, list[Picture]]:
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


class Overlaps(Step[OverlapMatrix]):
    """What the steps have in common that take frames through a map of distortion, or back."""

    distortion: CalibrationSource = Field(
        description="what fit_distortion wrote, a NeXus detector file, or a Fit2D .spline", examples=["distortion.zarr"]
    )
    conserve: Literal["counts", "mean"] = Field(
        "counts", description="counts: none of the counts is lost or added; mean: the mean of the readings over the covered area"
    )
    mask: MaskSource | None = Field(None, description="bad pixels: an image (not 0: bad), or a response", examples=["mask.edf"])
    shape: Literal["cover"] | Shape | None = Field(
        None, description='rows and columns of the result; "cover": as many as hold all pixels', examples=["cover"]
    )
    pixel_size_m: Ends | None = Field(
        None, description="size of the result's pixels (y, x), m; default: the map's", examples=[[5e-5, 5e-5]]
    )
    origin_m: Ends | None = Field(None, description="outer corner of the grid's first pixel (y, x), m", examples=[[0.0, 0.0]])
    dummy: float | None = Field(
        None, description="number that stands for no reading in the frames, and in the result for NaN", examples=[-1]
    )

    def prepare(self) -> OverlapMatrix:
        warp = self.distortion.load(DistortionMap, "a distortion of a detector", "fit_distortion", load)  # detectors of other programs too
        return find_now(build_overlaps(warp, **self.options_of(build_overlaps) | {"mask": opened(self.mask)}))


class CorrectDistortion(Overlaps):
    """Bring frames to where an ideal detector would have them."""

    operation: Literal["correct_distortion"] = "correct_distortion"
    mirrors = (correct_distortion, build_overlaps)
    fills_lanes = True
    ready_recipe = ReadyRecipe(
        "From the frames of a distorting camera to those of an ideal one.", output="straight.zarr",
        writes="float32 (frame, y, x); variance, coverage and mask on request; also `.edf`",
    )  # fmt: skip

    variance: Variance | None = Field(
        None,
        description='"poisson": the counts; or variances, a frame for each frame: a path, or { path, dataset, frames, flip }',
        examples=["poisson"],
    )
    coverage: bool = Field(False, description="give coverage too, the part of the area of a pixel that is covered, and a mask")

    @property
    def gives(self) -> Kind:
        return "frames" if self.variance is None and not self.coverage else "table"

    @property
    def product(self) -> str:
        return "variance or coverage"

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
        given = data if isinstance(self.variance, FramesSource) else self.variance
        return correct_distortion(data, few_pixels(), **self.options_of(correct_distortion, *GRID) | {"variance": given})


class Uncorrect(Overlaps):
    """Bring frames of an ideal detector back to where the distorting one would have recorded them."""

    operation: Literal["uncorrect"] = "uncorrect"
    mirrors = (uncorrect, build_overlaps)
    ready_recipe = ReadyRecipe(
        "From frames of an ideal camera back to those of the distorting one.", "straight.zarr", "uncorrected.zarr",
        writes="float32 (frame, y, x), on the pixels of the distorting detector; also `.edf`",
    )  # fmt: skip

    max_iterations: int = Field(200, gt=0)
    tolerance: float = Field(1e-6, gt=0, lt=1)

    def build(self, data: Any, ready: OverlapMatrix) -> Any:
        return uncorrect(data, ready, **self.options_of(uncorrect, *GRID))

    def task_bytes(self, block: Block, ready: OverlapMatrix) -> Needs:
        return uncorrect_bytes(block.image_shape, ready.camera_shape, block.depth, block.itemsize, ready.data.size)

    def try_out(self, data: Any) -> Any:
        return uncorrect(data, few_pixels(), **self.options_of(uncorrect, *GRID))


def few_pixels() -> DistortionMap:
    """The map of a detector of a few pixels without distortion."""
    corners = np.stack(np.meshgrid(*2 * [np.arange(5.0)], indexing="ij"), axis=-1)
    return DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((4, 4), np.bool_))
