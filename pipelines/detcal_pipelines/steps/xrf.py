"""Steps that begin with an X-ray fluorescence scan, in place of frames."""

from typing import Annotated, Any, Generic, Literal

import dask.array as da
import numpy as np
import xarray as xr
from pydantic import Discriminator, Field, Tag, model_validator

from detcal import convert_crono, open_scan
from detcal.frames.needs import Needs
from detcal.frames.once import find_now
from detcal.stores.sources.any_scan import Format
from detcal.xrf import (
    ScanGrid,
    build_scan_grid,
    convert_scan,
    element_maps,
    regrid,
    regrid_rate,
    smooth_spectra,
    summary_spectra,
)
from detcal.xrf.memory import (
    BYTES_A_SPECTRUM,
    convert_scan_bytes,
    fit_bytes,
    matrix_bytes,
    regrid_bytes,
    smooth_spectra_bytes,
    summary_bytes,
)
from detcal.xrf.tiles import lines_a_tile, lines_are_rows, most_spectra
from detcal_pipelines.steps.blocks import Block, Work, halvings, rounded
from detcal_pipelines.steps.sources import LIST, Ends
from detcal_pipelines.steps.step import ArraySource, Kind, Ready, ReadyRecipe, ScanSource, Step

NAME = "[name]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
NUMBERS = "in place of the file's own: the name of a dataset, or { path, dataset } of another file"
Numbers = Annotated[
    Annotated[str, Tag(NAME)] | Annotated[ArraySource, Tag("[array]")],
    Discriminator(lambda given: NAME if isinstance(given, str) else "[array]"),
]
Names = Annotated[
    Annotated[str, Tag(NAME)] | Annotated[list[str], Field(min_length=1, max_length=2), Tag(LIST)],
    Discriminator(lambda given: NAME if isinstance(given, str) else LIST),
]
Elements = Annotated[
    Annotated[int, Tag("[number]")] | Annotated[list[int], Field(min_length=1), Tag(LIST)],
    Discriminator(lambda given: "[number]" if isinstance(given, int) else LIST),
]


SPECTRA = ("spectra", "detector_spectra")  # of a scan: their sums, and those of each element of its detector, from which rates are found


class Scan(Step[Ready], Generic[Ready]):
    """What all steps have in common that begin with a scan."""

    takes = "scan"

    scan: ScanSource = Field(description="file of an X-ray fluorescence scan, of any layout that is known", examples=["scan.h5"])
    format: Format | None = Field(None, description="its layout; default: found from what the file holds", examples=["maps"])
    spectra: str | None = Field(None, description="name of the dataset of spectra, in a file of any layout", examples=["/entry/spectra"])
    positions: Names | None = Field(
        None, description="name of the dataset of their positions, or [x, y], the names of two; default: columns and rows of a map",
        examples=[["/entry/x", "/entry/y"]],
    )  # fmt: skip
    live_time_s: Numbers | None = Field(None, description=f"live times, s, {NUMBERS}", examples=["/entry/live_time"])
    energy_kev: Numbers | None = Field(None, description=f"energies of the channels, keV, {NUMBERS}", examples=["/entry/energy"])
    detector: Elements | None = Field(
        None, description="numbers of the detector's elements, from 0, or of one; default: all that have counted", examples=[[0, 1, 3]]
    )
    motor_step_um: float = Field(1.0, gt=0)

    @property
    def gives(self) -> Kind:
        return "cube"

    def open_scan(self, spectra: int | None) -> xr.Dataset:
        """The scan, in blocks of so many spectra."""
        given = {"live_time_s": self.live_time_s, "energy_kev": self.energy_kev}
        arrays = {name: value.open() for name, value in given.items() if isinstance(value, ArraySource)}
        chunks = None if spectra is None else {"spectrum": spectra}
        return open_scan(self.scan, **self.options_of(open_scan) | arrays | {"chunks": chunks})

    def open_input(self) -> xr.Dataset:
        return self.open_scan(None)


class Spectra(Scan[Ready], Generic[Ready]):
    """What the steps have in common of which a task takes some spectra."""

    cut = "spectra"

    chunk_spectra: int | None = Field(None, gt=0, description="spectra a task; default: chosen from the memory budget", examples=[512])

    def open_input(self) -> xr.Dataset:
        return self.open_scan(self.chunk_spectra)

    def work(self, data: xr.Dataset, ready: Ready, result: Any) -> Work:
        smallest = self.open_scan(1).spectra.data.chunksize[0]
        length, block = data.spectra.data.shape[0], data.spectra.data.chunksize[0]
        sizes = [self.chunk_spectra] if self.chunk_spectra else halvings(block, smallest)
        return Work("spectra", "chunk_spectra", length, smallest, [rounded(each, smallest, length) for each in sizes])


