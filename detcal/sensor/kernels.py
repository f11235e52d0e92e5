"""The point-spread matrix of a thick sensor. ndarrays in, ndarrays out.

Lengths are in metres from the PONI, the foot of the normal from the sample on the detector plane. A ray that enters at u is,
at depth z, at u·(1 + z/L): so the image of a pixel is the pixel, scaled about the PONI, and the share of its rays in a
column and in a row is a product of two overlaps, each of one axis alone.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.jit import kernel

# Gauss–Legendre on [−1, 1]: 4 points integrate exp over an optical depth of 1.5 to 2e-8.
NODES, WEIGHTS = (tuple(points) for points in np.polynomial.legendre.leggauss(4))
OPTICAL_DEPTH_A_PANEL = 1.5
THINNEST = 1e-12  # of its depth: a thinner window is the rounding of a border that is none


@kernel
def depth_window(low, high, border_low, border_high, distance):  # type: ignore[no-untyped-def]
    """Depths at which the image of the pixel [low, high] enters another, where the overlap bends (twice), and leaves it.

    Outwards, the leading edge enters and later leaves at the far border; the trailing edge enters and leaves after it. What
    does not happen is at ∞. A pixel's overlap with itself ends when its trailing edge leaves it.
    """
    if border_low >= high:  # the other pixel is further out on the positive side
        if high <= 0:
            return np.inf, np.inf, np.inf, np.inf
        trailing, gone = np.inf, np.inf
        if low > 0:
            trailing, gone = distance * (border_low / low - 1), distance * (border_high / low - 1)
        leading = distance * (border_high / high - 1)
        return distance * (border_low / high - 1), min(leading, trailing), max(leading, trailing), gone
    if border_high <= low:  # on the negative side: the same, mirrored
        return depth_window(-high, -low, -border_high, -border_low, distance)
    if low > 0:
        return 0.0, np.inf, np.inf, distance * (border_high / low - 1)
    if high < 0:
        return 0.0, np.inf, np.inf, distance * (border_low / high - 1)
    return 0.0, np.inf, np.inf, np.inf


@kernel
def absorbed_share(x0, x1, left, right, y0, y1, bottom, top, distance, mu, breaks, depths, steps, weights):  # type: ignore[no-untyped-def]
    """Share of what enters the pixel [x0, x1] × [y0, y1] that is absorbed in [left, right] × [bottom, top].

    ∫ ⟨S·µ·exp(−µ·S·z)⟩·fx(z)·fy(z) dz, S = secθ, between the rising depths `breaks`, averaged over those entry points whose
    rays are inside at depth z: their rectangle is known, so that S is expanded to second order about the pixel's centre.
    """
    xc, yc = 0.5 * (x0 + x1), 0.5 * (y0 + y1)
    secant = np.sqrt(1 + (xc * xc + yc * yc) / (distance * distance))
    # derivatives of S
    flat, inverse = 1 / (distance * distance * secant), 1 / secant
    sx, sy = xc * flat, yc * flat
    sxx, syy, sxy = flat - sx * sx * inverse, flat - sy * sy * inverse, -sx * sy * inverse
    optical = mu * secant
    n = place_nodes(optical, breaks, depths, steps, weights)
    total = 0.0
    for node in range(n):  # free of branches and calls, so that four nodes share each instruction
        z = depths[node]
        shrink = distance / (distance + z)
        xa, xb, ya, yb = left * shrink, right * shrink, bottom * shrink, top * shrink
        xa, xb = x0 if x0 > xa else xa, x1 if x1 < xb else xb
        ya, yb = y0 if y0 > ya else ya, y1 if y1 < yb else yb
        wx, wy = xb - xa, yb - ya
        wx, wy = wx if wx > 0 else 0.0, wy if wy > 0 else 0.0
        dx, dy = 0.5 * (xa + xb) - xc, 0.5 * (ya + yb) - yc
        xx, yy, xy = 0.5 * (dx * dx + wx * wx / 12), 0.5 * (dy * dy + wy * wy / 12), dx * dy
        # F(S) = µ·S·exp(−µ·S·z) and its derivatives, over µ·exp(−µ·S·z)
        depth = mu * z
        mean = secant + (1 - depth * secant) * (sx * dx + sy * dy + sxx * xx + syy * yy + sxy * xy)
        mean += depth * (depth * secant - 2) * (sx * sx * xx + sy * sy * yy + sx * sy * xy)
        total += weights[node] * small_exponential(-optical * steps[node]) * mean * wx * wy
    return mu * total / ((x1 - x0) * (y1 - y0))


@kernel
def place_nodes(optical, breaks, depths, steps, weights):  # type: ignore[no-untyped-def]
    """Gauss–Legendre nodes in each piece between two breaks, cut into panels where it is optically deep; their number.

    weights hold exp(−optical·z) at the middle of each panel; what is left of the exponential is that of the step from it.
    """
    n = 0
    for piece in range(breaks.size - 1):
        start, stop = breaks[piece], breaks[piece + 1]
        if not start < stop:
            continue
        panels = int(optical * (stop - start) / OPTICAL_DEPTH_A_PANEL) + 1
        half = 0.5 * (stop - start) / panels
        for panel in range(panels):
            middle = start + (2 * panel + 1) * half
            scale = half * np.exp(-optical * middle)
            for node in range(4):
                steps[n] = half * NODES[node]
                depths[n] = middle + steps[n]
                weights[n] = scale * WEIGHTS[node]
                n += 1
    return n


@kernel
def small_exponential(x):  # type: ignore[no-untyped-def]
    """exp(x) to 1e-11 for |x| < 0.65, without a call, so that the four nodes of a panel share their instructions."""
    total = 1 + x * (1 / 10) * (1 + x * (1 / 11))
    total = 1 + x * (1 / 8) * (1 + x * (1 / 9) * total)
    total = 1 + x * (1 / 6) * (1 + x * (1 / 7) * total)
    total = 1 + x * (1 / 4) * (1 + x * (1 / 5) * total)
    return 1 + x * (1 + x * (1 / 2) * (1 + x * (1 / 3) * total))


@kernel
def spans(size, pitch, poni, distance, depth, first, last):  # type: ignore[no-untyped-def]
    """For each recorded pixel of an axis, the first and last entry pixel whose image reaches it down to `depth`."""
    first[:] = size
    last[:] = -1
    for entry in range(size):
        low, high = entry * pitch - poni, (entry + 1) * pitch - poni
        scale = 1 + depth / distance
        nearest = entry if low >= 0 else max(0, int(np.floor((low * scale + poni) / pitch)))
        furthest = entry if high <= 0 else min(size - 1, int(np.ceil((high * scale + poni) / pitch)) - 1)
        for recorded in range(min(nearest, entry), max(furthest, entry) + 1):
            first[recorded] = min(first[recorded], entry)
            last[recorded] = max(last[recorded], entry)


@kernel
def windows(size, pitch, poni, distance, depth, first, last, starts, depths):  # type: ignore[no-untyped-def]
    """Depth windows of an axis, down to `depth`: those of recorded pixel p are from starts[p] on, an entry each."""
    for recorded in range(size):
        border_low, border_high = recorded * pitch - poni, (recorded + 1) * pitch - poni
        for entry in range(first[recorded], last[recorded] + 1):
            low, high = entry * pitch - poni, (entry + 1) * pitch - poni
            place = starts[recorded] + entry - first[recorded]
            found = depth_window(low, high, border_low, border_high, distance)
            for k in range(4):
                depths[place, k] = min(max(found[k], 0.0), depth)  # rounding may put a crossing at the surface above it


@kernel
def count_entries(rows, columns, masked, row_axis, column_axis, counts):  # type: ignore[no-untyped-def]
    """How many entry pixels each recorded pixel of the rows [rows[0], rows[1]) has: those whose two windows overlap."""
    row_starts, _, row_depths = row_axis
    column_starts, _, column_depths = column_axis
    for row in range(rows[0], rows[1]):
        for column in range(columns):
            found = 0
            if not masked[row - rows[0], column]:
                for i in range(row_starts[row], row_starts[row + 1]):
                    for j in range(column_starts[column], column_starts[column + 1]):
                        opens = max(row_depths[i, 0], column_depths[j, 0])
                        closes = min(row_depths[i, 3], column_depths[j, 3])
                        found += closes - opens > THINNEST * closes
            counts[row - rows[0], column] = found


@kernel
def fill_entries(rows, shape, pitch, poni, distance, mu, masked, row_axis, column_axis, data, indices):  # type: ignore[no-untyped-def]
    """The coefficients and entry pixels of the recorded rows [rows[0], rows[1]), in the order of `count_entries`."""
    row_starts, first_row, row_depths = row_axis
    column_starts, first_column, column_depths = column_axis
    breaks = np.empty(6)
    nodes = most_nodes(shape, pitch, poni, distance, mu, max(row_depths[:, 3].max(), column_depths[:, 3].max()))
    depths, steps, weights = np.empty(nodes), np.empty(nodes), np.empty(nodes)
    place = 0
    for row in range(rows[0], rows[1]):
        bottom, top = row * pitch[0] - poni[0], (row + 1) * pitch[0] - poni[0]
        for column in range(shape[1]):
            if masked[row - rows[0], column]:
                continue
            left, right = column * pitch[1] - poni[1], (column + 1) * pitch[1] - poni[1]
            for i in range(row_starts[row], row_starts[row + 1]):
                entry_row = first_row[row] + i - row_starts[row]
                y0, y1 = entry_row * pitch[0] - poni[0], (entry_row + 1) * pitch[0] - poni[0]
                for j in range(column_starts[column], column_starts[column + 1]):
                    if not merge_depths(row_depths[i], column_depths[j], breaks):
                        continue
                    entry_column = first_column[column] + j - column_starts[column]
                    x0, x1 = entry_column * pitch[1] - poni[1], (entry_column + 1) * pitch[1] - poni[1]
                    data[place] = absorbed_share(x0, x1, left, right, y0, y1, bottom, top, distance, mu, breaks, depths, steps, weights)
                    indices[place] = entry_row * shape[1] + entry_column
                    place += 1


@kernel
def most_nodes(shape, pitch, poni, distance, mu, depth):  # type: ignore[no-untyped-def]
    """More nodes than any pixel's integral takes: five pieces, and the panels of the most oblique ray."""
    y = max(abs(poni[0]), abs(shape[0] * pitch[0] - poni[0]))
    x = max(abs(poni[1]), abs(shape[1] * pitch[1] - poni[1]))
    secant = np.sqrt(1 + (x * x + y * y) / (distance * distance))
    return 4 * (int(mu * secant * depth / OPTICAL_DEPTH_A_PANEL) + 10)


