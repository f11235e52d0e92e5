"""Quantiles of the pixels in each ring, by weight. ndarrays in, ndarrays out.

A quantile lies in a bracket of values, another one in each lane. A few passes over the ring's pixels narrow it, each by the weight of what
is not above either of two pivots that are likely to have the quantile between them; the pixels that are then left in it, a few in a
hundred, are picked out, and the bracket is narrowed to one value among them.
"""

import numpy as np

from detcal.azimuthal.kernels import ROWS_A_SUM, add_to, entries_of, group_of, longest_step, pixels_of, room_for
from detcal.frames.jit import exact_kernel
from detcal.frames.simd import (
    LANES,
    lanes_between,
    larger,
    load,
    lowest_bit,
    row_of,
    smaller,
    splat,
    store,
    where_between,
    where_number,
    where_up_to,
)

SAMPLE = 32  # entries of a ring that are sorted, to say where a quantile may lie; a power of 2
APART = 8  # places of the sample between the quantile's and the first pivots: almost three standard deviations of where it may be
UNEVEN = 0.06, 0.03  # of the weight in the bracket, in the passes after it: how far values may be from evenly spread
TIE = 1e-12  # of a ring's weight: what a quantile of it may be off by in float64
ENDLESS = np.float32(np.inf)


@exact_kernel
def divide(pixels, entries, interval, values, sums):  # type: ignore[no-untyped-def]
    """I from raw − dark, NaN outside the interval; in each lane the weight of all I, and their share of pixels, as sums (2, lane)."""
    part = np.empty((2, LANES), np.float32)
    low, high, outside, nothing = load(interval, 0), load(interval, 1), splat(np.float32(np.nan)), splat(np.float32(0))
    one = splat(np.float32(1))
    sums[:] = 0
    for start in range(0, len(pixels), ROWS_A_SUM):
        weight = share = nothing
        for k in range(start, min(len(pixels), start + ROWS_A_SUM)):
            value, norm = load(pixels, k), row_of(entries.norms, k)
            least, most = norm * low, norm * high
            store(values, k, where_between(value, least, most, value * (one / norm), outside))
            weight = weight + where_between(value, least, most, row_of(entries.weights, k), nothing)
            share = share + where_between(value, least, most, row_of(entries.shares, k), nothing)
        store(part, 0, weight)
        store(part, 1, share)
        add_to(sums, part)


