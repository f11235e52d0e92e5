"""Mean and spread of the pixels in each ring, and sigma-clipping. ndarrays in, ndarrays out."""

import numpy as np

from detcal.azimuthal.kernels import (
    AZIMUTHAL,
    GIVEN,
    HYBRID,
    NONE,
    POISSON,
    ROWS_A_SUM,
    add_to,
    entries_of,
    group_of,
    longest_step,
    pixels_of,
    room_for,
)
from detcal.azimuthal.quantiles import lower_medians
from detcal.frames.jit import exact_kernel
from detcal.frames.simd import LANES, larger, load, plus_product, row_of, splat, store, where_between, where_number

ROUNDING = 4 * 2.0**-23  # by which I may be off in float32, relative


@exact_kernel
def moments(pixels, entries, centre, interval, sums):  # type: ignore[no-untyped-def]
    """In each lane, of the entries with I in the interval: Σω, Σω·d, Σω², Σω²·d, Σω²·d², Σshare; d = I − centre."""
    part = np.empty((6, LANES), np.float32)
    nothing, low, high = splat(np.float32(0)), load(interval, 0), load(interval, 1)
    back = nothing - load(centre, 0)
    sums[:] = 0
    for start in range(0, len(pixels), ROWS_A_SUM):
        a = b = c = d = e = f = nothing
        for k in range(start, min(len(pixels), start + ROWS_A_SUM)):
            value, norm, share = load(pixels, k), row_of(entries.norms, k), row_of(entries.shares, k)
            least, most = norm * low, norm * high
            weight = where_between(value, least, most, share * norm, nothing)
            deviation = where_between(value, least, most, share * plus_product(value, norm, back), nothing)
            a = a + weight
            b = b + deviation
            c = plus_product(c, weight, weight)
            d = plus_product(d, weight, deviation)
            e = plus_product(e, deviation, deviation)
            f = f + where_between(value, least, most, share, nothing)
        store(part, 0, a)
        store(part, 1, b)
        store(part, 2, c)
        store(part, 3, d)
        store(part, 4, e)
        store(part, 5, f)
        add_to(sums, part)


@exact_kernel
def settle(pixels, entries, centre, interval, sums, found):  # type: ignore[no-untyped-def]
    """In each lane, within the interval: mean, Σω, Σω², the variance of Σω·I as it is from their spread, Σshare.

    A centre far from the mean, by the spread, would cost the spread its digits: such a one is moved there, and it all begins again.
    """
    while True:
        moments(pixels, entries, centre, interval, sums)
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


@exact_kernel
def noise_sum(pixels, noise, entries, model, interval, found):  # type: ignore[no-untyped-def]
    """In each lane, within the interval: the variance of Σω·I as it is from each reading's, Poisson's or given."""
    part = np.empty((1, LANES), np.float32)
    nothing, low, high = splat(np.float32(0)), load(interval, 0), load(interval, 1)
    found[3] = 0
    for start in range(0, len(pixels), ROWS_A_SUM):
        total = nothing
        for k in range(start, min(len(pixels), start + ROWS_A_SUM)):
            value, norm, share, dark = load(pixels, k), row_of(entries.norms, k), row_of(entries.shares, k), row_of(entries.darks, k)
            variance = larger(value + dark, splat(np.float32(1))) + dark  # of the reading, dark and all, and of the dark
            if model == GIVEN:
                variance = load(noise, k)
            total = total + where_between(value, norm * low, norm * high, (share * share) * variance, nothing)
        store(part, 0, total)
        for lane in range(LANES):
            found[3, lane] += part[0, lane]


@exact_kernel
def statistics(pixels, noise, entries, model, centre, interval, sums, found):  # type: ignore[no-untyped-def]
    """As `settle`, with the variance of the model."""
    settle(pixels, entries, centre, interval, sums, found)
    if model in (POISSON, GIVEN):
        noise_sum(pixels, noise, entries, model, interval, found)


