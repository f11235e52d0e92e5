"""The demo: a simulated beam sweep and CT scan, larger than the memory, from HDF5 to a picture without rings."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter
from typing import Any

import dask
import h5py
import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from detcal import simulate
from detcal.errors import DetcalError, OutputError, PlanError
from detcal.response import Response, ring_amplitude
from detcal.response.memory import fit_response_bytes
from detcal.response.smoothing import smooth
from detcal.stores import load, open_frames, save
from detcal_pipelines.compiling import with_kernels
from detcal_pipelines.plan import PROCESS_BYTES, THREAD_BYTES, size
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import Outcome, run
from detcal_pipelines.template import render

SHAPE = (1024, 1024)
SWEEP_FRAMES, CT_FRAMES, FLAT_FRAMES = 128, 512, 10
BLOCKS_AT_ONCE = 4  # of the simulation, held in memory
ANGLES = np.linspace(0, np.pi, CT_FRAMES, endpoint=False)
ROWS = slice(508, 516)  # of the detector, from which the ring amplitude is computed
ROW = 4  # of these rows, for the picture
SLICE = 300  # pixels a side of a slice in the picture
RECIPES = ("fit_response", "correct_response")
NEXT = """\
  detcal init fit_response       # writes fit_response.toml: fill in the beam sweep and the dark
  detcal run fit_response.toml
  detcal init correct_response   # writes correct_response.toml: fill in the scan, dark and flat
  detcal run correct_response.toml"""
Image = NDArray[np.float32]
Images = dict[str, Image]


def run_demo(folder: Path, memory: int, console: Console) -> None:
    """Simulate, fit, correct and report into `folder`, which must be new; its raw frames are kept if a later part fails."""
    if folder.exists():
        raise OutputError(f"{folder} exists already: remove it, or choose another with --folder")
    needs = fit_response_bytes(SHAPE, frames=1, itemsize=2, order=1)
    least = PROCESS_BYTES + THREAD_BYTES + needs.peak(tasks=1, begun=2)
    if memory < least:
        raise PlanError(f"expected at least {size(least)} of memory for the demo, got {size(memory)}: raise --memory")
    start = perf_counter()
    folder.mkdir(parents=True)
    try:
        with compiled_meanwhile():
            written = simulate_raw(folder)
    except BaseException:
        rmtree(folder)
        raise
    console.print(f"{size(written)} of raw frames in {folder}; memory limit of the process: {size(memory)}\n")
    next_command = f"detcal run {folder / 'fit_response.toml'}"
    stay = f"the raw frames stay in {folder}: `{next_command}` continues with them, or remove the folder and try again"
    try:
        outcomes = [run_ready(folder, name, memory, console) for name in RECIPES]
        show(folder, outcomes, start, console)
    except DetcalError as error:
        raise type(error)(f"{error}; {stay}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stay) from None


def simulate_raw(folder: Path) -> int:
    """Write what is measured, and the recipes that work on it; returns the bytes of the frames."""
    write_recipes(folder)
    detector = simulate.detector(SHAPE, dead=40, stuck=20)
    stacks = scans(detector, SWEEP_FRAMES, FLAT_FRAMES, CT_FRAMES)
    return sum(write_hdf5(folder / f"{name}.h5", stack) for name, stack in stacks.items())


def write_recipes(folder: Path) -> None:
    """The recipes of the demo, as `detcal init` writes them."""
    for name in RECIPES:
        (folder / f"{name}.toml").write_text(render(name))


@contextmanager
def compiled_meanwhile() -> Iterator[None]:
    """Compile or load the kernels of the two runs while something else is done."""
    thread = Thread(target=compile_kernels, daemon=True)  # at Ctrl-C nothing waits for it
    thread.start()
    yield
    thread.join()


def compile_kernels() -> None:
    """Compile or load what the two runs call, with files of a few pixels; if this fails, the runs report it."""
    with TemporaryDirectory() as name, suppress(Exception):
        folder = Path(name)
        write_recipes(folder)
        for file, stack in scans(simulate.detector((8, 8)), sweep=2, flats=2, ct=2).items():
            save(stack, folder / f"{file}.h5")
        save(Response.from_gain(np.ones((8, 8))), folder / "response.zarr")
        for recipe in RECIPES:
            with_kernels(read_recipe(folder / f"{recipe}.toml"), lambda: True, Console(quiet=True))


def show(folder: Path, outcomes: list[Outcome], start: float, console: Console) -> None:
    """Figures and a picture of what was corrected."""
    sinograms = {name: absorption(rows) for name, rows in detector_rows(folder).items()}
    truth = absorption(true_rows())
    errors = {name: 1e3 * (sinogram - truth) for name, sinogram in sinograms.items()}
    rings = {name: float(ring_amplitude(error, quantity="attenuation")) for name, error in errors.items()}
    picture = folder / "demo.png"
    draw(sinograms, errors, rings, picture)
    console.print(summary(rings, outcomes, perf_counter() - start))
    console.print(f"Look at [bold]{picture}[/bold]. For your own data, continue with:\n")
    console.print(NEXT, highlight=False, soft_wrap=True)


def scans(detector: simulate.Detector, sweep: int, flats: int, ct: int) -> dict[str, xr.DataArray]:
    """Simulated sweep, darks, flats and CT scan, with so many frames each."""
    return {
        "sweep": simulate.beam_sweep(detector, sweep),
        "dark": simulate.dark_frames(detector, flats),
        "flat": simulate.flat_frames(detector, flats),
        "ct": simulate.ct_frames(detector, ct),
    }


def write_hdf5(path: Path, stack: xr.DataArray) -> int:
    """Write frames as a detector does, a few blocks in memory at a time; returns their bytes."""
    blocks = stack.data.to_delayed().ravel()
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("entry/data/data", stack.shape, stack.dtype)
        done = 0
        for first in track(range(0, len(blocks), BLOCKS_AT_ONCE), f"simulating {path.name:<8}"):
            for part in dask.compute(*blocks[first : first + BLOCKS_AT_ONCE], scheduler="threads"):
                dataset[done : done + len(part)] = part
                done += len(part)
    return int(stack.nbytes)


def run_ready(folder: Path, name: str, memory: int, console: Console) -> Outcome:
    """Run a recipe of the folder."""
    return run(read_recipe(folder / f"{name}.toml"), (memory, CPU_COUNT), console)


def detector_rows(folder: Path) -> Images:
    """Transmission (frame, y, x) in the middle rows: without gains, with the flat field alone, and as detcal wrote it."""
    dark, flat = (open_frames(folder / f"{name}.h5").mean("frame").values for name in ("dark", "flat"))
    raw = open_frames(folder / "ct.h5").data[:, ROWS].compute() - dark[ROWS]
    flat = (flat - dark).astype(np.float32)
    return {
        "no pixel correction": raw / smooth(flat, 50.0)[ROWS],
        f"flat field ({FLAT_FRAMES} frames)": raw / np.where(flat > 0, flat, np.nan)[ROWS],
        "detcal": load(folder / "corrected.zarr").corrected.data[:, ROWS].compute(),
    }


def true_rows() -> Image:
    """Transmission (frame, y, x) in the middle rows, as simulated."""
    return np.stack([simulate.transmission(SHAPE, angle, ROWS) for angle in ANGLES])


def absorption(transmission: NDArray[Any]) -> Image:
    """−log of the transmission; bad pixels, which are NaN, are interpolated along the row for the reconstruction."""
    found = -np.log(np.clip(transmission, 1e-3, None)).astype(np.float32)
    return xr.DataArray(found, dims=("frame", "y", "x")).interpolate_na("x", fill_value="extrapolate").values


def summary(rings: dict[str, float], outcomes: list[Outcome], seconds: float) -> Table:
    """The demo's figures."""
    table = Table(title=f"detcal demo: {seconds:.0f} s in all", title_justify="left")
    for heading in ("", *RECIPES):
        table.add_column(heading)
    rows = {
        "frames a second": [f"{outcome.rate:.0f}" for outcome in outcomes],
        "bytes in": [size(outcome.plan.bytes_in) for outcome in outcomes],
        "bytes out, on disk": [size(outcome.stored_bytes) for outcome in outcomes],
        "peak memory, planned": [size(outcome.plan.peak_bytes) for outcome in outcomes],
        "peak memory, measured": [size(outcome.peak_bytes or 0) for outcome in outcomes],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    table.add_section()
    for name, amplitude in rings.items():
        table.add_row(f"ring amplitude, {name}", "", f"{amplitude:.2f} ‰ of the beam")
    return table


def draw(sinograms: Images, errors: Images, rings: dict[str, float], path: Path) -> None:
    """Slices before and after, their middle enlarged in the same greys, and the errors that make the rings."""
    from matplotlib.figure import Figure

    with ThreadPoolExecutor(CPU_COUNT) as threads:
        sides = {"whole": 2.0, "middle": 0.2}
        slices = {
            (name, part): threads.submit(simulate.reconstruct_slice, sinogram[:, ROW], ANGLES, SLICE, side)
            for (name, sinogram), (part, side) in product(sinograms.items(), sides.items())
        }
    figure = Figure(figsize=(12, 10.5), layout="constrained")
    for (whole, middle, profile), name in zip(figure.subplots(3, 3, height_ratios=(4, 4, 2)).T, sinograms, strict=True):
        whole.imshow(slices[name, "whole"].result(), cmap="gray", vmin=-0.3, vmax=2.8)
        whole.set_title(f"{name}: rings {rings[name]:.1f} ‰", fontsize="x-large")
        middle.imshow(slices[name, "middle"].result(), cmap="gray", vmin=0.2, vmax=1.0)
        middle.set_title("the middle, enlarged")
        profile.plot(errors[name][:, ROW].mean(axis=0), color="C3", linewidth=0.6)
        profile.set(title="error of each column, mean of all angles", xlabel="column", ylabel="‰ of the beam", ylim=(-12, 12))
        for axis in (whole, middle):
            axis.set_axis_off()
    figure.savefig(path, dpi=90)
