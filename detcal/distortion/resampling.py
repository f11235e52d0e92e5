"""Overlaps of distorted pixels with even ones as a sparse matrix, and the matrix in use. ndarrays in, ndarrays out.

A row is an even pixel, its coefficients the shares of the distorted pixels' areas that lie in it. Frames go through it side by side,
square tile by square tile of the output, so that what a tile needs stays in the cache.
"""

from math import floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, lsmr

from detcal.jit import kernel
from detcal.lanes import ALL_NUMBERS, Floats, Frames, Valid, from_lanes, in_groups, read_only, to_lanes
from detcal.simd import LANES, load, splat, store, where_number

TILE = 32  # pixels a side, of the output
WIDEST = 64  # output pixels that a distorted one may be wide or high
LEAST_COVERAGE = 1e-4  # of an output pixel: with less of it covered it has no value


# --------------------------------------------------------------------------------------------------------- building


@kernel
def box_of(corners, i, j):  # type: ignore[no-untyped-def]
    """The first and last row and column of the output that pixel (i, j) reaches into."""
    y0, x0 = min(corners[i, j, 0], corners[i, j + 1, 0]), min(corners[i, j, 1], corners[i, j + 1, 1])
    y1, x1 = max(corners[i, j, 0], corners[i, j + 1, 0]), max(corners[i, j, 1], corners[i, j + 1, 1])
    for k in (j, j + 1):
        y0, x0 = min(y0, corners[i + 1, k, 0]), min(x0, corners[i + 1, k, 1])
        y1, x1 = max(y1, corners[i + 1, k, 0]), max(x1, corners[i + 1, k, 1])
    top, left = floor(y0), floor(x0)
    return top, max(top, -floor(-y1) - 1), left, max(left, -floor(-x1) - 1)


@kernel
def quadrilateral_area(corners, i, j):  # type: ignore[no-untyped-def]
    """Area of pixel (i, j), by its diagonals; negative if it is turned over."""
    dy, dx = corners[i + 1, j + 1, 0] - corners[i, j, 0], corners[i + 1, j + 1, 1] - corners[i, j, 1]
    ey, ex = corners[i + 1, j, 0] - corners[i, j + 1, 0], corners[i + 1, j, 1] - corners[i, j + 1, 1]
    return (ey * dx - ex * dy) / 2


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
    place = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
    for k in range(4):
        a, b = place[k], place[(k + 1) % 4]
        add_edge(corners[a[0], a[1], 0], corners[a[0], a[1], 1], corners[b[0], b[1], 0], corners[b[0], b[1], 1], top, left, areas)


@kernel
def count_band(corners, masked, rows, width, counts):  # type: ignore[no-untyped-def]
    """How many pixels' boxes reach each output pixel of the rows from rows[0] up to rows[1] (row · width + column)."""
    for i in range(masked.shape[0]):
        for j in range(masked.shape[1]):
            if masked[i, j]:
                continue
            top, bottom, left, right = box_of(corners, i, j)
            for row in range(max(top, rows[0]), min(bottom + 1, rows[1])):
                for column in range(max(left, 0), min(right + 1, width)):
                    counts[(row - rows[0]) * width + column] += 1


@kernel
def fill_band(corners, masked, first_row, rows, width, offset, indices, data):  # type: ignore[no-untyped-def]
    """The coefficients of a band of output rows, of the distorted pixels of these corners, which begin at `first_row`.

    offset (pixel,): where each row of the matrix begins; it is moved to where it ends.
    """
    space = np.empty((WIDEST + 1) ** 2)
    for i in range(masked.shape[0]):
        for j in range(masked.shape[1]):
            if masked[i, j]:
                continue
            top, bottom, left, right = box_of(corners, i, j)
            if bottom < rows[0] or top >= rows[1] or right < 0 or left >= width:
                continue
            shape = (bottom + 1 - top, right + 1 - left)
            areas = space[: shape[0] * shape[1]].reshape(shape)
            overlaps(corners, i, j, top, left, areas)
            whole = quadrilateral_area(corners, i, j)
            for row in range(max(top, rows[0]), min(bottom + 1, rows[1])):
                for column in range(max(left, 0), min(right + 1, width)):
                    place = (row - rows[0]) * width + column
                    indices[offset[place]] = (first_row + i) * masked.shape[1] + j
                    data[offset[place]] = max(0.0, areas[row - top, column - left] / whole)
                    offset[place] += 1


