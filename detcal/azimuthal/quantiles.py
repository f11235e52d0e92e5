"""Quantiles of the pixels in each ring, by weight. ndarrays in, ndarrays out."""

import numpy as np

from detcal.azimuthal.kernels import NONE, ROWS_A_SUM, gather
from detcal.jit import kernel
from detcal.simd import LANES, larger, load, smaller, splat, store, where_between, where_number

SAMPLE = 32  # entries of a ring that are sorted, to say where a quantile may lie; a power of 2
TIE = 1e-12  # of a ring's weight: what a quantile of it may be off by in float64


@kernel
def divide(buffer, size, rings, begin, interval, out):  # type: ignore[no-untyped-def]
    """I from raw − dark, NaN outside the interval."""
    low, high, outside = load(interval, 0), load(interval, 1), splat(np.float32(np.nan))
    for k in range(size):
        norm = rings.norms[begin + k]
        value = load(buffer, k)
        store(out, k, where_between(value, norm * low, norm * high, value / splat(norm), outside))


@kernel
def weigh(values, size, rings, begin, pivots, weights, nearest):  # type: ignore[no-untyped-def]
    """In each lane the weight of what is not above its pivot; and the largest value that is not, and the smallest that is."""
    part = np.empty((1, LANES), np.float32)
    nothing, lowest, highest = splat(np.float32(0)), splat(np.float32(-np.inf)), splat(np.float32(np.inf))
    pivot, below, above = load(pivots, 0), lowest, highest
    weights[:] = 0
    for start in range(0, size, ROWS_A_SUM):
        total = nothing
        for k in range(start, min(size, start + ROWS_A_SUM)):
            value = load(values, k)
            total = total + where_between(value, lowest, pivot, splat(rings.weights[begin + k]), nothing)
            below = larger(where_between(value, lowest, pivot, value, lowest), below)
            above = smaller(where_between(value, lowest, pivot, highest, value), above)
        store(part, 0, total)
        weights += part[0]
    store(nearest, 0, below)
    store(nearest, 1, above)


@kernel
def extent(values, size, rings, begin, weights, ends):  # type: ignore[no-untyped-def]
    """In each lane the weight of all values, the smallest and the largest."""
    weigh(values, size, rings, begin, np.full((1, LANES), np.float32(np.inf)), weights, ends)
    least = splat(np.float32(np.inf))
    for k in range(size):
        least = smaller(load(values, k), least)
    ends[1] = ends[0]
    store(ends, 0, least)


