"""Opening a stack of frames from whatever a detector wrote."""

from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from os import PathLike, fspath
from os.path import abspath
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize

from detcal.errors import InputError
from detcal.frames.stack import DIMS, frames_a_block
from detcal.stores.absence import warn_of
from detcal.stores.hdf5 import Hdf5Reader, hdf5_arrays
from detcal.stores.image_files import ImageFilesReader
from detcal.stores.readers import Described, FrameArray, NpyReader, Reader, check_readable
from detcal.stores.zarr_reader import ZarrReader, zarr_arrays

HDF5_SUFFIXES = {".h5", ".hdf5", ".nxs", ".hdf", ".nx"}
LIKELY = [(3, "iuf"), (2, "iuf"), (3, "b"), (2, "b")]  # what frames are, the likeliest first: dimensions, kinds of types
PathOrName = str | PathLike[str]


def open_frames(
    path: PathOrName | Sequence[PathOrName], dataset: str | None = None, *, chunks: Mapping[str, int] | None = None
) -> xr.DataArray:
    """Open a stack of frames lazily; nothing but the header, and the first image of image files, is read.

    Parameters
    ----------
    path
        An HDF5 or NeXus file (of any name), a zarr store, a .npy file, or EDF, CBF, TIFF and other image files that fabio reads: one
        (multi-page too), a list, or a glob such as "scan_*.cbf", taken in sorted order.
    dataset
        Where the frames are in an HDF5 file or zarr group. By default the only 3-D one (or 2-D, if none is 3-D) of numbers,
        or of bool if there are no numbers.
    chunks
        Frames a block: {"frame": 16}; rounded up to whole chunks of the file. By default about 64 MiB.

    Returns
    -------
    DataArray (frame, y, x)
        In the file's own type and units, or counts if it names none; y and x are whole in each block. A 2-D image is a stack
        of one frame. Coords are the axes that a zarr group or NeXus NXdata gives, the angles of a scan, say.
        Frames, or parts of them, that are missing (chunks that were never written or are lost, parts of a virtual dataset without a
        source) are NaN, with one MissingWarning that counts them: integers then become float32, those of more than 16 bits float64.
        Chunks that zarr left out because they hold nothing but a fill value look the same: `.fillna(0)` puts the value back.

    Raises
    ------
    InputError
        No such file or dataset, no permission to read it, several that could be meant, a damaged file; as frames are computed, chunks
        that are damaged, or are gone since the file was opened. Image files after the
        first are opened only when they are computed: frames of another shape or type are refused then.
    """
    reader, source = open_reader(find_paths(path), dataset)
    if 0 in reader.shape or reader.dtype.kind not in "biuf":
        raise InputError(f"expected frames of numbers, got shape {reader.shape} of {reader.dtype} in {source}")
    if lacks := reader.lacks:
        warn_of(source, {"": lacks}, "frames", stacklevel=2)
    block = (block_frames(reader, wanted_frames(chunks)), *reader.shape[1:])
    array = da.from_array(
        FrameArray(reader), chunks=block, name=f"frames-{tokenize(reader, block)}",
        meta=np.empty((0, 0, 0), reader.dtype), asarray=False,
    )  # fmt: skip
    told = {name: str(value) for name, value in reader.attrs().items() if name in ("units", "long_name")}
    attrs = {"units": "counts", **told, "source": source, **({"lacks": lacks.describe("frames")} if lacks else {})}
    return xr.DataArray(array, dims=DIMS, coords=reader.coords(), name="frames", attrs=attrs)


def find_paths(path: PathOrName | Sequence[PathOrName]) -> list[str]:
    """The files that a path, list or glob names, as absolute paths: a worker may run in another folder."""
    if not isinstance(path, str | PathLike):
        found = [fspath(item) for item in path]
    elif has_magic(fspath(path)) and not Path(path).exists():
        found = sorted(glob(fspath(path)))
    else:
        found = [fspath(path)]
    if not found:
        raise InputError(f"no file matches {path}")
    for name in found:
        check_readable(name)
    return [abspath(name) for name in found]


def open_reader(paths: list[str], dataset: str | None) -> tuple[Reader, str]:
    """The reader for these files, and what to call their frames."""
    first, last = paths[0], paths[-1]
    suffix = Path(first).suffix.lower()
    folder = Path(first).is_dir()
    hdf5 = not folder and (h5py.is_hdf5(first) or suffix in HDF5_SUFFIXES)  # one that is damaged shows only by its name
    if not folder and not hdf5 and suffix != ".npy":
        return ImageFilesReader.open(tuple(paths)), first if len(paths) == 1 else f"{first} … {last} ({len(paths)} files)"
    if len(paths) > 1:
        raise InputError(f"expected one HDF5 file, zarr store or .npy file, got {len(paths)}: open each, then join them by xarray.concat")
    if not folder and not hdf5:
        return NpyReader.open(first), first
    name = only_one(first, zarr_arrays(first) if folder else hdf5_arrays(first)) if dataset is None else dataset
    return (ZarrReader if folder else Hdf5Reader).open(first, name), f"{first}::{name}"


def only_one(path: str, arrays: Mapping[str, Described]) -> str:
    """The only array that can be a stack of frames, or else an image; an error lists what there is."""
    ranked = ([name for name, (shape, dtype) in arrays.items() if len(shape) == ndim and dtype.kind in kinds] for ndim, kinds in LIKELY)
    found = next(filter(None, ranked), [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no dataset of shape (frame, y, x) in {path}")
    listed = "".join(f"\n  {name} {arrays[name][0]}" for name in found)
    raise InputError(f"several datasets in {path} could be the frames; choose one with dataset=:{listed}")


def wanted_frames(chunks: Mapping[str, int] | None) -> int | None:
    """Frames a block, if they were asked for."""
    wanted = (chunks or {}).get("frame")
    if set(chunks or ()) - {"frame"} or (wanted is not None and wanted < 1):
        raise InputError(f'expected chunks such as {{"frame": 16}}, since y and x are whole in each block, got {chunks}')
    return wanted


def block_frames(reader: Reader, wanted: int | None) -> int:
    """Frames a block: a whole number of the file's chunks."""
    own = reader.chunk_frames
    frames, height, width = reader.shape
    default = frames_a_block(reader.dtype.itemsize * height * width) // own * own
    return min(frames, max(own, default if wanted is None else -(-wanted // own) * own))
