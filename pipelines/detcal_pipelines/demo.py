"""The demo: a simulated beam sweep and CT scan, larger than the memory, from HDF5 to a picture without rings."""

from pathlib import Path
from shutil import rmtree
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
from detcal.response import Response
from detcal.response.memory import fit_response_bytes
from detcal.response.smoothing import smooth
from detcal.stores import load, open_frames
from detcal_pipelines.plan import PROCESS_BYTES, THREAD_BYTES, size
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import Outcome, run
from detcal_pipelines.template import render

SHAPE = (1024, 1024)
SWEEP_FRAMES, CT_FRAMES, FLAT_FRAMES = 128, 512, 10
BLOCKS_AT_ONCE = 4  # of the simulation, held by the driver
ANGLES = np.linspace(0, np.pi, CT_FRAMES, endpoint=False)
ROWS = slice(508, 516)  # of the detector, that the ring amplitude is taken from
NEXT = """\
  detcal init fit_response       # writes fit_response.toml: fill in the beam sweep and the dark
  detcal run fit_response.toml
  detcal init correct_response   # writes correct_response.toml: fill in the scan, dark and flat
  detcal run correct_response.toml"""
Sinograms = dict[str, NDArray[np.float32]]


def run_demo(folder: Path, memory: int, console: Console) -> None:
    """Simulate, fit, correct and report into `folder`, which must be new; once its raw frames are there, they stay whatever follows."""
    if folder.exists():
        raise OutputError(f"{folder} exists already: remove it, or choose another with --folder")
    needs = fit_response_bytes(SHAPE, frames=1, itemsize=2, order=1)
    least = PROCESS_BYTES + THREAD_BYTES + needs.peak(tasks=1, begun=2)
    if memory < least:
        raise PlanError(f"the demo needs {size(least)} of memory, got {size(memory)}")
    start = perf_counter()
    folder.mkdir(parents=True)
    try:
        written = simulate_raw(folder)
    except BaseException:
        rmtree(folder)
        raise
    console.print(f"{size(written)} of raw frames in {folder}; the whole process may hold {size(memory)}\n")
    next_command = f"detcal run {folder / 'fit_response.toml'}"
    stay = f"the raw frames stay in {folder}: `{next_command}` goes on with them, or remove the folder and try again"
    try:
        outcomes = [run_ready(folder, name, memory, console) for name in ("fit_response", "correct_response")]
        show(folder, outcomes, start, console)
    except DetcalError as error:
        raise type(error)(f"{error}; {stay}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stay) from None


def simulate_raw(folder: Path) -> int:
    """Write what is measured, and the recipes that work on it; returns the bytes of the frames."""
    for name in ("fit_response", "correct_response"):
        (folder / f"{name}.toml").write_text(render(name))
    detector = simulate.detector(SHAPE, dead=40, stuck=20)
    return sum(write_hdf5(folder / f"{name}.h5", stack) for name, stack in scans(detector).items())


def show(folder: Path, outcomes: list[Outcome], start: float, console: Console) -> None:
    """Figures and a picture of what was corrected."""
    sinograms = {name: absorption(rows) for name, rows in detector_rows(folder).items()}
    truth = absorption(true_rows())
    rings = {name: 1e3 * ring_amplitude(sinogram, truth) for name, sinogram in sinograms.items()}
    picture = folder / "demo.png"
    draw(sinograms, rings, load(folder / "response.zarr"), picture)
    console.print(summary(rings, outcomes, perf_counter() - start))
    console.print(f"Look at [bold]{picture}[/bold]. With data of your own, type next:\n")
    console.print(NEXT, highlight=False, soft_wrap=True)


def scans(detector: simulate.Detector) -> dict[str, xr.DataArray]:
    """What is measured in one go: sweep, darks, flats and the CT scan."""
    return {
        "sweep": simulate.beam_sweep(detector, SWEEP_FRAMES),
        "dark": simulate.dark_frames(detector, FLAT_FRAMES),
        "flat": simulate.flat_frames(detector, FLAT_FRAMES),
        "ct": simulate.ct_frames(detector, CT_FRAMES),
    }


def write_hdf5(path: Path, stack: xr.DataArray) -> int:
    """Write frames as a detector does, a few blocks in memory at a time; returns their bytes."""
    blocks = stack.data.to_delayed().ravel()
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("entry/data/data", stack.shape, stack.dtype)
        done = 0
        for first in track(range(0, len(blocks), BLOCKS_AT_ONCE), f"simulating {path.name:<8}"):
            part = np.concatenate(dask.compute(*blocks[first : first + BLOCKS_AT_ONCE], scheduler="threads"))
            dataset[done : done + len(part)] = part
            done += len(part)
    return int(stack.nbytes)


def run_ready(folder: Path, name: str, memory: int, console: Console) -> Outcome:
    """Run a recipe of the folder."""
    return run(read_recipe(folder / f"{name}.toml"), (memory, CPU_COUNT), console)


def detector_rows(folder: Path) -> Sinograms:
    """Transmission (frame, y, x) in the middle rows: without gains, with the flat alone, and as detcal wrote it."""
    dark, flat = (open_frames(folder / f"{name}.h5").mean("frame").values for name in ("dark", "flat"))
    raw = open_frames(folder / "ct.h5").data[:, ROWS].compute() - dark[ROWS]
    flat = (flat - dark).astype(np.float32)
    return {
        "no gains": raw / smooth(flat, 50.0)[ROWS],
        "flat field alone": raw / np.where(flat > 0, flat, np.nan)[ROWS],
        "detcal": load(folder / "corrected.zarr").corrected.data[:, ROWS].compute(),
    }


def true_rows() -> NDArray[np.float32]:
    """Transmission (frame, y, x) in the middle rows, as simulated: copied out of images of which the rest is not kept."""
    return np.stack([simulate.transmission(SHAPE, angle)[ROWS].copy() for angle in ANGLES])


def absorption(transmission: NDArray[Any]) -> NDArray[np.float32]:
    """−log of the transmission; bad pixels, where it is NaN, are bridged along the row for the reconstruction."""
    found = -np.log(np.clip(transmission, 1e-3, None)).astype(np.float32)
    return xr.DataArray(found, dims=("frame", "y", "x")).interpolate_na("x", fill_value="extrapolate").values


def ring_amplitude(sinogram: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """What makes rings: each pixel's error in the absorption that stays through all angles; its robust standard deviation."""
    stripes = (sinogram - truth).mean(axis=0)
    return float(1.4826 * np.median(np.abs(stripes - np.median(stripes))))


def summary(rings: dict[str, float], outcomes: list[Outcome], seconds: float) -> Table:
    """The demo's figures."""
    table = Table(title=f"detcal demo: {seconds:.0f} s in all", title_justify="left")
    for heading in ("", "fit_response", "correct_response"):
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


def draw(sinograms: Sinograms, rings: dict[str, float], response: Response, path: Path) -> None:
    """Slices before and after, the same enlarged, and the gain map."""
    from matplotlib.figure import Figure

    slices = {name: simulate.reconstruct_slice(rows[:, 4], ANGLES, 512) for name, rows in sinograms.items()}
    figure = Figure(figsize=(15, 7.6), layout="constrained")
    axes = figure.subplot_mosaic([["a0", "a1", "a2", "gain"], ["z0", "z1", "z2", "histogram"]])
    for column, (name, image) in enumerate(slices.items()):
        axes[f"a{column}"].imshow(image, cmap="gray", vmin=-0.3, vmax=2.8)
        axes[f"a{column}"].set_title(f"{name}: rings {rings[name]:.2f} ‰")
        axes[f"z{column}"].imshow(image[192:320, 192:320], cmap="gray", vmin=-0.3, vmax=2.8)
        axes[f"z{column}"].set_title("enlarged")
    gain = response.gain.where(~response.mask).values
    drawn = axes["gain"].imshow(gain[:128, :128], cmap="RdBu_r", vmin=0.9, vmax=1.1)
    figure.colorbar(drawn, ax=axes["gain"], shrink=0.8)
    axes["gain"].set_title("gain of the first 128 × 128 pixels")
    axes["histogram"].hist(gain[np.isfinite(gain)], bins=100, range=(0.85, 1.15), color="0.4")
    axes["histogram"].set(title=f"gain of all pixels; {int(response.mask.sum())} masked", xlabel="gain", yticks=[])
    for name, axis in axes.items():
        if name != "histogram":
            axis.set_axis_off()
    figure.savefig(path, dpi=110)