def fill_rows(
    corners: NDArray[np.float64], masked: NDArray[np.bool_], begins: NDArray[np.int64], first_row: int, rows: tuple[int, int], width: int
) -> tuple[Floats, NDArray[np.int32]]:
    """Coefficients and pixels of a band of output rows; `begins` (pixel + 1,) says where each row of the matrix does."""
    data, indices = np.zeros(begins[-1], np.float32), np.zeros(begins[-1], np.int32)
    fill_band(np.ascontiguousarray(corners), masked, first_row, rows, width, begins.copy(), indices, data)
    return data, indices


@kernel
def areas_of(corners, masked, areas):  # type: ignore[no-untyped-def]
    """Area of each pixel, 0 if it is masked or turned over, and the largest width or height of a box."""
    widest = 0
    for i in range(areas.shape[0]):
        for j in range(areas.shape[1]):
            areas[i, j] = 0 if masked[i, j] else max(0.0, quadrilateral_area(corners, i, j))
            if areas[i, j] > 0:
                top, bottom, left, right = box_of(corners, i, j)
                widest = max(widest, bottom + 1 - top, right + 1 - left)
    return widest


# ---------------------------------------------------------------------------------------------------------- applying


class Resampling(NamedTuple):
    """The matrix by tiles of the output, row by row in each: a coefficient's pixel is its place in the window that the tile needs.

    Coefficients of output pixel p, in the order of the tiles, are from starts[p] to starts[p + 1]; tiles (tile, 4) are the first and last
    row and column of the output, windows (tile, 4) those of the distorted frame. areas (pixel,) are of the distorted pixels,
    in output pixels, 0 of masked ones.
    """

    starts: NDArray[np.int64]
    places: NDArray[np.int32]
    shares: Floats
    areas: Floats
    tiles: NDArray[np.int64]
    windows: NDArray[np.int64]
    shape: tuple[int, int]
    source: tuple[int, int]

    @classmethod
    def of(cls, indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Floats, areas: Floats, shape: tuple[int, int]) -> "Resampling":
        """From the matrix in CSR, and the areas (y, x)."""
        corners = [(i, j) for i in range(0, shape[0], TILE) for j in range(0, shape[1], TILE)]
        tiles = np.array([(i, min(i + TILE, shape[0]), j, min(j + TILE, shape[1])) for i, j in corners], np.int64)
        starts, places, shares = np.empty(len(indptr), np.int64), np.empty(len(indices), np.int32), np.empty(len(data), np.float32)
        windows = np.zeros_like(tiles)
        order_by_tiles(indptr, indices, data, shape[1], areas.shape[1], tiles, windows, starts, places, shares)
        source = areas.shape[0], areas.shape[1]
        lines = (starts, places, shares, np.ascontiguousarray(areas, np.float32).ravel(), tiles, windows)
        starts, places, shares, flat, tiles, windows = (read_only(line) for line in lines)
        return cls(starts, places, shares, flat, tiles, windows, shape, source)


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
def load_window(matrix, t, valid, frames):  # type: ignore[no-untyped-def]
    """What tile t needs of up to LANES frames (frame, pixel), as (pixel, lane), and the areas of these pixels."""
    first, last, left, right = matrix.windows[t]
    columns, width = right - left, matrix.source[1]
    window, areas = np.empty(((last - first) * columns, LANES), np.float32), np.empty((last - first) * columns, np.float32)
    for row in range(first, last):
        start, place = row * width + left, (row - first) * columns
        to_lanes(frames, valid, start, start + columns, window[place : place + columns])
        areas[place : place + columns] = matrix.areas[start : start + columns]
    return window, areas


