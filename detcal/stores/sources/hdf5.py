"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

import json
from dataclasses import dataclass
from typing import Any

import dask.array as da
import h5py
import numpy as np
from dask.base import tokenize

from detcal.frames.stack import DIMS
from detcal.stores.absence import Lacks
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.hdf5_files import find_dataset, members_of, open_hdf5
from detcal.stores.sources.nxdata import axes_of
from detcal.stores.sources.readers import Block, Coords, check_ndim, recorded_as, stack_shape

# What detcal notes beside the attributes of a group or dataset that it writes, so that it can give them back as they were:
JSON_MARK = "detcal_json"  # the names of attributes that are JSON
DIMS_MARK = "detcal_dims"  # the names of a variable's dimensions
TYPE_MARK = "detcal_dtype"  # the type of times, which are written as text
UNITS_MARK = "detcal_units"  # the units, where NeXus has others for the same
FIRST = "image_nr_low"  # attribute of parts that Dectris writes: the number of the first frame, from 1 on


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    chunk_rows: int
    array: Hdf5Array
    first_number: int | None = None  # of its first frame in a series of several parts, where the file says so

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
        frames, rows = found.chunks[:2] if found.chunks and found.ndim == 3 else (1, shape[1])
        return cls(path, dataset, shape, array.dtype, frames, min(rows, shape[1]), array, number_in(found))

    def __dask_tokenize__(self) -> str:
        return repr(self)  # a master file has thousands of them, which dask would take apart one by one

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.array.lacks
        return lacks.as_one() if lacks and self.array.ndim == 2 else lacks

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit; and images (y, x) that detcal wrote beside the frames."""
        with open_hdf5(self.path) as file:
            return images_beside(file[self.dataset]) | lines_of(file, self.dataset, self.shape[3 - file[self.dataset].ndim :])

    def attrs(self) -> dict[str, Any]:
        with open_hdf5(self.path) as file:
            found = file[self.dataset]
            return own_attributes(found) | recorded_as(found.dtype, self.dtype)

    def files(self, start: int, stop: int) -> list[str]:
        return self.array.files(*((start, stop) if self.array.ndim == 3 else (0, self.array.shape[0])))

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        place = slice(*frames), slice(*rows)
        return self.array[place] if self.array.ndim == 3 else self.array[place[1]][None][place[0]]


def number_in(found: h5py.Dataset) -> int | None:
    """The number of the first frame of a dataset, if it says one."""
    number = own_type(found.attrs.get(FIRST))
    return number if isinstance(number, int) else None


def lines_of(file: h5py.File, dataset: str, shape: tuple[int, ...]) -> Coords:
    """The axes of a dataset of so many dimensions, as far as they fit."""
    axes = axes_of(file, dataset, shape)
    return {name: (DIMS[place - len(shape)], values_of(line), own_attributes(line)) for name, (place, line) in axes.items()}


def images_beside(frames: h5py.Dataset) -> Coords:
    """The images of a group whose rows and columns are those of frames in it, lazily: of which pixels were filled, say."""
    found: Coords = {}
    for name, item in members_of(frames.parent):
        if isinstance(item, h5py.Dataset) and tuple(item.attrs.get(DIMS_MARK, ())) == DIMS[1:] and item.shape == frames.shape[1:]:
            array = Hdf5Array.of(item)
            image = da.from_array(array, chunks=-1, name=f"image-{tokenize(array)}", meta=np.empty((0, 0), array.dtype))
            found[name] = DIMS[1:], image, own_attributes(item)
    return found


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
