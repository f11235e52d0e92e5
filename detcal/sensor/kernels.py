"""The point-spread matrix of a thick sensor. ndarrays in, ndarrays out.

Lengths are in metres from the PONI, the foot of the normal from the sample on the detector plane. A ray that enters at u is,
at depth z, at u·(1 + z/L): so the image of a pixel is the pixel, scaled about the PONI, and the share of its rays in a
column and in a row is a product of two overlaps, each of one axis alone.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel

# Gauss–Legendre on [−1, 1]: 4 points integrate exp over an optical depth of 1.5 to 2e-8.
NODES, WEIGHTS = (tuple(points) for points in np.polynomial.legendre.leggauss(4))
OPTICAL_DEPTH_A_PANEL = 1.5
DEEPEST = 32.0  # in mean free paths: what goes on there, 1e-14, is nothing in float32
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
def place_nodes(mu, secant, distance, breaks, pieces, begins, nodes):  # type: ignore[no-untyped-def]
    """Gauss–Legendre nodes between each two of the rising depths `breaks`, cut into panels where it is optically deep.

    begins[piece] is the first node of a piece, begins[pieces] their number. nodes[0]: how much smaller the pixel is at the surface
    than its image at depth z; nodes[1 … 3]: F(S) = µ·S·exp(−µ·S·z), S = secθ, and its first two derivatives, times the weight.
    """
    n = 0
    for piece in range(pieces):
        begins[piece] = n
        start, stop = breaks[piece], breaks[piece + 1]
        panels = int(mu * secant * (stop - start) / OPTICAL_DEPTH_A_PANEL) + 1
        half = 0.5 * (stop - start) / panels
        for panel in range(panels):
            middle = start + (2 * panel + 1) * half
            scale = mu * half * np.exp(-mu * secant * middle)
            for node in range(4):
                step = half * NODES[node]
                depth = mu * (middle + step)
                weight = scale * WEIGHTS[node] * small_exponential(-mu * secant * step)
                nodes[0, n] = distance / (distance + middle + step)
                nodes[1, n] = weight * secant
                nodes[2, n] = weight * (1 - depth * secant)
                nodes[3, n] = weight * depth * (depth * secant - 2)
                n += 1
    begins[pieces] = n


@kernel
def small_exponential(x):  # type: ignore[no-untyped-def]
    """exp(x) to 1e-11 for |x| < 0.65, without a call, so that the four nodes of a panel share their instructions."""
    total = 1 + x * (1 / 10) * (1 + x * (1 / 11))
    total = 1 + x * (1 / 8) * (1 + x * (1 / 9) * total)
    total = 1 + x * (1 / 6) * (1 + x * (1 / 7) * total)
    total = 1 + x * (1 / 4) * (1 + x * (1 / 5) * total)
    return 1 + x * (1 + x * (1 / 2) * (1 + x * (1 / 3) * total))


@kernel
def absorbed_share(x0, x1, left, right, y0, y1, bottom, top, slopes, nodes, start, stop):  # type: ignore[no-untyped-def]
    """Share of what enters the pixel [x0, x1] × [y0, y1] that is absorbed in [left, right] × [bottom, top], at nodes start … stop.

    ∫ ⟨S·µ·exp(−µ·S·z)⟩·fx(z)·fy(z) dz, S = secθ, averaged over those entry points whose rays are inside at depth z: their
    rectangle is known, so that S is expanded to second order about the pixel's centre.
    """
    sx, sy, sxx, syy, sxy = slopes
    xc, yc = 0.5 * (x0 + x1), 0.5 * (y0 + y1)
    total = 0.0
    for node in range(start, stop):  # free of branches, calls and divisions, so that nodes share each instruction
        shrink = nodes[0, node]
        xa, xb, ya, yb = left * shrink, right * shrink, bottom * shrink, top * shrink
        xa, xb = x0 if x0 > xa else xa, x1 if x1 < xb else xb
        ya, yb = y0 if y0 > ya else ya, y1 if y1 < yb else yb
        wx, wy = xb - xa, yb - ya
        wx, wy = wx if wx > 0 else 0.0, wy if wy > 0 else 0.0
        dx, dy = 0.5 * (xa + xb) - xc, 0.5 * (ya + yb) - yc
        xx, yy, xy = dx * dx + wx * wx * (1 / 12), dy * dy + wy * wy * (1 / 12), dx * dy
        first = sx * dx + sy * dy + 0.5 * (sxx * xx + syy * yy) + sxy * xy
        second = 0.5 * (sx * sx * xx + sy * sy * yy) + sx * sy * xy
        total += (nodes[1, node] + nodes[2, node] * first + nodes[3, node] * second) * (wx * wy)
    return total / ((x1 - x0) * (y1 - y0))


@kernel
def slopes_at(x, y, distance, secant):  # type: ignore[no-untyped-def]
    """First and second derivatives of 1/cosθ: along x, along y, twice x, twice y, and both."""
    flat = 1 / (distance * distance * secant)
    sx, sy = x * flat, y * flat
    return sx, sy, flat - sx * sx / secant, flat - sy * sy / secant, -sx * sy / secant


@kernel
def spans(size, pitch, poni, distance, depth, first, last):  # type: ignore[no-untyped-def]
    """The first and last pixel of an axis that the image of each entry pixel reaches down to `depth`."""
    scale = 1 + depth / distance
    for entry in range(size):
        low, high = entry * pitch - poni, (entry + 1) * pitch - poni
        nearest = entry if low >= 0 else max(0, int(np.floor((low * scale + poni) / pitch)))
        furthest = entry if high <= 0 else min(size - 1, int(np.ceil((high * scale + poni) / pitch)) - 1)
        first[entry], last[entry] = min(nearest, entry), max(furthest, entry)


@kernel
def windows(pitch, poni, distance, depth, first, starts, opens, closes, bend_starts, bends):  # type: ignore[no-untyped-def]
    """Depths at which pixels of an axis are first and last seen from each entry pixel; and all at which an overlap bends, rising.

    Those of entry pixel e are from starts[e], and bend_starts[e] on. There is none beyond `depth`.
    """
    found = 0
    for entry in range(first.size):
        low, high = entry * pitch - poni, (entry + 1) * pitch - poni
        bend_starts[entry] = found
        for place in range(starts[entry], starts[entry + 1]):
            recorded = first[entry] + place - starts[entry]
            four = depth_window(low, high, recorded * pitch - poni, (recorded + 1) * pitch - poni, distance)
            opens[place] = min(max(four[0], 0.0), depth)  # rounding may put a crossing at the surface above it
            closes[place] = min(max(four[3], 0.0), depth)
            for bend in four:
                if 0 < bend < depth:
                    found = put_rising(bends, bend_starts[entry], found, bend)
    bend_starts[first.size] = found


@kernel
def put_rising(numbers, begin, end, number):  # type: ignore[no-untyped-def]
    """Put a number among the rising ones begin … end, unless it is there already; where these end then.

    What np.unique does of all at once is more code to compile than this module has.
    """
    place = end
    while place > begin and numbers[place - 1] > number:
        place -= 1
    if place > begin and numbers[place - 1] == number:
        return end
    for k in range(end, place, -1):
        numbers[k] = numbers[k - 1]
    numbers[place] = number
    return end + 1


class Axis(NamedTuple):
    """What each entry pixel of an axis reaches; see `windows`."""

    first: NDArray[np.int64]
    starts: NDArray[np.int64]
    opens: NDArray[np.float64]
    closes: NDArray[np.float64]
    bend_starts: NDArray[np.int64]
    bends: NDArray[np.float64]


def axis_of(size: int, pitch: float, poni: float, distance: float, depth: float) -> Axis:
    """The windows of an axis."""
    first, last = np.empty(size, np.int64), np.empty(size, np.int64)
    spans(size, pitch, poni, distance, depth, first, last)
    starts = np.concatenate([[0], np.cumsum(last - first + 1)])
    opens, closes, bends = np.empty(starts[-1]), np.empty(starts[-1]), np.empty(4 * starts[-1])
    bend_starts = np.empty(size + 1, np.int64)
    windows(pitch, poni, distance, depth, first, starts, opens, closes, bend_starts, bends)
    return Axis(first, starts, opens, closes, bend_starts, bends)


class Slab(NamedTuple):
    """A plane sensor, and where it stands."""

    shape: tuple[int, int]
    pitch: tuple[float, float]
    poni: tuple[float, float]
    distance: float
    thickness: float


@lru_cache(maxsize=4)
def both_axes(slab: Slab) -> tuple[Axis, Axis]:
    """The windows of the rows and of the columns: as small as the detector's edges, and the same for every band."""
    rows, columns = (axis_of(slab.shape[k], slab.pitch[k], slab.poni[k], slab.distance, slab.thickness) for k in (0, 1))
    return rows, columns


