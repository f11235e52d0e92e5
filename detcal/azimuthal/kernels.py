"""Statistics of the pixels in each ring, of frames side by side. ndarrays in, ndarrays out.

A ring has entries: pixels, each with the share of it that lies in the ring (1, if pixels are not split). Averaged is
I = (raw − dark)/norm with the weight ω = share·norm, so that ⟨I⟩ = Σω·I/Σω = Σshare·(raw − dark)/Σshare·norm. A ring is gathered
once, LANES frames at a time, into a buffer that stays in the cache; what comes after are passes over its rows.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.jit import kernel
from detcal.lanes import Floats, Frames, Valid, read_only, tile_to_lanes
from detcal.simd import LANES, larger, load, prefetch, smaller, splat, store, where_between, where_number

# How the variance of a pixel's reading is known: not, as Poisson's, from the spread in its ring, so while outliers are sought and
# as Poisson's in the end, or given.
NONE, POISSON, AZIMUTHAL, HYBRID, GIVEN = range(5)

BATCH = 2**15  # entries of rings that are treated together: 2 MiB in lanes
ROWS_A_SUM = 32  # that are added in float32, before they are added to sums in float64
SAMPLE = 31  # entries of a ring that are sorted, to say where a quantile may lie
ROUNDING = 4 * 2.0**-23  # by which I may be off in float32, relative
AHEAD = 8  # tiles that are asked for before they are loaded
DIGITS = 24  # binary ones of a float32
TIE = 1e-12  # of a ring's weight: what a quantile of it may be off by in float64


class Rings(NamedTuple):
    """The entries of all rings: those of ring r are from starts[r] to starts[r + 1].

    Rings go in batches, whose pixels are few enough for the cache: batch b begins at ring batches[b]. Its pixels are loaded by tiles
    of LANES neighbours, tiles[tile_starts[b] : tile_starts[b + 1]]; rows says where an entry's pixel then lies. Weights are for
    quantiles, see `whole_weights`.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    shares: Floats
    norms: Floats
    darks: Floats
    weights: Floats
    batches: NDArray[np.int64]
    tiles: NDArray[np.int64]
    tile_starts: NDArray[np.int64]

    @classmethod
    def of(cls, starts: NDArray[np.int64], pixels: NDArray[np.int32], shares: Floats, norms: Floats, darks: Floats) -> "Rings":
        """Rings in batches of about BATCH entries."""
        ends = np.searchsorted(starts, np.arange(BATCH, starts[-1], BATCH))
        batches = np.unique(np.concatenate([[0], ends, [len(starts) - 1]]))  # the last one with the empty rings at the end
        rows, slots = np.empty(len(pixels), np.int32), np.zeros(pixels.max() // LANES + 1, np.int32)
        tiles = [place_tiles(pixels[first:last], slots, rows[first:last]) for first, last in pairwise(starts[batches])]
        tile_starts = np.cumsum([0, *map(len, tiles)])
        weights = whole_weights(starts, shares, norms)
        return cls.from_arrays(starts, rows, shares, norms, darks, weights, batches, np.concatenate(tiles), tile_starts)

    @classmethod
    def from_arrays(cls, *arrays: NDArray[Any]) -> "Rings":
        """The same of its arrays, wherever they come from."""
        return cls(*map(read_only, arrays))


@kernel
def place_tiles(pixels, slots, rows):  # type: ignore[no-untyped-def]
    """The tiles in which the pixels lie, rising, and where each pixel lies if they are put one behind the other."""
    tiles = np.empty(pixels.size, np.int64)
    count = 0
    for pixel in pixels:
        tile = pixel // LANES
        if slots[tile] == 0:
            slots[tile], tiles[count] = 1, tile
            count += 1
    tiles = np.sort(tiles[:count])
    slots[tiles] = np.arange(count)
    for k in range(pixels.size):
        rows[k] = slots[pixels[k] // LANES] * LANES + pixels[k] % LANES
    slots[tiles] = 0
    return tiles


def room(rings: Rings) -> Floats:
    """For the pixels of any one batch (row, lane)."""
    return np.empty((LANES * int(np.diff(rings.tile_starts).max()), LANES), np.float32)


def load_batch(frames: Frames, valid: Valid, rings: Rings, batch: int, into: Floats) -> Floats:
    """The pixels of a batch (row, lane), of up to LANES frames (frame, pixel)."""
    tiles = rings.tiles[rings.tile_starts[batch] : rings.tile_starts[batch + 1]]
    load_tiles(frames, valid, tiles, into)
    return into[: LANES * len(tiles)]


@kernel
def load_tiles(frames, valid, tiles, lanes):  # type: ignore[no-untyped-def]
    """Tiles of LANES neighbouring pixels, one after the other, as (pixel, lane)."""
    scratch, pixels = np.zeros((LANES, LANES), np.float32), frames.shape[1]
    for k in range(tiles.size):
        if k + AHEAD < tiles.size:
            prefetch(frames, tiles[k + AHEAD] * LANES)
        start = tiles[k] * LANES
        tile_to_lanes(frames, valid, start, min(LANES, pixels - start), scratch, lanes, k * LANES)


@kernel
def gather(image, noise, rings, ring, model, buffer):  # type: ignore[no-untyped-def]
    """raw − dark of the ring's pixels (entry, lane), from those of its batch; how many entries there are.

    NaN where there is no reading, or no variance for it.
    """
    begin = rings.starts[ring]
    size = rings.starts[ring + 1] - begin
    for k in range(size):
        store(buffer, k, reading(image, noise, rings, begin + k, model))
    return size


@kernel
def reading(image, noise, rings, entry, model):  # type: ignore[no-untyped-def]
    """raw − dark of an entry's pixel, NaN without a reading or a variance for it."""
    row = rings.rows[entry]
    value = load(image, row) - splat(rings.darks[entry])
    if model == GIVEN:
        return where_between(load(noise, row), splat(np.float32(0)), splat(np.float32(np.inf)), value, splat(np.float32(np.nan)))
    return value


# ---------------------------------------------------------------------------------------------------- mean and spread


@kernel
def moments(buffer, size, rings, begin, centre, interval, sums):  # type: ignore[no-untyped-def]
    """In each lane, of the entries with I in the interval: Σω, Σω·d, Σω², Σω²·d, Σω²·d², Σshare; d = I − centre."""
    part = np.empty((6, LANES), np.float32)
    nothing, about, low, high = splat(np.float32(0)), load(centre, 0), load(interval, 0), load(interval, 1)
    sums[:] = 0
    for start in range(0, size, ROWS_A_SUM):
        a = b = c = d = e = f = nothing
        for k in range(start, min(size, start + ROWS_A_SUM)):
            value, norm, share = load(buffer, k), rings.norms[begin + k], rings.shares[begin + k]
            least, most = norm * low, norm * high
            weight = where_between(value, least, most, splat(share * norm), nothing)
            deviation = where_between(value, least, most, share * (value - norm * about), nothing)
            a = a + weight
            b = b + deviation
            c = c + weight * weight
            d = d + weight * deviation
            e = e + deviation * deviation
            f = f + where_between(value, least, most, splat(share), nothing)
        store(part, 0, a)
        store(part, 1, b)
        store(part, 2, c)
        store(part, 3, d)
        store(part, 4, e)
        store(part, 5, f)
        sums += part


@kernel
def settle(buffer, size, rings, begin, centre, interval, sums, found):  # type: ignore[no-untyped-def]
    """In each lane, within the interval: mean, Σω, Σω², the variance of Σω·I as it is from their spread, Σshare.

    A centre far from the mean, by the spread, would cost the spread its digits: such a one is moved there, and it all begins again.
    """
    while True:
        moments(buffer, size, rings, begin, centre, interval, sums)
        far = False
        for lane in range(LANES):
            weight = sums[0, lane]
            found[1, lane], found[2, lane], found[4, lane] = weight, sums[2, lane], sums[5, lane]
            if not weight > 0:
                found[0, lane], found[3, lane] = np.nan, np.nan
                continue
            shift = sums[1, lane] / weight
            spread = max(0.0, sums[4, lane] - shift * (2 * sums[3, lane] - shift * sums[2, lane]))
            found[0, lane], found[3, lane] = centre[0, lane] + shift, spread
            moved = np.float32(centre[0, lane] + shift)
            if shift * shift * sums[2, lane] > 4 * spread and moved != centre[0, lane]:
                centre[0, lane], far = moved, True
        if not far:
            return


@kernel
def noise_sum(buffer, size, noise, rings, begin, model, interval, found):  # type: ignore[no-untyped-def]
    """In each lane, within the interval: the variance of Σω·I as it is from each reading's, Poisson's or given."""
    part = np.empty((1, LANES), np.float32)
    nothing, low, high = splat(np.float32(0)), load(interval, 0), load(interval, 1)
    found[3] = 0
    for start in range(0, size, ROWS_A_SUM):
        total = nothing
        for k in range(start, min(size, start + ROWS_A_SUM)):
            value, norm, share, dark = load(buffer, k), rings.norms[begin + k], rings.shares[begin + k], splat(rings.darks[begin + k])
            variance = larger(value + dark, splat(np.float32(1))) + dark  # of the reading, dark and all, and of the dark
            if model == GIVEN:
                variance = load(noise, rings.rows[begin + k])
            total = total + where_between(value, norm * low, norm * high, (share * share) * variance, nothing)
        store(part, 0, total)
        found[3] += part[0]


@kernel
def statistics(buffer, size, noise, rings, begin, model, centre, interval, sums, found):  # type: ignore[no-untyped-def]
    """As `settle`, with the variance of the model."""
    settle(buffer, size, rings, begin, centre, interval, sums, found)
    if model in (POISSON, GIVEN):
        noise_sum(buffer, size, noise, rings, begin, model, interval, found)


@kernel
def clip_ring(buffer, size, noise, rings, ring, model, threshold, most, work, centre, interval, found):  # type: ignore[no-untyped-def]
    """Sigma-clip a ring: interval (2, lane) is what is kept of I, found (5, lane) the statistics of it."""
    begin = rings.starts[ring]
    sums, middles, tried = np.empty((6, LANES)), np.empty((4, LANES)), np.empty((2, LANES), np.float32)
    interval[0], interval[1], centre[:] = -np.inf, np.inf, 0
    settle(buffer, min(size, ROWS_A_SUM), rings, begin, centre, interval, sums, found)
    for lane in range(LANES):
        centre[0, lane] = found[0, lane] if found[1, lane] > 0 else 0
    statistics(buffer, size, noise, rings, begin, model, centre, interval, sums, found)
    before, limits, open_lanes = np.zeros(LANES), np.empty(LANES), found[4] > 0
    for _ in range(most):  # a lane in which nothing more goes stays as it is, bit by bit, whatever lies beside it
        tried[:] = interval
        open_lanes &= found[4] != before
        if not open_lanes.any():
            return
        before[:] = found[4]
        for lane in range(LANES):
            if open_lanes[lane]:
                chauvenet = np.sqrt(2 * np.log(max(3.0, found[4, lane]) / np.sqrt(2 * np.pi)))
                limits[lane] = max(threshold, chauvenet) * np.sqrt(found[3, lane] / found[2, lane])
                centre[0, lane] = found[0, lane]
                narrow(interval, lane, found[0, lane], limits[lane])
        statistics(buffer, size, noise, rings, begin, model, centre, interval, sums, found)
        wiped = open_lanes & (found[4] < before / 2)
        if model in (POISSON, GIVEN) and wiped.any():  # by outliers that the mean has gone to: they are sought about the median instead
            lower_medians(buffer, size, rings, ring, tried, work, middles)
            for lane in range(LANES):
                if wiped[lane]:
                    interval[0, lane], interval[1, lane] = tried[0, lane], tried[1, lane]
                    narrow(interval, lane, middles[0, lane], limits[lane])
                    centre[0, lane] = middles[0, lane]
            statistics(buffer, size, noise, rings, begin, model, centre, interval, sums, found)


@kernel
def narrow(interval, lane, middle, limit):  # type: ignore[no-untyped-def]
    """Keep what is within a limit of the middle; what rounding alone takes away from it stays."""
    limit = max(limit, ROUNDING * abs(middle))
    interval[0, lane] = max(interval[0, lane], np.float32(middle - limit))
    interval[1, lane] = min(interval[1, lane], np.float32(middle + limit))


@kernel
def clip_batch(image, noise, rings, batch, model, threshold, most, profiles, intervals):  # type: ignore[no-untyped-def]
    """Of a batch: profiles (lane, 4, ring), which are mean, its standard error, standard deviation, and pixels; and intervals
    (lane, 2, ring) of I that is kept."""
    longest = np.diff(rings.starts[rings.batches[batch] : rings.batches[batch + 1] + 1]).max()
    buffer, work = np.empty((longest, LANES), np.float32), np.empty((longest, LANES), np.float32)
    centre, interval, found = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty((5, LANES))
    sought = AZIMUTHAL if model == HYBRID else model
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        size = gather(image, noise, rings, ring, model, buffer)
        clip_ring(buffer, size, noise, rings, ring, sought, threshold, most, work, centre, interval, found)
        if model == HYBRID:
            noise_sum(buffer, size, noise, rings, rings.starts[ring], POISSON, interval, found)
        for lane in range(len(profiles)):
            mean, weight, squares, variance, count = found[:, lane]
            if model == NONE or (model == AZIMUTHAL and not count > 1):  # of a single pixel there is no spread
                variance = np.nan
            profiles[lane, 0, ring], profiles[lane, 3, ring] = mean, count
            profiles[lane, 1, ring] = np.sqrt(variance) / weight if weight > 0 else np.nan
            profiles[lane, 2, ring] = np.sqrt(variance / squares) if weight > 0 else np.nan
            intervals[lane, 0, ring], intervals[lane, 1, ring] = interval[0, lane], interval[1, lane]


@kernel
def mark_batch(image, noise, rings, batch, model, intervals, marks):  # type: ignore[no-untyped-def]
    """Of a batch: marks (row, lane) become 1 where I is outside the interval (lane, 2, ring) of one of the pixel's rings."""
    ends, nothing, one = np.zeros((2, LANES), np.float32), splat(np.float32(0)), splat(np.float32(1))
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        for lane in range(len(intervals)):
            ends[0, lane], ends[1, lane] = intervals[lane, 0, ring], intervals[lane, 1, ring]
        low, high = load(ends, 0), load(ends, 1)
        for k in range(rings.starts[ring], rings.starts[ring + 1]):
            norm, row = rings.norms[k], rings.rows[k]
            value = reading(image, noise, rings, k, model)
            outside = where_between(value, norm * low, norm * high, nothing, where_number(value * nothing + one, nothing))
            store(marks, row, larger(outside, load(marks, row)))


@kernel
def unload_marks(marks, rings, batch, marked):  # type: ignore[no-untyped-def]
    """Set what is marked in a batch in the frames (frame, pixel)."""
    begin = rings.tile_starts[batch]
    for row in range(len(marks)):
        pixel = rings.tiles[begin + row // LANES] * LANES + row % LANES
        for lane in range(len(marked)):
            if marks[row, lane] > 0:
                marked[lane, pixel] = True


# ---------------------------------------------------------------------------------------------------------- quantiles


@kernel
def whole_weights(starts, shares, norms):  # type: ignore[no-untyped-def]
    """share·norm by ring in whole numbers, so small that as many as are added in float32 add up without rounding.

    Where pixels weigh the same, a quantile then is on their border exactly.
    """
    weights = shares * norms
    for ring in range(len(starts) - 1):
        entries = weights[starts[ring] : starts[ring + 1]]
        if entries.size:
            bits = DIGITS - math.ceil(math.log2(min(entries.size, ROWS_A_SUM)))
            scale = 2.0 ** (bits - math.frexp(entries.max())[1])
            for k in range(entries.size):
                entries[k] = max(1.0, np.rint(entries[k] * scale))
    return weights


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
    nothing = np.full((1, LANES), np.float32(-np.inf))
    weigh(values, size, rings, begin, nothing, weights, ends)
    low = ends[1].copy()
    nothing[:] = np.inf
    weigh(values, size, rings, begin, nothing, weights, ends)
    ends[1] = ends[0]
    ends[0] = low


@kernel
def sort_sample(values, size, sample):  # type: ignore[no-untyped-def]
    """Some of the values, rising in each lane, what is no value behind them; how many were taken."""
    count = min(size, SAMPLE)
    for i in range(count):
        store(sample, i, where_number(load(values, i * size // count), splat(np.float32(np.inf))))
    for turn in range(count):
        for i in range(turn % 2, count - 1, 2):
            one, other = load(sample, i), load(sample, i + 1)
            store(sample, i, smaller(one, other))
            store(sample, i + 1, larger(one, other))
    return count


@kernel
def find_quantile(values, size, rings, begin, quantile, sample, count, weights, ends, found):  # type: ignore[no-untyped-def]
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
                rank = int(quantile * numbers(sample, count, lane)) + (-3, 3)[step]
                guess = sample[min(max(rank, 0), count - 1), lane]
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
def numbers(sample, count, lane):  # type: ignore[no-untyped-def]
    """How many of the sorted sample are values."""
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
    count = sort_sample(values, size, sample)
    single = quantiles[0] == quantiles[1]
    find_quantile(values, size, rings, begin, quantiles[0] - (TIE if single else 0.0), sample, count, weights, ends, lower)
    if single:
        pivots, nearest, passed = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty(LANES)
        pivots[0] = lower[0]
        weigh(values, size, rings, begin, pivots, passed, nearest)
        for lane in range(LANES):
            tie = passed[lane] - lower[3, lane] < 2 * TIE * weights[lane]
            above = nearest[1, lane] if tie and nearest[1, lane] < np.inf else lower[0, lane]
            means[lane] = 0.5 * lower[0, lane] + 0.5 * above if weights[lane] > 0 else np.nan
        return
    find_quantile(values, size, rings, begin, quantiles[1], sample, count, weights, ends, upper)
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
    find_quantile(work, size, rings, begin, 0.5 - TIE, sample, sort_sample(work, size, sample), weights, ends, found)


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
