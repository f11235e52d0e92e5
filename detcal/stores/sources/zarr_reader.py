"""Stacks in zarr stores."""

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
from detcal.stores.absence import Lacks
from detcal.stores.sources.readers import Block, Coords, Described, check_ndim, clear_errors, recorded_as, stack_shape
from detcal.stores.sources.zarr_data import NUMBERS, ZarrArray
from detcal.stores.sources.zarr_zip import zarr_place


@dataclass(frozen=True)
class ZarrReader:
    """An array of a zarr store, a zipped one too; a 2-D one is a stack of one frame."""

    path: str
    array: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_frames: int
    chunk_rows: int
    data: ZarrArray

    @classmethod
    def open(cls, path: str, name: str) -> "ZarrReader":
        data = ZarrArray.open(path, name)
        check_ndim(data.shape, f"{path}::{name}")
        shape = stack_shape(data.shape)
        frames, rows = data.chunks[:2] if data.ndim == 3 else (1, shape[1])
        return cls(path, name, shape, data.dtype, frames, min(rows, shape[1]), data)

    @property
    def version(self) -> str:
        return self.data.version

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.data.lacks
        return lacks.as_one() if lacks and self.data.ndim == 2 else lacks

    def coords(self) -> Coords:
        """The lines beside the array that lie along one of its named dimensions."""
        parent, _, own = self.array.rpartition("/")
        if not own:
            return {}
        with clear_errors(self.path):
            members = dict(zarr.open_group(zarr_place(self.path), path=parent, mode="r").arrays())
            dims = dimension_names(members[own])
            return {
                name: (DIMS[place], self.line(parent, name), {key: value for key, value in line.attrs.items() if key != "_FillValue"})
                for name, line in members.items()
                for place, dim in enumerate(dims, 3 - len(dims))
                if dimension_names(line) == (dim,) and line.shape == (self.shape[place],)
            }

    def line(self, parent: str, name: str) -> np.ndarray[Any, Any]:
        """The values along one dimension."""
        return ZarrArray.open(self.path, f"{parent}/{name}".lstrip("/"))[...]

    def attrs(self) -> dict[str, Any]:
        with clear_errors(self.path):
            array = zarr.open_array(zarr_place(self.path), path=self.array, mode="r")
            return dict(array.attrs) | recorded_as(array.dtype, self.dtype)

    def files(self, start: int, stop: int) -> list[str]:
        return [self.path, *self.data.metadata_files()]

    def read(self, start: int, stop: int) -> Block:
        return self.read_rows((start, stop), (0, self.shape[1]))

    def read_rows(self, frames: tuple[int, int], rows: tuple[int, int]) -> Block:
        """Some rows of some frames."""
        place = slice(*frames), slice(*rows)
        return self.data[place] if self.data.ndim == 3 else self.data[place[1]][None][place[0]]


def dimension_names(array: zarr.Array) -> tuple[str, ...]:
    """The names of an array's dimensions, of which the third version of the format knows."""
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def zarr_arrays(path: str) -> dict[str, Described]:
    """Names, shapes and types of the arrays in a zarr store."""
    with clear_errors(path):
        node = zarr.open(zarr_place(path), mode="r")
        members = [("", node)] if isinstance(node, zarr.Array) else node.members(max_depth=None)
        return {name: (array.shape, array.dtype) for name, array in members if isinstance(array, zarr.Array)}


def load_zarr(path: str) -> tuple[xr.Dataset, dict[str, Lacks]]:
    """A store as a lazy Dataset, and what is missing of its variables, by their names."""
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