@exact_kernel
def clip_rings(pixels, noise, entries, model, threshold, most, work, centre, interval, found):  # type: ignore[no-untyped-def]
    """Sigma-clip a ring in each lane: interval (2, lane) is what is kept of I, found (5, lane) the statistics of it."""
    sums, middles, tried = np.empty((6, LANES)), np.empty((4, LANES)), np.empty((2, LANES), np.float32)
    interval[0], interval[1], centre[:] = -np.inf, np.inf, 0
    settle(pixels[:ROWS_A_SUM], entries, centre, interval, sums, found)
    for lane in range(LANES):
        centre[0, lane] = found[0, lane] if found[1, lane] > 0 else 0
    statistics(pixels, noise, entries, model, centre, interval, sums, found)
    before, limits, open_lanes, wiped = np.zeros(LANES), np.empty(LANES), np.ones(LANES, np.bool_), np.empty(LANES, np.bool_)
    for _ in range(most):  # a lane in which nothing more goes stays as it is, bit by bit, whatever lies beside it
        some_open, some_wiped = False, False
        for lane in range(LANES):
            tried[0, lane], tried[1, lane] = interval[0, lane], interval[1, lane]
            open_lanes[lane] = open_lanes[lane] and found[4, lane] != before[lane]
            some_open = some_open or open_lanes[lane]
        if not some_open:
            return
        for lane in range(LANES):
            before[lane] = found[4, lane]
            if open_lanes[lane]:
                chauvenet = np.sqrt(2 * np.log(max(3.0, found[4, lane]) / np.sqrt(2 * np.pi)))
                limits[lane] = max(threshold, chauvenet) * np.sqrt(found[3, lane] / found[2, lane])
                centre[0, lane] = found[0, lane]
                narrow(interval, lane, found[0, lane], limits[lane])
        statistics(pixels, noise, entries, model, centre, interval, sums, found)
        for lane in range(LANES):
            wiped[lane] = open_lanes[lane] and found[4, lane] < before[lane] / 2
            some_wiped = some_wiped or wiped[lane]
        if model in (POISSON, GIVEN) and some_wiped:  # by outliers that the mean has gone to: they are sought about the median instead
            lower_medians(pixels, entries, tried, work, middles)
            for lane in range(LANES):
                if wiped[lane]:
                    interval[0, lane], interval[1, lane] = tried[0, lane], tried[1, lane]
                    narrow(interval, lane, middles[0, lane], limits[lane])
                    centre[0, lane] = middles[0, lane]
            statistics(pixels, noise, entries, model, centre, interval, sums, found)


@exact_kernel
def narrow(interval, lane, middle, limit):  # type: ignore[no-untyped-def]
    """Keep what is within a limit of the middle; what rounding alone takes away from it stays."""
    limit = max(limit, ROUNDING * abs(middle))
    interval[0, lane] = max(interval[0, lane], np.float32(middle - limit))
    interval[1, lane] = min(interval[1, lane], np.float32(middle + limit))


@exact_kernel
def clip_lanes(pixels, noise, entries, model, threshold, most, work, centre, interval, found):  # type: ignore[no-untyped-def]
    """As `clip_rings`, with the variance that the model gives in the end."""
    clip_rings(pixels, noise, entries, AZIMUTHAL if model == HYBRID else model, threshold, most, work, centre, interval, found)
    if model == HYBRID:
        noise_sum(pixels, noise, entries, model, interval, found)


@exact_kernel
def put_statistics(lane, found, interval, model, profile, kept, ring):  # type: ignore[no-untyped-def]
    """What a lane has, to a frame's profile (5, ring), which are mean, its standard error, standard deviation, pixels, and Σω; and the
    interval of I that is kept (2, ring)."""
    mean, weight, squares, variance, count = found[0, lane], found[1, lane], found[2, lane], found[3, lane], found[4, lane]
    if model == NONE or (model == AZIMUTHAL and not count > 1):  # of a single pixel there is no spread
        variance = np.nan
    profile[0, ring], profile[3, ring], profile[4, ring] = mean, count, weight
    profile[1, ring] = np.sqrt(variance) / weight if weight > 0 else np.nan
    profile[2, ring] = np.sqrt(variance / squares) if weight > 0 else np.nan
    kept[0, ring], kept[1, ring] = interval[0, lane], interval[1, lane]


