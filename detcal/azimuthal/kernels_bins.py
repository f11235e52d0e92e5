"""Which bins each pixel lies in, and with what share. ndarrays in, ndarrays out.

Bins are rings, or parts of rings: bin ring·parts + part. Edges rise evenly, as those of `numpy.linspace`, and the rule is that of
`numpy.histogram`: a bin has its lower edge, the last one also its upper edge, and what lies outside is in no bin. A bin is found by
comparison with the edges themselves, so that what a ring has does not depend on the rings around it.

A pixel is a point, a box around its centre, or the outline through its corners, in radius and azimuth. A bin has the share of the box's or
outline's area that lies in it; what lies outside of all bins is in none. Azimuths in radians go round: a pixel across ±π lies at both ends.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel

TURN = 2 * math.pi
THROUGH_THE_BEAM = 0.9999 * math.pi  # from one corner to the next: rounding decides on which side of the beam that step is
AT_THE_BEAM = 1e-6  # radius of a corner, of its pixel's largest: it has no azimuth
TINY = 1e-290  # so that what is divided by it is still a number
LEAST_SHARE = 1e-7  # smaller ones are rounding
LEAST_FILLED = 1e-6  # of an outline's box: below it is a line, and has no area to divide
VERTICES = 32  # of an outline, cut at two azimuths: at most


class Edges(NamedTuple):
    """Rising edges (bin + 1,) of bins, none if there are no bins, and the bins in a unit of length."""

    values: NDArray[np.float64]
    density: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Edges":
        """Evenly spaced ones."""
        return cls(values, (len(values) - 1) / max(float(np.ptp(values)), TINY) if len(values) else 0.0)


@kernel
def find_bin(value, edges):  # type: ignore[no-untyped-def]
    """The bin of a number; −1 if it is in none, or NaN."""
    values, last = edges.values, len(edges.values) - 2
    if not values[0] <= value <= values[last + 1]:
        return -1
    k = min(int((value - values[0]) * edges.density), last)
    while k > 0 and value < values[k]:
        k -= 1
    while k < last and value >= values[k + 1]:
        k += 1
    return k


@kernel
def overlapped(low, high, edges):  # type: ignore[no-untyped-def]
    """Bins that an interval reaches into: from the first to the second number, without it."""
    least, most = edges.values[0], edges.values[-1]
    if not (low <= most and high >= least):
        return 0, 0
    return find_bin(max(low, least), edges), find_bin(min(high, most), edges) + 1


@kernel
def turns(left, right, parts):  # type: ignore[no-untyped-def]
    """By how many turns azimuths can be shifted to reach into the parts: from the first to the second number, without it."""
    return math.ceil((parts.values[0] - right) / TURN), math.floor((parts.values[-1] - left) / TURN) + 1


@kernel
def most_overlapped(low, high, edges):  # type: ignore[no-untyped-def]
    """An upper bound of the bins that an interval reaches into."""
    inside = min(high, edges.values[-1]) - max(low, edges.values[0])
    return int(inside * edges.density) + 3 if inside >= 0 else 0


@kernel
def most_reached(box, rings, parts):  # type: ignore[no-untyped-def]
    """An upper bound of the bins that a box (low, high, left, right) reaches into. Without parts azimuths do not matter."""
    low, high, left, right = box
    count = most_overlapped(low, high, rings)
    if len(parts.values) == 0:
        return count
    wide, (begin, end) = 0, turns(left, right, parts)
    for turn in range(begin, end):
        wide += most_overlapped(left + turn * TURN, right + turn * TURN, parts)
    return count * wide


# ------------------------------------------------------------------------------------------------------------------- points


@kernel
def bins_of_points(radius, azimuth, masked, rings, parts):  # type: ignore[no-untyped-def]
    """The bin of each pixel (pixel,), −1 if it is in none."""
    bins = np.full(radius.size, -1, np.int32)
    for pixel in range(radius.size):
        if not masked[pixel]:
            ring = find_bin(radius[pixel], rings)
            if len(parts.values) and ring >= 0:
                part = find_bin(azimuth[pixel], parts)
                ring = -1 if part < 0 else ring * (len(parts.values) - 1) + part
            bins[pixel] = ring
    return bins


# -------------------------------------------------------------------------------------------------------------------- boxes


@kernel
def box_of(pixel, radius, half, azimuth, half_azimuth, floor):  # type: ignore[no-untyped-def]
    """The box (low, high, left, right) around a pixel's centre."""
    low, high = radius[pixel] - half[pixel], radius[pixel] + half[pixel]
    if azimuth.size == 0:
        return low, max(high, floor), 0.0, 0.0
    wide = min(half_azimuth[pixel], TURN / 2)
    return low, max(high, floor), azimuth[pixel] - wide, azimuth[pixel] + wide