@kernel
def secant_at(row, column, slab):  # type: ignore[no-untyped-def]
    """1/cosθ at the centre of a pixel."""
    y = ((row + 0.5) * slab.pitch[0] - slab.poni[0]) / slab.distance
    x = ((column + 0.5) * slab.pitch[1] - slab.poni[1]) / slab.distance
    return np.sqrt(1 + y * y + x * x)


@kernel
def common_window(row_axis, i, column_axis, j, deepest):  # type: ignore[no-untyped-def]
    """Depths between which a row and a column are both seen; the second is 0 if there are none."""
    opens = max(row_axis.opens[i], column_axis.opens[j])
    closes = min(row_axis.closes[i], column_axis.closes[j], deepest)
    return opens, closes if closes - opens > THINNEST * closes else 0.0


@kernel
def count_entries(rows, slab, mu, masked, gaps, row_axis, column_axis, counts):  # type: ignore[no-untyped-def]
    """How many entry pixels each recorded pixel of the rows [rows[0], rows[1]) has: those that see it in both axes, and are no gaps."""
    for entry_row in range(slab.shape[0]):
        for i in range(row_axis.starts[entry_row], row_axis.starts[entry_row + 1]):
            row = row_axis.first[entry_row] + i - row_axis.starts[entry_row]
            if not rows[0] <= row < rows[1]:
                continue
            for entry_column in range(slab.shape[1]):
                if gaps[entry_row, entry_column]:
                    continue
                deepest = DEEPEST / (mu * secant_at(entry_row, entry_column, slab))
                for j in range(column_axis.starts[entry_column], column_axis.starts[entry_column + 1]):
                    column = column_axis.first[entry_column] + j - column_axis.starts[entry_column]
                    seen = common_window(row_axis, i, column_axis, j, deepest)[1] > 0
                    counts[row - rows[0], column] += seen and not masked[row - rows[0], column]


