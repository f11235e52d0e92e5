"""Overlaps of distorted pixels with even ones as a sparse matrix, and the matrix in use. ndarrays in, ndarrays out.

A row is an even pixel, its coefficients the shares of the distorted pixels' areas that lie in it. Frames go through it side by side,
tile by tile of the output, so that what a tile needs stays in the cache.
"""

from math import floor
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, lsmr

from detcal.jit import kernel
from detcal.lanes import ALL_NUMBERS, Floats, Frames, Valid, in_groups, read_only, to_lanes
from detcal.simd import LANES, load, load_from, measured, prefetch, splat, store, store_to, transpose, where_between, where_number

TILE_ROWS, TILE_COLUMNS = 32, 128  # pixels of the output
AHEAD = 2  # rows of a window that are asked for before they are loaded
RUN = 128  # pixels whose overlaps are reckoned together
WIDEST = 64  # output pixels that a distorted one may be wide or high
MOST_SPARE = 2  # blocks whose memory is kept for the next ones
Corners = tuple[NDArray[np.float64], NDArray[np.float64]]  # y and x
SPARE: list[NDArray[np.uint8]] = []
LEAST_COVERAGE = 1e-4  # of an output pixel: with less of it covered it has no value


# --------------------------------------------------------------------------------------------------------- building


@kernel
def mask_unknown(corners, masked):  # type: ignore[no-untyped-def]
    """Mask the pixels that have a corner that is not known."""
    for i in range(corners.shape[0]):
        for j in range(corners.shape[1]):
            if not (np.isfinite(corners[i, j, 0]) and np.isfinite(corners[i, j, 1])):
                masked[max(0, i - 1) : i + 1, max(0, j - 1) : j + 1] = True


@kernel
def scale_corners(corners, origin, size, scaled, spans):  # type: ignore[no-untyped-def]
    """Corners in pixels of the output, as y and x, 0 where they are not known, and least and largest y of each row of them (row, 2)."""
    for i in range(len(corners)):
        least, most = np.inf, -np.inf
        for j in range(corners.shape[1]):
            y, x = (corners[i, j, 0] - origin[0]) / size[0], (corners[i, j, 1] - origin[1]) / size[1]
            known = np.isfinite(y) and np.isfinite(x)
            y, x = y if known else 0.0, x if known else 0.0
            scaled[0][i, j], scaled[1][i, j] = y, x
            least, most = min(least, y), max(most, y)
        spans[i, 0], spans[i, 1] = least, most


@kernel
def boxes_of_row(corners, i, boxes):  # type: ignore[no-untyped-def]
    """First and last row and column of the output (4, pixel) that the pixels of row i reach into."""
    y, x = corners[0], corners[1]
    for j in range(boxes.shape[1]):
        top = np.floor(min(min(y[i, j], y[i, j + 1]), min(y[i + 1, j], y[i + 1, j + 1])))
        left = np.floor(min(min(x[i, j], x[i, j + 1]), min(x[i + 1, j], x[i + 1, j + 1])))
        bottom = np.ceil(max(max(y[i, j], y[i, j + 1]), max(y[i + 1, j], y[i + 1, j + 1]))) - 1
        right = np.ceil(max(max(x[i, j], x[i, j + 1]), max(x[i + 1, j], x[i + 1, j + 1]))) - 1
        boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j] = top, max(top, bottom), left, max(left, right)


@kernel
def quadrilateral_area(corners, i, j):  # type: ignore[no-untyped-def]
    """Area of pixel (i, j), by its diagonals; negative if it is turned over."""
    y, x = corners[0], corners[1]
    dy, dx = y[i + 1, j + 1] - y[i, j], x[i + 1, j + 1] - x[i, j]
    ey, ex = y[i + 1, j] - y[i, j + 1], x[i + 1, j] - x[i, j + 1]
    return (ey * dx - ex * dy) / 2


