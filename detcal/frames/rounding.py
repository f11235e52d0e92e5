"""Numbers rounded to a fraction of their noise, so that they compress. ndarrays in, ndarrays out.

The noise is estimated from second differences along x, along y and along the frames of a block, as for compressed images of astronomers
(Pence, Seaman and White 2009, PASP 121, 414, who also take the smallest of several estimates). It must never be too large, and may be too
small, which costs a bit of each number. In halves of cells of 8 × 8 pixels the mean of fourth roots of the differences is taken, which a
few large ones, of an edge, hardly change. The smallest counts: of the three directions, since a structure that stands still is not seen
along the frames; of the halves; and of a cell and its eight neighbours, one of which has least to do with an edge.

A pixel of a thin dark wire has less noise than those around it, and no cell has its noise alone. But the variance of photon noise is
proportional to the signal, and that of other noise falls more slowly. So the smallest ratio of variance to size of numbers, in those cells,
times the size of a number and half a count, is no more than this number's variance; where that is less than the estimate, it counts. A
number of few counts may be larger than its mean by as much as its noise is then overestimated: of 3 counts by up to a half.
"""

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import exact_kernel

CELL = 8  # pixels along x and along y
EVERY = 2  # of its rows is looked at
HALF = CELL // 2  # pixels along x, of which a mean is taken
LEAST_PIXELS = CELL * HALF // EVERY // 2  # of half a cell, whose noise is known

# Non-negative float32, seen as integers, are nearly linear in their logarithm: these make fourth roots of them, up to 6 % too large.
INFINITE = np.int32(0x7F800000)  # and the bits of the exponent
ROOT_SHIFT, ROOT_BITS = np.int32(2), np.int32(0x2FA00000)
UNKNOWN = np.float32(np.inf)

# The fourth power of the mean of these roots of second differences, of noise of standard deviation 1: 1.62 to 1.72, depending on its unit.
DIFFERENCE = 1.72
BELOW = 2.0**-0.5  # of a cell's variance: where a number's own is more, that of the cell counts, as most numbers are near their mean
DARKEST = 0.5 / DIFFERENCE**2  # counts that a number has at least, by the ratio of variance and size
SIZES = 3  # place of the sizes of numbers, behind those of differences in three directions
ONE = np.int32(0x3F800000)  # the bits of 1: half of their sum with a number's has the exponent of its square root
LARGEST = 2.0**100  # step: with larger ones `MAGIC` would be infinite
MAGIC = 1.5 * 2**23  # steps: a number that is added to this, and taken off again, is rounded to steps, half to even

Floats = NDArray[np.float32]
Whole = NDArray[np.int32]


def round_to_noise(frames: Floats, precision: float) -> Floats:
    """Numbers rounded to a power of two that is at most `precision` of the estimated standard deviation of their noise.

    Parameters
    ----------
    frames : (frame, y, x)
        In C order. They stay as they are.
    precision
        Above 0, up to 1.

    Returns
    -------
    frames : (frame, y, x)
        What has no neighbours to be compared with, is not finite, or is above 3·10⁶ steps, is as it was.
    """
    rounded = np.empty_like(frames)  # by numpy, which asks for large pages: a kernel's own take longer to be got than to be filled
    put_rounded(frames, precision / DIFFERENCE, rounded)
    return rounded


