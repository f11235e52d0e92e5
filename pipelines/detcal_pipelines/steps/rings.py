"""What the steps have in common that look at frames in rings."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
import xarray as xr
from pydantic import Field
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
)
from detcal.azimuthal.memory import LANE_PIXEL, LESS_DARK_PIXEL, batch_bytes, profiles_bytes, rejected_bytes
from detcal.frames.corrections import corrections_of
from detcal.frames.needs import Needs
from detcal.frames.once import find_now
from detcal.frames.simd import LANES
from detcal.poni import read_poni
from detcal.stores import open_frames
from detcal_pipelines.pictures import Picture, pictures_of, with_rings
from detcal_pipelines.steps.factors import as_factors
from detcal_pipelines.steps.sources import Ends, Shape
from detcal_pipelines.steps.step import (
    Block,
    DarkSource,
    FlatSource,
    FramesSource,
    GeometrySource,
    Kind,
    MaskSource,
    Step,
    opened,
)

ALONE = 0.6  # of a frame's time in full SIMD lanes, that it takes more by itself
PROFILES = "intensity, sem, std, count, float32 (frame, radial)"
NORMALIZATION = Field(
    None,
    description="what the intensities of each frame are divided by: a number, a list of numbers, the name of a coordinate of the frames, "
    "or { path, dataset, frames } of an array: of the file of the frames, the numbers of those that are taken",
    examples=["exposure_s"],
)
SUMS = Field(False, description="give the sums too that profiles are made of, so that those of several runs can be added up")
ERRORS = Field(False, description="give errors too, from the spread in each ring; that takes longer")
DARKS = Field(
    None,
    description="taken off the frames, one for each, or for each of groups of as many that follow each other, in place of dark: a path, or "
    "{ path, dataset, frames, flip }",
    examples=["darks.h5"],
)
VARIANCE = "variances of the readings, a frame for each frame: a path, or { path, dataset, frames, flip }"


def is_nexus(path: str) -> bool:
    """Whether a geometry is that of the frames in an HDF5 file."""
    return Path(path).is_file() and h5py.is_hdf5(path)


def knows_shape(path: str) -> bool:
    """Whether a .poni file names a detector whose shape is known; it is read anew once it has changed."""
    file = Path(path)
    stamp = file.stat() if file.is_file() else None
    return read_shape(str(file.resolve()), stamp and (stamp.st_mtime_ns, stamp.st_size)) is not None


@lru_cache(maxsize=16)  # a recipe is built several times, for its plan and its run
def read_shape(path: str, _stamp: tuple[int, int] | None) -> tuple[int, int] | None:
    """The shape of the detector in a .poni file."""
    shape: tuple[int, int] | None = read_poni(path).detector.shape
    return shape


class Rings(Step[AzimuthalBins]):
    """What all steps have in common that look at frames in rings."""

    fills_lanes = True

    geometry: GeometrySource = Field(
        description=".poni file, .json file of pyFAI's, or NeXus file with frames and their NXdetector", examples=["detector.poni"]
    )
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
        if self.shape is None and not is_nexus(self.geometry) and not knows_shape(self.geometry):
            open_options["shape"] = list(data.shape[1:])
        return self.model_copy(update=open_options)

    def prepare(self) -> AzimuthalBins:
        images = {name: opened(getattr(self, name)) for name in ("mask", "dark", "flat")}
        geometry = open_frames(self.geometry) if is_nexus(self.geometry) else self.geometry
        return find_now(build_bins(geometry, **self.options_of(build_bins) | images))

    def task_bytes(self, block: Block, ready: AzimuthalBins) -> Needs:
        counts, rows = ready.lengths, ready.rows_for(block.depth)
        entries, longest = int(counts.sum()), int(counts.max())
        own = profiles_bytes(block.image_shape, block.depth, block.itemsize, entries, longest, len(counts), rows)
        if getattr(self, "rejected", False):
            own += rejected_bytes(block.image_shape, block.depth, len(counts))
        pixels = block.nbytes // block.itemsize
        for name in ("variance", "darks"):
            source = getattr(self, name, None)
            if source is not None:
                own += Needs(task=2 * pixels * source.open(block.depth).dtype.itemsize)
        if getattr(self, "darks", None) is not None:
            own += Needs(task=LESS_DARK_PIXEL * pixels)
        if getattr(self, "variance", None) is None and getattr(self, "darks", None) is None:
            return own
        return own + Needs(task=batch_bytes(entries, longest, rows) + LANE_PIXEL * longest)

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
        of_the_run = {"variance", "darks", "normalization"} & {*type(self).model_fields}
        alone = self.model_copy(update=dict.fromkeys(of_the_run))
        return alone.build(data, few_bins(data, npt=count))

    @property
    def beside_frames(self) -> dict[str, Any]:
        """What there is of each frame, with files opened."""
        return {name: opened(getattr(self, name)) for name in ("variance", "darks")}

    @property
    def factors(self) -> Any:
        """What intensities are divided by, as functions take it."""
        return as_factors(getattr(self, "normalization", None))


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
    darks: DarkSource | None = DARKS


def few_bins(data: Any, **options: int) -> AzimuthalBins:
    """Bins of a few pixels near the beam."""
    near = Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=data.shape[1:]))
    return build_bins(near, unit="r_mm", **options)  # type: ignore[arg-type]
