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


def mean_size(values):
    """Of those numbers of half a cell that are finite."""
    known = np.isfinite(values)
    columns = np.zeros(values.shape[1], np.float32)
    for row in np.where(known, np.abs(values), np.float32(0)):
        columns += row
    return np.float32(sum(map(float, columns)) / known.sum()) if known.any() else np.float32(0)


def noise_of(frame, frame_differences):
    """(2, cell, cell): the smallest mean of three directions, of every second row; and the smallest square over the mean size of a half."""
    height, width = frame.shape
    noise = np.full((2, len(cells(height)), len(cells(width))), np.nan, np.float32)
    for y in cells(height):
        for x in cells(width):
            halves = [(slice(y, y + CELL, 2), slice(start, min(start + 4, x + CELL))) for start in (x, x + 4) if start < width]
            means = [smallest(power_mean(sizes[half]) for sizes in frame_differences) for half in halves]
            sizes = [mean_size(frame[half]) for half in halves]
            ratios = [np.float32(float(mean) ** 2 / size) for mean, size in zip(means, sizes, strict=True) if size > 0]
            noise[:, y // CELL, x // CELL] = smallest(means), smallest(ratios)
    return noise


def smallest(numbers):
    """Of those that are known; NaN of none."""
    return min((number for number in numbers if not np.isnan(number)), default=np.float32(np.nan))


def round_to_noise(frames, precision):
    """frames (frame, y, x) of float32, in steps of a power of two up to `precision` of the smallest noise of a cell and its neighbours.

    And of what the smallest ratio of variance and size there makes of the size of each number, with half a count.
    """
    differences = [second_differences(frames, axis) for axis in (2, 1, 0)]
    factor = precision / 1.72  # the most that the mean is for noise of standard deviation 1
    found = frames.copy()
    for number, frame in enumerate(frames):
        noise = noise_of(frame, [each[number] for each in differences])
        for down, right in np.ndindex(noise.shape[1:]):
            near = noise[:, max(down - 1, 0) : down + 2, max(right - 1, 0) : right + 2].reshape(2, -1)
            least, ratio = (smallest(each) for each in near)
            most = np.float32(factor * float(least))
            if not 2.0**-126 <= most < 2.0**100:
                continue
            place = (slice(down * CELL, (down + 1) * CELL), slice(right * CELL, (right + 1) * CELL))
            slope = np.float32(factor**2 * 2**0.5 * float(ratio)) if ratio < 2.0**100 else np.float32(0)
            darkest = slope * np.float32(0.5 / 1.72**2 * float(ratio)) if ratio < 2.0**100 else np.float32(2.0**100)
            values = frame[place].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):  # of what is no number
                allowed = 0.5 * np.log2((np.abs(frame[place]) * slope + darkest).astype(np.float64))
                steps = 2.0 ** np.floor(np.minimum(np.log2(most.astype(np.float64)), allowed))
                small = np.abs(values) < 0.375 * 2**23 * steps
                found[number][place] = np.where(small, np.rint(values / steps) * steps, values)
    return found
