"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

import json
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np

from detcal.stores.absence import Lacks
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.hdf5_files import find_dataset, open_hdf5
from detcal.stores.sources.nxdata import axes_of
from detcal.stores.sources.readers import Block, check_ndim, recorded_as, stack_shape
from detcal.stores.sources.scanned import NO_MAP, Coords, Scanned, boxes, frames_a_chunk, joined

# What detcal notes beside the attributes of a group or dataset that it writes, so that it can give them back as they were:
JSON_MARK = "detcal_json"  # the names of attributes that are JSON
DIMS_MARK = "detcal_dims"  # the names of a variable's dimensions
TYPE_MARK = "detcal_dtype"  # the type of times, which are written as text
UNITS_MARK = "detcal_units"  # the units, where NeXus has others for the same
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
    scanned: Scanned = NO_MAP

    @classmethod
    def open(cls, path: str, dataset: str) -> "Hdf5Reader":
        with open_hdf5(path) as file:
            return cls.of(path, dataset, find_dataset(path, file, dataset))

    @classmethod
    def of(cls, path: str, dataset: str, found: h5py.Dataset) -> "Hdf5Reader":
        """The dataset that was found under that name in an open file."""
        check_ndim(found.shape, f"{path}::{dataset}")
        array = Hdf5Array.of(found)
        shape = stack_shape(array.shape)
        chunked = found.chunks is not None and found.ndim > 2
        frames, rows = (frames_a_chunk(array.shape[:-2], found.chunks[:-2]), found.chunks[-2]) if chunked else (1, shape[1])
        return cls(path, dataset, shape, array.dtype, frames, min(rows, shape[1]), array, number_in(found), Scanned.of(array.shape))

    def __dask_tokenize__(self) -> str:
        return repr(self)  # a master file has thousands of them, which dask would take apart one by one

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.array.lacks_along(max(1, self.array.ndim - 2))
        return lacks.as_one() if lacks and self.array.ndim == 2 else lacks

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit."""
        with open_hdf5(self.path) as file:
            return lines_of(file, self.dataset, self.array.shape, self.scanned)

    def attrs(self) -> dict[str, Any]:
        with open_hdf5(self.path) as file:
            found = file[self.dataset]
            return own_attributes(found) | recorded_as(found.dtype, self.dtype)

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


def lines_of(file: h5py.File, dataset: str, shape: tuple[int, ...], scanned: Scanned) -> Coords:
    """The axes of a dataset of so many dimensions, as far as they fit; and of a map, the rows and columns of its frames."""
    axes = axes_of(file, dataset, shape).items()
    return scanned.numbers() | {
        name: (*scanned.line(values_of(line), place - len(shape)), own_attributes(line)) for name, (place, line) in axes
    }


def own_attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of an HDF5 object as Python's own types, without detcal's notes."""
    as_json = set(item.attrs.get(JSON_MARK, ()))
    attributes = {name: value for name, value in item.attrs.items() if name not in (JSON_MARK, DIMS_MARK, TYPE_MARK, UNITS_MARK)}
    attributes |= {"units": item.attrs[UNITS_MARK]} if UNITS_MARK in item.attrs else {}
    return {name: json.loads(value) if name in as_json else own_type(value) for name, value in attributes.items()}


def own_type(value: Any) -> Any:
    """Texts and numbers as str, bool, int and float; anything else as it is."""
    if isinstance(value, bytes):  # numpy's too
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
