"""Stacks of more dimensions than frames have: maps (row, column, y, x), as a raster scan gives them, through what takes (frame, y, x)."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from math import prod
from typing import Any, ParamSpec, TypeVar

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", bound=xr.DataArray | xr.Dataset)

STACK = 3  # dimensions
AS_FRAMES = ("variance", "darks")  # options that have a value for each of the frames' values
AS_FACTORS = ("normalization",)  # options that have a number for each frame


def over_maps(keeps: int = 2) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A function of a stack takes maps too, and gives its results as maps: `keeps` is how many dimensions are those of a frame, or of a
    profile, and not of the map."""

    def wrapper(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        first = next(iter(signature(function).parameters))
        any_function: Callable[..., Any] = function

        @wraps(any_function)
        def of_any(*arguments: Any, **options: Any) -> Any:
            data = arguments[0] if arguments else options.get(first)
            if not is_map(data, keeps):
                return any_function(*arguments, **options)
            dims, sizes, coords = layout_of(data, keeps)
            options.pop(first, None)
            for name in AS_FRAMES + AS_FACTORS:
                if options.get(name) is not None and (name != "darks" or is_map(options[name], keeps)):  # darks of groups are a stack
                    options[name] = as_series(options[name], sizes, keeps if name in AS_FRAMES else 0, name)
            return as_map(any_function(as_stack_of_map(data, keeps), *arguments[1:], **options), dims, sizes, coords)

        return of_any

    return wrapper


def is_map(data: Any, keeps: int) -> bool:
    """Whether data have more dimensions than a stack."""
    if isinstance(data, xr.DataArray) and keeps == 1:
        return data.ndim > keeps + 1 and "azimuthal" not in data.dims
    return np.ndim(data) > keeps + 1 if isinstance(data, xr.DataArray | np.ndarray | da.Array) else False


def layout_of(data: Any, keeps: int) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, xr.DataArray]]:
    """The dimensions of a map, their sizes, and the coordinates that say where its points lie.

    Raises
    ------
    InputError
        No points.
    """
    if not isinstance(data, xr.DataArray):
        sizes = tuple(data.shape[: data.ndim - keeps])
        dims = ("row", "column") if len(sizes) == 2 else tuple(f"scan_{number}" for number in range(len(sizes)))
        coords: dict[str, xr.DataArray] = {}
    else:
        dims = map_dims(data, keeps)
        sizes = tuple(data.sizes[dim] for dim in dims)
        coords = {str(name): line for name, line in data.coords.items() if set(line.dims) <= set(dims)}
    if 0 in sizes:
        raise InputError(f"expected a map of frames, got {dict(zip(dims, sizes, strict=True))}: it has none")
    return dims, sizes, coords


def map_dims(data: xr.DataArray, keeps: int) -> tuple[str, ...]:
    """The dimensions of a map: those that are no frame's, or no profile's."""
    dims = tuple(map(str, data.dims))
    own = {2: {"y", "x"}, 1: {"radial"}}[keeps]
    return tuple(dim for dim in dims if dim not in own) if own <= {*dims} else dims[: len(dims) - keeps]


def as_stack_of_map(data: Any, keeps: int) -> Any:
    """A map as a stack: its points one after the other, rows first; what is known of each of them becomes a coordinate of the frames."""
    if not isinstance(data, xr.DataArray):
        return in_series(data, data.ndim - keeps)
    dims = map_dims(data, keeps)
    rest = tuple(dim for dim in data.dims if dim not in dims)
    ordered = data.transpose(*dims, *rest)
    points = xr.DataArray(np.empty([data.sizes[dim] for dim in dims], np.bool_), dims=dims)
    series = {
        name: ("frame", line.variable.set_dims(points.sizes).transpose(*dims).values.ravel(), line.attrs)
        for name, line in data.coords.items()
        if line.dims and set(line.dims) <= set(dims) and name != "frame"
    }
    kept = {name: line for name, line in data.coords.items() if set(line.dims) <= set(rest)}
    return xr.DataArray(in_series(ordered.data, len(dims)), {**kept, **series}, ("frame", *rest), data.name, data.attrs)


def in_series(data: Any, lead: int) -> Any:
    """The first dimensions of an array as one. Blocks do not grow: they have one row each."""
    shape = (prod(data.shape[:lead]), *data.shape[lead:])
    return data.reshape(shape, merge_chunks=False) if isinstance(data, da.Array) else np.asarray(data).reshape(shape)


def as_series(given: Any, sizes: tuple[int, ...], keeps: int, name: str) -> Any:
    """What there is of each point of a map, in the order of its frames; a name or a number as it is."""
    if isinstance(given, str) or np.ndim(given) == 0:
        return given
    array = given.data if isinstance(given, xr.DataArray) else given if isinstance(given, da.Array) else np.asarray(given)
    lead = array.ndim - keeps
    if tuple(array.shape[:lead]) != sizes:
        raise InputError(f"expected {name} of the map's shape {sizes}, as the frames, got {tuple(array.shape)}")
    found = in_series(array, lead)
    if not isinstance(given, xr.DataArray):
        return found
    dims = ("frame", *given.dims[lead:])
    return xr.DataArray(found, dims=dims, attrs=given.attrs)


def as_map(found: Result, dims: tuple[str, ...], sizes: tuple[int, ...], coords: dict[str, xr.DataArray]) -> Result:
    """A result of a series of frames as one of a map."""
    if isinstance(found, xr.Dataset):
        arrays = {str(name): (*unfolded(variable, dims, sizes), variable.attrs) for name, variable in found.items()}
        return xr.Dataset(arrays, lines_of(found, dims, sizes, coords), found.attrs)  # type: ignore[return-value]
    names, data = unfolded(found, dims, sizes)
    return xr.DataArray(data, lines_of(found, dims, sizes, coords), names, found.name, found.attrs)  # type: ignore[return-value]


def lines_of(found: Any, dims: tuple[str, ...], sizes: tuple[int, ...], coords: dict[str, xr.DataArray]) -> dict[str, Any]:
    """The coordinates of a result: those of the map, and others, of frames in its shape."""
    return {
        **{str(name): (*unfolded(line, dims, sizes), line.attrs) for name, line in found.coords.items() if name not in coords},
        **{name: line.variable for name, line in coords.items()},
    }


def unfolded(variable: xr.DataArray, dims: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[tuple[str, ...], Any]:
    """The dimensions and values of a variable with the map's dimensions in place of frames, which come first; blocks as they are."""
    names = tuple(map(str, variable.dims))
    if "frame" not in names:
        return names, variable.data
    data = variable.data
    if not isinstance(data, da.Array):
        return (*dims, *names[1:]), np.asarray(data).reshape((*sizes, *data.shape[1:]))
    return (*dims, *names[1:]), rows_of(data, sizes)


def rows_of(data: da.Array, sizes: tuple[int, ...]) -> da.Array:
    """The first dimension of an array as several, without making its blocks larger."""
    if len(sizes) == 1:
        return data
    step = len(data) // sizes[0]
    return da.stack([rows_of(data[start : start + step], sizes[1:]) for start in range(0, len(data), step)])