@kernel
def share_below(edge, low, per_length, floor):  # type: ignore[no-untyped-def]
    """The share of an interval that lies below an edge; what of it lies below the floor lies on the floor."""
    return min(max((edge - low) * per_length, 0.0), 1.0) if edge > floor else 0.0


@kernel
def put_box(pixel, box, floor, rings, parts, entries, count):  # type: ignore[no-untyped-def]
    """Write a box's entries from number `count` on; what comes back is the number of the next one."""
    bins, pixels, shares = entries
    low, high, left, right = box
    first, last = overlapped(max(low, floor), high, rings)
    if last == first:
        return count
    per_length, per_turn = 1 / max(high - low, TINY), 1 / max(right - left, TINY)
    before = share_below(rings.values[first], low, per_length, floor)
    for ring in range(first, last):
        up_to = share_below(rings.values[ring + 1], low, per_length, floor) if high > low else 1.0
        along, before = up_to - before, up_to
        if len(parts.values) == 0:
            count = put(ring, pixel, along, bins, pixels, shares, count)
            continue
        begin, end = turns(left, right, parts)
        for turn in range(begin, end):
            near, far = left + turn * TURN, right + turn * TURN
            start, stop = overlapped(near, far, parts)
            for part in range(start, stop):
                start_share = share_below(parts.values[part], near, per_turn, -np.inf)
                across = share_below(parts.values[part + 1], near, per_turn, -np.inf) - start_share if right > left else 1.0
                count = put(ring * (len(parts.values) - 1) + part, pixel, along * across, bins, pixels, shares, count)
    return count


@kernel
def put(number, pixel, share, bins, pixels, shares, count):  # type: ignore[no-untyped-def]
    """Write an entry, if its share is one."""
    if share > LEAST_SHARE:
        bins[count], pixels[count], shares[count] = number, pixel, share
        return count + 1
    return count


@kernel
def count_boxes(radius, half, azimuth, half_azimuth, masked, floor, rings, parts):  # type: ignore[no-untyped-def]
    """An upper bound of the number of entries."""
    count = 0
    for pixel in range(radius.size):
        if not masked[pixel]:
            count += most_reached(box_of(pixel, radius, half, azimuth, half_azimuth, floor), rings, parts)
    return count


@kernel
def split_boxes(radius, half, azimuth, half_azimuth, masked, floor, rings, parts, entries):  # type: ignore[no-untyped-def]
    """Write the entries (bin, pixel, share) of all pixels, and return how many there are."""
    count = 0
    for pixel in range(radius.size):
        if not masked[pixel]:
            box = box_of(pixel, radius, half, azimuth, half_azimuth, floor)
            count = put_box(pixel, box, floor, rings, parts, entries, count)
    return count


# ----------------------------------------------------------------------------------------------------------------- outlines


@kernel
def step_between(azimuth, following):  # type: ignore[no-untyped-def]
    """From one azimuth to another, the shorter way round."""
    step = following - azimuth
    return step - TURN * np.rint(step / TURN)


@kernel
def corner_box(corners):  # type: ignore[no-untyped-def]
    """The box (low, high, left, right) of four corners; NaN if one of them is not finite."""
    total = 0.0
    low, high, left, right = np.inf, -np.inf, np.inf, -np.inf
    for k in range(4):
        radius, azimuth = float(corners[k, 0]), float(corners[k, 1])
        total += radius - radius + azimuth - azimuth
        low, high, left, right = min(low, radius), max(high, radius), min(left, azimuth), max(right, azimuth)
    return low + total, high, left, right


