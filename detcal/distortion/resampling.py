"""Frames through the matrix of overlaps and back. ndarrays in, ndarrays out.

They go side by side, tile by tile of the output, so that what a tile needs stays in the cache.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, lsmr

from detcal.frames.jit import kernel
from detcal.frames.lanes import in_groups, limits_of, read_only, reading
from detcal.frames.readings import ALL_NUMBERS, Floats, Frames, Valid, readings, values_and_known
from detcal.frames.simd import LANES, load, load_from, measured, prefetch, splat, store, store_to, transpose, where_between, where_number
from detcal.frames.spare import reused

TILE_ROWS, TILE_COLUMNS = 32, 128  # pixels of the output
AHEAD = 2  # rows of a window that are asked for before they are loaded
LEAST_COVERAGE = 1e-4  # of an output pixel: with less of it covered it has no value


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
            windows[t, 0], windows[t, 1], windows[t, 2], windows[t, 3] = first, last + 1, left, right + 1
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
    pixel = np.int64(0)  # a plain 0 is another type at first, for which kernels would be compiled too
    for t in range(len(matrix.tiles)):
        top, bottom, left, right = matrix.tiles[t]
        window_areas(matrix, t, areas)
        for _ in range(top, bottom):
            sum_covers(matrix, pixel, right - left, window, areas, covers)
            for column in range(right - left):
                covered[pixel + column] = covers[column, 0]
            pixel += right - left


@kernel
def window_areas(matrix, t, areas):  # type: ignore[no-untyped-def]
    """The areas of the pixels of a tile's window."""
    first, last, left, right = matrix.windows[t]
    for row in range(first, last):
        start, place = row * matrix.source[1] + left, (row - first) * (right - left)
        for column in range(right - left):
            areas[place + column] = matrix.areas[start + column]


@kernel
def load_window(matrix, t, valid, frames, scratch, window):  # type: ignore[no-untyped-def]
    """What tile t needs of up to LANES frames (frame, pixel), as (pixel, lane); whether all of it is measured.

    A frame's rows are read as a whole: frames often lie a power of two of bytes apart, so that their pixels drive each other out of
    the cache. The last group of LANES pixels begins as early as it must to be whole.
    """
    first, last, left, right = matrix.windows[t]
    columns, width = right - left, matrix.source[1]
    least, most, flag, more = limits_of(valid)
    nothing = splat(np.float32(0))
    sums = nothing
    groups = -(-columns // LANES)
    for row in range(first, last):
        start, place = row * width + left, (row - first) * columns
        if columns < LANES:
            for k in range(columns):
                for lane in range(LANES):
                    window[place + k, lane] = reading(frames[lane, start + k], valid) if lane < len(frames) else np.float32(0)
                sums = sums + nothing * load(window, place + k)
            continue
        if row + AHEAD < last:
            for group in range(groups):
                prefetch(frames, start + AHEAD * width + min(group * LANES, columns - LANES))
        for lane in range(len(frames)):
            for group in range(groups):
                value = measured(load_from(frames, lane, start + min(group * LANES, columns - LANES)), least, most, flag, more)
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
    pixel = np.int64(0)  # a plain 0 is another type at first, for which kernels would be compiled too
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
    pixel = np.int64(0)  # a plain 0 is another type at first, for which kernels would be compiled too
    for t in range(len(matrix.tiles)):
        load_window(matrix, t, ALL_NUMBERS, frames, scratch, window)
        if mean:
            weigh_window(matrix, t, 2, window)
        top, bottom, left, right = matrix.tiles[t]
        for row in range(top, bottom):
            sum_measured(matrix, pixel, right - left, window, 2, lanes)
            start, pixel = row * matrix.shape[1] + left, pixel + right - left
            unload(lanes, start, right - left, scratch, sums)


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
    noise_valid: Valid = ALL_NUMBERS,
    poisson: bool = False,
    coverage: bool = False,
) -> Floats:
    """Of a block of frames (frame, y, x): values, then variance and coverage as they are asked for (quantity, frame, y, x).

    With `poisson`, the frames are their own variance. `noise_valid` is of the variance.
    """
    if poisson:
        frames, variance = own_variance(frames, valid)
    elif variance is not None:
        frames, variance = known_in_both(frames, variance, valid, noise_valid)
    if variance is not None:
        valid = ALL_NUMBERS  # all that is left
    covers = coverage or (mean and variance is not None)
    found: Floats = reused((1 + (variance is not None) + covers, len(frames), matrix.shape[0] * matrix.shape[1]))
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


def known_in_both(frames: Frames, variance: Frames, valid: Valid, noise_valid: Valid) -> tuple[Floats, Floats]:
    """Frames and their variance, NaN where either is not known."""
    values, noise = readings(frames, valid), readings(variance, noise_valid)
    unknown = np.isnan(values) | np.isnan(noise)
    values[unknown] = noise[unknown] = np.nan
    return values, noise


def own_variance(frames: Frames, valid: Valid) -> tuple[Floats, Floats]:
    """Frames, and their variance as Poisson's: the counts; 0 where a reading is below 0, as some are once a dark is taken off."""
    values = readings(frames, valid)
    return values, np.maximum(values, 0)


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
        values, good = values_and_known(frame[order], valid)
        used = good & (cover > LEAST_COVERAGE)
        weights = np.where(used, 1 / np.where(cover > 0, cover, 1) if mean else 1.0, 0.0)

        def forward(a: NDArray[np.float64], weights: NDArray[np.float64] = weights) -> Any:
            return weights * (operator @ a)

        def adjoint(b: NDArray[np.float64], weights: NDArray[np.float64] = weights) -> Any:
            return operator.T @ (weights * b)

        linear = LinearOperator(operator.shape, matvec=forward, rmatvec=adjoint, dtype=np.float64)
        solved = lsmr(linear, np.where(used, values, 0).astype(float), atol=tolerance, btol=tolerance, maxiter=iterations)[0]
        seen = recorded & (operator.T @ used.astype(float) > 0)
        result[seen] = solved[seen]
    return found.reshape(len(frames), *matrix.source)
