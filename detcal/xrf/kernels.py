"""Spectra to pixels, smoothing, boxes over a grid, and fits of line patterns. ndarrays in, ndarrays out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel

Array = NDArray[Any]

# numpy.pad's names of the boundaries that scipy.ndimage calls by the keys
BOUNDARIES = {"reflect": "symmetric", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}


@kernel
def add_spectra(spectra, first, indptr, indices, data, out):  # type: ignore[no-untyped-def]
    """Add to each pixel of out (pixel, energy) its shares of these spectra (spectrum, energy), the first of which is number `first`.

    In the order of the spectra, so that the sums do not depend on how these are cut into blocks.
    """
    stop = first + spectra.shape[0]
    for pixel in range(out.shape[0]):
        for entry in range(indptr[pixel], indptr[pixel + 1]):
            number = indices[entry]
            if first <= number < stop:
                share = np.float64(data[entry])
                for channel in range(out.shape[1]):
                    out[pixel, channel] += share * spectra[number - first, channel]


@kernel
def add_measured(spectra, first, indptr, indices, data, weights, out, there, whole):  # type: ignore[no-untyped-def]
    """As `add_spectra`, of finite values alone; to `there` (pixel, energy) the weights of these entries, and to `whole` (pixel,) of all."""
    stop = first + spectra.shape[0]
    for pixel in range(out.shape[0]):
        for entry in range(indptr[pixel], indptr[pixel + 1]):
            number = indices[entry]
            if first <= number < stop:
                share, weight = np.float64(data[entry]), np.float64(weights[entry])
                whole[pixel] += weight
                for channel in range(out.shape[1]):
                    value = np.float64(spectra[number - first, channel])
                    if np.isfinite(value):
                        out[pixel, channel] += share * value
                        there[pixel, channel] += weight


@kernel
def add_to_summary(spectra, sums, highest, counted):  # type: ignore[no-untyped-def]
    """Add spectra (spectrum, energy) to their sums, maxima and numbers (energy,), channels that are not finite left out."""
    for number in range(spectra.shape[0]):
        for channel in range(spectra.shape[1]):
            value = np.float64(spectra[number, channel])
            there = np.isfinite(value)
            sums[channel] += value if there else 0.0
            highest[channel] = max(highest[channel], value if there else -np.inf)
            counted[channel] += there


def gaussian_taps(sigma: float, truncate: float) -> NDArray[np.float64]:
    """Weights of scipy.ndimage's gaussian: cut at int(truncate·sigma + ½) channels."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def smooth(spectra: Array, sigma: float, boundary: str, truncate: float) -> NDArray[np.float32]:
    """scipy.ndimage.gaussian_filter1d along the last axis, in float64 within and float32 without; what is not finite takes no part."""
    taps = gaussian_taps(sigma, truncate)
    radius, size = len(taps) // 2, spectra.shape[-1]
    places = np.pad(np.arange(size), radius, mode=BOUNDARIES[boundary])  # type: ignore[call-overload]
    lines = np.ascontiguousarray(spectra).reshape(-1, size)
    out = np.empty(lines.shape, np.float32)
    smooth_lines(lines, places, taps, out)
    return out.reshape(spectra.shape)


@kernel
def smooth_lines(lines, places, taps, out):  # type: ignore[no-untyped-def]
    """Each line, padded by the channels that `places` points to, with each of its counts spread out: most channels have none.

    Where channels are not finite: the mean, with the taps as weights, of the others; NaN in these channels themselves.
    """
    size, width = lines.shape[1], taps.size
    sums, weights = np.empty(places.size + width - 1), np.empty(places.size + width - 1)
    for number in range(lines.shape[0]):
        sums[:] = 0.0
        lost = 0
        for place in range(places.size):
            value = np.float64(lines[number, places[place]])
            if not np.isfinite(value):
                lost += 1
            elif value != 0:
                for tap in range(width):
                    sums[place + tap] += value * taps[tap]
        if lost == 0:
            for channel in range(size):
                out[number, channel] = sums[channel + width - 1]
            continue
        weights[:] = 0.0
        for place in range(places.size):
            if np.isfinite(np.float64(lines[number, places[place]])):
                for tap in range(width):
                    weights[place + tap] += taps[tap]
        for channel in range(size):
            measured = np.isfinite(np.float64(lines[number, channel]))
            out[number, channel] = sums[channel + width - 1] / weights[channel + width - 1] if measured else np.nan


# ----------------------------------------------------------------------------------------------- boxes over a grid


@kernel
def primitive(value, height):  # type: ignore[no-untyped-def]
    """Integral from 0 to `value` of t cut to 0 … height."""
    if value <= 0:
        return 0.0
    if value <= height:
        return 0.5 * value * value
    return height * (value - 0.5 * height)