@kernel
def outline(corners, centre, floor, radius, azimuth):  # type: ignore[no-untyped-def]
    """Write the vertices of a pixel's outline, its azimuths without a jump; how many there are, 0 if a corner is not finite.

    If the beam is inside, the outline goes once round along the corners and back at the floor, or if that is −∞ at the least radius;
    around the opposite of the beam (2θ = 180°) back at the largest. A corner on the beam has no azimuth: there the outline goes from the
    azimuth of the corner before to that of the one after.
    """
    low, high, left, right = corner_box(corners)
    if not np.isfinite(low):
        return 0
    if right - left < TURN / 2 and low > AT_THE_BEAM * high:
        for k in range(4):
            radius[k], azimuth[k] = corners[k, 0], corners[k, 1]
        return 4
    nearest, around = 0, 0.0
    for k in range(4):
        nearest = k if corners[k, 0] == low else nearest
        around += step_between(corners[k, 1], corners[(k + 1) % 4, 1])
    on_beam = floor > -np.inf and low <= AT_THE_BEAM * high
    count, first = (3, nearest + 1) if on_beam else (4, 0)
    end = float(corners[first % 4, 1])
    for k in range(count):
        corner, following = (first + k) % 4, (first + k + 1) % 4
        radius[k], azimuth[k] = corners[corner, 0], end
        step = step_between(corners[corner, 1], corners[following, 1])
        if abs(around) > TURN / 2 and abs(step) > THROUGH_THE_BEAM:
            step -= math.copysign(TURN, step)
        end += step
    if on_beam:
        radius[3], azimuth[3], radius[4], azimuth[4] = low, azimuth[2], low, azimuth[0]
        return 5
    if abs(end - azimuth[0]) < TURN / 2:
        return 4
    opposite = centre > 0.25 * (radius[0] + radius[1] + radius[2] + radius[3])
    back = max(high, centre) if opposite else (floor if floor > -np.inf else low)
    radius[4], azimuth[4], radius[5], azimuth[5], radius[6], azimuth[6] = radius[0], end, back, end, back, azimuth[0]
    return 7


@kernel
def box_around(radius, azimuth, count):  # type: ignore[no-untyped-def]
    """The box (low, high, left, right) of an outline."""
    low, high, left, right = radius[0], radius[0], azimuth[0], azimuth[0]
    for k in range(1, count):
        low, high = min(low, radius[k]), max(high, radius[k])
        left, right = min(left, azimuth[k]), max(right, azimuth[k])
    return low, high, left, right


@kernel
def area_of(radius, azimuth, count):  # type: ignore[no-untyped-def]
    """The area of an outline, with a sign for the way round."""
    area = 0.5 * (radius[0] - radius[count - 1]) * (azimuth[0] + azimuth[count - 1])
    for k in range(count - 1):
        area += 0.5 * (radius[k + 1] - radius[k]) * (azimuth[k] + azimuth[k + 1])
    return area


@kernel
def area_between(radius, azimuth, count, low, high):  # type: ignore[no-untyped-def]
    """The area of an outline between two radii, with a sign for the way round: ∫ azimuth d(radius) along it."""
    area = 0.0
    for k in range(count):
        following = k + 1 if k + 1 < count else 0
        begin, end = radius[k], radius[following]
        near, far = min(max(begin, low), high), min(max(end, low), high)
        if near != far:
            middle = 0.5 * (near + far) - begin
            area += (far - near) * (azimuth[k] + (azimuth[following] - azimuth[k]) * middle / (end - begin))
    return area


@kernel
def cut(radius, azimuth, count, border, side, cut_radius, cut_azimuth):  # type: ignore[no-untyped-def]
    """Write what of an outline lies beyond an azimuth (side 1) or before it (side −1), and return its number of vertices."""
    left = 0
    for k in range(count):
        following = k + 1 if k + 1 < count else 0
        here, there = side * (azimuth[k] - border), side * (azimuth[following] - border)
        if here >= 0:
            cut_radius[left], cut_azimuth[left] = radius[k], azimuth[k]
            left += 1
        if (here >= 0) != (there >= 0):
            cut_radius[left] = radius[k] + (radius[following] - radius[k]) * (here / (here - there))
            cut_azimuth[left] = border
            left += 1
    return left


@kernel
def put_rings(pixel, radius, azimuth, count, area, rings, first_bin, stride, entries, written):  # type: ignore[no-untyped-def]
    """Write an entry for each ring that an outline, or what is left of it, reaches into; its bin is first_bin + stride·ring."""
    bins, pixels, shares = entries
    low, high, _, _ = box_around(radius, azimuth, count)
    first, last = overlapped(low, high, rings)
    if last == first + 1 and low >= rings.values[first] and high <= rings.values[last]:
        return put(first_bin + stride * first, pixel, area_of(radius, azimuth, count) / area, bins, pixels, shares, written)
    for ring in range(first, last):
        share = area_between(radius, azimuth, count, rings.values[ring], rings.values[ring + 1]) / area
        written = put(first_bin + stride * ring, pixel, share, bins, pixels, shares, written)
    return written


