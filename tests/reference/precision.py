"""Numbers rounded to a fraction of their noise, written from the definition, cell by cell: slow and clear."""

import numpy as np

CELL = 8


def second_differences(frames, axis):
    """Their sizes, (frame, y, x); NaN along what is shorter than 3; at ends those of the neighbours, but along x, where they are NaN."""
    if frames.shape[axis] < 3:
        return np.full_like(frames, np.nan)
    values = np.moveaxis(frames, axis, 0)
    with np.errstate(invalid="ignore"):  # of infinities
        inner = np.abs(values[:-2] - np.float32(2) * values[1:-1] + values[2:])
    ends = [np.full_like(inner[:1], np.nan)] * 2 if axis == 2 else [inner[:1], inner[-1:]]
    return np.moveaxis(np.concatenate([ends[0], inner, ends[1]]), 0, axis)


def power_mean(sizes):
    """The fourth power of the mean of fourth roots of half a cell, (row, column). NaN if less than half of it is known."""
    known = np.isfinite(sizes)
    if known.sum() < 8:
        return np.nan
    # bits of numbers are nearly linear in the logarithm, that of 0.25 ** 32 among them
    roots = ((sizes.view(np.int32) >> 2) + np.int32(0x2FA00000)).view(np.float32)
    columns = np.zeros(sizes.shape[1], np.float32)
    for row in np.where(known, roots, np.float32(0)):
        columns += row
    return np.float32((sum(map(float, columns)) / known.sum()) ** 4)


def cells(length):
    """The first pixels of cells along a side."""
    return range(0, length, CELL)


def noise_of(frame_differences):
    """(cell, cell): the smallest mean of three directions, of every second row; `frame_differences` are (y, x), one a direction."""
    height, width = frame_differences[0].shape
    noise = np.full((len(cells(height)), len(cells(width))), np.nan, np.float32)
    for y in cells(height):
        for x in cells(width):
            halves = [sizes[y : y + CELL : 2, start : min(start + 4, x + CELL)] for sizes in frame_differences for start in (x, x + 4)]
            means = [power_mean(half) for half in halves]
            noise[y // CELL, x // CELL] = min((mean for mean in means if not np.isnan(mean)), default=np.nan)
    return noise


def round_to_noise(frames, precision):
    """frames (frame, y, x) of float32, in steps of a power of two up to `precision` of the smallest noise of a cell and its neighbours."""
    differences = [second_differences(frames, axis) for axis in (2, 1, 0)]
    factor = precision / 1.72  # the most that the mean is for noise of standard deviation 1
    found = frames.copy()
    for number, frame in enumerate(frames):
        noise = noise_of([each[number] for each in differences])
        for down, right in np.ndindex(noise.shape):
            near = noise[max(down - 1, 0) : down + 2, max(right - 1, 0) : right + 2]
            least = np.nan if np.isnan(near).all() else np.float32(factor * float(np.nanmin(near)))
            if not 2.0**-126 <= least < 2.0**100:
                continue
            step = 2.0 ** np.floor(np.log2(least.astype(np.float64)))
            place = (slice(down * CELL, (down + 1) * CELL), slice(right * CELL, (right + 1) * CELL))
            values = frame[place].astype(np.float64)
            small = np.abs(values) < 0.375 * 2**23 * step
            found[number][place] = np.where(small, np.rint(values / step) * step, values)
    return found
