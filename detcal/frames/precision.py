"""Frames that are to be stored with a stated fraction of their noise as precision, since random mantissas do not compress."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.graph import map_frames
from detcal.frames.maps import over_maps
from detcal.frames.rounding import CELL, round_to_noise
from detcal.frames.stack import DIMS, frames_a_block

ROUNDED = (
    f"multiples of a power of two, at most precision times the standard deviation of the noise around, in cells of {CELL} x {CELL} pixels, "
    "and of that of photons"
)


def with_precision(result: Any, precision: float | None) -> Any:
    """A result whose frames are rounded to a fraction of their noise, lazily; attributes say so. None: as it is.

    Each block is rounded by itself: the same blocks give the same bits, others may give steps that differ by a factor of two.

    Raises
    ------
    InputError
        A precision that is no fraction; a result without frames of float32.
    """
    if precision is None:
        return result
    check_precision(precision)
    if isinstance(result, xr.Dataset) and "detcal_type" not in result.attrs:
        frames = {name: rounded(variable, precision) for name, variable in result.items() if is_rounded(variable)}
        if frames:
            return result.assign(frames)
    elif isinstance(result, xr.DataArray) and is_rounded(result):
        return rounded(result, precision)
    raise InputError(
        f"precision is that of frames, float32 (frame, y, x), or of a map of them, and the result is {kind_of(result)}: leave precision out"
    )


def check_precision(precision: float) -> None:
    """Refuse what is no fraction of the noise.

    Raises
    ------
    InputError
        With what was given.
    """
    if isinstance(precision, bool | str) or not 0 < precision <= 1:
        raise InputError(f"expected precision above 0 and up to 1, as a fraction of the noise (0.125: an eighth), got {precision!r}")


def is_rounded(variable: xr.DataArray) -> bool:
    """Whether a variable holds frames that can be rounded: a stack, or a map of them."""
    dims = set(variable.dims)
    return variable.dtype == np.float32 and (dims == set(DIMS) or (variable.ndim > len(DIMS) and set(DIMS[1:]) < dims))


def kind_of(result: Any) -> str:
    """What a result is, in words."""
    if isinstance(result, xr.Dataset):
        return "of " + ", ".join(f"{name} {kind_of(variable)}" for name, variable in result.items())
    return f"{result.dtype} ({', '.join(map(str, result.dims))})" if isinstance(result, xr.DataArray) else f"a {type(result).__name__}"


def rounded(frames: xr.DataArray, precision: float) -> xr.DataArray:
    """Frames, or a map of them, rounded block by block."""
    return rounded_stack(frames.transpose(..., *DIMS[1:]), precision).transpose(*frames.dims)


@over_maps()
def rounded_stack(stack: xr.DataArray, precision: float) -> xr.DataArray:
    """The same of frames one after the other."""
    if not isinstance(stack.data, da.Array):
        stack = stack.chunk({"frame": frames_a_block(stack[:1].nbytes)})
    attrs = {**stack.attrs, "precision": float(precision), "rounded_to": ROUNDED}
    return map_frames(round_block, stack, {"precision": float(precision)}, whole=False, name=stack.name, attrs=attrs)


def round_block(block: NDArray[np.float32], precision: float) -> NDArray[np.float32]:
    """A new block: the one that is rounded may be somebody's data."""
    found: NDArray[np.float32] = round_to_noise(np.ascontiguousarray(block), precision)
    return found
