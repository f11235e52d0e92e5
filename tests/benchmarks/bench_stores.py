"""How fast chunks are written to zarr, and read from zarr and HDF5, by 1 to 64 threads of one process.

Run as `python -m tests.benchmarks.bench_stores [folder]`; the folder should lie on the disk that is to be measured, and files stay in
the cache of the system between writing and reading.
"""

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import dask
import dask.array as da
import h5py
import hdf5plugin
import numpy as np

from detcal import open_frames, save
from detcal.stores.sources.hdf5_data import Hdf5Array

THREADS = (1, 2, 4, 16, 64)
ROWS = {"64 KiB": 32, "1 MiB": 512, "16 MiB": 8192}  # of 1024 numbers of two bytes, that a chunk has
MOST_BYTES, MOST_CHUNKS = 2**26, 256
FRAMES = 16
FILTERS: dict[str, Any] = {
    "gzip": {"compression": "gzip"},
    "shuffle, gzip": {"compression": "gzip", "shuffle": True},
    "shuffle, zstd": {"shuffle": True, **hdf5plugin.Zstd()},
    "blosc-lz4": {**hdf5plugin.Blosc(cname="lz4")},
    "bitshuffle-lz4": {**hdf5plugin.Bitshuffle(cname="lz4")},
    "none": {},
}


def counts(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Poisson counts, as of a detector."""
    return np.random.default_rng(0).poisson(20, shape).astype(np.uint16)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """The shortest time that it takes: others may use the machine meanwhile."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


def bench_zarr(folder: Path, repeats: int = 2) -> None:
    """Chunks a second, and MB/s of numbers, not of what they are compressed to."""
    print("zarr, a chunk a task   threads   written: chunks/s     MB/s   read: chunks/s     MB/s")
    for label, rows in ROWS.items():
        chunk = counts((1, rows, 1024))
        number = min(MOST_CHUNKS, MOST_BYTES // chunk.nbytes)
        stack = da.from_array(np.broadcast_to(chunk, (number, *chunk.shape[1:])), chunks=chunk.shape, name=False)
        for threads in THREADS:
            with dask.config.set(scheduler="threads", num_workers=threads):
                written = seconds(partial(save, stack, folder / "a.zarr", overwrite=True), repeats)
                frames = open_frames(folder / "a.zarr", chunks={"frame": 1}).data
                read = seconds(frames.map_blocks(first_number).compute, repeats)
            size = number * chunk.nbytes / 1e6
            print(
                f"{label:>20} {threads:9} {number / written:19.0f} {size / written:8.0f} {number / read:16.0f} {size / read:8.0f}",
                flush=True,
            )


def first_number(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Next to nothing of a block, so that no time goes into putting blocks together."""
    return block[:, :1, :1].copy()  # a view would keep the whole block


def bench_hdf5(folder: Path, repeats: int = 3) -> None:
    """Frames of 4 Mpx a second out of HDF5, by h5py and by us."""
    stack, path = counts((FRAMES, 2048, 2048)), folder / "a.h5"
    print("HDF5, frames/s            h5py: 1 thread   2 threads   ours: 1 thread   2 threads")
    for label, options in FILTERS.items():
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=stack, chunks=(1, *stack.shape[1:]), **options)
        with h5py.File(path) as file:
            array = Hdf5Array.of(file["data"])
        ways = (partial(read_frame, path), array.__getitem__)
        rates = [FRAMES / seconds(partial(read_all, read, threads), repeats) for read in ways for threads in (1, 2)]
        print(f"{label:>20} {rates[0]:20.1f} {rates[1]:11.1f} {rates[2]:16.1f} {rates[3]:11.1f}", flush=True)


def read_all(read: Callable[[int], Any], threads: int) -> None:
    """All frames, by some threads."""
    with ThreadPoolExecutor(threads) as pool:
        finish(pool.map(read, range(FRAMES)))


def finish(results: Iterable[Any]) -> None:
    """Wait for all."""
    for _ in results:
        pass


def read_frame(path: Path, number: int) -> Any:
    """A frame as h5py gives it."""
    with h5py.File(path) as file:
        return file["data"][number]


if __name__ == "__main__":
    with TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        bench_zarr(Path(place))
        bench_hdf5(Path(place))