@kernel
def mean_cut(first, last, height):  # type: ignore[no-untyped-def]
    """Mean, over t from `first` to `last`, of t cut to 0 … height."""
    if abs(last - first) < 1e-6 * height:
        return min(max(0.5 * (first + last), 0.0), height)
    return (primitive(last, height) - primitive(first, height)) / (last - first)


@kernel
def lay_boxes(starts, ends, height, shape, first, entries, shares):  # type: ignore[no-untyped-def]
    """Areas of swept boxes over the unit squares of a grid, as shares that add up to 1 for each box; returns how many there are.

    A box is the parallelogram that a line of `height`, across the scan, covers on its way from `starts` to `ends`
    (spectrum, (across, along)), in pixels from the grid's corner. What sticks out of the grid is shared among what does not.
    Entry: spectrum, across, along. Stops where `entries` is full: the caller then asks again, from `first` on, with room.
    """
    count = 0
    for number in range(first, starts.shape[0]):
        begin = count
        low, high = starts[number, 1], ends[number, 1]
        if low <= high:
            bottom, slope = starts[number, 0] - 0.5 * height, (ends[number, 0] - starts[number, 0]) / (high - low)
        else:
            low, high = high, low
            bottom, slope = ends[number, 0] - 0.5 * height, (starts[number, 0] - ends[number, 0]) / (high - low)
        total = 0.0
        for along in range(max(0, int(np.floor(low))), min(shape[1], int(np.ceil(high)))):
            left, right = max(low, float(along)), min(high, along + 1.0)
            if right <= left:
                continue
            at_left, at_right = bottom + slope * (left - low), bottom + slope * (right - low)
            lowest, highest = min(at_left, at_right), max(at_left, at_right) + height
            for across in range(max(0, int(np.floor(lowest))), min(shape[0], int(np.ceil(highest)))):
                upper = mean_cut(across + 1.0 - at_left, across + 1.0 - at_right, height)
                lower = mean_cut(across - at_left, across - at_right, height)
                area = (upper - lower) * (right - left)
                if area > 1e-9 * height * (high - low):
                    if count == shares.size:
                        return begin, number
                    entries[count, 0], entries[count, 1], entries[count, 2] = number, across, along
                    shares[count] = area
                    total += area
                    count += 1
        for entry in range(begin, count):
            shares[entry] /= total
    return count, starts.shape[0]


@kernel
def turning_points(along, least, turns):  # type: ignore[no-untyped-def]
    """Where a path turns back by more than `least`; returns how many such places were put into `turns`."""
    count, direction, extreme = 0, 0, 0
    for number in range(along.size):
        ahead = along[number] - along[extreme]
        if direction == 0:
            if abs(ahead) > least:
                direction = 1 if ahead > 0 else -1
                extreme = number
        elif direction * ahead >= 0:
            extreme = number
        elif -direction * ahead > least:
            turns[count] = extreme
            count += 1
            direction = -direction
            extreme = number
    return count


# ----------------------------------------------------------------------------------------------------------- line fits

MOST_SWEEPS, SWEEP_TOLERANCE = 2000, 1e-10  # of a fit with one set of weights
MOST_WEIGHTINGS, WEIGHTING_TOLERANCE = 50, 1e-5
ONE_MORE = 1.0
LEAST_MODEL = 1e-3  # of the model's mean: a channel that should be empty does not rule the fit


