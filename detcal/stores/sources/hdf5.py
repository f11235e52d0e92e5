"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import h5py
import numpy as np

from detcal.stores.absence import Lacks
from detcal.stores.sources.attributes import own_type
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import find_dataset, open_hdf5
from detcal.stores.sources.headers import Header, read_header
from detcal.stores.sources.readers import Block, Coords, check_ndim, stack_shape

FIRST = "image_nr_low"  # attribute of parts that Dectris writes: the number of the first frame, from 1 on


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame, one of more than three has the frames of a grid, row by row."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    chunk_rows: int
    array: Hdf5Array
    first_number: int | None = None  # of its first frame in a series of several parts, where the file says so
    header: Header | None = field(default=None, compare=False, repr=False)  # of a part of a series, the series has it

    @classmethod
    def open(cls, path: str, dataset: str) -> "Hdf5Reader":
        with open_hdf5(path) as file:
            return cls.within(path, file, dataset)

    @classmethod
    def within(cls, path: str, file: h5py.File, dataset: str) -> "Hdf5Reader":
        """Of an open file, with what it says of the frames."""
        reader = cls.of(path, dataset, find_dataset(path, file, dataset))
        return replace(reader, header=read_header(path, file, dataset, reader.array.shape, reader.dtype))

    @classmethod
    def of(cls, path: str, dataset: str, found: h5py.Dataset) -> "Hdf5Reader":
        """The numbers alone, of the dataset that was found under that name in an open file."""
        check_ndim(found.shape, f"{path}::{dataset}", grids=True)
        array = Hdf5Array.of(found)
        shape = stack_shape(array.shape)
        frames = frames_a_chunk(found.chunks[:-2], array.shape[:-2]) if found.chunks else 1
        rows = found.chunks[-2] if found.chunks and found.ndim > 2 else shape[1]
        return cls(path, dataset, shape, array.dtype, frames, min(rows, shape[1]), array, number_in(found))

    def __dask_tokenize__(self) -> str:
        return repr(self)  # a master file has thousands of them, which dask would take apart one by one

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "header": None}  # tasks read numbers

    @property
    def says(self) -> Header:
        """What the file says of the frames."""
        assert self.header is not None, "a reader that was sent to a task, or a part of a series"
        return self.header

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.array.lacks
        if lacks is None or self.array.ndim == 3:
            return lacks
        return lacks.as_one() if self.array.ndim == 2 else lacks.repeated(self.frames_a_row)

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit."""
        return self.says.axes

    def attrs(self) -> dict[str, Any]:
        return self.says.attrs

    def files(self, start: int, stop: int) -> list[str]:
        rows = (start // self.frames_a_row, -(-stop // self.frames_a_row)) if self.array.ndim > 2 else (0, self.array.shape[0])
        return self.array.files(*rows)

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        if self.array.ndim == 2:
            return self.array[slice(*rows)][None][slice(*frames)]
        shape = rows[1] - rows[0], self.shape[2]
        parts = [self.array[(*box, slice(*rows))].reshape(-1, *shape) for box in boxes(self.array.shape[:-2], *frames)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, *shape), self.dtype), *parts])

    @property
    def frames_a_row(self) -> int:
        """Frames at each place along the first dimension: more than one of a grid."""
        return prod(self.array.shape[1:-2])


def frames_a_chunk(chunk: tuple[int, ...], grid: tuple[int, ...]) -> int:
    """How many frames follow each other from the first to the last in a chunk: of a grid, whole rows, unless the chunk is part of one."""
    axis = next((axis for axis, size in enumerate(chunk) if size > 1), len(grid) - 1)
    if not grid:
        return 1
    size = chunk[axis] if axis == 0 or grid[axis] % chunk[axis] == 0 else grid[axis]
    return size * prod(grid[axis + 1 :])


def boxes(grid: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """The parts of a grid, the largest that there are, that hold the frames from start to stop, one behind the other."""
    inner = prod(grid[1:])
    head = min(stop, -(-start // inner) * inner)
    tail = max(head, stop // inner * inner)
    if start < head:
        yield from within_row(grid, start, head)
    if head < tail:
        yield slice(head // inner, tail // inner), *[slice(None)] * (len(grid) - 1)
    if tail < stop:
        yield from within_row(grid, tail, stop)


def within_row(grid: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """As `boxes`, for frames at one place along the first dimension."""
    row, first = divmod(start, prod(grid[1:]))
    yield from ((slice(row, row + 1), *rest) for rest in boxes(grid[1:], first, first + stop - start))


def number_in(found: h5py.Dataset) -> int | None:
    """The number of the first frame of a dataset, if it says one."""
    number = own_type(found.attrs.get(FIRST))
    return number if isinstance(number, int) else None