@exact_kernel
def put_rounded(frames: Floats, factor: float, rounded: Floats) -> None:
    """Put frames in `rounded`, in steps of at most `factor` of what `find_noise` finds."""
    count, height, width = frames.shape
    noise = np.empty((count, -(-height // CELL), -(-width // CELL), 2), np.float32)
    rows = noise.shape[1]
    for down in range(rows + 1):  # a row of cells of all frames after the other, which then lies in the cache
        for number in range(count):
            if down < rows:
                find_noise(frames, number, down, noise[number, down])
            if down > 0:
                round_cells(frames[number], noise[number], down - 1, factor, rounded[number])


@exact_kernel
def find_noise(frames: Floats, number: int, down: int, noise: Floats) -> None:
    """Put the smallest power means of second differences in `noise` (cells, 2), for a row of cells of a frame, and variance over size."""
    count, height, width = frames.shape
    frame, middle = frames[number], min(max(number, 1), count - 2)
    sums, numbers = np.zeros((4, width), np.float32), np.zeros((4, width), np.int32)
    for y in range(down * CELL, min(height, (down + 1) * CELL), EVERY):
        add_sizes(frame[y], sums[SIZES], numbers[SIZES])
        if width > 2:
            row = frame[y]
            add_roots(row[:-2], row[1:-1], row[2:], sums[0, 1:-1], numbers[0, 1:-1])
        if height > 2:
            inner = min(max(y, 1), height - 2)
            add_roots(frame[inner - 1], frame[inner], frame[inner + 1], sums[1], numbers[1])
        if count > 2:
            add_roots(frames[middle - 1, y], frames[middle, y], frames[middle + 1, y], sums[2], numbers[2])
    for right in range(len(noise)):
        noise[right, 0], noise[right, 1] = smallest_mean(sums, numbers, right * CELL, min(width, (right + 1) * CELL))


@exact_kernel
def add_roots(before: Floats, here: Floats, after: Floats, sums: Floats, numbers: Whole) -> None:
    """Add up fourth roots of the sizes of second differences that are finite, and how many they are."""
    for x in range(len(sums)):
        bits = np.float32(abs(before[x] - np.float32(2) * here[x] + after[x])).view(np.int32)
        known = bits < INFINITE
        sums[x] += np.int32((bits >> ROOT_SHIFT) + ROOT_BITS).view(np.float32) if known else np.float32(0)
        numbers[x] += np.int32(1) if known else np.int32(0)


@exact_kernel
def add_sizes(row: Floats, sums: Floats, numbers: Whole) -> None:
    """Add up the sizes of numbers that are finite, and how many they are."""
    for x in range(len(sums)):
        size = abs(row[x])
        known = size < UNKNOWN
        sums[x] += size if known else np.float32(0)
        numbers[x] += np.int32(1) if known else np.int32(0)


@exact_kernel
def smallest_mean(sums: Floats, numbers: Whole, first: int, end: int) -> tuple[np.float32, np.float32]:
    """The smallest power mean of the halves of a cell, of the directions in which enough of a half is known; and its square over sizes."""
    least, ratio = UNKNOWN, UNKNOWN
    for start in range(first, end, HALF):
        power, size, sized = UNKNOWN, 0.0, 0
        for direction in range(SIZES):
            total, known = 0.0, 0
            for x in range(start, min(end, start + HALF)):
                total += sums[direction, x]
                known += numbers[direction, x]
            if known >= LEAST_PIXELS:
                mean = total / known
                power = min(power, np.float32(mean * mean * mean * mean))
        for x in range(start, min(end, start + HALF)):
            size += sums[SIZES, x]
            sized += numbers[SIZES, x]
        if power < UNKNOWN and size > 0:
            ratio = min(ratio, np.float32(np.float64(power) * power / (size / sized)))
        least = min(least, power)
    return least, ratio


@exact_kernel
def round_cells(frame: Floats, noise: Floats, down: int, factor: float, rounded: Floats) -> None:
    """Put a row of cells of a frame in `rounded`, in steps of at most `factor` of the smallest `noise` of each cell and its neighbours."""
    height, width = frame.shape
    first, last = max(down - 1, 0), min(down + 1, len(noise) - 1)
    column = np.empty((2, noise.shape[1]), np.float32)
    most, slope, darkest = np.empty((3, width), np.float32)
    for right in range(noise.shape[1]):
        for which in range(2):
            column[which, right] = min(noise[first, right, which], noise[down, right, which], noise[last, right, which])
    for right in range(noise.shape[1]):
        left, beside = max(right - 1, 0), min(right + 1, noise.shape[1] - 1)
        least = np.float32(factor * min(column[0, left], column[0, right], column[0, beside]))
        ratio = min(column[1, left], column[1, right], column[1, beside])
        rise = np.float32(factor * factor / BELOW * ratio) if ratio < LARGEST else np.float32(0)
        inside = slice(right * CELL, (right + 1) * CELL)
        most[inside] = np.int32(least.view(np.int32) & INFINITE).view(np.float32) if least < LARGEST else np.float32(0)
        slope[inside] = rise
        darkest[inside] = rise * np.float32(DARKEST * ratio) if ratio < LARGEST else LARGEST
    for y in range(down * CELL, min(height, (down + 1) * CELL)):
        for x in range(width):
            value = frame[y, x]
            size = abs(value)
            variance = np.float32(size * slope[x] + darkest[x])
            step = min(np.int32(((variance.view(np.int32) + ONE) >> 1) & INFINITE).view(np.float32), most[x])
            large = step * np.float32(MAGIC)
            rounded[y, x] = value + large - large if np.float32(4) * size < large else value