@kernel
def sum_row(matrix, pixel, count, window, areas, mean, sums, covers):  # type: ignore[no-untyped-def]
    """Sums over the coefficients of `count` output pixels from `pixel` on: of shares of counts, or of areas times values with `mean`; and
    of the areas of the pixels that are measured."""
    starts, places, shares = matrix.starts, matrix.places, matrix.shares
    nothing, one = splat(np.float32(0)), splat(np.float32(1))
    for column in range(count):
        total, cover = nothing, nothing
        for k in range(starts[pixel + column], starts[pixel + column + 1]):
            value, share = load(window, places[k]), shares[k]
            overlap = share * areas[places[k]]
            cover = cover + overlap * where_number(nothing * value + one, nothing)
            total = total + (overlap if mean else share) * where_number(value, nothing)
        store(sums, column, total)
        store(covers, column, cover)


@kernel
def resample_lanes(matrix, valid, frames, mean, values, coverage):  # type: ignore[no-untyped-def]
    """Up to LANES frames (frame, pixel) through the matrix: values and coverage (frame, output pixel).

    Coverage is the part of an output pixel's area that measured pixels cover. Values are the sum of shares of counts, or with `mean` the
    mean weighted by the areas; NaN without coverage.
    """
    sums, covers = np.empty((TILE, LANES), np.float32), np.empty((TILE, LANES), np.float32)
    least = np.float32(LEAST_COVERAGE)
    pixel = 0
    for t in range(len(matrix.tiles)):
        window, areas = load_window(matrix, t, valid, frames)
        top, bottom, left, right = matrix.tiles[t]
        for row in range(top, bottom):
            sum_row(matrix, pixel, right - left, window, areas, mean, sums, covers)
            for column in range(right - left):
                for lane in range(LANES):
                    seen = covers[column, lane]
                    if not seen > least:
                        sums[column, lane] = np.nan
                    elif mean:
                        sums[column, lane] /= seen
            start, pixel = row * matrix.shape[1] + left, pixel + right - left
            from_lanes(sums, start, start + right - left, values)
            from_lanes(covers, start, start + right - left, coverage)


@kernel
def sum_lanes(matrix, frames, mean, values):  # type: ignore[no-untyped-def]
    """Sums of up to LANES frames (frame, pixel), as `sum_row` forms them, NaN left out: (frame, output pixel)."""
    sums, covers = np.empty((TILE, LANES), np.float32), np.empty((TILE, LANES), np.float32)
    pixel = 0
    for t in range(len(matrix.tiles)):
        window, areas = load_window(matrix, t, ALL_NUMBERS, frames)
        top, bottom, left, right = matrix.tiles[t]
        for row in range(top, bottom):
            sum_row(matrix, pixel, right - left, window, areas, mean, sums, covers)
            start, pixel = row * matrix.shape[1] + left, pixel + right - left
            from_lanes(sums, start, start + right - left, values)


def resample_frames(frames: Frames, variance: Frames | None, matrix: Resampling, valid: Valid, mean: bool) -> Floats:
    """Values, coverage and, if it is given, variance of a block of frames (frame, y, x): (quantity, frame, y, x)."""
    if variance is not None:
        frames, variance = known_in_both(frames, variance, valid)
    pixels = matrix.shape[0] * matrix.shape[1]
    found = np.empty((2 if variance is None else 3, len(frames), pixels), np.float32)
    for some, group in in_groups(frames):
        resample_lanes(matrix, valid, some, mean, found[0, group], found[1, group])
    if variance is not None:
        squared = matrix._replace(shares=read_only(matrix.shares**2), areas=read_only(matrix.areas**2))
        for some, group in in_groups(variance):
            sum_lanes(squared, some, mean, found[2, group])
        if mean:
            found[2] /= np.where(np.isnan(found[0]), 1, found[1]) ** 2
        found[2, np.isnan(found[0])] = np.nan
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
