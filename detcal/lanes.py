"""Frames side by side, pixel by pixel, each in a lane of its own (see simd): a kernel then treats sixteen at once.

A pixel that was not measured is NaN in its lane.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.jit import kernel
from detcal.simd import LANES, load, load_from, measured, store, transpose

Frames = NDArray[np.generic]
Floats = NDArray[np.float32]


class Valid(NamedTuple):
    """What counts as measured: numbers that are not below `least`, not `dummy` (NaN: there is none), and not beyond ±`most`."""

    least: float
    dummy: float
    most: float = float(np.finfo(np.float32).max)

    @classmethod
    def of(cls, dtype: np.dtype[Any], dummy: float | None) -> "Valid":
        """For frames of a type: counts below 0 are no counts, nor is the largest number of an unsigned type of 16 bits or more, with
        which Dectris detectors mark dead pixels, if there is no dummy in its place."""
        if dummy is not None and not isinstance(dummy, float | int | np.number):
            raise InputError(f"expected a dummy that is a number, got {dummy!r}")
        if dtype.kind not in "iu":
            return cls(-np.inf, np.nan if dummy is None else float(dummy))
        limits = np.iinfo(dtype)
        if dummy is None:
            return cls(0.0, float(limits.max) if dtype.kind == "u" and dtype.itemsize > 1 else np.nan)
        if not (limits.min <= dummy <= limits.max and float(dummy).is_integer()):
            raise InputError(f"expected a dummy that {dtype} frames can hold, from {limits.min} to {limits.max}, got {dummy}")
        return cls(0.0, float(dummy))


ALL_NUMBERS = Valid(-np.inf, np.nan)


@kernel
def to_lanes(frames, valid, start, stop, lanes):  # type: ignore[no-untyped-def]
    """Pixels start … stop of frames (frame, pixel) as (pixel, lane): NaN if not measured. Lanes to spare are 0."""
    tile = np.zeros((LANES, LANES), np.float32)
    for pixel in range(start, stop, LANES):
        tile_to_lanes(frames, valid, pixel, min(LANES, stop - pixel), tile, lanes, pixel - start)


@kernel
def tile_to_lanes(frames, valid, pixel, size, tile, lanes, row):  # type: ignore[no-untyped-def]
    """The same of up to LANES neighbours, to rows of `lanes`; `tile` (LANES, LANES) is 0 at first, and kept from one call to the next."""
    least, dummy, most = np.float32(valid.least), np.float32(valid.dummy), np.float32(valid.most)
    for lane in range(len(frames)):
        if size == LANES:
            store(tile, lane, measured(load_from(frames, lane, pixel), least, dummy, most))
        else:
            for k in range(size):
                tile[lane, k] = frames[lane, pixel + k]
            store(tile, lane, measured(load(tile, lane), least, dummy, most))
    if size == LANES:
        transpose(tile, 0, 0, lanes, row, 0)
    else:
        lanes[row : row + size] = tile[:, :size].T


@kernel
def from_lanes(lanes, start, stop, frames):  # type: ignore[no-untyped-def]
    """The pixels (pixel, lane) back into frames (frame, pixel)."""
    whole = stop - (stop - start) % LANES if len(frames) == LANES else start
    for pixel in range(start, whole, LANES):
        transpose(lanes, pixel - start, 0, frames, 0, pixel)
    for pixel in range(whole, stop):
        for lane in range(len(frames)):
            frames[lane, pixel] = lanes[pixel - start, lane]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array as one that may not be written: what comes from another worker is no other, and kernels are compiled for that alone."""
    view = array.view()
    view.flags.writeable = False
    return view


def lines(rows: int) -> Floats:
    """Room for (row, lane), each row in a line of the cache of its own: one that lies in two takes twice as long."""
    line = 4 * LANES
    numbers = np.empty((rows + 1) * LANES, np.float32)
    start = -numbers.ctypes.data % line // 4
    return numbers[start : start + rows * LANES].reshape(rows, LANES)


def in_groups(frames: Frames) -> Iterator[tuple[Frames, slice]]:
    """Groups of up to LANES frames (frame, pixel), and which they are."""
    flat = read_only(np.ascontiguousarray(frames).reshape(len(frames), -1))
    for start in range(0, len(flat), LANES):
        group = slice(start, min(start + LANES, len(flat)))
        yield flat[group], group


def all_in_lanes(frames: Frames, valid: Valid) -> Floats:
    """Frames (frame, pixel) as (pixel, lane)."""
    lanes = np.empty((frames.shape[1], LANES), np.float32)
    to_lanes(frames, valid, 0, len(lanes), lanes)
    return lanes
