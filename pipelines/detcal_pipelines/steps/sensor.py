"""Steps of the sensor's thickness."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Discriminator, Field, Tag, model_validator

from detcal.frames.needs import Needs
from detcal.frames.simd import LANES
from detcal.sensor import PlanarGeometry, SensorPSF, build_psf, deconvolve
from detcal.sensor.memory import build_psf_bytes, deconvolve_bytes
from detcal_pipelines.pictures import Picture, image, pictures_of
from detcal_pipelines.steps.blocks import Block, Work, halvings
from detcal_pipelines.steps.sources import Shape, Table
from detcal_pipelines.steps.step import CalibrationSource, FramesSource, GeometrySource, Kind, MaskSource, ReadyRecipe, Step, opened

NEAR = PlanarGeometry((4, 4), (1e-4, 1e-4), 1e-3, (0.0, 0.0))  # a detector so near that every kernel is at work


class Plane(Table):
    """A plane detector, as detcal.sensor.PlanarGeometry."""

    shape: Shape
    pixel_size_m: Annotated[list[float], Field(min_length=2, max_length=2)]
    distance_m: float
    poni_m: Annotated[list[float], Field(min_length=2, max_length=2)]

    @model_validator(mode="before")
    @classmethod
    def a_table(cls, value: Any) -> Any:
        """What is no path has to be a table."""
        if not isinstance(value, dict | cls):
            raise ValueError(f"expected a path, or {{ {', '.join(cls.model_fields)} }}, got {value!r}")
        return value


PLANE = "[plane]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
PlaneOrFile = Annotated[
    Annotated[Plane, Tag(PLANE)] | Annotated[GeometrySource, Tag("[path]")],
    Discriminator(lambda given: "[path]" if isinstance(given, str) else PLANE),
]

MODULES = "modules"
GapsOrMask = Annotated[
    Annotated[Literal["modules"], Tag(MODULES)] | Annotated[MaskSource, Tag("[mask]")],
    Discriminator(lambda given: MODULES if given == MODULES else "[mask]"),
]


class BuildPSF(Step[Any]):
    """The blur of a thick sensor as a sparse matrix; there are no frames, and so no [input]."""

    operation: Literal["build_psf"] = "build_psf"
    takes = "nothing"
    cut = "rows"
    mirrors = (build_psf,)
    ready_recipe = ReadyRecipe(
        "From a detector's geometry to the blur of its thick sensor.", output="psf.zarr",
        writes="a CSR matrix, data, indices (coefficient) and indptr (pixel + 1); mask (y, x)",
    )  # fmt: skip

    geometry: PlaneOrFile = Field(description=".poni file, or { shape, pixel_size_m, distance_m, poni_m }", examples=["detector.poni"])
    thickness_m: float | None = Field(
        None, gt=0, description="thickness of the sensor, m; default: what the geometry says", examples=[450e-6]
    )
    material: str | None = Field(
        None,
        description="material of the sensor: Si, CdTe, … or a formula, with its density; default: what the geometry says",
        examples=["Si"],
    )
    energy_kev: float | None = Field(None, gt=0, description="photon energy, keV; default: the geometry's", examples=[17.4])
    attenuation_per_m: float | None = Field(None, gt=0, examples=[1500.0])
    absorption: Literal["total", "energy"] = Field(
        "total", description="total: µ, all that leaves the beam; energy: µ_en, what stays in the sensor"
    )
    density_g_cm3: float | None = Field(None, gt=0, description="in place of the tabulated density, g/cm³", examples=[2.33])
    mask: MaskSource | None = Field(
        None, description="pixels that record nothing: an image (not 0), or a response; default: the geometry's", examples=["mask.edf"]
    )
    gaps: GapsOrMask | None = Field(
        None,
        description='pixels without silicon, which the mask holds too: an image (not 0), or "modules": what lies between them',
        examples=["modules"],
    )
    frames: FramesSource | None = Field(
        None, description="frames of the detector, whose file may say what its sensor is, and the energy", examples=["scan.h5"]
    )
    tile_rows: int | None = Field(
        None, gt=0, description="rows of the detector a task; default: chosen from the memory budget", examples=[64]
    )

    @property
    def gives(self) -> Kind:
        return "calibration"

    def prepare(self) -> Any:
        """The masks; all of the matrix is part of the graph."""
        gaps = self.gaps if isinstance(self.gaps, str) else opened(self.gaps)
        return {"mask": opened(self.mask), "gaps": gaps, "frames": opened(self.frames)}

    def build(self, data: None, ready: Any) -> SensorPSF:
        geometry = PlanarGeometry(**dict(self.geometry)) if isinstance(self.geometry, Plane) else self.geometry
        return build_psf(**self.options_of(build_psf) | {"geometry": geometry, **ready})

    def task_bytes(self, block: Block, ready: Any) -> Needs:
        pixels = block.depth * block.result.shape[1]
        return build_psf_bytes(pixels, int(most_coefficients(block.result) * pixels))

    def work(self, data: None, ready: Any, result: SensorPSF) -> Work:
        rows, columns = result.shape
        band = result.indptr.chunks[0][1] // columns
        smallest = max(1, band // 8)  # smaller tiles take longer to hand out than to fill
        return Work("rows", "tile_rows", rows, smallest, [min(self.tile_rows, rows)] if self.tile_rows else halvings(band, smallest))

    def pictures(self, data: None, result: xr.Dataset, ready: Callable[[], None]) -> dict[str, list[Picture]]:
        """How far the blur reaches, all over the detector."""
        ends, band = result.indptr.data, max(result.indptr.chunks[0])  # beside bands there is one number in a block of its own
        counts = (ends[1:].rechunk(band) - ends[:-1].rechunk(band)).reshape(result.shape)
        shown = xr.DataArray(counts, dims=("y", "x"), attrs={"units": "pixels"})
        return {"What came out": [image("pixels whose light each pixel records", shown), *pictures_of(result.mask)]}

    def contents(self, result: SensorPSF) -> str:
        return f"{result.data.size / 1e6:.4g} million coefficients"

    def try_out(self, data: Any) -> Any:
        return build_psf(NEAR, thickness_m=1e-3, attenuation_per_m=1e3).data


class Deconvolve(Step[SensorPSF]):
    """Undo the blur of a thick sensor."""

    operation: Literal["deconvolve"] = "deconvolve"
    mirrors = (deconvolve,)
    fills_lanes = True
    ready_recipe = ReadyRecipe(
        "From the frames of a thick sensor to what entered its pixels.", output="deconvolved.zarr",
        writes="float32 (frame, y, x), what entered each pixel; variance (frame, y, x) where one is given",
    )  # fmt: skip

    psf: CalibrationSource = Field(description="what build_psf wrote", examples=["psf.zarr"])
    method: Literal["auto", "direct", "lsmr", "mlem"] = Field(
        "auto",
        description="auto: mlem, as far as counts are worth; direct: exact; lsmr: least squares; mlem: non-negative, of highest likelihood",
    )
    max_iterations: int | None = Field(
        None, gt=0, description="auto, lsmr, mlem: at most so many; fewer give a smoother result", examples=[20]
    )
    tolerance: float | None = Field(
        None, gt=0, lt=1, description="lsmr: its atol and btol; mlem: ends once no pixel changes by more", examples=[1e-4]
    )
    variance: FramesSource | None = Field(
        None,
        description="variances of the readings, a frame for each frame: a path, or { path, dataset, frames, flip }",
        examples=["variance.h5"],
    )
    mask: MaskSource | None = Field(
        None,
        description="pixels that were not measured in these frames, as hot ones: an image (not 0), or a response",
        examples=["hot.edf"],
    )
    dummy: float | None = Field(
        None, description="number that stands for no reading in the frames, and in the result for NaN", examples=[-1]
    )

    @property
    def gives(self) -> Kind:
        return "frames" if self.variance is None else "table"

    @property
    def product(self) -> str:
        return "a variance"

    @property
    def solver(self) -> str:
        """The method that is meant."""
        return "direct" if self.method == "auto" and self.variance is not None else self.method

    def prepare(self) -> SensorPSF:
        psf = self.psf.load(SensorPSF, "the matrix of a sensor", "build_psf")
        if self.solver == "direct":
            psf.warned_of_noise.get()  # before a run already
        return psf

    def build(self, data: Any, ready: SensorPSF) -> Any:
        return deconvolve(data, ready, **self.options_of(deconvolve) | {"variance": opened(self.variance), "mask": opened(self.mask)})

    def task_bytes(self, block: Block, ready: SensorPSF) -> Needs:
        own = deconvolve_bytes(block.image_shape, block.depth, block.itemsize, ready.data.size, self.solver)
        if self.variance is None:
            return own
        itemsize = self.variance.open(block.depth).dtype.itemsize
        return own + Needs(task=deconvolve_bytes(block.image_shape, block.depth, itemsize, ready.data.size, self.solver).task)

    def try_out(self, data: Any) -> Any:
        # blurred so much that it is not undone before every kernel has run, on frames side by side and on one alone
        ramp = np.resize(np.arange(data.size, dtype=data.dtype), (LANES + 1, *data.shape[1:]))
        given = None if self.variance is None else ramp
        found = deconvolve(
            ramp,
            build_psf(NEAR, thickness_m=1e-3, attenuation_per_m=1e3),
            **self.options_of(deconvolve) | {"variance": given, "mask": None},
        )
        return found.isel(frame=slice(len(data)))


def most_coefficients(psf: SensorPSF) -> float:
    """Coefficients a pixel in that of the matrix's bands which has most."""
    counts, ends = psf.data.chunks[0], psf.indptr.chunks[0][1:]
    return max(count / pixels for count, pixels in zip(counts, ends, strict=True))
