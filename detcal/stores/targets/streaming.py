"""Numbers of a finished store, read in the chunks that they are stored in."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import xarray as xr
from numpy.typing import NDArray


def blocks(variable: xr.DataArray) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """The chunks in which a variable is stored, one in memory at a time."""
    sizes = [variable.encoding["preferred_chunks"][dim] for dim in variable.dims]
    for corner in product(*(range(0, length, size) for length, size in zip(variable.shape, sizes, strict=True))):
        place = tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True))
        yield place, variable[place].values


def frames(variable: xr.DataArray) -> Iterator[NDArray[Any]]:
    """The images of a stack, or the only one, read in the chunks that they are stored in."""
    if variable.ndim == 2:
        yield variable.values
        return
    size = variable.encoding["preferred_chunks"][variable.dims[0]]
    for start in range(0, len(variable), size):
        yield from variable[start : start + size].values