@exact_kernel
def clip_batch(image, noise, rings, batch, model, threshold, most, profiles, intervals):  # type: ignore[no-untyped-def]
    """Of a batch: profiles (lane, 5, ring) and intervals (lane, 2, ring)."""
    longest = longest_step(rings.starts, rings.batches[batch], rings.batches[batch + 1])
    gathered, work = np.empty((longest, LANES), np.float32), room_for(longest)
    beside = np.empty((longest if model == GIVEN else 0, LANES), np.float32)
    centre, interval, found = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty((5, LANES))
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        pixels = spread = pixels_of(image, rings, batch, ring, gathered)
        if model == GIVEN:
            spread = pixels_of(noise, rings, batch, ring, beside)
        clip_lanes(pixels, spread, entries_of(rings, ring), model, threshold, most, work, centre, interval, found)
        for lane in range(len(profiles)):
            put_statistics(lane, found, interval, model, profiles[lane], intervals[lane], ring)


@exact_kernel
def clip_groups(image, noise, lined, batch, model, threshold, most, profile, kept):  # type: ignore[no-untyped-def]
    """Of a batch of rings side by side (row, lane) of one frame: its profile (5, ring) and intervals (2, ring)."""
    first, last = lined.batches[batch], lined.batches[batch + 1]
    work = room_for(longest_step(lined.starts, first, last))
    centre, interval, found = np.empty((1, LANES), np.float32), np.empty((2, LANES), np.float32), np.empty((5, LANES))
    for group in range(first, last):
        rows = slice(lined.starts[group] - lined.starts[first], lined.starts[group + 1] - lined.starts[first])
        clip_lanes(image[rows], noise[rows], group_of(lined, group), model, threshold, most, work, centre, interval, found)
        for lane in range(LANES):
            if lined.numbers[group, lane] >= 0:
                put_statistics(lane, found, interval, model, profile, kept, lined.numbers[group, lane])


@exact_kernel
def mark_batch(image, rings, batch, intervals, marks):  # type: ignore[no-untyped-def]
    """Of a batch: marks (row, lane) become 1 where I is outside the interval (lane, 2, ring) of one of the pixel's rings."""
    ends, nothing, one = np.zeros((2, LANES), np.float32), splat(np.float32(0)), splat(np.float32(1))
    for ring in range(rings.batches[batch], rings.batches[batch + 1]):
        for lane in range(len(intervals)):
            ends[0, lane], ends[1, lane] = intervals[lane, 0, ring], intervals[lane, 1, ring]
        low, high = load(ends, 0), load(ends, 1)
        for k in range(rings.starts[ring], rings.starts[ring + 1]):
            norm, row = rings.norms[k], rings.rows[k]
            value = load(image, row)
            outside = where_between(value, norm * low, norm * high, nothing, where_number(value * nothing + one, nothing))
            store(marks, row, larger(outside, load(marks, row)))


@exact_kernel
def unload_marks(marks, rings, batch, marked):  # type: ignore[no-untyped-def]
    """Set what is marked in a batch in the frames (frame, pixel)."""
    for k in range(rings.tile_starts[batch], rings.tile_starts[batch + 1]):
        for e in range(LANES):
            place, pixel = rings.places[k, e], rings.tiles[k] * LANES + e
            for lane in range(len(marked)):
                if place >= 0 and marks[place, lane] > 0:
                    marked[lane, pixel] = True


@exact_kernel
def mark_groups(image, lined, batch, kept, marked):  # type: ignore[no-untyped-def]
    """Set what of a batch of rings side by side is outside the interval (2, ring) of one of the pixel's rings in a frame (pixel,)."""
    begin = lined.starts[lined.batches[batch]]
    for group in range(lined.batches[batch], lined.batches[batch + 1]):
        for row in range(lined.starts[group], lined.starts[group + 1]):
            for lane in range(LANES):
                value, norm, ring = image[row - begin, lane], lined.norms[row, lane], lined.numbers[group, lane]
                if value < norm * kept[0, ring] or value > norm * kept[1, ring]:  # not so of what is NaN, as where there is no ring
                    marked[lined.pixels[row, lane]] = True