@kernel
def corner_area(corners, i, j, k, m):  # type: ignore[no-untyped-def]
    """Twice the area of the triangle at corner (i + k, j + m) of pixel (i, j), with the sign that a pixel has."""
    y, x = corners[0], corners[1]
    dy, dx = y[i + 1 - k, j + m] - y[i + k, j + m], x[i + 1 - k, j + m] - x[i + k, j + m]
    ey, ex = y[i + k, j + 1 - m] - y[i + k, j + m], x[i + k, j + 1 - m] - x[i + k, j + m]
    return dy * ex - dx * ey if k == m else dx * ey - dy * ex


@kernel
def add_edge(y0, x0, y1, x1, top, left, areas):  # type: ignore[no-untyped-def]
    """Add what lies to the right of an edge to the areas of a box's cells: the sum over all edges is what lies inside.

    Cell by cell along the edge; the area between a piece of height h and the cell's right border is a trapezoid, and all cells to
    the right of it get h.
    """
    dy, dx = y1 - y0, x1 - x0
    if dy == 0:
        return
    width = areas.shape[1]
    at_y, at_x, part = y0, x0, 0.0
    while part < 1:
        # the next border that the edge comes to
        row = floor(at_y) if dy > 0 else -floor(-at_y) - 1
        column = floor(at_x) if dx >= 0 else -floor(-at_x) - 1
        to_y = ((row + 1 if dy > 0 else row) - y0) / dy
        to_x = ((column + 1 if dx > 0 else column) - x0) / dx if dx != 0 else 2.0
        part = min(1.0, max(part, min(to_y, to_x)))
        next_y = y1 if part == 1 else (float(row + 1 if dy > 0 else row) if to_y <= to_x else y0 + part * dy)
        next_x = x1 if part == 1 else (float(column + 1 if dx > 0 else column) if to_x <= to_y else x0 + part * dx)
        height = next_y - at_y
        i, j = row - top, column - left
        if 0 <= i < areas.shape[0]:
            j = min(max(j, 0), width - 1)
            areas[i, j] += height * (left + j + 1 - (at_x + next_x) / 2)
            for k in range(j + 1, width):
                areas[i, k] += height
        if next_y == at_y and next_x == at_x and part < 1:  # on a border already: step over it
            part = min(1.0, part + 1e-12)
        at_y, at_x = next_y, next_x


@kernel
def overlaps(corners, i, j, top, left, areas):  # type: ignore[no-untyped-def]
    """Areas of the cells of a box, which begins at (top, left), that pixel (i, j) covers."""
    areas[:] = 0
    y, x = corners[0], corners[1]
    place = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
    for k in range(4):
        a, b = place[k], place[(k + 1) % 4]
        add_edge(y[a[0], a[1]], x[a[0], a[1]], y[b[0], b[1]], x[b[0], b[1]], top, left, areas)


@kernel
def positive_part(start, stop, height):  # type: ignore[no-untyped-def]
    """Integral over a height of what goes evenly from start to stop, where that is positive."""
    a, b = max(start, 0.0), max(stop, 0.0)
    return height * (a + b) / 2 * min(1.0, max(a, b) / max(abs(start - stop), 1e-300))


@kernel
def beside_edge(y0, x0, y1, x1):  # type: ignore[no-untyped-def]
    """What lies right of an edge above a node, of that what is left of the node, and what lies so below.

    y is down from the node, x left of it; to the right, it is counted up to 1. Without branches, so that it runs in SIMD lanes.
    """
    rise = y1 - y0
    middle = x0 + (x1 - x0) * min(1.0, max(0.0, -y0 / (rise if rise != 0 else 1.0)))  # at the node's height, or an end
    first, last = (x0 if rise > 0 else x1), (x1 if rise > 0 else x0)  # from above downwards
    above, below = min(y1, 0.0) - min(y0, 0.0), max(y1, 0.0) - max(y0, 0.0)
    return above * (1 + (first + middle) / 2), positive_part(first, middle, above), positive_part(middle, last, below)


