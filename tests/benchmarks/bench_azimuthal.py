"""Rings beside pyFAI's fastest engines: python -m tests.benchmarks.bench_azimuthal [FOLDER] [--frames N …] [--detectors NAME …] …

By how many frames there are, of how many pixels, as numpy and dask arrays and as files (which need a folder): pyFAI's time over ours, and
how much longer a frame takes than one of sixteen of the same detector as a numpy array.

With a folder also the whole way: a bitshuffle-LZ4 stack of 1000 frames of 4 Mpx to profiles in zarr (about 4 GB there), in this process
and, for memory, by `detcal run`, with a quarter of the frames and all: the planned peak of its workers, and the one sampled from outside.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import dask.array as da
import h5py
import hdf5plugin
import numpy as np
import pyFAI
from dask.system import CPU_COUNT
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.azimuthal import build_bins, integrate, median_filter, quantile_filter, sigma_clip
from detcal.stores.sources.filters import Pipeline
from tests.benchmarks.sampling import peak_of_run, planned_peak
from tests.benchmarks.timing import in_turn

SIXTEEN = 16  # frames, in full SIMD lanes
DETECTORS = "Pilatus 1M", "Eiger 4M", "Pilatus 6M", "Eiger 16M"
SOURCES = "numpy", "dask", "files"


def geometry_of(name: str) -> pyFAI.geometry.Geometry:
    """The beam in the middle of the detector, 0.2 m away."""
    detector = pyFAI.detector_factory(name)
    poni = [size * pitch / 2 for size, pitch in zip(detector.shape, (detector.pixel1, detector.pixel2), strict=True)]
    return pyFAI.load({"detector": name, "distance": 0.2, "poni1": poni[0], "poni2": poni[1], "wavelength": 1e-10})


def counts(geometry: pyFAI.geometry.Geometry, frames: int, mean: float = 100, seed: int = 0) -> np.ndarray:
    """Poisson counts with hot pixels; −1 in gaps."""
    rng = np.random.default_rng(seed)
    stack = rng.poisson(mean, (frames, *geometry.detector.shape)).astype(np.int32)
    stack[rng.random(stack.shape) < 5e-4] += 5000
    if geometry.detector.mask is not None:
        stack[:, geometry.detector.mask != 0] = -1
    return stack


def jobs_of(geometry: pyFAI.geometry.Geometry, npt: int, split: str) -> dict[str, tuple[Any, Any]]:
    """Ours of a stack, and pyFAI's of a frame."""
    bins, options = (
        build_bins(geometry, npt=npt, split=split),
        {"npt": npt, "unit": "q_nm^-1", "dummy": -1, "method": (split, "csr", "cython")},
    )
    return {
        "sigma_clip": (
            lambda frames: sigma_clip(frames, bins, dummy=-1),
            lambda image: geometry.sigma_clip(image, **options, error_model="azimuthal", thres=5, max_iter=5),
        ),
        "median": (
            lambda frames: median_filter(frames, bins, dummy=-1),
            lambda image: geometry.medfilt1d_ng(image, **options, percentile=50),
        ),
        "40–60 %": (
            lambda frames: quantile_filter(frames, bins, dummy=-1),
            lambda image: geometry.medfilt1d_ng(image, **options, percentile=(40, 60)),
        ),
        "integrate": (
            lambda frames: integrate(frames, bins, dummy=-1),
            lambda image: geometry.integrate1d_ng(image, **options, error_model="poisson"),
        ),
    }  # fmt: skip


