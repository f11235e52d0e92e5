"""Frames side by side, pixel by pixel, each in a lane of its own (see simd): a kernel then treats sixteen at once.

A pixel that was not measured is NaN in its lane.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import inlined, kernel
from detcal.frames.readings import Floats, Frames, Valid
from detcal.frames.simd import LANES, load, load_from, measured, store, transpose
from detcal.frames.spare import reused


@kernel
def reading(value, valid):  # type: ignore[no-untyped-def]
    """A pixel's value as float32, NaN if it is no reading; what `detcal.frames.simd.measured` does for sixteen."""
    number, flag = np.float32(value), np.float32(valid.flag)
    above = number - flag
    flagged = (above >= 0) & (above <= np.float32(valid.more)) & (above == np.rint(above))
    good = (number >= np.float32(valid.least)) & (number <= np.float32(valid.most)) & (not flagged)
    return number if good else np.float32(np.nan)


@kernel
def limits_of(valid):  # type: ignore[no-untyped-def]
    """What readings are, as `measured` takes it."""
    return np.float32(valid.least), np.float32(valid.most), np.float32(valid.flag), np.float32(valid.more)


@kernel
def to_lanes(frames, valid, start, stop, lanes):  # type: ignore[no-untyped-def]
    """Pixels start … stop of frames (frame, pixel) as (pixel, lane): NaN if not measured. Lanes to spare are 0.

    Where `lanes` is (pixel,), those of the first frame alone.
    """
    if lanes.ndim == 1:
        for pixel in range(start, stop):
            lanes[pixel - start] = reading(frames[0, pixel], valid)
    else:
        tile = np.zeros((LANES, LANES), np.float32)
        for pixel in range(start, stop, LANES):
            tile_to_lanes(frames, valid, pixel, min(LANES, stop - pixel), tile, lanes, pixel - start)


@kernel
def tile_to_lanes(frames, valid, pixel, size, tile, lanes, row):  # type: ignore[no-untyped-def]
    """The same of up to LANES neighbours, to rows of `lanes`; `tile` (LANES, LANES) is 0 at first, and kept from one call to the next."""
    least, most, flag, more = limits_of(valid)
    for lane in range(len(frames)):
        if size == LANES:
            store(tile, lane, measured(load_from(frames, lane, pixel), least, most, flag, more))
        else:
            for k in range(size):
                tile[lane, k] = frames[lane, pixel + k]
            store(tile, lane, measured(load(tile, lane), least, most, flag, more))
    if size == LANES:
        transpose(tile, 0, 0, lanes, row, 0)
    else:
        for k in range(size):
            for lane in range(LANES):
                lanes[row + k, lane] = tile[lane, k]


@kernel
def from_lanes(lanes, start, stop, frames):  # type: ignore[no-untyped-def]
    """The pixels (pixel, lane), or (pixel,), back into frames (frame, pixel)."""
    if lanes.ndim == 1:
        for pixel in range(start, stop):
            frames[0, pixel] = lanes[pixel - start]
    else:
        whole = stop - (stop - start) % LANES if len(frames) == LANES else start
        for pixel in range(start, whole, LANES):
            transpose(lanes, pixel - start, 0, frames, 0, pixel)
        for pixel in range(whole, stop):
            for lane in range(len(frames)):
                frames[lane, pixel] = lanes[pixel - start, lane]


def in_order(frames: NDArray[Any]) -> NDArray[Any]:
    """Frames (frame, pixel) as kernels take them."""
    return read_only(np.ascontiguousarray(frames).reshape(len(frames), -1))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array as one that may not be written: what comes from another worker is no other, and kernels are compiled for that alone."""
    view = array.view()
    view.flags.writeable = False
    return view


def lines(rows: int) -> Floats:
    """Room for (row, lane), each row in a line of the cache of its own: one that lies in two takes twice as long."""
    line = 4 * LANES
    numbers = reused(((rows + 1) * LANES,))
    start = -numbers.ctypes.data % line // 4
    return numbers[start : start + rows * LANES].reshape(rows, LANES)


def in_groups(frames: Frames) -> Iterator[tuple[Frames, slice]]:
    """Groups of up to LANES frames (frame, pixel), and which they are."""
    flat = read_only(np.ascontiguousarray(frames).reshape(len(frames), -1))
    for start in range(0, len(flat), LANES):
        group = slice(start, min(start + LANES, len(flat)))
        yield flat[group], group


def lanes_for(frames: Frames, rows: int) -> Floats:
    """Room for a group of frames, (row, lane); for a frame alone, (row,)."""
    return np.empty((rows, LANES) if len(frames) > 1 else rows, np.float32)


@inlined
def by_lane(lanes: Floats) -> Floats:
    """A view (row, lane) of these, of a frame alone (row, 1)."""
    return lanes.reshape(len(lanes), lanes.size // len(lanes))


def all_in_lanes(frames: Frames, valid: Valid) -> Floats:
    """Frames (frame, pixel) as (pixel, lane), a frame alone as (pixel,)."""
    lanes = lanes_for(frames, frames.shape[1])
    to_lanes(frames, valid, 0, len(lanes), lanes)
    return lanes
