"""Zingers: readings that stand out from those around them, or before and after, as a gamma ray makes them. ndarrays in, ndarrays out."""

import numpy as np

from detcal.frames.jit import kernel
from detcal.frames.lanes import reading
from detcal.frames.readings import Floats, Frames, Valid

DEVIATION = 1.4826  # a standard deviation of normal noise over its median absolute deviation
LEAST = np.float32(1e-5)  # of what is around a reading: no noise is taken for smaller
NEXT, APART = 1, 2  # pixels to the eight that one is compared with


def replace_zingers(frames: Frames, *, valid: Valid, threshold: float) -> Floats:
    """Frames (frame, y, x) as float32 with the median of its eight neighbours in place of each zinger; NaN where there is no reading.

    A reading x is one if x > m + threshold·max(1.4826·d, least), m the median of its neighbours and d that of their distances from m; least
    is 1 if x is a whole number, as counts are, of which neighbours may be alike by chance, and else 10⁻⁵·m. Beyond the edge the image goes
    on mirrored, without its last row twice. A neighbour without a reading counts as x.
    """
    out = np.empty(frames.shape, np.float32)
    room, nothing = room_around(frames, NEXT), np.zeros(frames.shape[1:], np.float32)
    for frame, found in zip(frames, out, strict=True):
        put_inside(frame, valid, found, room)
        replace(room, NEXT, nothing, np.float32(threshold), found)
    return out


def replace_zingers_in_time(frames: Frames, before: Frames, after: Frames, *, valid: Valid, threshold: float) -> Floats:
    """As `replace_zingers`, by what the pixel itself read one frame before and one frame after.

    In place of readings, what each has more than the larger of these two is compared with what eight others have more: an edge that passes
    a pixel lies between the two. These are two pixels away, where a zinger of up to 4 × 4 pixels leaves most of them alone. It becomes the
    larger one and the median m of what others have more; least is 1 for whole numbers, and else 10⁻⁵ of that. Where one of the two was not
    measured the other serves; where both were not, a reading stays.

    Parameters
    ----------
    frames : (frame, y, x)
        That follow each other.
    before, after : (1, y, x)
        The frame before the first of them, and the one after the last.
    """
    out = np.empty(frames.shape, np.float32)
    room = room_around(frames, APART)
    beside = np.empty(frames.shape[1:], np.float32)
    for frame, earlier, later, found in zip(frames, [*before, *frames[:-1]], [*frames[1:], *after], out, strict=True):
        put_more_inside(frame, earlier, later, valid, found, beside, room)
        replace(room, APART, beside, np.float32(threshold), found)
    return out


def room_around(frames: Frames, reach: int) -> Floats:
    """For a frame with an edge of so many pixels."""
    return np.empty((frames.shape[1] + 2 * reach, frames.shape[2] + 2 * reach), np.float32)


@kernel
def put_inside(frame, valid, out, room):  # type: ignore[no-untyped-def]
    """Put the readings of a frame in `out`, NaN where there is none, and in `room` with a mirrored edge."""
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            out[row, column] = room[row + NEXT, column + NEXT] = reading(frame[row, column], valid)
    mirror_edges(room, NEXT)


@kernel
def put_more_inside(frame, before, after, valid, out, beside, room):  # type: ignore[no-untyped-def]
    """As `put_inside`, in `room` what each reading has more than the larger one before and after it, which is put in `beside`."""
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            earlier, later = reading(before[row, column], valid), reading(after[row, column], valid)
            larger = later if later > earlier or earlier != earlier else earlier
            here = reading(frame[row, column], valid)
            out[row, column], beside[row, column] = here, larger
            room[row + APART, column + APART] = here - larger
    mirror_edges(room, APART)


@kernel
def mirror_edges(room, reach):  # type: ignore[no-untyped-def]
    """Fill an edge of so many pixels; of an image that is narrower, by its last pixels."""
    last_row, last_column = room.shape[0] - reach - 1, room.shape[1] - reach - 1
    for k in range(1, reach + 1):
        for row in range(reach, last_row + 1):
            room[row, reach - k] = room[row, min(reach + k, last_column)]
            room[row, last_column + k] = room[row, max(last_column - k, reach)]
    for k in range(1, reach + 1):
        for column in range(room.shape[1]):
            room[reach - k, column] = room[min(reach + k, last_row), column]
            room[last_row + k, column] = room[max(last_row - k, reach), column]


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
def replace(room, reach, beside, threshold, out):  # type: ignore[no-untyped-def]
    """Put what is `beside`, and the median of the eight pixels around in `room`, in place of what stands out there."""
    for row in range(out.shape[0]):
        up, here, low = room[row], room[row + reach], room[row + 2 * reach]
        up_middle, here_middle, low_middle = up[reach:], here[reach:], low[reach:]
        up_right, here_right, low_right = up_middle[reach:], here_middle[reach:], low_middle[reach:]
        for column in range(out.shape[1]):
            x = here_middle[column]
            a, b, c = up[column], up_middle[column], up_right[column]
            d, e = here[column], here_right[column]
            f, g, h = low[column], low_middle[column], low_right[column]
            a, b, c, d = a if a == a else x, b if b == b else x, c if c == c else x, d if d == d else x
            e, f, g, h = e if e == e else x, f if f == f else x, g if g == g else x, h if h == h else x
            m = middle(a, b, c, d, e, f, g, h)
            spread = middle(abs(a - m), abs(b - m), abs(c - m), abs(d - m), abs(e - m), abs(f - m), abs(g - m), abs(h - m))
            reading, instead = out[row, column], beside[row, column] + m
            least = np.float32(1) if reading == np.rint(reading) else LEAST * abs(instead)
            out[row, column] = instead if x > m + threshold * max(np.float32(DEVIATION) * spread, least) else reading
