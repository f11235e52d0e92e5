"""A single image (y, x) through what takes stacks of frames."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec

import dask.array as da
import numpy as np
import xarray as xr

Parameters = ParamSpec("Parameters")


def images_too(function: Callable[Parameters, xr.DataArray]) -> Callable[Parameters, xr.DataArray]:
    """A function of a stack that gives an image where it is given one: what it says of each frame is then a number beside it."""
    first = next(iter(signature(function).parameters))
    any_function: Callable[..., xr.DataArray] = function

    @wraps(any_function)
    def of_any(*arguments: Any, **options: Any) -> xr.DataArray:
        found = any_function(*arguments, **options)
        return found.isel(frame=0) if is_image(arguments[0] if arguments else options.get(first)) else found

    return of_any


def is_image(data: Any) -> bool:
    """Whether data are an array of the dimensions of an image."""
    return isinstance(data, xr.DataArray | np.ndarray | da.Array) and data.ndim == 2
