"""Zingers: readings that stand out from those around them, as a gamma ray makes them. ndarrays in, ndarrays out."""

import numpy as np

from detcal.frames.jit import kernel
from detcal.frames.lanes import reading
from detcal.frames.readings import Floats, Frames, Valid

DEVIATION = 1.4826  # a standard deviation of normal noise over its median absolute deviation
LEAST = np.float32(1e-5)  # of what is around a reading: no noise is taken for smaller


def replace_zingers(frames: Frames, *, valid: Valid, threshold: float, rounding: float) -> Floats:
    """Frames (frame, y, x) as float32 with the median of its eight neighbours in place of each zinger; NaN where there is no reading.

    A reading x is one if x > m + threshold·max(1.4826·d, rounding, 10⁻⁵·m), m the median of its neighbours and d that of their distances
    from m. Beyond the edge the image goes on mirrored, without its last row twice. A neighbour without a reading counts as x.
    """
    out = np.empty(frames.shape, np.float32)
    room = np.empty((frames.shape[1] + 2, frames.shape[2] + 2), np.float32)
    for frame, found in zip(frames, out, strict=True):
        put_inside(frame, valid, room)
        replace(room, np.float32(threshold), np.float32(rounding), found)
    return out


@kernel
def put_inside(frame, valid, room):  # type: ignore[no-untyped-def]
    """A frame with a mirrored edge of one pixel around it, NaN where there is no reading."""
    height, width = frame.shape
    for row in range(height):
        for column in range(width):
            room[row + 1, column + 1] = reading(frame[row, column], valid)
        room[row + 1, 0] = room[row + 1, min(2, width)]
        room[row + 1, width + 1] = room[row + 1, max(width - 1, 1)]
    room[0] = room[min(2, height)]
    room[height + 1] = room[max(height - 1, 1)]


@kernel
def ordered(a, b):  # type: ignore[no-untyped-def]
    """The smaller and the larger."""
    return (a, b) if a < b else (b, a)


@kernel
def middle(a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """The median of eight, the mean of the fourth and the fifth: Batcher's network, without the two exchanges that these do not need."""
    a, b = ordered(a, b)
    c, d = ordered(c, d)
    e, f = ordered(e, f)
    g, h = ordered(g, h)
    a, c = ordered(a, c)
    b, d = ordered(b, d)
    e, g = ordered(e, g)
    f, h = ordered(f, h)
    b, c = ordered(b, c)
    f, g = ordered(f, g)
    _, e = ordered(a, e)
    b, f = ordered(b, f)
    c, g = ordered(c, g)
    d, _ = ordered(d, h)
    c, e = ordered(c, e)
    d, f = ordered(d, f)
    d, e = ordered(d, e)
    return np.float32(0.5) * (d + e)


@kernel
def replace(room, threshold, rounding, out):  # type: ignore[no-untyped-def]
    """The frame inside `room`, without zingers."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            x = room[row + 1, column + 1]
            a, b, c = room[row, column], room[row, column + 1], room[row, column + 2]
            d, e = room[row + 1, column], room[row + 1, column + 2]
            f, g, h = room[row + 2, column], room[row + 2, column + 1], room[row + 2, column + 2]
            a, b, c, d = a if a == a else x, b if b == b else x, c if c == c else x, d if d == d else x
            e, f, g, h = e if e == e else x, f if f == f else x, g if g == g else x, h if h == h else x
            m = middle(a, b, c, d, e, f, g, h)
            spread = middle(abs(a - m), abs(b - m), abs(c - m), abs(d - m), abs(e - m), abs(f - m), abs(g - m), abs(h - m))
            noise = max(np.float32(DEVIATION) * spread, rounding, LEAST * abs(m))
            out[row, column] = m if x > m + threshold * noise else x