@kernel
def quarters_of_row(corners, i, boxes, quarters):  # type: ignore[no-untyped-def]
    """`overlaps` of the pixels of row i with the four cells about a node, right for those that lie in these, and areas (5, pixel).

    By runs of pixels in one small array: of several, a compiler cannot know that they do not overlap, and uses no SIMD lanes.
    """
    y, x = corners[0], corners[1]
    work = np.empty((13, RUN))
    for start in range(0, boxes.shape[1], RUN):
        count = min(RUN, boxes.shape[1] - start)
        for k in range(count):
            j = start + k
            row, column = boxes[0, j] + 1, boxes[2, j] + 1
            work[0, k], work[1, k], work[2, k], work[3, k] = y[i, j + 1] - row, column - x[i, j + 1], y[i, j] - row, column - x[i, j]
            work[4, k], work[5, k] = y[i + 1, j] - row, column - x[i + 1, j]
            work[6, k], work[7, k] = y[i + 1, j + 1] - row, column - x[i + 1, j + 1]
        for k in range(RUN):
            y0, x0, y1, x1, y2, x2, y3, x3 = (
                work[0, k], work[1, k], work[2, k], work[3, k], work[4, k], work[5, k], work[6, k], work[7, k]
            )  # fmt: skip
            a0, b0, c0 = beside_edge(y0, x0, y1, x1)
            a1, b1, c1 = beside_edge(y1, x1, y2, x2)
            a2, b2, c2 = beside_edge(y2, x2, y3, x3)
            a3, b3, c3 = beside_edge(y3, x3, y0, x0)
            above, left_above, left_below = a0 + a1 + a2 + a3, b0 + b1 + b2 + b3, c0 + c1 + c2 + c3
            area = ((y2 - y0) * (x1 - x3) - (x0 - x2) * (y3 - y1)) / 2
            work[8, k], work[9, k], work[10, k] = left_above, above - left_above, left_below
            work[11, k], work[12, k] = area - above - left_below, area
        quarters[:, start : start + count] = work[8:, :count]


@kernel
def count_band(corners, masked, rows, width, counts):  # type: ignore[no-untyped-def]
    """How many pixels' boxes reach each output pixel of the rows from rows[0] up to rows[1] (row · width + column)."""
    boxes = np.empty((4, masked.shape[1]), np.int32)
    for i in range(masked.shape[0]):
        boxes_of_row(corners, i, boxes)
        for j in range(masked.shape[1]):
            if masked[i, j]:
                continue
            for row in range(max(boxes[0, j], rows[0]), min(boxes[1, j] + 1, rows[1])):
                for column in range(max(boxes[2, j], 0), min(boxes[3, j] + 1, width)):
                    counts[(row - rows[0]) * width + column] += 1


@kernel
def fill_band(corners, masked, first_row, rows, width, offset, indices, data):  # type: ignore[no-untyped-def]
    """The coefficients of a band of output rows, of the distorted pixels of these corners, which begin at `first_row`.

    offset (pixel,): where each row of the matrix begins; it is moved to where it ends.
    """
    space = np.empty((WIDEST + 2) ** 2)
    boxes, quarters = np.empty((4, masked.shape[1]), np.int32), np.empty((5, masked.shape[1]))
    for i in range(masked.shape[0]):
        boxes_of_row(corners, i, boxes)
        quarters_of_row(corners, i, boxes, quarters)
        for j in range(masked.shape[1]):
            top, bottom, left, right = boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j]
            if masked[i, j] or bottom < rows[0] or top >= rows[1] or right < 0 or left >= width:
                continue
            pixel, scale = (first_row + i) * masked.shape[1] + j, 1 / quarters[4, j]
            if bottom == top + 1 and right == left + 1 and top >= rows[0] and bottom < rows[1] and left >= 0 and right < width:
                place = (top - rows[0]) * width + left
                put(place, pixel, quarters[0, j] * scale, offset, indices, data)
                put(place + 1, pixel, quarters[1, j] * scale, offset, indices, data)
                put(place + width, pixel, quarters[2, j] * scale, offset, indices, data)
                put(place + width + 1, pixel, quarters[3, j] * scale, offset, indices, data)
                continue
            shape, columns = (bottom + 1 - top, right + 1 - left), max(2, right + 1 - left)
            if shape[0] <= 2 and shape[1] <= 2:
                space[:4] = quarters[:4, j]
            else:
                overlaps(corners, i, j, top, left, space[: shape[0] * columns].reshape((shape[0], columns)))
            for row in range(max(top, rows[0]), min(bottom + 1, rows[1])):
                for column in range(max(left, 0), min(right + 1, width)):
                    share = space[(row - top) * columns + column - left] * scale
                    put((row - rows[0]) * width + column, pixel, share, offset, indices, data)


