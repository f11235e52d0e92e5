"""Rings beside pyFAI's fastest engines, on stacks of 16 frames: python -m tests.benchmarks.bench_azimuthal [FOLDER]

With a folder also the whole way: a bitshuffle-LZ4 stack of 1000 frames of 4 Mpx to profiles in zarr (about 4 GB there), in this process
and, for memory, by `detcal run`, with a quarter of the frames and all: the planned peak of its workers, and the one sampled from outside.
"""

import logging
import sys
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import dask
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
from tests.benchmarks.timing import in_turn, report

FRAMES = 16


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


def bench_detector(name: str) -> None:
    """Clipping, quantiles and integration of one detector."""
    geometry = geometry_of(name)
    stack = counts(geometry, FRAMES)
    npt = max(stack.shape[1:])
    frames = da.from_array(stack, chunks=(FRAMES // 2, -1, -1), name=False)  # a block a thread
    common = {"npt": npt, "unit": "q_nm^-1", "dummy": -1}
    for split in ("no", "full"):
        bins, method = build_bins(geometry, npt=npt, split=split), (split, "csr", "cython")
        pairs = {
            "sigma_clip": (
                lambda bins=bins: sigma_clip(frames, bins),
                lambda image, method=method: geometry.sigma_clip(
                    image, **common, method=method, error_model="azimuthal", thres=5, max_iter=5
                ),
                6,
            ),
            "median": (
                lambda bins=bins: median_filter(frames, bins),
                lambda image, method=method: geometry.medfilt1d_ng(image, **common, method=method, percentile=50),
                8,
            ),
            "40–60 % quantiles": (
                lambda bins=bins: quantile_filter(frames, bins),
                lambda image, method=method: geometry.medfilt1d_ng(image, **common, method=method, percentile=(40, 60)),
                8,
            ),
            "integrate": (
                lambda bins=bins: integrate(frames, bins),
                lambda image, method=method: geometry.integrate1d_ng(image, **common, method=method, error_model="poisson"),
                4,
            ),
        }
        for job, (ours, peer, aim) in pairs.items():
            seconds, peers = in_turn(
                lambda ours=ours: dask.compute(ours()), lambda peer=peer: [peer(image) for image in stack[:4]], rounds=3
            )
            report(f"{name}, {job}, split {split}: a frame", seconds / FRAMES, peers / 4, aim)


def write_stack(path: Path, frames: int) -> pyFAI.geometry.Geometry:
    """Few counts a pixel, as from an Eiger, whose geometry is returned."""
    geometry = geometry_of("Eiger 4M")
    block = counts(geometry, FRAMES, mean=3).clip(0).astype(np.uint32)
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data", (frames, *block.shape[1:]), np.uint32, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        for start in range(0, frames, FRAMES):
            data[start : start + FRAMES] = block[: min(FRAMES, frames - start)]
    return geometry


def bench_file(folder: Path, frames: int = 1000) -> None:
    """From an HDF5 file to profiles in zarr, and how much of it is decoding."""
    geometry = write_stack(folder / "scan.h5", frames)
    bins = build_bins(geometry, npt=2000)
    stack = open_frames(folder / "scan.h5", chunks={"frame": FRAMES})
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
        peak, told = peak_of_run(["run", "sigma_clip.toml", "--memory", "2GiB", "--workers", "2", "--overwrite"], folder, None)
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


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if len(sys.argv) > 1:
        place = Path(sys.argv[1])
        place.mkdir(parents=True, exist_ok=True)
        bench_file(place)
        bench_memory(place)
    for detector in ("Pilatus 1M", "Eiger 4M", "Pilatus 6M"):
        bench_detector(detector)
