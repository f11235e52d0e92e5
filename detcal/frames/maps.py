"""Stacks of more dimensions than frames have: maps (row, column, y, x), as a raster scan gives them, through what takes (frame, y, x)."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from itertools import product
from math import prod
from typing import Any, ParamSpec, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from detcal.errors import InputError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", bound=xr.DataArray | xr.Dataset)

ROW_AND_COLUMN = "row", "column"
NUMBER = "_number"  # at the end of a coordinate of frames one after the other: which row, say, of their map each is of
DIMENSION = "map_dimension"  # its attribute: which dimension of the map that is
Sizes = tuple[int, ...]
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
        dims = default_names(len(sizes))
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
    """The first dimensions of an array as one. Blocks stay as they are if their frames follow each other; else they have one row each."""
    shape = (prod(data.shape[:lead]), *data.shape[lead:])
    if not isinstance(data, da.Array):
        return np.asarray(data).reshape(shape)
    if not follow_each_other(data.chunks[:lead]):
        return data.reshape(shape, merge_chunks=False)
    return reshaped(data, (tuple(map(prod, product(*data.chunks[:lead]))), *data.chunks[lead:]))


def follow_each_other(chunks: Sequence[Sizes]) -> bool:
    """Whether the frames of each block do: behind a dimension of which it has several places it has all of the others."""
    several = next((number for number, sizes in enumerate(chunks) if max(sizes) > 1), len(chunks))
    return all(len(sizes) == 1 for sizes in chunks[several + 1 :])


class Reshaped(MaterializedLayer):
    """Blocks in another shape, and those that they had before."""

    def __init__(self, mapping: Mapping[Any, Any], chunks: tuple[Sizes, ...]) -> None:
        super().__init__(mapping)
        self.chunks = chunks


def reshaped(data: da.Array, chunks: tuple[Sizes, ...]) -> da.Array:
    """As many blocks, in the same order, in another shape each.

    What was reshaped before, from that shape, is what it was: frames of a file, which are then read by the task that works on them.
    """
    before = data.dask.layers[data.name]
    if isinstance(before, Reshaped) and before.chunks == chunks:
        (name,) = data.dask.dependencies[data.name]
        return da.Array(up_to(data.dask, name), name, chunks, meta=np.empty((0,) * len(chunks), data.dtype))
    name = f"reshaped-{tokenize(data.name, chunks)}"
    places = product(*(range(len(sizes)) for sizes in chunks))
    blocks = zip(places, flatten(data.__dask_keys__()), product(*chunks), strict=True)
    layer = Reshaped({(name, *place): (in_shape, key, *shape) for place, key, shape in blocks}, data.chunks)
    whole = HighLevelGraph.from_collections(name, layer, dependencies=[data])  # type: ignore[list-item]
    return da.Array(whole, name, chunks, meta=np.empty((0,) * len(chunks), data.dtype))


def up_to(graph: HighLevelGraph, name: str) -> HighLevelGraph:
    """What a layer of a graph is made of: were others left in it, dask would not join the layer with what follows from it."""
    wanted, left = {}, [name]
    while left:
        layer = left.pop()
        if layer not in wanted:
            wanted[layer] = graph.layers[layer]
            left += graph.dependencies[layer]
    return HighLevelGraph(wanted, {layer: graph.dependencies[layer] for layer in wanted})


def in_shape(block: Any, *shape: int) -> Any:
    """A block in another shape."""
    return block.reshape(shape)


def as_series(given: Any, sizes: tuple[int, ...], keeps: int, name: str) -> Any:
    """What there is of each point of a map, in the order of its frames; a name, a number or a region of the frames as it is."""
    if isinstance(given, str | tuple) or np.ndim(given) == 0:
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
    """The first dimension of an array as several, without making its blocks larger: they stay as they are if they end with rows."""
    chunks = in_rows(data.chunks[0], sizes)
    if chunks is not None:
        return reshaped(data, (*chunks, *data.chunks[1:]))
    step = len(data) // sizes[0]
    return da.stack([rows_of(data[start : start + step], sizes[1:]) for start in range(0, len(data), step)])


def in_rows(lengths: Sizes, sizes: Sizes) -> tuple[Sizes, ...] | None:
    """Blocks of so many frames as those of a map: of whole rows, or all rows cut alike; None if they are neither."""
    row = prod(sizes[1:])
    if all(length % row == 0 for length in lengths):
        return (tuple(length // row for length in lengths), *((size,) for size in sizes[1:]))
    along = lengths[: len(lengths) // sizes[0]]
    if along * sizes[0] != lengths:
        return None
    inner = in_rows(along, sizes[1:])
    return None if inner is None else ((1,) * sizes[0], *inner)


# -------------------------------------------------------------------------------- maps in files, and through a chain of steps


def default_names(count: int) -> tuple[str, ...]:
    """Of the dimensions of a map that has no names for them."""
    return ROW_AND_COLUMN if count == 2 else tuple(f"scan_{number}" for number in range(count))


def cut_by_rows(depth: int, sizes: Sizes) -> Sizes:
    """The frames of a map in blocks of up to so many: of whole rows, or of parts of one."""
    row = prod(sizes[1:])
    if depth < row:
        return cut_by_rows(depth, sizes[1:]) * sizes[0]
    step, length = depth // row * row, prod(sizes)
    return (step,) * (length // step) + ((length % step,) if length % step else ())


def numbers_in_map(dims: Sequence[str], sizes: Sizes) -> dict[str, tuple[str, Any, dict[str, Any]]]:
    """Coordinates of the frames of a map, one after the other: the numbers of their rows and columns."""
    lines = np.unravel_index(np.arange(prod(sizes)), sizes)
    return {
        f"{dim}{NUMBER}": ("frame", line, {"long_name": f"number of the {dim} in its map", DIMENSION: place})
        for place, (dim, line) in enumerate(zip(dims, lines, strict=True))
    }


def frames_of_map(data: xr.DataArray) -> xr.DataArray:
    """A stack of the frames of a map, which know their rows and columns: `as_they_lie` makes a map of it, and of what is found of each.
    What is a stack already stays as it is."""
    if data.ndim < 4:
        return data
    dims, sizes, _ = layout_of(data, 2)
    series: xr.DataArray = as_stack_of_map(data, 2)
    return series.assign_coords(numbers_in_map(dims, sizes))


def as_they_lie(found: Any) -> Any:
    """What there is of frames of a map, as a map, if it is of all of them in their order; else as it is."""
    sizes = sizes_of_map(found.coords) if isinstance(found, xr.DataArray | xr.Dataset) else {}
    if not sizes:
        return found
    dims = tuple(sizes)
    whole = as_map(found, dims, tuple(sizes.values()), {}).drop_vars([f"{dim}{NUMBER}" for dim in dims])
    return whole.assign_coords({name: along_one(line, dims) for name, line in whole.coords.items()})


def sizes_of_map(lines: Mapping[Any, xr.DataArray | xr.Variable]) -> dict[str, int]:
    """The dimensions of the map of which there are all frames in their order, by what coordinates say; none, if they say nothing such."""
    numbered = sorted((each for each in lines.items() if DIMENSION in each[1].attrs), key=lambda each: int(each[1].attrs[DIMENSION]))
    if not numbered or any(line.dims != ("frame",) or not line.size for _, line in numbered):
        return {}
    sizes = {str(name).removesuffix(NUMBER): int(line.max()) + 1 for name, line in numbered}
    if prod(sizes.values()) != numbered[0][1].size:
        return {}
    every = np.unravel_index(np.arange(prod(sizes.values())), tuple(sizes.values()))
    return sizes if all(np.array_equal(line, wanted) for (_, line), wanted in zip(numbered, every, strict=True)) else {}


def along_one(line: xr.DataArray, dims: tuple[str, ...]) -> xr.Variable:
    """What is the same along all dimensions of a map but one, as a line along this one."""
    variable = line.variable
    for dim in dims if variable.dims == dims else ():
        first = variable.isel({other: 0 for other in dims if other != dim})
        if first.size > 1 and variable.equals(first.set_dims(dict(zip(dims, variable.shape, strict=True))).transpose(*dims)):
            return first
    return variable
