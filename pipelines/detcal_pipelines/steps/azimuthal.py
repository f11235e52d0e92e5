"""Steps that bring frames to profiles in rings."""

from typing import Any, Literal, Self

import xarray as xr
from pydantic import Field

from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
    find_hot_pixels,
    integrate,
    integrate_azimuthal,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)
from detcal.azimuthal.memory import drawn_bytes, hot_pixels_bytes, outlier_bytes
from detcal.frames.needs import Needs
from detcal_pipelines.steps.factors import Normalization
from detcal_pipelines.steps.rings import DARKS, ERRORS, NORMALIZATION, PROFILES, SUMS, VARIANCE, Clipping, Rings, few_bins
from detcal_pipelines.steps.sources import Ends
from detcal_pipelines.steps.step import (
    Block,
    DarkSource,
    FramesSource,
    Kind,
    ReadyRecipe,
)


class SigmaClip(Clipping):
    """Average in rings without outliers."""

    operation: Literal["sigma_clip"] = "sigma_clip"
    mirrors = (build_bins, sigma_clip)
    ready_recipe = ReadyRecipe("From diffraction frames to profiles without spots and hot pixels.", output="profiles.zarr", writes=PROFILES)

    normalization: Normalization | None = NORMALIZATION
    sums: bool = SUMS
    rejected: bool = Field(False)

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return sigma_clip(data, ready, **self.options_of(sigma_clip) | self.beside_frames | {"normalization": self.factors})


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
        return outlier_mask(data, ready, **self.options_of(outlier_mask) | self.beside_frames)

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        counts, rows = ready.lengths, ready.rows_for(block.depth)
        masks = outlier_bytes(block.image_shape, block.depth, int(counts.sum()), int(counts.max()), len(counts), rows)
        return super().task_bytes(block, ready) + masks


class FindHotPixels(Clipping):
    """Find the pixels that are outliers in most frames: a mask for other steps."""

    operation: Literal["find_hot_pixels"] = "find_hot_pixels"
    mirrors = (build_bins, find_hot_pixels)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to a mask of the detector's hot pixels.", output="hot_pixels.zarr",
        writes="hot_pixels, bool (y, x): `mask` of other steps",
    )  # fmt: skip

    share: float = Field(0.5, ge=0, lt=1)
    partial_sums: int | None = Field(None, gt=0, examples=[3])

    @property
    def gives(self) -> Kind:
        return "calibration"

    @property
    def product(self) -> str:
        return "a mask"

    def in_blocks(self, depth: int | None, begun: int) -> Self:
        """No more partial sums than blocks that are begun, which the plan counts with."""
        return self if self.partial_sums else self.model_copy(update={"partial_sums": begun})

    def build(self, data: Any, ready: AzimuthalBins) -> xr.DataArray:
        return find_hot_pixels(data, ready, **self.options_of(find_hot_pixels) | self.beside_frames)

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        counts, rows = ready.lengths, ready.rows_for(block.depth)
        masks = outlier_bytes(block.image_shape, block.depth, int(counts.sum()), int(counts.max()), len(counts), rows)
        return super().task_bytes(block, ready) + masks + hot_pixels_bytes(block.image_shape, block.depth, self.partial_sums)


class MedianFilter(Rings):
    """The median of each ring."""

    operation: Literal["median_filter"] = "median_filter"
    mirrors = (build_bins, median_filter)
    ready_recipe = ReadyRecipe(
        "From diffraction frames to the median of each ring.", output="medians.zarr", writes="intensity, count, float32 (frame, radial)"
    )

    normalization: Normalization | None = NORMALIZATION
    errors: bool = ERRORS

    def build(self, data: Any, ready: AzimuthalBins) -> xr.Dataset:
        return median_filter(data, ready, **self.options_of(median_filter) | {"normalization": self.factors})


class Quantiles(Rings):
    """What the steps have in common that take the mean between two quantiles."""

    quantiles: Ends = Field([0.4, 0.6])
    normalization: Normalization | None = NORMALIZATION
    errors: bool = ERRORS

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
        kept = block.nbytes  # the memory of frames, for the next ones; they themselves are gone when their profiles are drawn
        return averaged._replace(task=max(averaged.task, drawn.task + kept))


class Means(Rings):
    """What the steps have in common that average without looking for outliers."""

    error_model: Literal["poisson", "azimuthal", "no"] = Field(
        "poisson", description="variance of a reading: poisson; azimuthal: from the spread in the ring; no: not known"
    )
    variance: FramesSource | None = Field(None, description=VARIANCE, examples=["variance.h5"])
    darks: DarkSource | None = DARKS
    normalization: Normalization | None = NORMALIZATION
    weighted: bool = Field(True)
    sums: bool = SUMS

    def options(self) -> dict[str, Any]:
        """Of `integrate`, with files opened."""
        return self.options_of(integrate) | self.beside_frames | {"normalization": self.factors}


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