@kernel
def put(place, pixel, share, offset, indices, data):  # type: ignore[no-untyped-def]
    """Append a coefficient to a row of the matrix."""
    at = offset[place]
    indices[at], data[at] = pixel, max(0.0, share)
    offset[place] = at + 1


def count_rows(corners: Corners, masked: NDArray[np.bool_], rows: tuple[int, int], width: int, ends: NDArray[np.int64]) -> None:
    """Where each row of the matrix ends in a band of output rows, put into zeros (pixel,)."""
    count_band(corners, masked, rows, width, ends)
    np.cumsum(ends, out=ends)


def fill_rows(
    corners: Corners, masked: NDArray[np.bool_], begins: NDArray[np.int64], first_row: int, rows: tuple[int, int], width: int
) -> tuple[Floats, NDArray[np.int32]]:
    """Coefficients and pixels of a band of output rows; `begins` (pixel + 1,) says where each row of the matrix does."""
    offset = begins - begins[0]
    data, indices = np.empty(offset[-1], np.float32), np.empty(offset[-1], np.int32)
    fill_band(corners, masked, first_row, rows, width, offset, indices, data)
    return data, indices


@kernel
def signed_areas(corners, masked, areas):  # type: ignore[no-untyped-def]
    """Area of each pixel, negative if it is turned over, 0 if it is masked or its edges cross, and the largest side of a box."""
    widest = 0
    boxes = np.empty((4, masked.shape[1]), np.int32)
    for i in range(areas.shape[0]):
        boxes_of_row(corners, i, boxes)
        for j in range(areas.shape[1]):
            area = quadrilateral_area(corners, i, j)
            turned = 0  # corners against the pixel's sense: two, where edges cross, and one, if it is not convex
            for k in range(2):
                for m in range(2):
                    turned += corner_area(corners, i, j, k, m) * area < 0
            areas[i, j] = 0.0 if masked[i, j] or turned > 1 else area
            if areas[i, j] != 0:
                widest = max(widest, boxes[1, j] + 1 - boxes[0, j], boxes[3, j] + 1 - boxes[2, j])
    return widest


# ---------------------------------------------------------------------------------------------------------- applying


class Resampling(NamedTuple):
    """The matrix by tiles of the output, row by row in each: a coefficient's pixel is its place in the window that the tile needs.

    Coefficients of output pixel p, in the order of the tiles, are from starts[p] to starts[p + 1]; covered[p] is the part of its area
    that all pixels cover. tiles (tile, 4) are the first and last row and column of the output, windows (tile, 4) those of the
    distorted frame. areas (pixel,) are of the distorted pixels, in output pixels, 0 of masked ones.
    """

    starts: NDArray[np.int64]
    places: NDArray[np.int32]
    shares: Floats
    areas: Floats
    covered: Floats
    tiles: NDArray[np.int64]
    windows: NDArray[np.int64]
    shape: tuple[int, int]
    source: tuple[int, int]

    @classmethod
    def of(cls, indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Floats, areas: Floats, shape: tuple[int, int]) -> "Resampling":
        """From the matrix in CSR, and the areas (y, x)."""
        corners = [(i, j) for i in range(0, shape[0], TILE_ROWS) for j in range(0, shape[1], TILE_COLUMNS)]
        tiles = np.array([(i, min(i + TILE_ROWS, shape[0]), j, min(j + TILE_COLUMNS, shape[1])) for i, j in corners], np.int64)
        starts, windows = np.empty(shape[0] * shape[1] + 1, np.int64), np.zeros((len(tiles), 4), np.int64)
        places, shares, covered = np.empty(len(indices), np.int32), np.empty(len(data), np.float32), np.empty(len(starts) - 1, np.float32)
        order_by_tiles(indptr, indices, data, shape[1], areas.shape[1], tiles, windows, starts, places, shares)
        source = areas.shape[0], areas.shape[1]
        found = cls.of_parts(starts, places, shares, np.asarray(areas, np.float32).ravel(), covered, tiles, windows, shape, source)
        cover_all(found, covered)
        return found

    @classmethod
    def of_parts(cls, *parts: Any) -> "Resampling":
        """The same of its fields, wherever they come from."""
        fields: list[Any] = [read_only(part) if isinstance(part, np.ndarray) else part for part in parts]
        return cls(*fields)