@kernel
def sort_sample(values, size, sample):  # type: ignore[no-untyped-def]
    """SAMPLE of the values, rising in each lane, what is no value behind them: by the merging network of Batcher (1968)."""
    for i in range(SAMPLE):
        store(sample, i, where_number(load(values, i * size // SAMPLE), splat(np.float32(np.inf))))
    sorted_run = 1
    while sorted_run < SAMPLE:
        apart = sorted_run
        while apart > 0:
            for start in range(apart % sorted_run, SAMPLE - apart, 2 * apart):
                for i in range(start, min(start + apart, SAMPLE - apart)):
                    if i // (2 * sorted_run) == (i + apart) // (2 * sorted_run):
                        one, other = load(sample, i), load(sample, i + apart)
                        store(sample, i, smaller(one, other))
                        store(sample, i + apart, larger(one, other))
            apart //= 2
        sorted_run *= 2


@kernel
def find_quantile(values, size, rings, begin, quantile, sample, weights, ends, found):  # type: ignore[no-untyped-def]
    """In each lane the value x at which the weight of what is not above it first comes to that part of all; found (4, lane):
    x, the weight of what is below x, that of what is not above it, and the part of all.

    A bracket is narrowed: first by what a sample says, then by interpolating the weight between its ends.
    """
    pivots, nearest, passed = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty(LANES)
    lows = ends[0].copy()  # the bracket: x is one of the values from lows to found[0]
    for lane in range(LANES):
        found[0, lane], found[1, lane], found[2, lane] = ends[1, lane], 0, weights[lane]
        found[3, lane] = quantile * weights[lane]
    step = 0
    while True:
        open_lanes = False
        for lane in range(LANES):
            low, high = lows[lane], np.float32(found[0, lane])
            pivots[0, lane] = high
            if not (weights[lane] > 0 and low < high):
                continue
            open_lanes = True
            if step < 2:
                rank = int(quantile * numbers(sample, lane)) + (-3, 3)[step]
                guess = sample[min(max(rank, 0), SAMPLE - 1), lane]
            elif step % 6 == 5:
                guess = np.float32(0.5 * low + 0.5 * high)
            else:
                guess = np.float32(low + (found[3, lane] - found[1, lane]) / (found[2, lane] - found[1, lane]) * (high - low))
            pivots[0, lane] = min(max(guess, low), np.nextafter(high, low))
        if not open_lanes:
            return
        weigh(values, size, rings, begin, pivots, passed, nearest)
        for lane in range(LANES):
            if weights[lane] > 0 and lows[lane] < found[0, lane]:
                if passed[lane] < found[3, lane]:
                    lows[lane], found[1, lane] = nearest[1, lane], passed[lane]
                else:
                    found[0, lane], found[2, lane] = nearest[0, lane], passed[lane]
        step += 1


@kernel
def numbers(sample, lane):  # type: ignore[no-untyped-def]
    """How many of the sorted sample are values."""
    count = SAMPLE
    while count > 0 and sample[count - 1, lane] == np.inf:
        count -= 1
    return count


@kernel
def between_quantiles(values, size, rings, begin, quantiles, means):  # type: ignore[no-untyped-def]
    """In each lane the mean of I between two quantiles of the weight, a pixel on an edge in part; the quantile itself if they are one.

    NaN without any weight.
    """
    weights, ends, sample = np.empty(LANES), np.empty((2, LANES), np.float32), np.empty((SAMPLE, LANES), np.float32)
    lower, upper = np.empty((4, LANES)), np.empty((4, LANES))
    extent(values, size, rings, begin, weights, ends)
    sort_sample(values, size, sample)
    single = quantiles[0] == quantiles[1]
    find_quantile(values, size, rings, begin, quantiles[0] - (TIE if single else 0.0), sample, weights, ends, lower)
    if single:
        pivots, nearest, passed = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty(LANES)
        pivots[0] = lower[0]
        weigh(values, size, rings, begin, pivots, passed, nearest)
        for lane in range(LANES):
            tie = passed[lane] - lower[3, lane] < 2 * TIE * weights[lane]
            above = nearest[1, lane] if tie and nearest[1, lane] < np.inf else lower[0, lane]
            means[lane] = 0.5 * lower[0, lane] + 0.5 * above if weights[lane] > 0 else np.nan
        return
    find_quantile(values, size, rings, begin, quantiles[1], sample, weights, ends, upper)
    inner = np.empty((1, LANES))
    sum_between(values, size, rings, begin, lower[0], upper[0], inner)
    for lane in range(LANES):
        x0, start = lower[0, lane], lower[3, lane]
        x1, below_x1, stop = upper[0, lane], upper[1, lane], upper[3, lane]
        # relative to x0, whose own pixels then add nothing
        total = inner[0, lane] + (stop - below_x1) * (x1 - x0) if x1 > x0 else 0.0
        means[lane] = x0 + total / (stop - start) if weights[lane] > 0 else np.nan


@kernel
def sum_between(values, size, rings, begin, low, high, sums):  # type: ignore[no-untyped-def]
    """In each lane Σω·(I − low) of what is between low and high, both excluded."""
    ends, part = np.empty((2, LANES), np.float32), np.empty((1, LANES), np.float32)
    ends[0], ends[1] = low, high
    for lane in range(LANES):
        ends[1, lane] = np.nextafter(ends[1, lane], np.float32(-np.inf))
    first, last, nothing = load(ends, 0), load(ends, 1), splat(np.float32(0))
    sums[:] = 0
    for start in range(0, size, ROWS_A_SUM):
        total = nothing
        for k in range(start, min(size, start + ROWS_A_SUM)):
            value, weight = load(values, k), rings.weights[begin + k]
            total = total + where_between(value, first, last, weight * (value - first), nothing)
        store(part, 0, total)
        sums += part


@kernel
def lower_medians(buffer, size, rings, ring, interval, work, found):  # type: ignore[no-untyped-def]
    """found[0]: in each lane the median of I in the interval, the lower one if there are two: always that of a pixel."""
    begin, weights = rings.starts[ring], np.empty(LANES)
    ends, sample = np.empty((2, LANES), np.float32), np.empty((SAMPLE, LANES), np.float32)
    divide(buffer, size, rings, begin, interval, work)
    extent(work, size, rings, begin, weights, ends)
    sort_sample(work, size, sample)
    find_quantile(work, size, rings, begin, 0.5 - TIE, sample, weights, ends, found)


@kernel
def quantile_batch(image, rings, batch, quantiles, profiles):  # type: ignore[no-untyped-def]
    """Of a batch: profiles (lane, 2, ring): the mean between two quantiles, and how many pixels have a value."""
    longest = np.diff(rings.starts[rings.batches[batch] : rings.batches[batch + 1] + 1]).max()
    buffer, values = np.empty((longest, LANES), np.float32), np.empty((longest, LANES), np.float32)
    everything, means = np.empty((2, LANES), np.float32), np.empty(LANES)
    everything[0], everything[1] = -np.inf, np.inf
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        size = gather(image, image, rings, ring, NONE, buffer)
        divide(buffer, size, rings, rings.starts[ring], everything, values)
        between_quantiles(values, size, rings, rings.starts[ring], quantiles, means)
        for lane in range(len(profiles)):
            profiles[lane, 0, ring] = means[lane]
            count = 0.0
            for k in range(size):
                count += rings.shares[rings.starts[ring] + k] if values[k, lane] == values[k, lane] else 0
            profiles[lane, 1, ring] = count