@kernel
def fill_entries(rows, slab, mu, masked, gaps, row_axis, column_axis, places, data, indices):  # type: ignore[no-untyped-def]
    """The coefficients and entry pixels of the recorded rows [rows[0], rows[1]); places (row, column) is where each pixel's begin.

    Entry pixel by entry pixel, in rising order, since all that one sends out is computed at the same nodes. places moves on.
    """
    (pitch_y, pitch_x), (poni_y, poni_x) = slab.pitch, slab.poni
    most = longest(row_axis.bend_starts) + longest(column_axis.bend_starts) + 2
    breaks, begins = np.empty(most), np.empty(most, np.int64)
    nodes = np.empty((4, 4 * (most + int(DEEPEST / OPTICAL_DEPTH_A_PANEL))))
    for entry_row in range(slab.shape[0]):
        first_row, start_row, stop_row = row_axis.first[entry_row], row_axis.starts[entry_row], row_axis.starts[entry_row + 1]
        if first_row >= rows[1] or first_row + stop_row - start_row <= rows[0]:
            continue
        y0, y1 = entry_row * pitch_y - poni_y, (entry_row + 1) * pitch_y - poni_y
        for entry_column in range(slab.shape[1]):
            if gaps[entry_row, entry_column]:
                continue
            secant = secant_at(entry_row, entry_column, slab)
            deepest = min(slab.thickness, DEEPEST / (mu * secant))
            pieces = merge_bends(row_axis, entry_row, column_axis, entry_column, deepest, breaks)
            place_nodes(mu, secant, slab.distance, breaks, pieces, begins, nodes)
            x0, x1 = entry_column * pitch_x - poni_x, (entry_column + 1) * pitch_x - poni_x
            slopes = slopes_at(0.5 * (x0 + x1), 0.5 * (y0 + y1), slab.distance, secant)
            for i in range(start_row, stop_row):
                row = first_row + i - start_row
                if not rows[0] <= row < rows[1]:
                    continue
                bottom, top = row * pitch_y - poni_y, (row + 1) * pitch_y - poni_y
                for j in range(column_axis.starts[entry_column], column_axis.starts[entry_column + 1]):
                    column = column_axis.first[entry_column] + j - column_axis.starts[entry_column]
                    opens, closes = common_window(row_axis, i, column_axis, j, deepest)
                    if closes == 0 or masked[row - rows[0], column]:
                        continue
                    left, right = column * pitch_x - poni_x, (column + 1) * pitch_x - poni_x
                    start, stop = begins[piece_at(breaks, opens)], begins[piece_at(breaks, closes)]
                    place = places[row - rows[0], column]
                    data[place] = absorbed_share(x0, x1, left, right, y0, y1, bottom, top, slopes, nodes, start, stop)
                    indices[place] = entry_row * slab.shape[1] + entry_column
                    places[row - rows[0], column] += 1