class SmoothSpectra(Spectra[None]):
    """Smooth the spectra of a scan along their energy; there are no frames, and so no [input]."""

    operation: Literal["smooth_spectra"] = "smooth_spectra"
    mirrors = (open_scan, smooth_spectra)
    ready_recipe = ReadyRecipe(
        "From an X-ray fluorescence scan to the same scan with smoothed spectra.", output="smoothed.zarr",
        writes="the scan: spectra, float32 (spectrum, energy), its positions, live times and whatever else it has",
    )  # fmt: skip

    sigma_channels: float = Field(7.0, gt=0, description="standard deviation of the gaussian along the energy, in channels")
    boundary: Literal["reflect", "nearest", "mirror", "wrap"] = Field("reflect")
    truncate: float = Field(4.0, gt=0)

    @property
    def gives(self) -> Kind:
        return "scan"

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: xr.Dataset, ready: None) -> xr.Dataset:
        options = self.options_of(smooth_spectra, "spectra")
        return data.assign({name: smooth_spectra(data[name], **options) for name in SPECTRA if name in data})

    def task_bytes(self, block: Block, ready: None) -> Needs:
        own = smooth_spectra_bytes(block.depth, block.data.sizes["energy"], block.itemsize)
        return Needs(once=BYTES_A_SPECTRUM * block.data.sizes["spectrum"], task=own)

    def try_out(self, data: xr.Dataset) -> Any:
        return smooth_spectra(few_spectra(data).spectra, **self.options_of(smooth_spectra, "spectra"))


class SummarySpectra(Spectra[None]):
    """Sum, mean and largest value of each channel over all spectra of a scan; there are no frames, and so no [input]."""

    operation: Literal["summary_spectra"] = "summary_spectra"
    mirrors = (open_scan, summary_spectra)
    ready_recipe = ReadyRecipe(
        "From an X-ray fluorescence scan to its sum, mean and maximum spectra.", output="summary.zarr",
        writes="sum, mean, max, float64 (energy,)",
    )  # fmt: skip

    @property
    def gives(self) -> Kind:
        return "table"

    @property
    def product(self) -> str:
        return "spectra"

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: xr.Dataset, ready: None) -> xr.Dataset:
        return summary_spectra(data.spectra)

    def task_bytes(self, block: Block, ready: None) -> Needs:
        own = summary_bytes(block.depth, block.data.sizes["energy"], block.itemsize)
        return own + Needs(once=BYTES_A_SPECTRUM * block.data.sizes["spectrum"])

    def try_out(self, data: xr.Dataset) -> Any:
        return summary_spectra(few_spectra(data).spectra)


class ConvertCrono(Spectra[ScanGrid]):
    """Smooth the spectra of a scan, and lay out those that its instrument selected; there are no frames, and so no [input]."""

    operation: Literal["convert_crono"] = "convert_crono"
    mirrors = (open_scan, convert_scan, convert_crono)
    ready_recipe = ReadyRecipe(
        "From the file of a Crono scanner to smoothed spectra, and the cube of those that it selected.", output="converted.zarr",
        writes="maxrf_all_spectra (spectrum, energy), maxrf_cube (row, column, energy), its max and sum (mean) spectra, energies",
    )  # fmt: skip

    sigma_channels: float = Field(7.0, gt=0, description="standard deviation of the gaussian along the energy, in channels")

    def prepare(self) -> ScanGrid:
        return build_scan_grid(self.open_scan(None), method="selected")

    def build(self, data: xr.Dataset, ready: ScanGrid) -> xr.Dataset:
        lines = None if self.chunk_spectra is None else selected_lines(ready, self.chunk_spectra)
        return convert_scan(data, sigma_channels=self.sigma_channels, tile_rows=lines)

    def task_bytes(self, block: Block, ready: ScanGrid) -> Needs:
        channels, lines = block.data.sizes["energy"], selected_lines(ready, block.depth)
        spectra = most_spectra(ready, lines, da.core.normalize_chunks(block.depth, (ready.spectra,))[0])
        own = convert_scan_bytes(block.depth, lines * pixels_a_line(ready), spectra, channels, block.itemsize)
        return own + Needs(once=BYTES_A_SPECTRUM * ready.spectra)

    def try_out(self, data: xr.Dataset) -> Any:
        return convert_scan(few_spectra(data), sigma_channels=self.sigma_channels)


AUTO = "[auto]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
Lag = Annotated[
    Annotated[Literal["auto"], Tag(AUTO)] | Annotated[float, Tag("[columns]")],
    Discriminator(lambda given: AUTO if isinstance(given, str) else "[columns]"),
]


