"""Crono files: python -m tests.benchmarks.bench_xrf FOLDER [GIB]

Conversion beside cronomaxrf's chain of four dask runs, told again (the original no longer imports): each run reads the HDF5 file, smooths
all of it, and writes one of the arrays. Then scans of half a size and of the whole size (GIB GiB of uint16 counts before compression;
2 by default, 20 for the issue's) are converted and put on a grid, and the peak memory of the process that does it is measured from outside.
Needs eight times that of disk.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from time import perf_counter

import dask.array as da
import h5py
import numpy as np
import psutil
from scipy.ndimage import gaussian_filter1d

from detcal import simulate, xrf
from tests.benchmarks.sampling import resident
from tests.benchmarks.timing import report

CHANNELS = 4096
COLUMNS = 300
SPECTRA_A_ROW = 409  # with those of the turn

CONVERT = "from detcal import xrf; xrf.convert_crono('scan.h5', 'out.zarr', overwrite=True, progress=False)"
REGRID = """
import detcal
from detcal import xrf
scan = xrf.open_crono("scan.h5")
grid = xrf.build_scan_grid(scan)
detcal.save(xrf.regrid_rate(scan, grid)[["rate", "live_time_s", "coverage"]], "out.zarr", overwrite=True)
"""


def chain(path: Path, folder: Path) -> None:
    """cronomaxrf's arithmetic, one dask run an array."""
    with h5py.File(path, "r") as file:
        stored = file["XRF/Spectra"]
        selected = file["XRF/SpectraSelectedIndex"][..., 0].astype(np.int64)
        spectra = da.from_array(stored, chunks=(2048, -1)).astype(np.float32)
        smoothed = spectra.map_blocks(gaussian_filter1d, 7, axis=1, dtype=np.float32)
        cube = smoothed[selected.ravel()].reshape((*selected.shape, stored.shape[1]))
        arrays = {"all": smoothed, "cube": cube, "max": cube.max(axis=(0, 1)), "sum": cube.mean(axis=(0, 1))}
        for name, array in arrays.items():
            shutil.rmtree(folder / f"{name}.zarr", ignore_errors=True)
            even = array.rechunk({axis: max(sizes) for axis, sizes in enumerate(array.chunks)})
            da.to_zarr(even, str(folder / f"{name}.zarr"))


def bench_conversion(folder: Path) -> None:
    """One pass against four."""
    path = folder / "scan.h5"
    simulate.write_crono(path, 40, COLUMNS, counts=0.02, overwrite=True)
    ours, peers = [], []
    for number in range(4):
        start = perf_counter()
        xrf.convert_crono(path, folder / "ours.zarr", overwrite=True, progress=False)
        middle = perf_counter()
        chain(path, folder)
        if number:
            ours.append(middle - start)
            peers.append(perf_counter() - middle)
    report("convert_crono, 16 360 spectra, gzip", float(np.median(ours)), float(np.median(peers)), 4)


def peak_of(program: str, folder: Path) -> tuple[int, float]:
    """Largest resident memory of a Python program in a folder, and its time."""
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env={**os.environ, "PYTHONPATH": str(root), "MALLOC_TRIM_THRESHOLD_": "65536"}
    )
    process, peak, start = psutil.Process(run.pid), 0, perf_counter()
    while run.poll() is None:
        peak = max(peak, resident(process))
        time.sleep(0.02)
    assert run.returncode == 0
    return peak, perf_counter() - start


def bench_memory(folder: Path, gib: float) -> None:
    """Both jobs on a scan, and on one twice as long."""
    for size in (gib / 2, gib):
        rows = max(2, round(size * 2**30 / (2 * CHANNELS * SPECTRA_A_ROW)))
        start = perf_counter()
        simulate.write_crono(folder / "scan.h5", rows, COLUMNS, counts=0.02, overwrite=True)
        print(f"{size:g} GiB, {rows * SPECTRA_A_ROW} spectra, written in {perf_counter() - start:.0f} s", flush=True)
        for name, program in (("converted", CONVERT), ("regridded", REGRID)):
            peak, seconds = peak_of(program, folder)
            print(f"  {name}: peak {peak / 2**20:.0f} MiB, {seconds:.0f} s", flush=True)
            shutil.rmtree(folder / "out.zarr")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    bench_conversion(place)
    bench_memory(place, float(sys.argv[2]) if len(sys.argv) > 2 else 2.0)