@kernel
def put_outline(pixel, vertices, count, floor, rings, parts, entries, written):  # type: ignore[no-untyped-def]
    """Write an outline's entries from number `written` on; what comes back is the number of the next one."""
    radius, azimuth = vertices[0], vertices[1]
    low, high, left, right = box_around(radius, azimuth, count)
    area = area_of(radius, azimuth, count)
    if not abs(area) > LEAST_FILLED * (high - low) * (right - left):
        return put_box(pixel, (low, high, left, right), floor, rings, parts, entries, written)
    if len(parts.values) == 0:
        return put_rings(pixel, radius, azimuth, count, area, rings, 0, 1, entries, written)
    begin, end = turns(left, right, parts)
    for turn in range(begin, end):
        start, stop = overlapped(left + turn * TURN, right + turn * TURN, parts)
        for part in range(start, stop):
            near, far = parts.values[part] - turn * TURN, parts.values[part + 1] - turn * TURN
            beyond = cut(radius, azimuth, count, near, 1, vertices[2], vertices[3])
            inside = cut(vertices[2], vertices[3], beyond, far, -1, vertices[4], vertices[5])
            if inside:
                written = put_rings(pixel, vertices[4], vertices[5], inside, area, rings, part, len(parts.values) - 1, entries, written)
    return written


@kernel
def count_outlines(corners, centres, masked, floor, rings, parts):  # type: ignore[no-untyped-def]
    """An upper bound of the number of entries."""
    count, vertices = 0, np.empty((2, VERTICES))
    for pixel in range(len(corners)):
        if not masked[pixel]:
            low, high, left, right = corner_box(corners[pixel])
            if right - left < TURN / 2 and low > AT_THE_BEAM * high:
                count += most_reached((low, high, left, right), rings, parts)
                continue
            size = outline(corners[pixel], centres[pixel], floor, vertices[0], vertices[1])
            if size:
                count += most_reached(box_around(vertices[0], vertices[1], size), rings, parts)
    return count


@kernel
def split_outlines(corners, centres, masked, floor, rings, parts, entries):  # type: ignore[no-untyped-def]
    """Write the entries (bin, pixel, share) of all pixels, from corners (pixel, corner, axis), and return how many there are."""
    written, vertices = 0, np.empty((6, VERTICES))
    for pixel in range(len(corners)):
        if not masked[pixel]:
            size = outline(corners[pixel], centres[pixel], floor, vertices[0], vertices[1])
            if size:
                written = put_outline(pixel, vertices, size, floor, rings, parts, entries, written)
    return written


# -------------------------------------------------------------------------------------------------- limits, and order by bin


@kernel
def limits(low, high, masked):  # type: ignore[no-untyped-def]
    """The least of `low` and the largest of `high` (pixel, any), of pixels of which all are finite; and the largest distance within one."""
    least, most, widest = np.inf, -np.inf, 0.0
    for pixel in range(len(low)):
        if not masked[pixel]:
            near, far = float(low[pixel, 0]), float(high[pixel, 0])
            finite = True
            for k in range(low.shape[1]):
                finite = finite and np.isfinite(low[pixel, k]) and np.isfinite(high[pixel, k])
                near, far = min(near, float(low[pixel, k])), max(far, float(high[pixel, k]))
            if finite:
                least, most, widest = min(least, near), max(most, far), max(widest, far - near)
    return least, most, widest


@kernel
def by_bin(bins, pixels, shares, count):  # type: ignore[no-untyped-def]
    """Entries in the order of their bins, each bin's in the order they come: where bins start, pixels, shares."""
    starts = np.zeros(count + 1, np.int64)
    for k in range(bins.size):
        starts[bins[k] + 1] += 1
    starts = np.cumsum(starts)
    free, placed, weights = starts[:-1].copy(), np.empty(bins.size, np.int32), np.empty(bins.size, np.float32)
    for k in range(bins.size):
        place = free[bins[k]]
        placed[place], weights[place] = pixels[k], shares[k]
        free[bins[k]] = place + 1
    return starts, placed, weights
