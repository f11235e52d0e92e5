"""The noise of the exact solution: variances, and how much it is amplified. ndarrays in, ndarrays out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import exact_kernel
from detcal.frames.lanes import all_in_lanes, by_lane, lanes_for, read_only
from detcal.frames.readings import ALL_NUMBERS, Floats, Frames, Valid
from detcal.frames.simd import LANES, load, plus_product, splat_for, store
from detcal.sensor.groups import groups_of
from detcal.sensor.inversion import slots_of, solve_row
from detcal.sensor.kernels import Slab, fill_band
from detcal.sensor.sparse import Matrix, diagonal_of
from detcal.sensor.unmeasured import put_variance

TILE = 8  # pixels a side: over which noise is averaged
BAND_ROWS = 64  # of the detector, that noise goes through at a time
LEAST_INFLUENCE = 1e-4  # of a recorded pixel on a solved one, of the pixel's own: its square is what a variance leaves out


@exact_kernel
def propagate_lanes(matrix, diagonal, variance, solved):  # type: ignore[no-untyped-def]
    """Variance of M⁻¹·b from that of b, both (pixel, lane): Σ_j (M⁻¹)_ij²·var_j, with each row of M⁻¹ found from its end.

    From pixel i inwards: what j adds to it is known once all that lies between them is. Where the diagonal is 0 nothing was measured:
    there the variance is that of the light.
    """
    indptr, indices, data = matrix.indptr, matrix.indices, matrix.data
    (height, width), origin = matrix.shape, matrix.origin
    influence = np.zeros(height * width)
    nothing, unknown = splat_for(variance, np.float32(0)), splat_for(variance, np.float32(np.nan))
    for pixel in range(height * width):
        if not diagonal[pixel] > 0:
            store(solved, pixel, unknown)
            continue
        row, column = pixel // width, pixel % width
        down, right = 1 if row < origin[0] else -1, 1 if column < origin[1] else -1  # inwards
        rows, columns = 1, 1  # how far inwards there is influence yet
        total = nothing
        influence[pixel] = 1
        i = 0
        while i < rows:
            j = 0
            while j < columns:
                source = (row + i * down) * width + column + j * right
                j += 1
                found, influence[source] = influence[source], 0
                measured = diagonal[source] > 0
                if measured:
                    found /= diagonal[source]
                if abs(found) * diagonal[pixel] < LEAST_INFLUENCE:
                    continue
                total = plus_product(total, splat_for(variance, np.float32(found * found)), load(variance, source))
                if not measured:
                    continue
                for k in range(indptr[source], indptr[source + 1]):
                    entry = indices[k]
                    if entry != source:
                        influence[entry] -= data[k] * found
                        rows = max(rows, (entry // width - row) * down + 1)
                        columns = max(columns, (entry % width - column) * right + 1)
            i += 1
        store(solved, pixel, total)


def propagate_frames(variance: Frames, frames: Frames, matrix: Matrix, valid: Valid, noise_valid: Valid = ALL_NUMBERS) -> Floats:
    """The variance of the exact solution, from that of what was recorded, both (frame, y, x).

    NaN where nothing was measured, and where it rests on a pixel that has no variance. Estimates of light that was not measured count
    as if each were independent of the others and of the readings.
    """
    pixels = variance[0].size
    found, diagonal = np.empty((len(variance), pixels), np.float32), diagonal_of(matrix)
    for (some, group), (recorded, _) in zip(groups_of(variance), groups_of(frames), strict=True):
        given, readings, solved = all_in_lanes(some, noise_valid), all_in_lanes(recorded, valid), lanes_for(some, pixels)
        readings[diagonal == 0] = np.nan
        put_variance(recorded, valid, some, noise_valid, matrix, readings, given)
        patterns, numbers = np.unique(np.isnan(by_lane(readings)[:, : len(some)]), axis=1, return_inverse=True)
        for number, unmeasured in enumerate(patterns.T):  # most often one: influences are the same in all frames that it has
            propagate_lanes(matrix, np.where(unmeasured, np.float32(0), diagonal), given, solved)
            lanes = np.flatnonzero(numbers == number)
            found[group][lanes] = by_lane(solved)[:, lanes].T
    return found.reshape(variance.shape)


def noise_and_diagonal(slab: Slab, mu: float, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Largest noise of the exact solution over that of a division by the efficiency; and the smallest diagonal.

    Random signs are solved, band by band outwards with a matrix of its own for each, so that no more than that is held; their squares
    are averaged over LANES frames and squares of TILE × TILE pixels. 0 and 1 if all is masked.
    """
    matrix = Matrix.of(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), slab)  # for where it begins
    none = read_only(np.empty((0, 0), np.float32))  # no frames, and so no light in pixels that record nothing
    (height, width), origin = slab.shape, matrix.origin[0]
    power, smallest, rng = np.zeros(slab.shape), 1.0, np.random.default_rng(0)
    for step in (1, -1):
        ring = np.zeros((slots_of(matrix.reach) * width, LANES), np.float32)
        for row in range(origin, height if step == 1 else -1, step * BAND_ROWS):
            rows = (row, min(row + BAND_ROWS, height)) if step == 1 else (max(row - BAND_ROWS, -1) + 1, row + 1)
            data, indices, ends = fill_band(rows, slab, mu, mask[rows[0] : rows[1]], mask, 0)
            indptr = np.concatenate([[0], ends])
            own = indices == np.repeat(np.arange(rows[0] * width, rows[1] * width, dtype=np.int32), np.diff(indptr))
            smallest = min(smallest, float(data[own].min(initial=1)))
            signs = np.unpackbits(rng.integers(0, 256, (rows[1] - rows[0]) * width * LANES // 8, np.uint8)).reshape(-1, width, LANES)
            solved = 2 * signs.astype(np.float32) - 1
            band = matrix._replace(indptr=indptr, indices=indices, data=data)
            for number in range(rows[1] - rows[0])[::step]:
                solve_row(rows[0] + number, step, band, rows[0], none, ALL_NUMBERS, solved[number], ring)
            with np.errstate(over="ignore", invalid="ignore"):
                power[rows[0] : rows[1]] = np.square(solved, dtype=np.float64).mean(2)
    y, x = ((np.arange(size) + 0.5) * pitch - poni for size, pitch, poni in zip(slab.shape, slab.pitch, slab.poni, strict=True))
    efficiency = -np.expm1(-mu * slab.thickness * np.sqrt(1 + (y[:, None] ** 2 + x**2) / slab.distance**2))
    power *= efficiency**2
    power[~(power < np.inf)] = np.inf  # grown beyond all numbers
    power[mask] = 0
    amplification = in_tiles(power) / np.maximum(in_tiles(~mask), 1)
    return float(np.sqrt(amplification.max())), smallest


def in_tiles(image: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over squares of TILE × TILE pixels."""
    rows, columns = (np.arange(0, size, TILE) for size in image.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(image, rows, 0, float), columns, 1, float))
