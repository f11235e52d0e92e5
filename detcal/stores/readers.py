"""Lazy readers of one stack each: shape, dtype and `reader[frames, rows, columns]`.

A reader holds a path, never an open file, so that it pickles in a few bytes and can be sent to any worker. It opens the
file for each read and closes it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fabio
import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that detectors write with
import numpy as np
import tifffile
from numpy.typing import NDArray

from detcal.errors import InputError

TIFF_SUFFIXES = {".tif", ".tiff"}
Block = NDArray[np.generic]


class Reader(Protocol):
    """What `open_frames` makes a dask array of."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """The file's own."""

    def __getitem__(self, key: tuple[slice | int, ...], /) -> Any: ...


def only_slices(key: tuple[slice | int, ...]) -> tuple[tuple[slice, ...], tuple[slice | int, ...]]:
    """The key with each whole number as a slice of length one, and the key that then drops those dimensions.

    dask hands its readers whole numbers where `frames[3]` has been pushed down to the reading.
    """
    slices = tuple(part if isinstance(part, slice) else slice(part, part + 1) for part in key)
    return slices, tuple(slice(None) if isinstance(part, slice) else 0 for part in key)


@contextmanager
def clear_errors(path: str) -> Iterator[None]:
    """Turn what a library says of a damaged file into one line that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, tifffile.TiffFileError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot read {path}: {reason}. It may be cut short, or of another kind than its name says.") from error


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @classmethod
    def open(cls, path: str, dataset: str) -> "Hdf5Reader":
        with clear_errors(path), h5py.File(path, "r") as file:
            found = file.get(dataset)
            if not isinstance(found, h5py.Dataset):
                raise InputError(f"no dataset {dataset} in {path}")
            if found.ndim not in (2, 3):
                raise InputError(f"expected a dataset of shape (frame, y, x) or (y, x), got {found.shape} in {path}::{dataset}")
            check_sources(path, found)
            single = (1,) if found.ndim == 2 else ()
            shape = single + found.shape
            return cls(path, dataset, shape, found.dtype, single + (found.chunks or (1, *shape[1:])[-found.ndim :]))

    def __getitem__(self, key: tuple[slice | int, ...]) -> Block:
        slices, drop = only_slices(key)
        with clear_errors(self.path), h5py.File(self.path, "r") as file:
            dataset = file[self.dataset]
            return (dataset[slices] if dataset.ndim == 3 else dataset[slices[1:]][None])[drop]


def check_sources(path: str, dataset: h5py.Dataset) -> None:
    """Refuse a virtual dataset with a missing source: HDF5 would read fill values in its place, without an error."""
    if not dataset.is_virtual:
        return
    folder = Path(path).parent
    missing = sorted({s.file_name for s in dataset.virtual_sources() if s.file_name != "." and not (folder / s.file_name).exists()})
    if missing:
        raise InputError(f"{path}::{dataset.name} takes its data from files that are missing: {', '.join(missing)}")


@dataclass(frozen=True)
class NpyReader:
    """A .npy file, mapped into memory for each read."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @classmethod
    def open(cls, path: str) -> "NpyReader":
        with clear_errors(path):
            mapped = np.load(path, mmap_mode="r")
        shape = mapped.shape if mapped.ndim == 3 else (1, *mapped.shape)
        return cls(path, shape, mapped.dtype, (1, *shape[1:]))

    def __getitem__(self, key: tuple[slice | int, ...]) -> Block:
        with clear_errors(self.path):
            mapped = np.load(self.path, mmap_mode="r")
            return np.array(mapped[key] if mapped.ndim == 3 else mapped[None][key])


@dataclass(frozen=True)
class ImageFilesReader:
    """Frames in one or more EDF, CBF, TIFF or other files that fabio reads; each may hold several.

    Files after the first are taken to hold one frame, as the first, or are counted if the first holds several; what a
    file really holds is checked when it is read.
    """

    paths: tuple[str, ...]
    starts: tuple[int, ...]  # first frame of each file, and the number of frames at the end
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def open(cls, paths: tuple[str, ...]) -> "ImageFilesReader":
        first = read_image_file(paths[0], slice(0, 1))[0]
        held = count_frames(paths[0])
        counts = [held] + ([1] * (len(paths) - 1) if held == 1 else [count_frames(path) for path in paths[1:]])
        starts = (0, *np.cumsum(counts).tolist())
        return cls(paths, starts, (starts[-1], *first.shape), first.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """A frame each."""
        return (1, *self.shape[1:])

    def __getitem__(self, key: tuple[slice | int, ...]) -> Block:
        slices, drop = only_slices(key)
        start, stop, _ = slices[0].indices(self.shape[0])
        parts = []
        for path, first, last in zip(self.paths, self.starts[:-1], self.starts[1:], strict=True):
            low, high = max(start, first), min(stop, last)
            if low < high:
                part = read_image_file(path, slice(low - first, high - first))
                if part.shape[1:] != self.shape[1:]:
                    raise InputError(f"expected frames of shape {self.shape[1:]}, as {self.paths[0]}, got {part.shape[1:]} in {path}")
                parts.append(part[:, *slices[1:]])
        return np.concatenate(parts)[drop]


def count_frames(path: str) -> int:
    """How many frames an image file holds."""
    with clear_errors(path):
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            with tifffile.TiffFile(path) as file:
                shape = file.series[0].shape
                return int(np.prod(shape[:-2]))
        with fabio.open(path) as image:
            return int(image.nframes)


def read_image_file(path: str, frames: slice) -> Block:
    """Some frames of an image file as (frame, y, x)."""
    with clear_errors(path):
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            return read_tiff(path, frames)
        with fabio.open(path) as image:
            return np.stack([image.get_frame(number).data for number in range(frames.start, frames.stop)])


def read_tiff(path: str, frames: slice) -> Block:
    """Some pages of a TIFF file; ImageJ's and others' that hold a stack behind one page are read whole."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.ndim < 2 or series.keyframe.samplesperpixel != 1:
            raise InputError(f"expected grey frames, got an image of shape {series.shape} in {path}")
        if len(series) == int(np.prod(series.shape[:-2])):
            return np.stack([series.pages[number].asarray() for number in range(frames.start, frames.stop)])  # type: ignore[union-attr]
        return series.asarray().reshape(-1, *series.shape[-2:])[frames]
