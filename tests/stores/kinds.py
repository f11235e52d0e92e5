"""Stacks written into a folder as every kind of file: each function gives what is opened, a path, a list or a glob."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import zarr
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from numpy.typing import NDArray

SHAPE = (6, 20, 31)
Stack = NDArray[Any]


def make_stack(dtype: str) -> Stack:
    """Known frames, with NaN or the extremes of their type; half of them in int32, since fabio's CBF writer wraps larger steps."""
    rng = np.random.default_rng(7)
    if dtype == "float32":
        stack = rng.normal(1000, 300, SHAPE).astype(dtype)
        stack[0, 0, :2] = np.nan, np.inf
        return stack
    low, high = (0, 2**16 - 1) if dtype == "uint16" else (-(2**30), 2**30 - 1)
    stack = rng.integers(low, high, SHAPE, dtype, endpoint=True)
    stack[0, 0, :2] = low, high
    return stack


def write_hdf5(folder: Path, stack: Stack, **options: Any) -> Path:
    path = folder / "stack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=stack, **options)
    return path


def write_virtual(folder: Path, stack: Stack) -> Path:
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    half = len(stack) // 2
    for number, part in enumerate((stack[:half], stack[half:])):
        with h5py.File(folder / f"part{number}.h5", "w") as file:
            file["raw"] = part
        layout[number * half : number * half + len(part)] = h5py.VirtualSource(f"part{number}.h5", "raw", part.shape)
    with h5py.File(folder / "master.nxs", "w") as file:
        file.create_virtual_dataset("entry/data", layout)
    return folder / "master.nxs"


def write_linked(folder: Path, stack: Stack) -> Path:
    """Behind an external link to a group of another file, twice more by soft and hard links, in a loop, beside a scalar."""
    with h5py.File(folder / "raw.h5", "w") as file:
        file["scan/detector/frames"] = stack
        file["scan/detector/again"] = h5py.SoftLink("/scan/detector/frames")
        file["scan/detector/up"] = file["scan"]
        file["scan/detector/empty"] = h5py.Empty("f4")
    with h5py.File(folder / "master.h5", "w") as file:
        file["entry/measurement"] = h5py.ExternalLink("raw.h5", "/scan")
        file["entry/plot"] = h5py.SoftLink("/entry/measurement/detector/frames")
        file["entry/time"] = 3.0
    return folder / "master.h5"


def write_npy(folder: Path, stack: Stack) -> Path:
    np.save(folder / "stack.npy", stack)
    return folder / "stack.npy"


def write_tiff(folder: Path, stack: Stack, **options: Any) -> Path:
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack", **options)
    return folder / "stack.tif"


def write_tiff_without_description(folder: Path, stack: Stack) -> Path:
    """As other programs write: nothing but the chain of pages, here all of it but the first link at the end, says how many there are."""
    return write_tiff(folder, stack, metadata=None)


def write_tiff_pages(folder: Path, stack: Stack) -> Path:
    """A write for each page: tifffile counts each as a series of its own."""
    with tifffile.TiffWriter(folder / "stack.tiff") as file:
        for frame in stack:
            file.write(frame)
    return folder / "stack.tiff"


def write_hyperstack(folder: Path, stack: Stack) -> Path:
    with tifffile.TiffWriter(folder / "stack.tif", imagej=True) as file:
        file.write(stack.reshape(2, -1, 1, *stack.shape[1:]), metadata={"axes": "TZCYX"})
    return folder / "stack.tif"


def write_tiff_files(folder: Path, stack: Stack) -> str:
    for number, frame in enumerate(stack):
        tifffile.imwrite(folder / f"scan_{number:04}.tif", frame)
    return str(folder / "scan_*.tif")


def write_edf(folder: Path, stack: Stack, name: str = "stack.edf") -> Path:
    image = EdfImage(data=stack[0])
    for frame in stack[1:]:
        image.append_frame(data=frame)
    image.write(str(folder / name))
    return folder / name


def write_edf_files(folder: Path, stack: Stack) -> list[Path]:
    return [write_edf(folder, frame[None], f"scan_{number}.edf") for number, frame in enumerate(stack)]


def write_multi_edf_files(folder: Path, stack: Stack) -> list[str]:
    return [str(write_edf(folder, part, f"scan_{number}.edf")) for number, part in enumerate((stack[:2], stack[2:]))]