@kernel
def fit_pixels(counts, patterns, extents, noise, amounts, errors):  # type: ignore[no-untyped-def]
    """The amounts ≥ 0 of each pattern that are likeliest to give the counts, and their standard errors.

    counts (pixel, energy), of which channels that are not finite take no part; patterns (pattern, energy), each 0 but from
    extents[pattern, 0] to extents[pattern, 1]; the variance of counts is noise[pixel] times their mean. Least squares with the variances
    of the model that was found before, until that stays: the maximum of Poisson's likelihood. The error of an amount that is 0 is the one
    that it had were it free; both are NaN for a pattern that no measured channel is part of. errors (pixel, pattern) may be of the first
    patterns alone.

    A model that the noise has left empty knows of no variance: ONE_MORE count in the pattern is added, as the mean that n counts are of
    has the variance n + 1 (where every mean is as likely before).
    """
    size, channels = patterns.shape
    gram, moment = np.empty((size, size)), np.empty(size)
    model, amount, before = np.empty(channels), np.empty(size), np.empty(size)
    measured, missing, seen = np.empty(channels), np.empty(channels, np.bool_), np.empty(size)
    for pixel in range(counts.shape[0]):
        total, there = 0.0, 0
        for channel in range(channels):
            missing[channel] = not np.isfinite(counts[pixel, channel])
            measured[channel] = 0.0 if missing[channel] else counts[pixel, channel]
            total += measured[channel]
            there += not missing[channel]
        if there == 0:
            amounts[pixel], errors[pixel] = np.nan, np.nan
            continue
        if not total > 0:
            total = 0.0
        for one in range(size):
            seen[one] = 0.0
            for channel in range(channels):
                seen[one] += 0.0 if missing[channel] else patterns[one, channel]
        least = max(LEAST_MODEL * max(total, noise[pixel]) / there, 1e-30)
        for channel in range(channels):  # a variance without end is no weight
            model[channel] = np.inf if missing[channel] else max(total, noise[pixel]) / there
        amount[:] = 0.0
        for _ in range(MOST_WEIGHTINGS):
            weighted_sums(measured, patterns, extents, model, gram, moment)
            before[:] = amount
            solve_positive(gram, moment, amount)
            model[:] = 0.0
            for one in range(size):
                for channel in range(extents[one, 0], extents[one, 1]):
                    model[channel] += amount[one] * patterns[one, channel]
            for channel in range(channels):
                model[channel] = np.inf if missing[channel] else max(model[channel], least)
            if np.abs(amount - before).max() <= WEIGHTING_TOLERANCE * amount.max():
                break
        weighted_sums(measured, patterns, extents, model, gram, moment)
        standard_errors(gram, amount, errors[pixel])
        for one in range(errors.shape[1]):
            more = ONE_MORE * noise[pixel] / seen[one] if seen[one] > 0 else np.nan
            errors[pixel, one] = np.sqrt(noise[pixel] * errors[pixel, one] ** 2 + more * more)
        for one in range(size):
            amounts[pixel, one] = amount[one] if gram[one, one] > 0 else np.nan


@kernel
def weighted_sums(counts, patterns, extents, model, gram, moment):  # type: ignore[no-untyped-def]
    """Products of patterns with one another and with the counts, over the model's variances."""
    size = patterns.shape[0]
    for one in range(size):
        total = 0.0
        for channel in range(extents[one, 0], extents[one, 1]):
            total += patterns[one, channel] * counts[channel] / model[channel]
        moment[one] = total
        for other in range(one + 1):
            total = 0.0
            for channel in range(max(extents[one, 0], extents[other, 0]), min(extents[one, 1], extents[other, 1])):
                total += patterns[one, channel] * patterns[other, channel] / model[channel]
            gram[one, other] = total
            gram[other, one] = total


@kernel
def solve_positive(gram, moment, amount):  # type: ignore[no-untyped-def]
    """min ½ aᵀGa − mᵀa with a ≥ 0, one coordinate after another (Franc, Hlaváč and Navara, CAIP 2005)."""
    for _ in range(MOST_SWEEPS):
        largest, moved = 0.0, 0.0
        for one in range(moment.size):
            if not gram[one, one] > 0:
                continue
            rest = moment[one]
            for other in range(moment.size):
                rest -= gram[one, other] * amount[other]
            found = max(0.0, amount[one] + rest / gram[one, one])
            moved = max(moved, abs(found - amount[one]))
            largest = max(largest, found)
            amount[one] = found
        if moved <= SWEEP_TOLERANCE * largest:
            return


@kernel
def standard_errors(gram, amount, errors):  # type: ignore[no-untyped-def]
    """Square roots of the inverse's diagonal, of those patterns that are there and the one in question."""
    for one in range(errors.size):
        chosen = np.flatnonzero((amount > 0) | (np.arange(amount.size) == one))
        part = np.empty((chosen.size, chosen.size))
        for row in range(chosen.size):
            for column in range(chosen.size):
                part[row, column] = gram[chosen[row], chosen[column]]
        place = np.searchsorted(chosen, one)
        if not part[place, place] > 0:
            errors[one] = np.nan
            continue
        # elimination with the pattern in question last: what is left of its diagonal is the inverse's, inverted
        last = chosen.size - 1
        part[place], part[last] = part[last].copy(), part[place].copy()
        for row in range(chosen.size):
            part[row, place], part[row, last] = part[row, last], part[row, place]
        for pivot in range(last):
            if not part[pivot, pivot] > 0:
                continue
            for row in range(pivot + 1, chosen.size):
                factor = part[row, pivot] / part[pivot, pivot]
                for column in range(pivot, chosen.size):
                    part[row, column] -= factor * part[pivot, column]
        left = part[last, last]
        errors[one] = 1 / np.sqrt(left) if left > 1e-12 * gram[one, one] else np.inf
