"""Crono files: python -m tests.benchmarks.bench_xrf FOLDER [GIB]

Conversion beside cronomaxrf's chain of four dask runs, told again with dask-image and zarr (the original no longer imports): each run reads
the HDF5 file, smooths all of it, and writes one of the arrays. Then `detcal run` converts a scan of half a size and of the whole size (GIB
GiB of uint16 counts before compression; 1 by default, 20 for the issue's), and puts it on a grid, within 1 GiB: prints, for each run, the
planned peak of all worker processes and the one sampled from outside. Needs half that of disk, and `pip install .[bench]`.
"""

import shutil
import sys
from pathlib import Path
from time import perf_counter

import dask.array as da
import h5py
import numpy as np
from dask_image.ndfilters import gaussian_filter
from detcal_pipelines.template import render

from detcal import convert_crono, get_array, simulate
from detcal.stores.targets.crono_writer import write_crono
from tests.benchmarks.sampling import peak_of_run, planned_peak
from tests.benchmarks.timing import report

CHANNELS = 4096
COLUMNS = 300
SPECTRA_A_ROW = 409  # with those of the turn
PEER = {"maxrf_all_spectra": "all", "maxrf_cube": "cube", "maxrf_max_spectrum": "max", "maxrf_sum_spectrum": "sum"}


def chain(path: Path, folder: Path) -> None:
    """cronomaxrf's arithmetic, one dask run an array."""
    with h5py.File(path, "r") as file:
        stored = file["XRF/Spectra"]
        selected = file["XRF/SpectraSelectedIndex"][..., 0].astype(np.int64)
        spectra = da.from_array(stored, chunks=(2048, -1)).astype(np.float32)
        smoothed = gaussian_filter(spectra, (0, 7))
        cube = smoothed[selected.ravel()].reshape((*selected.shape, stored.shape[1]))
        arrays = {"all": smoothed, "cube": cube, "max": cube.max(axis=(0, 1)), "sum": cube.mean(axis=(0, 1))}
        for name, array in arrays.items():
            shutil.rmtree(folder / f"peer_{name}.zarr", ignore_errors=True)
            even = array.rechunk({axis: max(sizes) for axis, sizes in enumerate(array.chunks)})
            da.to_zarr(even, str(folder / f"peer_{name}.zarr"))


def bench_conversion(folder: Path) -> None:
    """One pass against four, which give the same."""
    path = folder / "scan.h5"
    write_crono(simulate.maxrf_scan(40, COLUMNS, counts=0.02), path, overwrite=True)
    ours, peers = [], []
    for number in range(4):
        start = perf_counter()
        convert_crono(path, folder / "ours.zarr", overwrite=True, progress=False)
        middle = perf_counter()
        chain(path, folder)
        if number:
            ours.append(middle - start)
            peers.append(perf_counter() - middle)
    report("convert_crono, 16 360 spectra, gzip", float(np.median(ours)), float(np.median(peers)), 4)
    for name, peer in PEER.items():
        wanted = da.from_zarr(str(folder / f"peer_{peer}.zarr")).compute()
        np.testing.assert_allclose(get_array(folder / "ours.zarr", name), wanted, rtol=1e-6, atol=1e-6 * wanted.max())


def bench_memory(folder: Path, gib: float) -> None:
    """Both recipes on a scan, and on one twice as long."""
    for name in ("convert_crono", "regrid_xrf"):
        (folder / f"{name}.toml").write_text(render(name))
    for size in (gib / 2, gib):
        rows = max(2, round(size * 2**30 / (2 * CHANNELS * SPECTRA_A_ROW)))
        start = perf_counter()
        write_crono(simulate.maxrf_scan(rows, COLUMNS, counts=0.02), folder / "scan.h5", overwrite=True)
        print(f"{size:g} GiB, {rows * SPECTRA_A_ROW} spectra, written in {perf_counter() - start:.0f} s", flush=True)
        for name, output in (("convert_crono", "converted.zarr"), ("regrid_xrf", "cube.zarr")):
            start = perf_counter()
            peak, told = peak_of_run(["run", f"{name}.toml", "--memory", "1GiB", "--workers", "2"], folder)
            print(f"{name:<13} planned {planned_peak(told) / 2**20:.0f} MiB, measured {peak / 2**20:.0f} MiB, "
                  f"{perf_counter() - start:.0f} s with its start", flush=True)  # fmt: skip
            shutil.rmtree(folder / output)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    bench_conversion(place)
    bench_memory(place, float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