def sources_of(stack: np.ndarray, wanted: Sequence[str], folder: Path | None) -> Iterator[tuple[str, Any, Any]]:
    """The frames as each kind of source has them, and how pyFAI's users read one of these."""
    if "numpy" in wanted:
        yield "numpy", stack, lambda: stack[0]
    if "dask" in wanted:
        block = min(SIXTEEN, -(-len(stack) // CPU_COUNT))
        yield "dask", da.from_array(stack, chunks=(block, -1, -1), name=False), lambda: stack[0]
    if "files" in wanted and folder is not None:
        path = folder / "few.h5"
        write_frames(path, stack, len(stack))
        with h5py.File(path) as file:
            yield "files", open_frames(path), lambda: file["data"][0]


def bench_detector(name: str, split: str, counted: Sequence[int], wanted: Sequence[str], folder: Path | None) -> None:
    """Clipping, quantiles and integration of one detector."""
    geometry = geometry_of(name)
    base = counts(geometry, min(SIXTEEN, max(counted)))
    jobs, sixteen = jobs_of(geometry, max(base.shape[1:]), split), np.resize(base, (SIXTEEN, *base.shape[1:]))
    for job, (ours, peer) in jobs.items():
        full = None
        for number in sorted(counted, key=lambda number: number != SIXTEEN):
            stack = sixteen[:number] if number <= SIXTEEN else np.resize(base, (number, *base.shape[1:]))
            for source, frames, read in sources_of(stack, wanted, folder):
                seconds, peers = in_turn(
                    lambda ours=ours, frames=frames: ours(frames).compute(), lambda peer=peer, read=read: peer(read()), rounds=3
                )
                if full is None:
                    full = seconds / number if number == SIXTEEN else in_full_lanes(lambda ours=ours: ours(sixteen).compute())
                print(f"{name}, split {split}, {job:<11} {number:3d} as {source:<6} {seconds / number * 1e3:8.1f} ms a frame, "
                      f"{seconds / number / full:5.2f} shares, {peers * number / seconds:6.2f} times pyFAI", flush=True)  # fmt: skip


def in_full_lanes(run: Callable[[], object]) -> float:
    """Seconds a frame of sixteen."""
    return in_turn(run, lambda: None, rounds=3)[0] / SIXTEEN


def write_stack(path: Path, frames: int) -> pyFAI.geometry.Geometry:
    """Few counts a pixel, as from an Eiger, whose geometry is returned."""
    geometry = geometry_of("Eiger 4M")
    write_frames(path, counts(geometry, SIXTEEN, mean=3).clip(0).astype(np.uint32), frames)
    return geometry


def write_frames(path: Path, block: np.ndarray, frames: int) -> None:
    """So many frames, a few over and over, as bitshuffle-LZ4."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data", (frames, *block.shape[1:]), block.dtype, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        for start in range(0, frames, len(block)):
            data[start : start + len(block)] = block[: min(len(block), frames - start)]


def bench_file(folder: Path, frames: int = 1000) -> None:
    """From an HDF5 file to profiles in zarr, and how much of it is decoding."""
    geometry = write_stack(folder / "scan.h5", frames)
    bins = build_bins(geometry, npt=2000)
    stack = open_frames(folder / "scan.h5", chunks={"frame": SIXTEEN})
    for _ in range(2):  # the first brings the file to the cache
        with patch.object(Pipeline, "decode", timed(Pipeline.decode)) as decoding:
            start = perf_counter()
            save(sigma_clip(stack, bins), folder / "profiles.zarr", overwrite=True)
            seconds = perf_counter() - start
    share = sum(decoding.times) / (seconds * CPU_COUNT)
    print(f"{frames} frames of {stack[0].size / 1e6:.1f} Mpx, HDF5 to profiles: {frames / seconds:.0f} frames a second, "
          f"{share:.0%} of the threads' time decoding")  # fmt: skip


def bench_memory(folder: Path, frames: int = 1000) -> None:
    """The recipe on a quarter of the frames, and on all of them."""
    (folder / "sigma_clip.toml").write_text(render("sigma_clip"))
    for number in (frames // 4, frames):
        write_stack(folder / "scan.h5", number).save(folder / "detector.poni")
        start = perf_counter()
        peak, told = peak_of_run(["run", "sigma_clip.toml", "--memory", "2GiB", "--workers", "2", "--overwrite"], folder)
        print(f"{number} frames within 2 GiB: planned {planned_peak(told) / 2**20:.0f} MiB, measured {peak / 2**20:.0f} MiB, "
              f"{perf_counter() - start:.0f} s with its start", flush=True)  # fmt: skip
        (folder / "detector.poni").unlink()


def timed(function: Any) -> Any:
    """The same function; how long its calls took is in `times`."""

    def run(*arguments: Any) -> Any:
        start = perf_counter()
        found = function(*arguments)
        run.times.append(perf_counter() - start)
        return found

    run.times = []
    return run


def arguments() -> argparse.Namespace:
    """What to time."""
    parser = argparse.ArgumentParser(description="Rings beside pyFAI.")
    parser.add_argument("folder", nargs="?", type=Path, help="for files")
    parser.add_argument("--frames", type=int, nargs="*", default=[1, 2, 4, 8, 16, 64])
    parser.add_argument("--detectors", nargs="*", choices=DETECTORS, default=DETECTORS[:3])
    parser.add_argument("--splits", nargs="*", choices=("no", "full"), default=("no", "full"))
    parser.add_argument("--sources", nargs="*", choices=SOURCES, default=SOURCES)
    parser.add_argument("--scan", type=int, default=1000, help="frames of the whole way; 0: not at all")
    return parser.parse_args()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    chosen = arguments()
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        if chosen.scan:
            bench_file(chosen.folder, chosen.scan)
            bench_memory(chosen.folder, chosen.scan)
    for detector in chosen.detectors if chosen.frames else ():
        for how in chosen.splits:
            bench_detector(detector, how, chosen.frames, chosen.sources, chosen.folder)
