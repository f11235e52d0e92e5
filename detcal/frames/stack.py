"""What a stack of frames and an image are: every operation takes its data through here."""

from math import ceil
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.averages import Average, average_frames
from detcal.frames.flags import Dummy
from detcal.frames.graph import count_threads, map_frames
from detcal.frames.helping import together
from detcal.frames.readings import readings
from detcal.frames.simd import LANES
from detcal.frames.spare import reused
from detcal.frames.valid import check_nothing_lacks, find_readings

DIMS = ("frame", "y", "x")

# Blocks of arrays that come without chunks: large enough to hide the scheduler, small enough to hold many.
BLOCK_BYTES = 32 * 2**20
SHARED_BYTES = 128 * 2**20  # of those of a stack that lies in memory, which take no more of it
THREADED_BYTES = 8 * 2**20  # of a copy that is shared out to threads
PIECES_A_THREAD = 4  # of it, so that one that is held up copies fewer


def frames_a_block(frame_bytes: int) -> int:
    """Frames of this size that make a block of about 32 MiB; at least one."""
    return max(1, BLOCK_BYTES // max(1, frame_bytes))


def frames_a_thread(length: int, frame_bytes: int) -> int:
    """Frames that make a block of a stack that lies in memory: up to full SIMD lanes or about 128 MiB, as many blocks for each thread."""
    most, threads = min(LANES, max(1, SHARED_BYTES // max(1, frame_bytes))), count_threads()
    turns = ceil(length / (most * threads))
    return ceil(length / (turns * threads))


def threads_a_block(stack: xr.DataArray, given: Any) -> int:
    """How many threads may work on each block of a stack that lay in memory as it was given: those that have no block of their own.

    Blocks of a stack that was lazy have one each: a run's plan counts with that, and with what more of them would hold.
    """
    if isinstance(getattr(given, "data", given), da.Array):
        return 1
    return max(1, min(count_threads(), CPU_COUNT) // stack.data.numblocks[0])


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
    kind = native(stack.dtype)
    if isinstance(stack.data, da.Array):
        return stack if stack.dtype == kind else stack.astype(kind)
    frame_bytes = stack.nbytes // len(stack)
    blocks = frames_a_thread(len(stack), frame_bytes) if shared_out else frames_a_block(frame_bytes)
    return stack.copy(data=in_blocks(copied(stack.values, kind), blocks))


def copied(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """What an array holds now, whatever is written to it until the copy is used."""
    copy = reused(values.shape, dtype)
    if copy.nbytes < THREADED_BYTES:
        np.copyto(copy, values)
        return copy
    threads = min(count_threads(), CPU_COUNT)
    along, parts = int(len(values) < threads), PIECES_A_THREAD * threads
    pieces = iter([*zip(np.array_split(copy, parts, along), np.array_split(values, parts, along), strict=True)])

    def take() -> None:
        for target, source in pieces:
            np.copyto(target, source)

    together(take, threads)
    return copy


def in_blocks(values: NDArray[Any], frames: int) -> da.Array:
    """An array that no one else has as blocks of so many frames: `dask.array.from_array` would copy it once more, in one thread."""
    name, starts = f"frames-{uuid4()}", range(0, len(values), frames)
    blocks = {(name, number, 0, 0): values[start : start + frames] for number, start in enumerate(starts)}
    lengths = tuple(map(len, blocks.values()))
    return da.Array(blocks, name, (lengths, *((size,) for size in values.shape[1:])), meta=np.empty((0, 0, 0), values.dtype))


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
