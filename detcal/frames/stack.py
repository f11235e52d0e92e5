"""What a stack of frames and an image are: every operation takes its data through here."""

from math import ceil
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.averages import Average, average_frames
from detcal.frames.flags import Dummy
from detcal.frames.graph import count_threads, map_frames
from detcal.frames.readings import readings
from detcal.frames.simd import LANES
from detcal.frames.valid import check_nothing_lacks, find_readings

DIMS = ("frame", "y", "x")

# Blocks of arrays that come without chunks: large enough to hide the scheduler, small enough to hold many.
BLOCK_BYTES = 32 * 2**20
SHARED_BYTES = 128 * 2**20  # of those of a stack that lies in memory, which take no more of it


def frames_a_block(frame_bytes: int) -> int:
    """Frames of this size that make a block of about 32 MiB; at least one."""
    return max(1, BLOCK_BYTES // max(1, frame_bytes))


def frames_a_thread(stack: xr.DataArray) -> int:
    """Frames that make a block of a stack that lies in memory: as many for each thread, up to full SIMD lanes or about 128 MiB."""
    most = min(LANES, max(1, SHARED_BYTES // max(1, stack[0].nbytes)))
    return min(most, ceil(len(stack) / count_threads()))


def as_stack(data: Any, name: str = "frames", *, shared_out: bool = False) -> xr.DataArray:
    """A stack as a DataArray (frame, y, x) over dask.

    Parameters
    ----------
    data
        DataArray, dask or numpy array, (frame, y, x) or a single frame (y, x), of integers or reals of up to 64 bits.
    name
        What to call it in an error.
    shared_out
        Whether arrays without chunks are cut so that all threads have some: what depends on blocks then depends on threads.

    Raises
    ------
    InputError
        If it has other dimensions, no frames or no numbers.
    """
    stack = data if isinstance(data, xr.DataArray) else xr.DataArray(data, dims=default_dims(data, name))
    if stack.ndim == 2:
        stack = stack.expand_dims("frame")
    if stack.ndim != 3 or 0 in stack.shape:
        raise InputError(f"expected {name} of shape (frame, y, x), got {stack.shape}{of_map(stack.shape)}")
    if stack.dtype.kind not in "iuf" or stack.dtype.itemsize > 8:
        raise InputError(f"expected {name} of integers or reals, got {stack.dtype}: give one of up to 64 bits")
    if set(stack.dims) == set(DIMS):
        stack = stack.transpose(*DIMS)
    else:
        stack = xr.DataArray(stack.data, dims=DIMS, name=stack.name, attrs=stack.attrs)
    if not isinstance(stack.data, da.Array):
        # hashing the values, for a name, would take longer than using them
        blocks = frames_a_thread(stack) if shared_out else frames_a_block(stack[0].nbytes)
        stack = stack.copy(data=da.from_array(stack.values, chunks=(blocks, -1, -1), name=False))
    return stack.astype(native(stack.dtype), copy=False)


def as_stack_of(shape: tuple[int, int], owner: str, data: Any, name: str = "frames", *, shared_out: bool = False) -> xr.DataArray:
    """As `as_stack`, of frames that have the shape of a calibration.

    Raises
    ------
    InputError
        As `as_stack`, or if they have another shape.
    """
    stack = as_stack(data, name, shared_out=shared_out)
    if stack.shape[1:] != tuple(shape):
        turned = ": rows and columns are exchanged, transpose them" if stack.shape[:0:-1] == tuple(shape) else ""
        raise InputError(f"expected {name} of shape {tuple(shape)} (y, x), as the {owner}, got {stack.shape[1:]}{turned}")
    return stack


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type as kernels are compiled for: in this machine's byte order, and neither half-precision nor long reals."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def default_dims(data: Any, name: str) -> tuple[str, ...]:
    """Names for the dimensions of an array that has none."""
    if np.ndim(data) not in (2, 3):
        raise InputError(f"expected {name} of shape (frame, y, x), got {np.shape(data)}{of_map(np.shape(data))}")
    return DIMS[-np.ndim(data) :]


def of_map(shape: tuple[int, ...]) -> str:
    """How a map becomes a stack, for an error; nothing for what is none."""
    if len(shape) < 4:
        return ""
    return f': a map, whose frames one after the other are data.reshape(-1, {shape[-2]}, {shape[-1]}), or open_frames(..., frames=":")'


def as_image(
    data: Any,
    shape: tuple[int, int],
    name: str,
    *,
    dummy: float | None = None,
    detector: Dummy | None = None,
    largest_is_flag: bool = True,
    saturation: float | None = None,
    average: Average = "clipped",
) -> da.Array:
    """An image (y, x) as float32 in one dask chunk; of a stack (frame, y, x) the average of the readings. NaN where there is none.

    Parameters
    ----------
    data, name
        As for `as_stack`.
    shape
        It has to have.
    dummy, detector, largest_is_flag
        As for `find_readings`.
    saturation
        Numbers from this on are no readings.
    average
        Of the readings of a stack, see `detcal.frames.averages`.

    Raises
    ------
    InputError
        If its shape is not `shape`, if the file that it was opened from lacks a part of it, and as `find_readings`.
    """
    check_nothing_lacks(data, name)
    found = as_stack(data, name)
    if found.shape[1:] != tuple(shape):
        raise InputError(f"expected {name} of shape {tuple(shape)} (y, x), as the frames, got {found.shape[1:]}")
    found, valid = find_readings(found, dummy=dummy, detector=detector, largest_is_flag=largest_is_flag, beside=True)
    if saturation is not None:
        valid = valid.below(saturation)
    if len(found) == 1:
        return map_frames(readings, found, {"valid": valid}).data[0]
    return average_frames(found, valid, average)