@kernel
def longest(starts):  # type: ignore[no-untyped-def]
    """The largest step between two of these."""
    most = 0
    for k in range(starts.size - 1):
        most = max(most, starts[k + 1] - starts[k])
    return most


@kernel
def piece_at(breaks, depth):  # type: ignore[no-untyped-def]
    """The piece that begins at a depth."""
    piece = 0
    while breaks[piece] < depth:
        piece += 1
    return piece


@kernel
def merge_bends(row_axis, row, column_axis, column, deepest, breaks):  # type: ignore[no-untyped-def]
    """The depths where an overlap bends in either axis, rising, with 0 before and `deepest` behind them; the number of pieces."""
    i, i_end = row_axis.bend_starts[row], row_axis.bend_starts[row + 1]
    j, j_end = column_axis.bend_starts[column], column_axis.bend_starts[column + 1]
    breaks[0], pieces = 0.0, 0
    while True:
        one = row_axis.bends[i] if i < i_end else np.inf
        other = column_axis.bends[j] if j < j_end else np.inf
        bend = min(one, other)
        i, j = i + (one == bend), j + (other == bend)
        pieces += 1
        if not bend < deepest:
            breaks[pieces] = deepest
            return pieces
        breaks[pieces] = bend


def count_band(rows: tuple[int, int], slab: Slab, mu: float, masked: NDArray[np.bool_], gaps: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many coefficients each pixel of a band of recorded rows has."""
    counts = np.zeros((rows[1] - rows[0], slab.shape[1]), np.int64)
    count_entries(rows, slab, mu, masked, gaps, *both_axes(slab), counts)
    return counts


def fill_band(
    rows: tuple[int, int], slab: Slab, mu: float, masked: NDArray[np.bool_], gaps: NDArray[np.bool_], offset: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Coefficients, entry pixels and ends of a band of recorded rows.

    masked (row of the band, column) records nothing, and what enters gaps (y, x) is recorded nowhere; `offset` coefficients come before.
    """
    counts = count_band(rows, slab, mu, masked, gaps)
    ends = np.cumsum(counts)
    data = np.empty(ends[-1], np.float32)
    indices = np.empty(len(data), np.int32)
    places = ends.reshape(counts.shape) - counts
    fill_entries(rows, slab, mu, masked, gaps, *both_axes(slab), places, data, indices)
    return data, indices, offset + ends
