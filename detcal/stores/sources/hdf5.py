"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import h5py
import numpy as np

from detcal.stores.absence import Lacks
from detcal.stores.sources.attributes import own_type
from detcal.stores.sources.axis_names import names_of_frames
from detcal.stores.sources.dimensions import as_stack, check_frames, part_of
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import find_dataset, groups_of_entry, open_hdf5
from detcal.stores.sources.headers import Header, read_header
from detcal.stores.sources.readers import Block, check_ndim, stack_shape
from detcal.stores.sources.scanned import NO_MAP, Coords, Scanned, boxes, frames_a_chunk, joined

FIRST = "image_nr_low"  # attribute of parts that Dectris writes: the number of the first frame, from 1 on


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame, one of more than 3 dimensions a map.

    Its dimensions may lie in any order, if their names say which is which.
    """

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
    axes: tuple[int, ...] = (0, 1, 2)  # of the dataset, in the order of a stack

    @classmethod
    def open(cls, path: str, dataset: str) -> "Hdf5Reader":
        with open_hdf5(path) as file:
            return cls.within(path, file, dataset)

    @classmethod
    def within(cls, path: str, file: h5py.File, dataset: str) -> "Hdf5Reader":
        """Of an open file, with what it says of the frames."""
        found, entry = find_dataset(path, file, dataset), [*groups_of_entry(file, dataset)]
        names = names_of_frames(file, dataset, found, entry)
        reader = cls.of(path, dataset, found, names)
        return replace(reader, header=read_header(path, file, dataset, reader.array.shape, reader.dtype, names, entry))

    @classmethod
    def of(cls, path: str, dataset: str, found: h5py.Dataset, names: tuple[str, ...]) -> "Hdf5Reader":
        """The numbers alone, of the dataset that was found under that name in an open file, and the names of its dimensions."""
        check_frames(names, f"{path}::{dataset}", path)
        array, axes = Hdf5Array.of(found), as_stack(names, found.ndim)
        ordered, chunks = (tuple(sizes[axis] for axis in axes) for sizes in (array.shape, found.chunks or array.shape))
        check_ndim(ordered, f"{path}::{dataset}")
        shape, chunked = stack_shape(ordered), found.chunks is not None and found.ndim > 2
        frames, rows = (frames_a_chunk(ordered[:-2], chunks[:-2]), chunks[-2]) if chunked else (1, shape[1])
        scanned = Scanned.of(ordered).named([names[axis] for axis in axes] if names else [])
        return cls(path, dataset, shape, array.dtype, frames, min(rows, shape[1]), array, number_in(found), scanned=scanned, axes=axes)

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
        if not self.in_order:
            return self.array.lacks_across(self.axes[:-2])
        lacks = self.array.lacks_along(max(1, self.array.ndim - 2))
        return lacks.as_one() if lacks and self.array.ndim == 2 else lacks

    @property
    def in_order(self) -> bool:
        """Whether its dimensions lie as those of a stack."""
        return self.axes == tuple(range(self.array.ndim))

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit; and of a map, the rows and columns of its frames."""
        return self.scanned.numbers() | self.says.axes

    def attrs(self) -> dict[str, Any]:
        return self.says.attrs

    def files(self, start: int, stop: int) -> list[str]:
        if not self.in_order:
            return self.array.files(0, self.array.shape[0])
        row = prod(self.scanned.sizes[1:])
        return self.array.files(*((start // row, -(-stop // row)) if self.array.ndim > 2 else (0, self.array.shape[0])))

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        counted = tuple(self.array.shape[axis] for axis in self.axes[:-2])
        if not counted:
            return part_of(self.array, self.axes, (), rows)[slice(*frames)]
        return joined([part_of(self.array, self.axes, box, rows) for box in boxes(*frames, counted)])


def number_in(found: h5py.Dataset) -> int | None:
    """The number of the first frame of a dataset, if it says one."""
    number = own_type(found.attrs.get(FIRST))
    return number if isinstance(number, int) else None
