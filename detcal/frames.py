"""What a stack of frames and an image are: every operation takes its data through these two."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError

DIMS = ("frame", "y", "x")

# Blocks of arrays that come without chunks: large enough to hide the scheduler, small enough to hold many.
BLOCK_BYTES = 64 * 2**20


def frames_a_block(frame_bytes: int) -> int:
    """Frames of this size that make a block of about 64 MiB; at least one."""
    return max(1, BLOCK_BYTES // max(1, frame_bytes))


def as_stack(data: Any, name: str = "frames") -> xr.DataArray:
    """A stack as a DataArray (frame, y, x) over dask.

    Parameters
    ----------
    data
        DataArray, dask or numpy array, (frame, y, x) or a single frame (y, x), of integers or reals.
    name
        What to call it in an error.

    Raises
    ------
    InputError
        If it has other dimensions, no frames or no numbers.
    """
    stack = data if isinstance(data, xr.DataArray) else xr.DataArray(data, dims=default_dims(data, name))
    if stack.ndim == 2:
        stack = stack.expand_dims("frame")
    if stack.ndim != 3 or 0 in stack.shape:
        raise InputError(f"expected {name} of shape (frame, y, x), got {stack.shape}")
    if stack.dtype.kind not in "iuf":
        raise InputError(f"expected {name} of integers or reals, got {stack.dtype}")
    named = set(stack.dims) == set(DIMS)
    stack = stack.transpose(*DIMS) if named else stack.rename(dict(zip(stack.dims, DIMS, strict=True)))
    if isinstance(stack.data, da.Array):
        return stack
    blocks = (frames_a_block(stack[0].nbytes), -1, -1)
    return stack.copy(data=da.from_array(stack.values, chunks=blocks, name=False))  # hashing the values would take longer than using them


def default_dims(data: Any, name: str) -> tuple[str, ...]:
    """Names for the dimensions of an array that has none."""
    if np.ndim(data) not in (2, 3):
        raise InputError(f"expected {name} of shape (frame, y, x), got {np.shape(data)}")
    return DIMS[-np.ndim(data) :]


def whole_frames(stack: xr.DataArray) -> da.Array:
    """The stack's blocks with y and x in one chunk each, for operations that look at whole frames."""
    return stack.data.rechunk({1: -1, 2: -1})


def as_image(data: Any, shape: tuple[int, int], name: str) -> da.Array:
    """An image (y, x) as float32 in one dask chunk; a stack (frame, y, x) is averaged over its frames.

    Raises
    ------
    InputError
        If its shape is not `shape`.
    """
    stack = whole_frames(as_stack(data, name))
    if stack.shape[1:] != tuple(shape):
        raise InputError(f"expected {name} of shape {tuple(shape)} (y, x), as the frames, got {stack.shape[1:]}")
    if len(stack) == 1:
        return stack[0].astype(np.float32)
    return stack.mean(axis=0, dtype=np.float64).astype(np.float32)
