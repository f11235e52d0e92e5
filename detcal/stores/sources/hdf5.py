"""Stacks in HDF5 and NeXus files, behind links and virtual datasets too."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from detcal.errors import InputError
from detcal.frames.stack import DIMS
from detcal.stores.absence import Lacks
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.readers import Block, Coords, Described, check_ndim, clear_errors, recorded_as, stack_shape
from detcal.stores.sources.virtual import follow

# What detcal notes beside the attributes of a group or dataset that it writes, so that it can give them back as they were:
JSON_MARK = "detcal_json"  # the names of attributes that are JSON
DIMS_MARK = "detcal_dims"  # the names of a variable's dimensions
TYPE_MARK = "detcal_dtype"  # the type of times, which are written as text
UNITS_MARK = "detcal_units"  # the units, where NeXus has others for the same


@dataclass(frozen=True)
class Hdf5Reader:
    """A dataset of an HDF5 file; a 2-D one is a stack of one frame."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    array: Hdf5Array

    @classmethod
    def open(cls, path: str, dataset: str) -> "Hdf5Reader":
        with clear_errors(path), h5py.File(path, "r") as file:
            found = find_dataset(path, file, dataset)
            check_ndim(found.shape, f"{path}::{dataset}")
            array = Hdf5Array.of(found)
            frames = found.chunks[0] if found.chunks and found.ndim == 3 else 1
            return cls(path, dataset, stack_shape(array.shape), array.dtype, frames, array)

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.array.lacks
        return lacks.as_one() if lacks and self.array.ndim == 2 else lacks

    def coords(self) -> Coords:
        """The axes of a NeXus NXdata group, as far as they fit."""
        with clear_errors(self.path), h5py.File(self.path, "r") as file:
            found = file[self.dataset]
            axes = [str(name) for name in np.atleast_1d(found.parent.attrs.get("axes", []))]
            lines = [(dim, name, follow(found.parent, name)) for dim, name in zip(DIMS[3 - found.ndim :], axes, strict=False)]
            return {
                name: (dim, values_of(line), own_attributes(line))
                for dim, name, line in lines
                if isinstance(line, h5py.Dataset) and line.shape == (self.shape[DIMS.index(dim)],) and line.dtype.kind in "iuf"
            }

    def attrs(self) -> dict[str, Any]:
        with clear_errors(self.path), h5py.File(self.path, "r") as file:
            found = file[self.dataset]
            return own_attributes(found) | recorded_as(found.dtype, self.dtype)

    def files(self, start: int, stop: int) -> list[str]:
        return self.array.files(*((start, stop) if self.array.ndim == 3 else (0, self.array.shape[0])))

    def read(self, start: int, stop: int) -> Block:
        return self.array[start:stop] if self.array.ndim == 3 else self.array[...][None][start:stop]


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


def find_dataset(path: str, file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of that name, or an error that says where the way to it ends."""
    found = follow(file, name)
    if not isinstance(found, h5py.Dataset):
        reason = first_gap(file, name) if found is None else "that is a group"
        raise InputError(f"no dataset {name} in {path}: {reason}; `detcal tree {path}` lists what it holds")
    return found


def first_gap(file: h5py.File, name: str) -> str:
    """The first part of a name that is not there, and where it links to if it is a link."""
    parts = name.strip("/").split("/")
    places = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    place = next(place for place in places if follow(file, place) is None)
    link = file.get(place, getlink=True)
    target = getattr(link, "filename", None) or getattr(link, "path", None)
    return f"{place} is not there" if target is None else f"{place} links to {target}, which is not there"


def hdf5_arrays(path: str) -> dict[str, Described]:
    """Names, shapes and types of the datasets in an HDF5 file.

    Raises
    ------
    InputError
        A link to another file leads nowhere: the frames could lie behind it.
    """
    with clear_errors(path), h5py.File(path, "r") as file:
        items = list(walk(file, "", set()))
        lost = [f"{name} → {link.filename}" for name, link in items if isinstance(link, h5py.ExternalLink)]
        if lost:
            raise InputError(f"links in {path} lead to what is not there: {', '.join(lost)}; mend them, or choose with dataset=")
        datasets = {name: item for name, item in items if isinstance(item, h5py.Dataset)}
        return {name: (dataset.shape, dataset.dtype) for name, dataset in datasets.items() if dataset.shape}


def walk(group: h5py.Group, prefix: str, seen: set[object]) -> Iterator[tuple[str, Any]]:
    """What lies below a group, each object once and under the name that leads to it from here; a link that leads nowhere as such."""
    for name in group:
        place = f"{prefix}/{name}"
        item = follow(group, name)
        if item is None:
            yield place, group.get(name, getlink=True)
        elif address(item) not in seen:
            seen.add(address(item))
            yield place, item
            if isinstance(item, h5py.Group):
                yield from walk(item, place, seen)


def address(item: h5py.HLObject) -> tuple[str, int]:
    """What two names of one object have in common."""
    return item.file.filename, h5py.h5o.get_info(item.id).addr