@kernel
def order_by_tiles(indptr, indices, data, width, source_width, tiles, windows, starts, places, shares):  # type: ignore[no-untyped-def]
    """The coefficients in the order of the tiles, and the windows that these need."""
    starts[0] = 0
    pixel = 0
    for t in range(len(tiles)):
        first, last, left, right = 2**40, -1, 2**40, -1
        for row in range(tiles[t, 0], tiles[t, 1]):
            for k in range(indptr[row * width + tiles[t, 2]], indptr[row * width + tiles[t, 3]]):
                i = indices[k] // source_width
                j = indices[k] - i * source_width
                first, last, left, right = min(first, i), max(last, i), min(left, j), max(right, j)
        if last >= 0:
            windows[t] = first, last + 1, left, right + 1
        for row in range(tiles[t, 0], tiles[t, 1]):
            for column in range(tiles[t, 2], tiles[t, 3]):
                place = row * width + column
                at = starts[pixel]
                for k in range(indptr[place], indptr[place + 1]):
                    i = indices[k] // source_width
                    places[at] = (i - windows[t, 0]) * (windows[t, 3] - windows[t, 2]) + indices[k] - i * source_width - windows[t, 2]
                    shares[at] = data[k]
                    at += 1
                pixel += 1
                starts[pixel] = at