class RegridXRF(Scan[ScanGrid]):
    """Put all spectra of a scan on a regular grid, by their true positions; there are no frames, and so no [input]."""

    operation: Literal["regrid_xrf"] = "regrid_xrf"
    cut = "lines"
    mirrors = (open_scan, build_scan_grid, regrid_rate, regrid, element_maps)
    ready_recipe = ReadyRecipe(
        "From an X-ray fluorescence scan to a calibrated cube on a regular grid, and maps of elements.", output="cube.zarr",
        writes="rate (row, column, energy), live_time_s, coverage, effective_spectra (row, column); maps of elements",
    )  # fmt: skip

    method: Literal["drizzle", "linear", "nearest", "gaussian", "selected"] = Field(
        "drizzle",
        description="drizzle: every count kept; linear, nearest, gaussian: interpolated; selected: those that the instrument chose",
    )
    step: Ends | None = Field(
        None, description="size of a pixel (y, x), µm; default: the distance of the lines and spectra", examples=[[500.0, 800.0]]
    )
    line_lag: Lag | None = Field(
        None, description="by how many columns positions lag behind; auto: found from all spectra", examples=["auto"]
    )
    sigma_channels: float | None = Field(None, gt=0, examples=[7.0])
    quantity: Literal["rate", "counts"] = Field("rate", description="rate: a live second; counts: where the file has no live times")
    variance: bool = Field(False, description="write the variances of rates too")
    elements: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="write maps of these too: symbols, or with a shell", examples=[["Fe", "Pb-L"]]
    )
    element_method: Literal["fit", "window"] = Field("fit", description="fit: patterns of all lines; window: about the strongest")
    fwhm_kev: float = Field(0.14, gt=0)
    energy_range_kev: Ends | None = Field(
        None, description="which energies to fit, keV; default: about the strongest lines", examples=[[1.0, 18.0]]
    )
    background_kev: float = Field(2.0, gt=0)
    tile_rows: int | None = Field(None, gt=0, description="lines of the map a task; default: chosen from the memory budget", examples=[4])

    @model_validator(mode="after")
    def variances_are_of_rates(self) -> "RegridXRF":
        """Counts have none here."""
        if self.variance and self.quantity == "counts":
            raise ValueError("variances are of rates: leave variance or quantity out")
        return self

    def prepare(self) -> ScanGrid:
        return find_now(build_scan_grid(self.open_scan(None), **self.options_of(build_scan_grid, "scan")))

    def build(self, data: xr.Dataset, ready: ScanGrid) -> xr.Dataset:
        options = self.options_of(regrid_rate, "scan")
        if self.quantity == "counts":
            found = xr.Dataset({"counts": regrid(data.spectra, ready, **options), "coverage": ready.coverage})
        else:
            rates = regrid_rate(data, ready, **options)
            found = rates if self.variance else rates.drop_vars("variance")
        if self.elements is None:
            return found
        wanted = self.options_of(element_maps, "scan", "elements") | {"method": self.element_method}
        elements = element_maps(data, ready, elements=list(self.elements), **wanted)
        return found.assign({f"element_{self.quantity}": elements[self.quantity], "element_error": elements.error})

    def task_bytes(self, block: Block, ready: ScanGrid) -> Needs:
        channels, itemsize = block.data.sizes["energy"], block.itemsize
        pixels, spectra = block.depth * pixels_a_line(ready), most_spectra(ready, block.depth, block.source.data.chunks[0])
        own = regrid_bytes(pixels, spectra, channels, itemsize, smoothed=self.sigma_channels is not None)
        fitted = fit_bytes(pixels, channels) if self.elements and self.element_method == "fit" else 0
        cubes = 1 + self.variance + 2 * (self.elements is not None)
        matrices = cubes * matrix_bytes(ready.data.size, ready.coverage.size)
        task = max(own, regrid_bytes(pixels, spectra, channels, itemsize) + fitted)
        return Needs(once=matrices + BYTES_A_SPECTRUM * ready.spectra, task=task)

    def work(self, data: xr.Dataset, ready: ScanGrid, result: Any) -> Work:
        pixels = pixels_a_line(ready)
        lines = ready.coverage.size // pixels
        most = min(self.tile_rows or lines_a_tile(pixels, data.sizes["energy"]), lines)
        return Work("lines", "tile_rows", lines, 1, [most] if self.tile_rows else halvings(most, 1))

    def try_out(self, data: xr.Dataset) -> Any:
        few = few_spectra(data)
        grids = build_scan_grid(few, method="selected"), build_scan_grid(few, step=(2.0, 2.0))  # smoothed before, and after
        return xr.concat([self.in_blocks(9, 1).build(few, grid).sum() for grid in grids], "grid")


def pixels_a_line(grid: ScanGrid) -> int:
    """Pixels of the map that lie on a line of the scan."""
    return grid.shape[1] if lines_are_rows(grid.to_scipy(), grid.shape) else grid.shape[0]


def selected_lines(grid: ScanGrid, spectra: int) -> int:
    """Lines of the instrument's grid that are about as large as a block of so many spectra."""
    return max(1, spectra // pixels_a_line(grid))


def few_spectra(scan: xr.Dataset) -> xr.Dataset:
    """A scan of three lines with the energies of another, and its type of spectra."""
    line, place = (axis.ravel() for axis in np.indices((3, 3)))
    return xr.Dataset(
        {
            "spectra": (("spectrum", "energy"), np.ones((9, scan.sizes["energy"]), scan.spectra.dtype)),
            "positions": (("spectrum", "axis"), np.stack([place, line], axis=1)),
            "live_time_s": ("spectrum", np.ones(9)),
            "selected": (("row", "column"), np.arange(9).reshape(3, 3)),
        },
        {"energy": scan.energy},
    )