@kernel
def merge_depths(one, other, breaks):  # type: ignore[no-untyped-def]
    """The depths of both axes where their windows overlap, rising; False if they do not."""
    first, last = max(one[0], other[0]), min(one[3], other[3])
    if not last - first > THINNEST * last:
        return False
    breaks[0], breaks[5] = first, last
    a, b = min(max(one[1], first), last), min(max(one[2], first), last)
    c, d = min(max(other[1], first), last), min(max(other[2], first), last)
    low, high = max(a, c), min(b, d)
    breaks[1], breaks[2], breaks[3], breaks[4] = min(a, c), min(low, high), max(low, high), max(b, d)
    return True


# Of an axis: where each recorded pixel's entries begin, its first entry pixel, and four depths an entry.
Windows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def axis_windows(size: int, pitch: float, poni: float, distance: float, depth: float) -> Windows:
    """The entries of each recorded pixel of an axis, and the depths at which they are first seen, bend, and are last seen."""
    first, last = np.empty(size, np.int64), np.empty(size, np.int64)
    spans(size, pitch, poni, distance, depth, first, last)
    starts = np.concatenate([[0], np.cumsum(last - first + 1)])
    depths = np.empty((starts[-1], 4))
    windows(size, pitch, poni, distance, depth, first, last, starts, depths)
    return starts, first, depths


