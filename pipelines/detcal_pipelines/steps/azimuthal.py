"""Steps that bring frames to profiles in rings."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from pydantic import Field
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
    integrate,
    integrate_azimuthal,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)
from detcal.azimuthal.memory import LANE_PIXEL, batch_bytes, drawn_bytes, outlier_bytes, profiles_bytes
from detcal.frames.corrections import corrections_of
from detcal.frames.needs import Needs
from detcal.frames.once import find_now
from detcal.frames.simd import LANES
from detcal.poni import read_poni
from detcal_pipelines.pictures import Picture, pictures_of, with_rings
from detcal_pipelines.steps.sources import ArraySource, Ends, Normalization, Shape
from detcal_pipelines.steps.step import (
    Block,
    DarkSource,
    FlatSource,
    FramesSource,
    GeometrySource,
    Kind,
    MaskSource,
    ReadyRecipe,
    Step,
    opened,
)

ALONE = 0.6  # of a frame's time in full SIMD lanes, that it takes more by itself
PROFILES = "intensity, sem, std, count, float32 (frame, radial)"
NORMALIZATION = Field(
    None,
    description="what the intensities of each frame are divided by: a number, a list of numbers, the name of a coordinate of the frames, "
    "or { path, dataset } of an array",
    examples=["exposure_s"],
)
SUMS = Field(False, description="give the sums too that profiles are made of, so that those of several runs can be added up")
VARIANCE = "variances of the readings, a frame for each frame: a path, or { path, dataset, frames, flip }"


class Rings(Step[AzimuthalBins]):
    """What all steps have in common that look at frames in rings."""

    fills_lanes = True

    geometry: GeometrySource = Field(description=".poni file", examples=["detector.poni"])
    npt: int = Field(1000, gt=0)
    unit: str = Field("q_nm^-1", description="unit of the radius: q_nm^-1, q_A^-1, 2th_deg, 2th_rad, r_mm, …")
    split: Literal["no", "bbox", "full"] = Field(
        "no",
        description="no: a pixel belongs to the ring of its centre; bbox, full: to all that its bounding box or outline lies in, by area",
    )
    npt_azimuth: int | None = Field(None, gt=0, examples=[36])
    radial_range: Ends | None = Field(None, examples=[[1.0, 50.0]])
    azimuth_range: Ends | None = Field(None, examples=[[-90.0, 90.0]])
    mask: MaskSource | None = Field(
        None, description="bad pixels: an image (not 0: bad), or a response; default: the detector's", examples=["mask.edf"]
    )
    dark: DarkSource | None = Field(
        None, description="dark image or frames: a path, a list, or { path, dataset, frames, flip }", examples=["dark.h5"]
    )
    flat: FlatSource | None = Field(
        None,
        description="flat image or frames, of which the dark was taken off: a path, a list, or { path, dataset, frames, flip }",
        examples=["flat.h5"],
    )
    polarization: float | None = Field(None, ge=-1, le=1, examples=[0.99])
    solid_angle: bool = Field(True)
    shape: Shape | None = Field(None, description="rows, columns of a detector that the geometry gives no model for", examples=[[195, 487]])
    parallax: bool | None = Field(
        None,
        description="whether radii are corrected for the depth at which the sensor absorbs; default: if the geometry says so",
        examples=[False],
    )
    sensor_efficiency: bool | None = Field(
        None,
        description="divide by what the sensor absorbs, relative to rays along its normal; default: if the geometry names its sensor, "
        "and no flat is given, nor divided out of the frames",
        examples=[False],
    )
    dummy: float | None = Field(None, description="number that stands for no reading, in place of all other flags", examples=[4294967295])

    @property
    def gives(self) -> Kind:
        return "table"

    @property
    def product(self) -> str:
        return "profiles"

    def for_data(self, data: Any) -> Self:
        """Without the parallax and efficiency that the frames had taken out before; of their shape, where the geometry has no model of a
        detector."""
        open_options: dict[str, Any] = {}
        if self.parallax is None and "parallax" in corrections_of(data):
            open_options["parallax"] = False
        if self.sensor_efficiency is None and {"efficiency", "flat"} & {*corrections_of(data)}:
            open_options["sensor_efficiency"] = False
        if self.shape is None and read_poni(self.geometry).detector.shape is None:
            open_options["shape"] = list(data.shape[1:])
        return self.model_copy(update=open_options)

    def prepare(self) -> AzimuthalBins:
        images = {name: opened(getattr(self, name)) for name in ("mask", "dark", "flat")}
        return find_now(build_bins(self.geometry, **self.options_of(build_bins) | images))

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        counts, rows = ready.lengths, ready.rows_for(block.depth)
        entries, longest = int(counts.sum()), int(counts.max())
        own = profiles_bytes(block.image_shape, block.depth, block.itemsize, entries, longest, len(counts), rows)
        source = getattr(self, "variance", None)
        if source is None:
            return own
        read = 2 * block.nbytes // block.itemsize * source.open(block.depth).dtype.itemsize
        return own + Needs(task=read + batch_bytes(entries, longest, rows) + LANE_PIXEL * longest)

    def speed(self, depth: int) -> float:
        """Rings of one frame fill SIMD lanes nearly as well as as many frames do."""
        return max(super().speed(depth), depth / (depth + ALONE))

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], AzimuthalBins]) -> dict[str, list[Picture]]:
        """As usual, and upon the frames rings of equal radius: they show whether the centre is right."""
        radius = np.asarray(ready().radius)
        return {
            "What went in, with lines of equal radius": [with_rings(each, radius) for each in pictures_of(data)],
            "What came out": pictures_of(result),
        }

    def try_out(self, data: Any) -> Any:
        """With frames side by side in SIMD lanes, which two rings would not fill, and with rings."""
        return xr.concat([self.tried(data, count) for count in (2, LANES)], "frame", join="outer")

    def tried(self, data: Any, count: int) -> Any:
        """The step with so many rings."""
        of_the_run = {"variance", "normalization"} & {*type(self).model_fields}
        alone = self.model_copy(update=dict.fromkeys(of_the_run))
        return alone.build(data, few_bins(data, npt=count))

    @property
    def factors(self) -> Any:
        """What intensities are divided by, as functions take it."""
        given = getattr(self, "normalization", None)
        return given.open() if isinstance(given, ArraySource) else given


class Clipping(Rings):
    """What the steps have in common that look for outliers."""

    threshold: float = Field(
        5.0,
        ge=0,
        description="pixels further from the mean than so many standard deviations are left out; 0: Chauvenet's criterion alone",
    )
    max_iterations: int = Field(5, ge=0)
    error_model: Literal["azimuthal", "poisson", "hybrid"] = Field(
        "azimuthal",
        description="azimuthal: variance from the spread in the ring; poisson; hybrid: clips by the spread, gives the errors of poisson",
    )
    variance: FramesSource | None = Field(None, description=VARIANCE, examples=["variance.h5"])


class SigmaClip(Clipping):
    """Average in rings without outliers."""

    operation: Literal["sigma_clip"] = "sigma_clip"
    mirrors = (build_bins, sigma_clip)
    ready_recipe = ReadyRecipe("From diffraction frames to profiles without spots and hot pixels.", output="profiles.zarr", writes=PROFILES)

    normalization: Normalization | None = NORMALIZATION
    sums: bool = SUMS

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        beside = {"variance": opened(self.variance), "normalization": self.factors}
        return sigma_clip(data, ready, **self.options_of(sigma_clip) | beside)


class OutlierMask(Clipping):
    """Find the pixels that sigma_clip leaves out: spots and hot pixels."""

    operation: Literal["outlier_mask"] = "outlier_mask"
    mirrors = (build_bins, outlier_mask)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to masks of their spots and hot pixels.", output="outliers.zarr",
        writes="outlier, bool (frame, y, x): True in what `sigma_clip` leaves out, and in all of a frame that cannot be read",
    )  # fmt: skip

    @property
    def product(self) -> str:
        return "masks"

    def build(self, data: Any, ready: AzimuthalBins) -> xr.DataArray:
        return outlier_mask(data, ready, **self.options_of(outlier_mask) | {"variance": opened(self.variance)})

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        counts, rows = ready.lengths, ready.rows_for(block.depth)
        masks = outlier_bytes(block.image_shape, block.depth, int(counts.sum()), int(counts.max()), len(counts), rows)
        return super().task_bytes(block, ready) + masks


class MedianFilter(Rings):
    """The median of each ring."""

    operation: Literal["median_filter"] = "median_filter"
    mirrors = (build_bins, median_filter)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to the median of each ring.", output="medians.zarr", writes="intensity, count, float32 (frame, radial)"
    )

    normalization: Normalization | None = NORMALIZATION

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return median_filter(data, ready, **self.options_of(median_filter) | {"normalization": self.factors})


class Quantiles(Rings):
    """What the steps have in common that take the mean between two quantiles."""

    quantiles: Ends = Field([0.4, 0.6])
    normalization: Normalization | None = NORMALIZATION

    def filtered(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        """The mean in each ring."""
        return quantile_filter(data, ready, **self.options_of(quantile_filter) | {"normalization": self.factors})


class QuantileFilter(Quantiles):
    """The mean between two quantiles of each ring."""

    operation: Literal["quantile_filter"] = "quantile_filter"
    mirrors = (build_bins, quantile_filter)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to the mean between two quantiles of each ring.", output="quantiles.zarr", writes="as `medians.zarr`"
    )

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return self.filtered(data, ready)


class RadialBackground(Quantiles):
    """Draw the mean between two quantiles of each ring back on the detector: the frames without their spots."""

    operation: Literal["radial_background"] = "radial_background"
    mirrors = (build_bins, quantile_filter, radial_background)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to what they would be if they were the same all around.", output="background.zarr",
        writes="background, float32 (frame, y, x): frames less this are the spots",
    )  # fmt: skip

    @property
    def gives(self) -> Kind:
        return "frames"

    def build(self, data: Any, ready: AzimuthalBins) -> xr.DataArray:
        return radial_background(self.filtered(data, ready).intensity, ready)

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        averaged, drawn = super().task_bytes(block, ready), drawn_bytes(block.image_shape, block.depth)
        return averaged._replace(task=max(averaged.task, drawn.task))  # the frames are gone when their profiles are drawn


class Means(Rings):
    """What the steps have in common that average without looking for outliers."""

    error_model: Literal["poisson", "azimuthal", "no"] = Field(
        "poisson", description="variance of a reading: poisson; azimuthal: from the spread in the ring; no: not known"
    )
    variance: FramesSource | None = Field(None, description=VARIANCE, examples=["variance.h5"])
    normalization: Normalization | None = NORMALIZATION
    sums: bool = SUMS

    def options(self) -> dict[str, Any]:
        """Of `integrate`, with files opened."""
        return self.options_of(integrate) | {"variance": opened(self.variance), "normalization": self.factors}


class Integrate(Means):
    """Average in rings."""

    operation: Literal["integrate"] = "integrate"
    mirrors = (build_bins, integrate)
    ready_recipe = ReadyRecipe("From diffraction frames to the mean of each ring.", output="integrated.zarr", writes="as `profiles.zarr`")

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return integrate(data, ready, **self.options())


class IntegrateAzimuthal(Means):
    """Average along one ring: intensity over azimuth."""

    operation: Literal["integrate_azimuthal"] = "integrate_azimuthal"
    mirrors = (build_bins, integrate, integrate_azimuthal)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to intensity over azimuth along one ring.", output="azimuthal.zarr", sets=("npt", "npt_azimuth"),
        writes="intensity, sem, std, count, float32 (frame, azimuthal)",
    )  # fmt: skip

    npt: int = Field(1000, gt=0, examples=[1])

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return integrate_azimuthal(data, ready, **self.options())

    def tried(self, data: Any, count: int) -> Any:
        return integrate_azimuthal(data, few_bins(data, npt=1, npt_azimuth=count))


def few_bins(data: Any, **options: int) -> AzimuthalBins:
    """Bins of a few pixels near the beam."""
    near = Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=data.shape[1:]))
    return build_bins(near, unit="r_mm", **options)  # type: ignore[arg-type]
