"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

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
from detcal.stores.sources.readers import Block, check_ndim, stack_shape
from detcal.stores.sources.scanned import NO_MAP, Coords, Scanned, boxes, frames_a_chunk, joined

FIRST = "image_nr_low"  # attribute of parts that Dectris writes: the number of the first frame, from 1 on


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame, one of more than 3 dimensions a map."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    chunk_rows: int
    array: Hdf5Array
    first_number: int | None = None  # of its first frame in a series of several parts, where the file says so
    header: Header | None = field(default=None, compare=False, repr=False)  # of a part of a series, the series has it
    scanned: Scanned = NO_MAP

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
        check_ndim(found.shape, f"{path}::{dataset}")
        array = Hdf5Array.of(found)
        shape = stack_shape(array.shape)
        chunked = found.chunks is not None and found.ndim > 2
        frames, rows = (frames_a_chunk(array.shape[:-2], found.chunks[:-2]), found.chunks[-2]) if chunked else (1, shape[1])
        return cls(path, dataset, shape, array.dtype, frames, min(rows, shape[1]), array, number_in(found), scanned=Scanned.of(array.shape))

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
        lacks = self.array.lacks_along(max(1, self.array.ndim - 2))
        return lacks.as_one() if lacks and self.array.ndim == 2 else lacks

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit; and of a map, the rows and columns of its frames."""
        return self.scanned.numbers() | self.says.axes

    def attrs(self) -> dict[str, Any]:
        return self.says.attrs

    def files(self, start: int, stop: int) -> list[str]:
        row = prod(self.scanned.sizes[1:])
        return self.array.files(*((start // row, -(-stop // row)) if self.array.ndim > 2 else (0, self.array.shape[0])))

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        if self.array.ndim == 2:
            return self.array[slice(*rows)][None][slice(*frames)]
        return joined([self.array[*box, slice(*rows)] for box in boxes(*frames, self.array.shape[:-2])])


def number_in(found: h5py.Dataset) -> int | None:
    """The number of the first frame of a dataset, if it says one."""
    number = own_type(found.attrs.get(FIRST))
    return number if isinstance(number, int) else None