class Slab(NamedTuple):
    """A plane sensor, and where it stands."""

    shape: tuple[int, int]
    pitch: tuple[float, float]
    poni: tuple[float, float]
    distance: float
    thickness: float


@lru_cache(maxsize=4)
def both_axes(slab: Slab) -> tuple[Windows, Windows]:
    """Depth windows of the rows and of the columns: as small as the detector's edges, and the same for every band."""
    rows, columns = (axis_windows(slab.shape[k], slab.pitch[k], slab.poni[k], slab.distance, slab.thickness) for k in (0, 1))
    return rows, columns


def count_band(rows: tuple[int, int], slab: Slab, masked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many coefficients each pixel of a band of recorded rows has."""
    counts = np.empty((rows[1] - rows[0], slab.shape[1]), np.int64)
    count_entries(rows, slab.shape[1], masked, *both_axes(slab), counts)
    return counts


def fill_band(
    rows: tuple[int, int], slab: Slab, mu: float, masked: NDArray[np.bool_], offset: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Coefficients, entry pixels and ends of a band of recorded rows; `offset` coefficients come before it."""
    ends = offset + np.cumsum(count_band(rows, slab, masked))
    data = np.empty(ends[-1] - offset, np.float32)
    indices = np.empty(len(data), np.int32)
    fill_entries(rows, slab.shape, slab.pitch, slab.poni, slab.distance, mu, masked, *both_axes(slab), data, indices)
    return data, indices, ends
