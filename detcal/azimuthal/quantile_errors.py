"""Errors of medians and quantiles, and of means between two, from the spread in each ring. ndarrays in, ndarrays out.

Of n readings that count as n' = (Σω)²/Σω² equal ones, the share below a quantile q is known to δ = √(q(1 − q)/n'): the quantile lies
between those of q − δ and q + δ, half of whose distance is its standard error. A mean between two quantiles, b − a apart, has the variance
of the values with what lies beyond drawn to the quantiles (winsorized), over (b − a)²·n' (Tukey and McLaughlin, Sankhya A 25, 331, 1963;
Huber, Robust Statistics, 1981, section 3.3). The standard deviation of a reading is half of the distance of the quantiles that, of normal
values, lie one standard deviation from the median.

Between different values quantiles lie on straight lines, each at the middle of the weight of all that are equal to it, as in the mid-
distribution function (Ma, Genton and Parzen, Ann. Inst. Stat. Math. 63, 227, 2011): whole counts, of which many are equal, would else have
errors that are steps of a count, or none. Of these it is the error of a quantile with each count spread over its unit. The quantile that is
given is a whole count, and scatters in steps: by less, or not at all, where it is far from the next one, by up to half a step between two.
"""

import math

import numpy as np

from detcal.azimuthal.kernels import ROWS_A_SUM, add_to, entries_of, group_of, longest_step, pixels_of, room_for
from detcal.azimuthal.quantiles import ENDLESS, SAMPLE, divide, find_quantiles, sort_sample
from detcal.frames.jit import exact_kernel
from detcal.frames.simd import LANES, larger, load, row_of, smaller, splat, store, where_between, where_up_to

BELOW, ABOVE = 0.5 * math.erfc(1 / math.sqrt(2)), 0.5 * math.erfc(-1 / math.sqrt(2))  # of normal values


