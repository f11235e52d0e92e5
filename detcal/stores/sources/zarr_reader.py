"""Stacks in zarr stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from detcal.errors import InputError
from detcal.frames.stack import DIMS
from detcal.stores.absence import Lacks, warn_of
from detcal.stores.sources.dimensions import Described, as_stack, check_frames, part_of
from detcal.stores.sources.readers import Block, check_ndim, clear_errors, recorded_as, stack_shape
from detcal.stores.sources.scanned import NO_MAP, Coords, Scanned, boxes, frames_a_chunk, joined
from detcal.stores.sources.zarr_axes import OF_XARRAY, full_images, names_in, names_of_dims
from detcal.stores.sources.zarr_data import NUMBERS, ZarrArray
from detcal.stores.sources.zarr_zip import zarr_place


@dataclass(frozen=True)
class ZarrReader:
    """An array of a zarr store, a zipped one too; a 2-D one is a stack of one frame.

    Its dimensions may lie in any order, if it names them. With several that count frames it is a map; but images of OME-Zarr are a stack.
    """

    path: str
    array: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    chunk_rows: int
    data: ZarrArray
    axes: tuple[int, ...]  # of the array, in the order of a stack
    scanned: Scanned

    @classmethod
    def open(cls, path: str, name: str) -> "ZarrReader":
        data = ZarrArray.open(path, name)
        with clear_errors(path):
            store = zarr_place(path)
            array = zarr.open_array(store, path=name, mode="r")
            names, own = names_in(store, name, array), names_of_dims(array)
        check_frames(own, f"{path}::{name}", path)
        axes = as_stack(names, data.ndim)
        shape, chunks = (tuple(sizes[axis] for axis in axes) for sizes in (data.shape, data.chunks))
        check_ndim(shape, f"{path}::{name}")
        frames, rows = (frames_a_chunk(shape[:-2], chunks[:-2]), chunks[-2]) if len(shape) > 2 else (1, shape[0])
        scanned = NO_MAP if names and not own else Scanned.of(shape).named([own[axis] for axis in axes] if own else [])
        return cls(path, name, stack_shape(shape), data.dtype, frames, min(rows, shape[-2]), data, axes, scanned)

    @property
    def version(self) -> str:
        return self.data.version

    @property
    def lacks(self) -> Lacks | None:
        return self.data.lacks_along(self.axes[:-2])

    def coords(self) -> Coords:
        """The lines beside the array that lie along one of its named dimensions, and the images (y, x) that it names as coordinates."""
        parent, _, own = self.array.rpartition("/")
        numbers = self.scanned.numbers()
        if not own or (self.data.ndim > 3 and not self.scanned.dims):
            return numbers
        with clear_errors(self.path):
            members = dict(zarr.open_group(zarr_place(self.path), path=parent, mode="r").arrays())
            names = names_of_dims(members[own])
            along = {names[axis]: place for place, axis in enumerate(self.axes)} if names else {}
            named = str(members[own].attrs.get("coordinates", "")).split()
            images: Coords = {
                name: (DIMS[1:], self.image(parent, name), attributes_of_line(members[name]))
                for name in named
                if name in members and names_of_dims(members[name]) == DIMS[1:] and members[name].shape == self.shape[1:]
            }
            lines: Coords = {
                name: (*self.scanned.line(self.line(parent, name), place - self.data.ndim), attributes_of_line(line))
                for name, line in members.items()
                for dim, place in along.items()
                if names_of_dims(line) == (dim,) and line.shape == (self.data.shape[self.axes[place]],)
            }
            return numbers | self.of_points(parent, members, named) | images | lines

    def of_points(self, parent: str, members: Mapping[str, zarr.Array], named: list[str]) -> Coords:
        """What the array names as coordinates of the points of a map, by row and column: for each frame."""
        names = names_of_dims(members[self.array.rpartition("/")[2]])
        counted = tuple(names[axis] for axis in self.axes[:-2]) if names else ()
        if len(counted) < 2:
            return {}
        return {
            name: (DIMS[0], self.line(parent, name).ravel(), attributes_of_line(members[name]))
            for name in named
            if name in members and names_of_dims(members[name]) == counted and members[name].shape == self.scanned.sizes
        }

    def line(self, parent: str, name: str) -> np.ndarray[Any, Any]:
        """The values along one dimension: NaN, with a warning, where they are missing."""
        found = ZarrArray.open(self.path, f"{parent}/{name}".lstrip("/"))
        if lacks := found.lacks:
            warn_of(f"{found.path}::{found.name}", {"": lacks}, "values", stacklevel=2)
        return found[...]

    def image(self, parent: str, name: str) -> da.Array:
        """An image beside the frames, lazily."""
        found = ZarrArray.open(self.path, f"{parent}/{name}".lstrip("/"))
        return da.from_array(found, chunks=found.chunks, name=f"zarr-{tokenize(found)}", meta=np.empty((0, 0), found.dtype))

    def attrs(self) -> dict[str, Any]:
        with clear_errors(self.path):
            array = zarr.open_array(zarr_place(self.path), path=self.array, mode="r")
            # where xarray keeps its _FillValue, in the second version of the format
            fill = {"_FillValue": array.fill_value} if array.metadata.zarr_format == 2 and array.fill_value is not None else {}
            return fill | dict(array.attrs) | recorded_as(array.dtype, self.dtype)

    def files(self, start: int, stop: int) -> list[str]:
        return [self.path, *self.data.metadata_files()]

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        counted = tuple(self.data.shape[axis] for axis in self.axes[:-2])
        if not counted:
            return part_of(self.data, self.axes, (), rows)[slice(*frames)]
        return joined([part_of(self.data, self.axes, box, rows) for box in boxes(*frames, counted)])


def attributes_of_line(line: zarr.Array) -> dict[str, Any]:
    """What a line along a dimension says of itself."""
    return {key: value for key, value in line.attrs.items() if key not in ("_FillValue", OF_XARRAY)}


def zarr_arrays(path: str) -> dict[str, Described]:
    """The arrays in a zarr store by their names; of one with images of OME-Zarr, theirs alone, as stacks."""
    with clear_errors(path):
        node = zarr.open(zarr_place(path), mode="r")
        if images := list(full_images(node)):
            found = {name: ZarrReader.open(path, name) for name in images}
            return {name: Described(reader.shape, reader.dtype) for name, reader in found.items()}
        members = [("", node)] if isinstance(node, zarr.Array) else node.members(max_depth=None)
        return {name: Described(array.shape, array.dtype, names_of_dims(array)) for name, array in members if isinstance(array, zarr.Array)}


def load_zarr(path: str) -> tuple[xr.Dataset, dict[str, Lacks]]:
    """A store as a lazy Dataset, and what is missing of its variables, by their names."""
    if isinstance(zarr.open(zarr_place(path), mode="r"), zarr.Array):
        raise InputError(f"expected a zarr store that detcal wrote, got a single array in {path}: open_frames opens it")
    dataset = xr.open_zarr(zarr_place(path), chunks={}, mask_and_scale=False)  # else missing_value would go, and integers become reals
    for variable in dataset.variables.values():
        variable.attrs.pop("_FillValue", None)  # xarray's, of coordinates
    for name in dataset.variables:
        if array_is_gone(path, str(name)):
            raise InputError(f"expected all of {name} in {path}, but it is not there: the store is damaged; copy or write it again")
    arrays = {str(name): ZarrArray.open(path, str(name)) for name in dataset.variables}
    lacks = {name: missing for name, array in arrays.items() if (missing := array.lacks)}
    numbers = {name: read_by_us(dataset[name].variable, array) for name, array in arrays.items() if array.dtype.kind in NUMBERS}
    coords = {name: variable for name, variable in numbers.items() if name in dataset.coords}
    return dataset.assign({name: numbers[name] for name in numbers.keys() - coords.keys()}).assign_coords(coords), lacks


def array_is_gone(path: str, name: str) -> bool:
    """Whether the folder of an array that a store knows of is lost."""
    return Path(path).is_dir() and not any(Path(path, name, kind).is_file() for kind in ("zarr.json", ".zarray"))


def read_by_us(variable: xr.Variable, array: ZarrArray) -> xr.Variable:
    """A variable of which nothing that is missing or damaged passes for a number; one that is in memory already is read again."""
    if variable.dtype.kind not in NUMBERS:  # times, which xarray makes of numbers
        if array.lacking:
            raise InputError(f"{array.path} is damaged: of the times {array.name}, chunks are not there; copy or write it again")
        return variable
    if variable.chunks is None:
        return variable.copy(data=array[...]) if array.lacking else variable
    lazy = da.from_array(array, chunks=variable.chunks, name=f"zarr-{tokenize(array)}", meta=np.empty((0,) * array.ndim, array.dtype))
    return variable.copy(data=lazy)