@exact_kernel
def sort_sample(values, sample):  # type: ignore[no-untyped-def]
    """SAMPLE of the values, rising in each lane, what is no value behind them: by the merging network of Batcher (1968)."""
    for i in range(SAMPLE):
        store(sample, i, where_number(load(values, i * len(values) // SAMPLE), splat(ENDLESS)))
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


@exact_kernel
def numbers(sample, lane):  # type: ignore[no-untyped-def]
    """How many of the sorted sample are values."""
    count = SAMPLE
    while count > 0 and sample[count - 1, lane] == np.inf:
        count -= 1
    return count


@exact_kernel
def weigh_at_two(values, entries, pivots, passed):  # type: ignore[no-untyped-def]
    """In each lane the weight of what is not above each of its two pivots."""
    part, nothing = np.empty((2, LANES), np.float32), splat(np.float32(0))
    first, second = load(pivots, 0), load(pivots, 1)
    passed[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        below_first = below_second = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value, weight = load(values, k), row_of(entries.weights, k)
            below_first = below_first + where_up_to(value, first, weight, nothing)
            below_second = below_second + where_up_to(value, second, weight, nothing)
        store(part, 0, below_first)
        store(part, 1, below_second)
        add_to(passed, part)


@exact_kernel
def weigh(values, weights, pivots, passed, nearest):  # type: ignore[no-untyped-def]
    """In each lane the weight of what is not above its pivot; and the largest value that is not, and the smallest that is."""
    part, nothing, lowest, highest = np.empty((1, LANES), np.float32), splat(np.float32(0)), splat(-ENDLESS), splat(ENDLESS)
    pivot, below, above = load(pivots, 0), lowest, highest
    passed[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        total = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value = load(values, k)
            total = total + where_up_to(value, pivot, load(weights, k), nothing)
            below = larger(where_up_to(value, pivot, value, lowest), below)
            above = smaller(where_up_to(value, pivot, highest, value), above)
        store(part, 0, total)
        for lane in range(LANES):
            passed[lane] += part[0, lane]
    store(nearest, 0, below)
    store(nearest, 1, above)


@exact_kernel
def find_quantiles(values, entries, parts, sample, total, few, weights, found):  # type: ignore[no-untyped-def]
    """In each lane the value x at which the weight of what is not above it first comes to its part of all; found (4, lane):
    x, the weight of what is below x, that of what is not above it, and the part of all.

    `few` and `weights` are room for as many values; `total` is the weight of all.
    """
    low = np.empty(LANES, np.float32)
    enclose(values, entries, parts, sample, total, low, found)
    count = pick(values, entries, low, found, few, weights)
    narrow_down(few[:count], weights, low, found)


@exact_kernel
def find_quantile(values, entries, quantile, sample, total, few, weights, found):  # type: ignore[no-untyped-def]
    """The same part in all lanes."""
    parts = np.empty(LANES)
    for lane in range(LANES):
        parts[lane] = quantile
    find_quantiles(values, entries, parts, sample, total, few, weights, found)


@exact_kernel
def enclose(values, entries, parts, sample, total, low, found):  # type: ignore[no-untyped-def]
    """Narrow each lane's bracket, low < x ≤ found[0], to a few pixels: about what the sample says, then about where
    the weight at its ends says."""
    pivots, passed = np.empty((2, LANES), np.float32), np.empty((2, LANES))
    for lane in range(LANES):
        low[lane] = -np.inf
        found[0, lane], found[1, lane], found[2, lane], found[3, lane] = np.inf, 0, total[lane], parts[lane] * total[lane]
    for step in range(1 + len(UNEVEN)):
        for lane in range(LANES):
            pivots[0, lane], pivots[1, lane] = low[lane], found[0, lane]
            size = numbers(sample, lane)
            if size > 0 and step == 0:
                first, last = int(parts[lane] * size) - APART, int(parts[lane] * size) + APART
                if first >= 0:  # just below: what is as large as the sample stays in
                    pivots[0, lane] = np.nextafter(sample[first, lane], -ENDLESS)
                if last < size:
                    pivots[1, lane] = sample[last, lane]
            elif size > 0:
                least, most = max(low[lane], sample[0, lane]), min(np.float32(found[0, lane]), sample[size - 1, lane])
                inside = found[2, lane] - found[1, lane]
                middle = (found[3, lane] - found[1, lane]) / inside
                apart = UNEVEN[step - 1] + 1 / np.sqrt(inside / total[lane] * len(values))  # two standard deviations, or more
                pivots[0, lane] = max(np.float32(least + (middle - apart) * (most - least)), low[lane])
                pivots[1, lane] = min(np.float32(least + (middle + apart) * (most - least)), np.float32(found[0, lane]))
        weigh_at_two(values, entries, pivots, passed)
        for lane in range(LANES):
            for side in range(2):
                pivot, weight = pivots[side, lane], passed[side, lane]
                if (weight < found[3, lane] or weight == 0) and pivot > low[lane]:
                    low[lane], found[1, lane] = pivot, weight
                elif weight >= found[3, lane] and weight > 0 and pivot < found[0, lane]:
                    found[0, lane], found[2, lane] = pivot, weight


@exact_kernel
def pick(values, entries, low, found, few, weights):  # type: ignore[no-untyped-def]
    """The values in each lane's bracket, one below the other, and their weights; the most of any lane. Their least is then in low, and
    their largest in found[0]. Of a bracket of one number none is picked."""
    ends, counts, beside = np.empty((2, LANES), np.float32), np.zeros(LANES, np.int64), np.empty((1, LANES), np.float32)
    for lane in range(LANES):
        ends[0, lane], ends[1, lane] = np.nextafter(low[lane], ENDLESS), found[0, lane]
        if ends[0, lane] >= ends[1, lane]:
            low[lane], ends[0, lane] = ends[1, lane], np.inf
    first, last = load(ends, 0), load(ends, 1)
    for k in range(len(values)):
        inside = lanes_between(load(values, k), first, last)
        if inside:
            store(beside, 0, row_of(entries.weights, k))
        while inside:
            lane = lowest_bit(inside)
            few[counts[lane], lane], weights[counts[lane], lane] = values[k, lane], beside[0, lane]
            counts[lane] += 1
            inside &= inside - np.uint64(1)
    most = 0
    for lane in range(LANES):
        most = max(most, counts[lane])
    for lane in range(LANES):
        for k in range(counts[lane], most):
            few[k, lane], weights[k, lane] = np.nan, 0
        if counts[lane] > 0:
            low[lane], found[0, lane] = few[0, lane], few[0, lane]
            for k in range(counts[lane]):
                low[lane], found[0, lane] = min(low[lane], few[k, lane]), max(found[0, lane], few[k, lane])
    return most


@exact_kernel
def narrow_down(values, weights, low, found):  # type: ignore[no-untyped-def]
    """Narrow each lane's bracket, low ≤ x ≤ found[0], to one of the values, that are all that it holds."""
    pivots, nearest, passed = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty(LANES)
    outside = np.empty(LANES)
    for lane in range(LANES):
        outside[lane] = found[1, lane]
    step = 0
    while True:
        open_lanes = False
        for lane in range(LANES):
            least, most = low[lane], np.float32(found[0, lane])
            pivots[0, lane] = most
            if least < most:
                open_lanes = True
                middle = 0.5 if step % 4 == 3 else (found[3, lane] - found[1, lane]) / (found[2, lane] - found[1, lane])
                pivots[0, lane] = min(max(np.float32(least + middle * (most - least)), least), np.nextafter(most, least))
        if not open_lanes:
            return
        weigh(values, weights, pivots, passed, nearest)
        for lane in range(LANES):
            if low[lane] < found[0, lane]:
                weight = outside[lane] + passed[lane]
                if weight < found[3, lane]:
                    low[lane], found[1, lane] = nearest[1, lane], weight
                else:
                    found[0, lane], found[2, lane] = nearest[0, lane], weight
        step += 1


@exact_kernel
def between_quantiles(values, entries, quantiles, total, few, weights, means):  # type: ignore[no-untyped-def]
    """In each lane the mean of I between two quantiles of the weight, a pixel on an edge in part; the quantile itself if they are one.

    NaN without any weight.
    """
    sample, lower, upper = np.empty((SAMPLE, LANES), np.float32), np.empty((4, LANES)), np.empty((4, LANES))
    ties = np.empty(LANES, np.bool_)
    sort_sample(values, sample)
    if quantiles[0] == quantiles[1]:
        find_quantile(values, entries, quantiles[0] - TIE, sample, total, few, weights, lower)
        some_ties = False
        for lane in range(LANES):
            ties[lane] = lower[2, lane] - lower[3, lane] < 2 * TIE * total[lane]
            some_ties = some_ties or ties[lane]
            means[lane] = lower[0, lane] if total[lane] > 0 else np.nan
        if some_ties:
            average_with_next(values, ties, means)
        return
    find_quantile(values, entries, quantiles[0], sample, total, few, weights, lower)
    find_quantile(values, entries, quantiles[1], sample, total, few, weights, upper)
    inner = np.empty((1, LANES))
    sum_between(values, entries, lower[0], upper[0], inner)
    for lane in range(LANES):
        x0, start = lower[0, lane], lower[3, lane]
        x1, below_x1, stop = upper[0, lane], upper[1, lane], upper[3, lane]
        # relative to x0, whose own pixels then add nothing
        inside = inner[0, lane] + (stop - below_x1) * (x1 - x0) if x1 > x0 else 0.0
        means[lane] = x0 + inside / (stop - start) if total[lane] > 0 else np.nan


@exact_kernel
def average_with_next(values, ties, means):  # type: ignore[no-untyped-def]
    """In lanes with a tie, the mean of the value there and the next one above it, if there is one."""
    nearest, highest = np.empty((2, LANES), np.float32), splat(ENDLESS)
    for lane in range(LANES):
        nearest[0, lane] = means[lane]
    here, above = load(nearest, 0), highest
    for k in range(len(values)):
        value = load(values, k)
        above = smaller(where_up_to(value, here, highest, value), above)
    store(nearest, 1, above)
    for lane in range(LANES):
        if ties[lane] and nearest[1, lane] < np.inf:
            means[lane] = 0.5 * means[lane] + 0.5 * nearest[1, lane]


@exact_kernel
def sum_between(values, entries, low, high, sums):  # type: ignore[no-untyped-def]
    """In each lane Σω·(I − low) of what is between low and high, both excluded."""
    ends, part = np.empty((2, LANES), np.float32), np.empty((1, LANES), np.float32)
    for lane in range(LANES):
        ends[0, lane], ends[1, lane] = low[lane], np.nextafter(np.float32(high[lane]), -ENDLESS)
    first, last, nothing = load(ends, 0), load(ends, 1), splat(np.float32(0))
    sums[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        total = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value, weight = load(values, k), row_of(entries.weights, k)
            total = total + where_between(value, first, last, weight * (value - first), nothing)
        store(part, 0, total)
        add_to(sums, part)


@exact_kernel
def lower_medians(pixels, entries, interval, work, found):  # type: ignore[no-untyped-def]
    """found[0]: in each lane the median of I in the interval, the lower one if there are two: always that of a pixel. `work`
    (3, entry, lane) is room for as many pixels."""
    sample, sums, values = np.empty((SAMPLE, LANES), np.float32), np.empty((2, LANES)), work[0, : len(pixels)]
    divide(pixels, entries, interval, values, sums)
    sort_sample(values, sample)
    find_quantile(values, entries, 0.5 - TIE, sample, sums[0], work[1], work[2], found)


@exact_kernel
def quantile_lanes(pixels, entries, quantiles, work, means, sums):  # type: ignore[no-untyped-def]
    """In each lane the mean between two quantiles of a ring, and sums as of `divide`. `work` (3, entry, lane) is room."""
    everything = np.empty((2, LANES), np.float32)
    everything[0], everything[1] = -np.inf, np.inf
    values = work[0, : len(pixels)]
    divide(pixels, entries, everything, values, sums)
    between_quantiles(values, entries, quantiles, sums[0], work[1], work[2], means)


@exact_kernel
def quantile_batch(image, rings, batch, quantiles, profiles):  # type: ignore[no-untyped-def]
    """Of a batch: profiles (lane, 2, ring): the mean between two quantiles, and how many pixels have a value."""
    longest = longest_step(rings.starts, rings.batches[batch], rings.batches[batch + 1])
    gathered, work, sums, means = np.empty((longest, LANES), np.float32), room_for(longest), np.empty((2, LANES)), np.empty(LANES)
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        pixels = pixels_of(image, rings, batch, ring, gathered)
        if len(pixels) == 0:
            profiles[:, 0, ring], profiles[:, 1, ring] = np.nan, 0
            continue
        quantile_lanes(pixels, entries_of(rings, ring), quantiles, work, means, sums)
        for lane in range(len(profiles)):
            profiles[lane, 0, ring], profiles[lane, 1, ring] = means[lane], sums[1, lane]


@exact_kernel
def quantile_groups(image, lined, batch, quantiles, profile):  # type: ignore[no-untyped-def]
    """Of a batch of rings side by side (row, lane) of one frame: its profile (2, ring) likewise."""
    first, last = lined.batches[batch], lined.batches[batch + 1]
    work, sums, means = room_for(longest_step(lined.starts, first, last)), np.empty((2, LANES)), np.empty(LANES)
    for group in range(first, last):
        pixels = image[lined.starts[group] - lined.starts[first] : lined.starts[group + 1] - lined.starts[first]]
        means[:], sums[:] = np.nan, 0
        if len(pixels):
            quantile_lanes(pixels, group_of(lined, group), quantiles, work, means, sums)
        for lane in range(LANES):
            ring = lined.numbers[group, lane]
            if ring >= 0:
                profile[0, ring], profile[1, ring] = means[lane], sums[1, lane]
