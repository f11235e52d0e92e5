"""Opening a stack of frames from whatever a detector wrote."""

from collections.abc import Iterator, Mapping, Sequence
from glob import glob, has_magic
from os import PathLike, fspath, stat
from os.path import abspath
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from detcal.errors import InputError
from detcal.frames import DIMS, frames_a_block
from detcal.stores.readers import Hdf5Reader, ImageFilesReader, NpyReader, Reader, clear_errors

HDF5_SUFFIXES = {".h5", ".hdf5", ".nxs", ".hdf", ".nx"}
PathOrName = str | PathLike[str]


def open_frames(
    path: PathOrName | Sequence[PathOrName], dataset: str | None = None, *, chunks: Mapping[str, int] | None = None
) -> xr.DataArray:
    """Open a stack of frames lazily; nothing but the header is read.

    Parameters
    ----------
    path
        An HDF5 or NeXus file, a zarr store, a .npy file, or EDF, CBF, TIFF and other image files that fabio reads: one
        (multi-page too), a list, or a glob such as "scan_*.cbf", taken in sorted order.
    dataset
        Where the frames are in an HDF5 file or zarr group. By default the only 3-D one (or 2-D, if none is 3-D).
    chunks
        Frames a block: {"frame": 16}; rounded up to whole chunks of the file. By default about 64 MiB.

    Returns
    -------
    DataArray (frame, y, x)
        In the file's own type, in counts; y and x are whole in each block. A 2-D image is a stack of one frame.

    Raises
    ------
    InputError
        No such file or dataset, several that could be meant, frames of other shapes, a damaged file.
    """
    paths = find_paths(path)
    reader, source = open_reader(paths, dataset)
    wanted = (chunks or {}).get("frame")
    array = da.from_array(
        reader, chunks=block_shape(reader, wanted), name=f"frames-{tokenize(source, [fingerprint(p) for p in paths], wanted)}",
        meta=np.empty((0, 0, 0), reader.dtype), asarray=False, fancy=False,
    )  # fmt: skip
    return xr.DataArray(array, dims=DIMS, name="frames", attrs={"units": "counts", "source": source})


def find_paths(path: PathOrName | Sequence[PathOrName]) -> list[str]:
    """The files that a path, list or glob names."""
    if not isinstance(path, str | PathLike):
        found = [fspath(item) for item in path]
    elif has_magic(fspath(path)) and not Path(path).exists():
        found = sorted(glob(fspath(path)))
    else:
        found = [fspath(path)]
    if not found:
        raise InputError(f"no file matches {path}")
    for name in found:
        if not Path(name).exists():
            raise InputError(f"no such file: {name}")
    return [abspath(name) for name in found]  # workers may run in another folder


def open_reader(paths: list[str], dataset: str | None) -> tuple[Reader, str]:
    """The reader for these files, and what to call their frames."""
    first = paths[0]
    suffix = Path(first).suffix.lower()
    if Path(first).is_dir():
        found, name = open_zarr_array(first, dataset)
        return found, f"{first}::{name}"
    if suffix in HDF5_SUFFIXES:
        if len(paths) > 1:
            raise InputError(f"expected one HDF5 file, got {len(paths)}: open them one by one, or through a virtual dataset")
        name = dataset or find_stack(first)
        return Hdf5Reader.open(first, name), f"{first}::{name}"
    if suffix == ".npy":
        return NpyReader.open(first), first
    files = ImageFilesReader.open(tuple(paths))
    return files, first if len(paths) == 1 else f"{first} … {paths[-1]} ({len(paths)} files)"


def open_zarr_array(path: str, name: str | None) -> tuple[zarr.Array, str]:
    """An array of a zarr store: the store itself, the one named, or the only one with frames."""
    with clear_errors(path):
        node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return node, ""
    stacks = {key: array for key, array in node.arrays() if array.ndim == 3}
    chosen = name or only_one(path, {key: array.shape for key, array in stacks.items()})
    if chosen not in stacks:
        raise InputError(f"no array {chosen} of shape (frame, y, x) in {path}; it has {', '.join(stacks) or 'none'}")
    return stacks[chosen], chosen


def find_stack(path: str) -> str:
    """The only dataset of an HDF5 file that can be a stack of frames."""
    with clear_errors(path), h5py.File(path, "r") as file:
        shapes = {name: dataset.shape for name, dataset in walk(file, set()) if dataset.dtype.kind in "iuf"}
    stacks = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    return only_one(path, stacks or {name: shape for name, shape in shapes.items() if len(shape) == 2})


def walk(group: h5py.Group, seen: set[object]) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets below a group, links followed, each once; links to files that are missing are passed over."""
    for name in group:
        item = group.get(name)
        if item is None:
            continue
        address = (item.file.filename, h5py.h5o.get_info(item.id).addr)
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Dataset):
            yield f"{group.name.rstrip('/')}/{name}", item
        elif isinstance(item, h5py.Group):
            yield from walk(item, seen)


def only_one(path: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The one name there is, or an error that lists what there is."""
    if len(shapes) == 1:
        return next(iter(shapes))
    if not shapes:
        raise InputError(f"no dataset of shape (frame, y, x) in {path}")
    listed = "".join(f"\n  {name} {shape}" for name, shape in shapes.items())
    raise InputError(f"several datasets in {path} could be the frames; choose one with dataset=:{listed}")


def block_shape(reader: Reader, wanted: int | None) -> tuple[int, int, int]:
    """Whole frames, and a whole number of the file's chunks along them."""
    frames, height, width = reader.shape
    own = reader.chunks[0]
    depth = wanted or frames_a_block(reader.dtype.itemsize * height * width)
    return min(frames, max(own, -(-depth // own) * own if wanted else depth // own * own)), height, width


def fingerprint(path: str) -> tuple[int, int]:
    """What changes when a file does, so that the same name never stands for other data."""
    status = stat(path)
    return status.st_mtime_ns, status.st_size