def write_cbf_files(folder: Path, stack: Stack) -> str:
    for number, frame in reversed(list(enumerate(stack))):  # so that the glob's order is not that of writing
        CbfImage(data=frame).write(str(folder / f"scan_{number:05}.cbf"))
    return str(folder / "scan_*.cbf")


def write_cbf(folder: Path, stack: Stack) -> Path:
    write_cbf_files(folder, stack[:1])
    return folder / "scan_00000.cbf"


def write_zarr(folder: Path, stack: Stack, **options: Any) -> Path:
    group = zarr.open_group(folder / "stack.zarr", mode="w", zarr_format=options.pop("zarr_format", 3))
    array = group.create_array("entry/frames", shape=stack.shape, dtype=stack.dtype, **{"chunks": (2, 10, 31), **options})
    array[:] = stack
    group.create_array("dark", data=np.ones_like(stack[0]))
    return folder / "stack.zarr"


def write_zarr_array(folder: Path, stack: Stack) -> Path:
    zarr.create_array(folder / "array.zarr", data=stack, chunks=(2, 10, 31))
    return folder / "array.zarr"


def with_options(write: Callable[..., Any], **options: Any) -> Callable[[Path, Stack], Any]:
    return lambda folder, stack: write(folder, stack, **options)


ALL = ("uint16", "int32", "float32")
KINDS: dict[str, tuple[Callable[[Path, Stack], Any], tuple[str, ...]]] = {
    "hdf5 contiguous": (write_hdf5, ALL),
    "hdf5 chunked": (with_options(write_hdf5, chunks=(4, 7, 9), compression="gzip"), ALL),
    "hdf5 bitshuffle": (with_options(write_hdf5, chunks=(1, 20, 31), **hdf5plugin.Bitshuffle(cname="lz4")), ALL),
    "hdf5 virtual": (write_virtual, ALL),
    "hdf5 linked": (write_linked, ALL),
    "npy": (write_npy, ALL),
    "npy fortran": (lambda folder, stack: write_npy(folder, np.asfortranarray(stack)), ALL),
    "tiff": (write_tiff, ALL),
    "tiff compressed": (with_options(write_tiff, compression="zlib"), ALL),
    "tiff big-endian": (with_options(write_tiff, byteorder=">"), ALL),
    "tiff bigtiff contiguous": (with_options(write_tiff, bigtiff=True, contiguous=True), ALL),
    "tiff behind one page": (with_options(write_tiff, truncate=True), ALL),
    "tiff behind one page, big-endian": (with_options(write_tiff, truncate=True, byteorder=">"), ALL),
    "tiff without description": (write_tiff_without_description, ALL),
    "tiff a write a page": (write_tiff_pages, ALL),
    "tiff imagej": (with_options(write_tiff, imagej=True), ("uint16", "float32")),
    "tiff imagej hyperstack": (write_hyperstack, ("uint16", "float32")),
    "tiff files": (write_tiff_files, ALL),
    "edf": (write_edf, ALL),
    "edf files": (write_edf_files, ALL),
    "edf files of several": (write_multi_edf_files, ALL),
    "cbf files": (write_cbf_files, ("int32",)),
    "zarr": (write_zarr, ALL),
    "zarr sharded": (with_options(write_zarr, chunks=(1, 10, 31), shards=(2, 20, 31)), ALL),
    "zarr 2": (with_options(write_zarr, zarr_format=2), ALL),
    "zarr array": (write_zarr_array, ALL),
}
CASES = [pytest.param(write, dtype, id=f"{kind} {dtype}") for kind, (write, dtypes) in KINDS.items() for dtype in dtypes]

INDICES: list[Any] = [
    0, -1, slice(1, 6, 2), slice(None, None, -1), slice(4, 1, -2), slice(2, 2), [5, 0, 2], np.s_[:, 3], np.s_[1:4, 2:9, -1], np.s_[3, ::2],
]  # fmt: skip


def write_image_hdf5(folder: Path, image: Stack) -> Path:
    with h5py.File(folder / "image.h5", "w") as file:
        file.create_dataset("image", data=image, chunks=(5, 5))
        file["spectrum"] = np.arange(5)
    return folder / "image.h5"


def write_image_zarr(folder: Path, image: Stack) -> Path:
    zarr.open_group(folder / "image.zarr").create_array("image", data=image)
    return folder / "image.zarr"