@kernel
def largest_window(matrix):  # type: ignore[no-untyped-def]
    """Pixels of the largest window, and of its longest row, in whole groups of LANES."""
    pixels, columns = 0, 0
    for t in range(len(matrix.windows)):
        first, last, left, right = matrix.windows[t]
        pixels, columns = max(pixels, (last - first) * (right - left)), max(columns, right - left)
    return pixels, -(-columns // LANES) * LANES


@kernel
def cover_all(matrix, covered):  # type: ignore[no-untyped-def]
    """The part of each output pixel's area that all pixels cover, as lanes sum it."""
    window, areas = np.zeros((largest_window(matrix)[0], LANES), np.float32), np.empty(largest_window(matrix)[0], np.float32)
    covers = np.empty((TILE_COLUMNS, LANES), np.float32)
    pixel = 0
    for t in range(len(matrix.tiles)):
        top, bottom, left, right = matrix.tiles[t]
        window_areas(matrix, t, areas)
        for _ in range(top, bottom):
            sum_covers(matrix, pixel, right - left, window, areas, covers)
            covered[pixel : pixel + right - left] = covers[: right - left, 0]
            pixel += right - left


@kernel
def window_areas(matrix, t, areas):  # type: ignore[no-untyped-def]
    """The areas of the pixels of a tile's window."""
    first, last, left, right = matrix.windows[t]
    for row in range(first, last):
        start, place = row * matrix.source[1] + left, (row - first) * (right - left)
        areas[place : place + right - left] = matrix.areas[start : start + right - left]


@kernel
def load_window(matrix, t, valid, frames, scratch, window):  # type: ignore[no-untyped-def]
    """What tile t needs of up to LANES frames (frame, pixel), as (pixel, lane); whether all of it is measured.

    A frame's rows are read as a whole: frames often lie a power of two of bytes apart, so that their pixels drive each other out of
    the cache. The last group of LANES pixels begins as early as it must to be whole.
    """
    first, last, left, right = matrix.windows[t]
    columns, width = right - left, matrix.source[1]
    least, dummy = np.float32(valid.least), np.float32(valid.dummy)
    nothing = splat(np.float32(0))
    sums = nothing
    groups = -(-columns // LANES)
    for row in range(first, last):
        start, place = row * width + left, (row - first) * columns
        if columns < LANES:
            to_lanes(frames, valid, start, start + columns, window[place : place + columns])
            for k in range(columns):
                sums = sums + nothing * load(window, place + k)
            continue
        if row + AHEAD < last:
            for group in range(groups):
                prefetch(frames, start + AHEAD * width + min(group * LANES, columns - LANES))
        for lane in range(len(frames)):
            for group in range(groups):
                value = measured(load_from(frames, lane, start + min(group * LANES, columns - LANES)), least, dummy)
                sums = sums + nothing * value
                store(scratch, group * LANES + lane, value)
        for group in range(groups):
            transpose(scratch, group * LANES, 0, window, place + min(group * LANES, columns - LANES), 0)
    store(scratch, 0, sums)
    known = True
    for lane in range(LANES):
        known = known and scratch[0, lane] == 0
    scratch[0] = 0
    return known


@kernel
def weigh_window(matrix, t, power, window):  # type: ignore[no-untyped-def]
    """Multiply the pixels of a window by a power of their areas."""
    first, last, left, right = matrix.windows[t]
    for row in range(first, last):
        start, place = row * matrix.source[1] + left, (row - first) * (right - left)
        for column in range(right - left):
            area = matrix.areas[start + column]
            store(window, place + column, (area * area if power == 2 else area) * load(window, place + column))


@kernel
def sum_known(matrix, pixel, count, window, power, sums):  # type: ignore[no-untyped-def]
    """Sums over the coefficients of `count` output pixels from `pixel` on, of values times a power of the shares."""
    starts, places, shares = matrix.starts, matrix.places, matrix.shares
    for column in range(count):
        total = splat(np.float32(0))
        for k in range(starts[pixel + column], starts[pixel + column + 1]):
            share = shares[k]
            total = total + (share * share if power == 2 else share) * load(window, places[k])
        store(sums, column, total)


@kernel
def sum_measured(matrix, pixel, count, window, power, sums):  # type: ignore[no-untyped-def]
    """The same where some values are NaN, which are left out."""
    starts, places, shares = matrix.starts, matrix.places, matrix.shares
    nothing = splat(np.float32(0))
    for column in range(count):
        total = nothing
        for k in range(starts[pixel + column], starts[pixel + column + 1]):
            share = shares[k]
            total = total + (share * share if power == 2 else share) * where_number(load(window, places[k]), nothing)
        store(sums, column, total)


@kernel
def sum_covers(matrix, pixel, count, window, areas, covers):  # type: ignore[no-untyped-def]
    """Sums over the coefficients of `count` output pixels of the areas that are measured."""
    starts, places, shares = matrix.starts, matrix.places, matrix.shares
    nothing, one = splat(np.float32(0)), splat(np.float32(1))
    for column in range(count):
        cover = nothing
        for k in range(starts[pixel + column], starts[pixel + column + 1]):
            overlap = shares[k] * areas[places[k]]
            cover = cover + overlap * where_number(nothing * load(window, places[k]) + one, nothing)
        store(covers, column, cover)


@kernel
def settle(count, mean, covers, sums):  # type: ignore[no-untyped-def]
    """NaN where next to nothing is covered, and with `mean` the sums over what is."""
    least, most, missing = splat(np.float32(LEAST_COVERAGE)), splat(np.float32(np.inf)), splat(np.float32(np.nan))
    for column in range(count):
        total, cover = load(sums, column), load(covers, column)
        if mean:
            total = total / cover
        store(sums, column, where_between(cover, least, most, total, missing))


@kernel
def unload(lanes, start, count, scratch, frames):  # type: ignore[no-untyped-def]
    """`count` rows (pixel, lane) into frames (frame, pixel) from pixel `start` on, frame by frame, for the sake of the cache."""
    for group in range(0, count, LANES):
        transpose(lanes, group, 0, scratch, group, 0)
    whole = count - count % LANES
    for lane in range(len(frames)):
        for group in range(0, whole, LANES):
            store_to(frames, lane, start + group, load(scratch, group + lane))
        for k in range(whole, count):
            frames[lane, start + k] = scratch[whole + lane, k - whole]


@kernel
def resample_lanes(matrix, valid, frames, mean, values, coverage):  # type: ignore[no-untyped-def]
    """Up to LANES frames (frame, pixel) through the matrix: values and, unless it is of no frames, coverage (frame, output pixel).

    Coverage is the part of an output pixel's area that measured pixels cover. Values are the sum of shares of counts, or with `mean` the
    mean weighted by the areas; NaN without coverage.
    """
    pixels, columns = largest_window(matrix)
    window, areas = np.empty((pixels, LANES), np.float32), np.empty(pixels, np.float32)
    sums, covers = np.empty((TILE_COLUMNS, LANES), np.float32), np.empty((TILE_COLUMNS, LANES), np.float32)
    scratch = np.zeros((max(columns, TILE_COLUMNS), LANES), np.float32)
    pixel = 0
    for t in range(len(matrix.tiles)):
        known = load_window(matrix, t, valid, frames, scratch, window)
        if not known:
            window_areas(matrix, t, areas)
        top, bottom, left, right = matrix.tiles[t]
        count = right - left
        if mean:
            weigh_window(matrix, t, 1, window)
        for row in range(top, bottom):
            if known:
                sum_known(matrix, pixel, count, window, 1, sums)
                for column in range(count):
                    store(covers, column, splat(matrix.covered[pixel + column]))
            else:
                sum_measured(matrix, pixel, count, window, 1, sums)
                sum_covers(matrix, pixel, count, window, areas, covers)
            settle(count, mean, covers, sums)
            start, pixel = row * matrix.shape[1] + left, pixel + count
            unload(sums, start, count, scratch, values)
            unload(covers, start, count, scratch, coverage)


@kernel
def sum_squares(matrix, frames, mean, sums):  # type: ignore[no-untyped-def]
    """Sums of values times the squares of what `resample_lanes` weighs them with, of up to LANES frames, NaN left out."""
    pixels, columns = largest_window(matrix)
    window, lanes = np.empty((pixels, LANES), np.float32), np.empty((TILE_COLUMNS, LANES), np.float32)
    scratch = np.zeros((max(columns, TILE_COLUMNS), LANES), np.float32)
    pixel = 0
    for t in range(len(matrix.tiles)):
        load_window(matrix, t, ALL_NUMBERS, frames, scratch, window)
        if mean:
            weigh_window(matrix, t, 2, window)
        top, bottom, left, right = matrix.tiles[t]
        for row in range(top, bottom):
            sum_measured(matrix, pixel, right - left, window, 2, lanes)
            start, pixel = row * matrix.shape[1] + left, pixel + right - left
            unload(lanes, start, right - left, scratch, sums)


def reused(shape: tuple[int, ...]) -> Floats:
    """An array in memory that an earlier one of its size was freed from: on a fresh page's first touch the system takes longer than
    resampling does."""
    size = int(np.prod(shape))
    count = 4 * max(1, size)
    try:
        memory = SPARE.pop()
    except IndexError:
        memory = np.empty(0, np.uint8)
    memory = memory if memory.size == count else np.empty(count, np.uint8)
    array = np.frombuffer(memory.data, np.float32)  # which all views of it keep: views of a view would keep the memory alone
    finalize(array, give_back, memory).atexit = False
    return array[:size].reshape(shape)


def give_back(memory: NDArray[np.uint8]) -> None:
    """Keep memory for the next array."""
    if len(SPARE) < MOST_SPARE:
        SPARE.append(memory)


def resample_values(frames: Frames, *, matrix: Resampling, valid: Valid, mean: bool) -> Floats:
    """The values of a block of frames (frame, y, x)."""
    values: Floats = resample_frames(frames, matrix=matrix, valid=valid, mean=mean)[0]
    return values


def resample_frames(
    frames: Frames,
    variance: Frames | None = None,
    *,
    matrix: Resampling,
    valid: Valid,
    mean: bool,
    poisson: bool = False,
    coverage: bool = False,
) -> Floats:
    """Of a block of frames (frame, y, x): values, then variance and coverage as they are asked for (quantity, frame, y, x).

    With `poisson`, the frames are their own variance.
    """
    if poisson:
        variance = frames
    if variance is not None:
        frames, variance = known_in_both(frames, variance, valid)
    covers = coverage or (mean and variance is not None)
    found = reused((1 + (variance is not None) + covers, len(frames), matrix.shape[0] * matrix.shape[1]))
    for some, group in in_groups(frames):
        resample_lanes(matrix, valid, some, mean, found[0, group], found[-1, group] if covers else found[0, :0])
    if variance is not None:
        for some, group in in_groups(variance):
            sum_squares(matrix, some, mean, found[1, group])
        if mean:
            found[1] /= np.where(np.isnan(found[0]), 1, found[2]) ** 2
        found[1, np.isnan(found[0])] = np.nan
    found = found if coverage or not covers else found[:-1]
    return found.reshape(-1, len(frames), *matrix.shape)


def known_in_both(frames: Frames, variance: Frames, valid: Valid) -> tuple[Floats, Floats]:
    """Frames and their variance, NaN where either is not known."""
    values, noise = frames.astype(np.float32), variance.astype(np.float32)
    known = np.isfinite(values) & (values >= valid.least) & (values != np.float32(valid.dummy)) & np.isfinite(noise) & (noise >= 0)
    return np.where(known, values, np.float32(np.nan)), np.where(known, noise, np.float32(np.nan))


def in_scipy(matrix: Resampling, mean: bool) -> Any:
    """The matrix in the order of its tiles, as scipy takes it, and each row's pixel of the output."""
    order, at = np.empty(matrix.shape[0] * matrix.shape[1], np.int64), 0
    pixels = np.empty(len(matrix.places), np.int32)
    for (top, bottom, left, right), (first, _, start, stop) in zip(matrix.tiles, matrix.windows, strict=True):
        rows, columns = np.mgrid[top:bottom, left:right]
        count = rows.size
        order[at : at + count] = (rows * matrix.shape[1] + columns).ravel()
        some = slice(matrix.starts[at], matrix.starts[at + count])
        row, column = np.divmod(matrix.places[some], max(1, stop - start))
        pixels[some] = (first + row) * matrix.source[1] + start + column
        at += count
    shares = matrix.shares * matrix.areas[pixels] if mean else matrix.shares
    found = sparse.csr_matrix((shares, pixels, matrix.starts), shape=(len(order), matrix.source[0] * matrix.source[1]))
    return found, order


def unresample_frames(frames: Frames, matrix: Resampling, valid: Valid, mean: bool, iterations: int, tolerance: float) -> Floats:
    """The distorted frames that make these, in the sense of least squares (LSMR, Fong and Saunders 2011); NaN for masked pixels."""
    operator, order = in_scipy(matrix, mean)
    recorded = matrix.areas > 0
    found = np.full((len(frames), len(recorded)), np.nan, np.float32)
    cover = operator @ (np.ones(len(recorded)) if mean else matrix.areas.astype(float))
    for frame, result in zip(frames.reshape(len(frames), -1), found, strict=True):
        values = frame[order].astype(float)
        known = np.isfinite(values) & (values >= valid.least) & (values != valid.dummy) & (cover > LEAST_COVERAGE)
        weights = np.where(known, 1 / np.where(cover > 0, cover, 1) if mean else 1.0, 0.0)

        def forward(a: NDArray[np.float64], weights: NDArray[np.float64] = weights) -> Any:
            return weights * (operator @ a)

        def adjoint(b: NDArray[np.float64], weights: NDArray[np.float64] = weights) -> Any:
            return operator.T @ (weights * b)

        linear = LinearOperator(operator.shape, matvec=forward, rmatvec=adjoint, dtype=np.float64)
        solved = lsmr(linear, np.where(known, values, 0), atol=tolerance, btol=tolerance, maxiter=iterations)[0]
        seen = recorded & (operator.T @ known.astype(float) > 0)
        result[seen] = solved[seen]
    return found.reshape(len(frames), *matrix.source)