@exact_kernel
def count_and_weigh(values, entries, sums):  # type: ignore[no-untyped-def]
    """In each lane how many values there are, and the sum of the squares of their weights: sums (2, lane)."""
    part, one, nothing = np.empty((2, LANES), np.float32), splat(np.float32(1)), splat(np.float32(0))
    least, most = splat(-ENDLESS), splat(ENDLESS)
    sums[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        count = squares = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value, weight = load(values, k), row_of(entries.weights, k)
            count = count + where_between(value, least, most, one, nothing)
            squares = squares + where_between(value, least, most, weight * weight, nothing)
        store(part, 0, count)
        store(part, 1, squares)
        add_to(sums, part)


@exact_kernel
def look_around(values, found, near):  # type: ignore[no-untyped-def]
    """Around the value x = found[0] of each lane: near (3, lane) the next one below, x, and the next one above; infinite: none."""
    lowest, highest = splat(-ENDLESS), splat(ENDLESS)
    for lane in range(LANES):
        near[1, lane] = found[0, lane]
        near[0, lane] = np.nextafter(near[1, lane], -ENDLESS)
    under, here = load(near, 0), load(near, 1)
    below, above = lowest, highest
    for k in range(len(values)):
        value = load(values, k)
        below = larger(where_up_to(value, under, value, lowest), below)
        above = smaller(where_up_to(value, here, highest, value), above)
    store(near, 0, below)
    store(near, 2, above)


@exact_kernel
def weigh_around(values, entries, near, sums):  # type: ignore[no-untyped-def]
    """The weights of all that are equal to the next one below, and to the next one above: sums (2, lane)."""
    part, nothing = np.empty((2, LANES), np.float32), splat(np.float32(0))
    below, above = load(near, 0), load(near, 2)
    sums[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        weight_below = weight_above = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value, weight = load(values, k), row_of(entries.weights, k)
            weight_below = weight_below + where_between(value, below, below, weight, nothing)
            weight_above = weight_above + where_between(value, above, above, weight, nothing)
        store(part, 0, weight_below)
        store(part, 1, weight_above)
        add_to(sums, part)


@exact_kernel
def place_between(values, entries, found, place):  # type: ignore[no-untyped-def]
    """From what `find_quantiles` found, in each lane where the straight lines come to its part of all: place (lane,)."""
    near, sums = np.empty((3, LANES), np.float32), np.empty((2, LANES))
    look_around(values, found, near)
    weigh_around(values, entries, near, sums)
    for lane in range(LANES):
        x, below, up_to, wanted = near[1, lane], found[1, lane], found[2, lane], found[3, lane]
        half = 0.5 * (up_to - below)
        middle = below + half
        place[lane] = x
        if wanted < middle and sums[0, lane] > 0:
            place[lane] -= (x - float(near[0, lane])) * (middle - wanted) / (half + 0.5 * sums[0, lane])
        elif wanted > middle and sums[1, lane] > 0:
            place[lane] += (float(near[2, lane]) - x) * (wanted - middle) / (half + 0.5 * sums[1, lane])


@exact_kernel
def winsorized_sums(values, entries, low, high, sums):  # type: ignore[no-untyped-def]
    """In each lane Σω·d and Σω·d² of d = I − low, where what lies beyond low and high is drawn to them: sums (2, lane)."""
    ends, part, nothing = np.empty((2, LANES), np.float32), np.empty((2, LANES), np.float32), splat(np.float32(0))
    for lane in range(LANES):
        ends[0, lane], ends[1, lane] = low[lane], high[lane]
    first, last, least, most = load(ends, 0), load(ends, 1), splat(-ENDLESS), splat(ENDLESS)
    sums[:] = 0
    for start in range(0, len(values), ROWS_A_SUM):
        one = two = nothing
        for k in range(start, min(len(values), start + ROWS_A_SUM)):
            value = load(values, k)
            weight = where_between(value, least, most, row_of(entries.weights, k), nothing)
            drawn = smaller(larger(value, first), last) - first
            one = one + weight * drawn
            two = two + weight * drawn * drawn
        store(part, 0, one)
        store(part, 1, two)
        add_to(sums, part)


@exact_kernel
def errors_in_lanes(pixels, entries, quantiles, work, errors):  # type: ignore[no-untyped-def]
    """errors (2, lane): in each lane the standard error of the mean between two quantiles of a ring, or of one, and the standard deviation
    of a reading; NaN of a single one. `work` (3, entry, lane) is room."""
    everything, sample, found = np.empty((2, LANES), np.float32), np.empty((SAMPLE, LANES), np.float32), np.empty((4, LANES))
    total, sums, parts, places = np.empty((2, LANES)), np.empty((2, LANES)), np.empty((4, LANES)), np.empty((4, LANES))
    values, (low, high) = work[0, : len(pixels)], quantiles
    everything[0], everything[1] = -np.inf, np.inf
    divide(pixels, entries, everything, values, total)
    sort_sample(values, sample)
    count_and_weigh(values, entries, sums)
    for lane in range(LANES):
        unknown = math.sqrt(low * (1 - low) * sums[1, lane]) / total[0, lane] if low == high else 0.0
        parts[0, lane], parts[1, lane], parts[2, lane], parts[3, lane] = BELOW, ABOVE, max(0.0, low - unknown), min(1.0, high + unknown)
        errors[0, lane] = errors[1, lane] = sums[0, lane]
    for k in range(4):
        find_quantiles(values, entries, parts[k], sample, total[0], work[1], work[2], found)
        place_between(values, entries, found, places[k])
    for lane in range(LANES):
        several = errors[0, lane] > 1
        errors[0, lane] = 0.5 * (places[3, lane] - places[2, lane]) if several and 0 < low < 1 else np.nan
        errors[1, lane] = 0.5 * (places[1, lane] - places[0, lane]) if several else np.nan
    if low < high:
        equal = sums[1].copy()
        winsorized_sums(values, entries, places[2], places[3], sums)
        for lane in range(LANES):
            mean, square = sums[0, lane] / total[0, lane], sums[1, lane] / total[0, lane]
            variance = max(0.0, square - mean * mean) * equal[lane] / total[0, lane] ** 2
            errors[0, lane] = math.sqrt(variance) / (high - low) if errors[1, lane] == errors[1, lane] else np.nan


@exact_kernel
def errors_of_batch(image, rings, batch, quantiles, errors):  # type: ignore[no-untyped-def]
    """Of a batch: errors (lane, 2, ring)."""
    longest = longest_step(rings.starts, rings.batches[batch], rings.batches[batch + 1])
    gathered, work, found = np.empty((longest, LANES), np.float32), room_for(longest), np.empty((2, LANES))
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        pixels = pixels_of(image, rings, batch, ring, gathered)
        found[:] = np.nan
        if len(pixels):
            errors_in_lanes(pixels, entries_of(rings, ring), quantiles, work, found)
        for lane in range(len(errors)):
            errors[lane, 0, ring], errors[lane, 1, ring] = found[0, lane], found[1, lane]


@exact_kernel
def errors_of_groups(image, lined, batch, quantiles, errors):  # type: ignore[no-untyped-def]
    """Of a batch of rings side by side (row, lane) of one frame: errors (2, ring) likewise."""
    first, last = lined.batches[batch], lined.batches[batch + 1]
    work, found = room_for(longest_step(lined.starts, first, last)), np.empty((2, LANES))
    for group in range(first, last):
        pixels = image[lined.starts[group] - lined.starts[first] : lined.starts[group + 1] - lined.starts[first]]
        found[:] = np.nan
        if len(pixels):
            errors_in_lanes(pixels, group_of(lined, group), quantiles, work, found)
        for lane in range(LANES):
            ring = lined.numbers[group, lane]
            if ring >= 0:
                errors[0, ring], errors[1, ring] = found[0, lane], found[1, lane]
