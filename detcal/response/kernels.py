"""Regression sums, and their solution. ndarrays in, ndarrays out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.jit import kernel
from detcal.frames.lanes import reading
from detcal.frames.readings import ALL_NUMBERS, Valid
from detcal.response.saturation import Saturation
from detcal.response.smoothing import Image, ValidSmoother

Array = NDArray[np.generic]
Sums = tuple[NDArray[np.float64], ...]  # (plane, y, x) of each tile

LEAST_CHANGE = 0.01  # standard deviation of what a pixel should have read, in parts of its mean, by which the beam changed
FEWEST_CHANGED = 0.01  # of the pixels, in which it has to change

FRAMES_A_BATCH = 4  # frames that are smoothed before their sums are taken in one pass over the pixels

# The planes of the sums: V is the measured signal, S the smoothed one, D = S − V. D is small, so that nothing cancels.
# In FULL are those that saturation left out. The last three are for order 2.
N, V, V2, V3, D, VD, DD, FULL, V4, V5, V2D = range(11)


def count_planes(order: int) -> int:
    """Planes of the sums that a fit of this order needs."""
    return V4 if order == 1 else V2D + 1


@kernel
def subtract_dark(frame, dark, valid, out):  # type: ignore[no-untyped-def]
    """out = frame − dark in float32, from any type; NaN where there is no reading, or the difference is not finite."""
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            signal = reading(frame[row, column], valid) - dark[row, column]
            out[row, column] = signal if abs(signal) < np.inf else np.nan


@kernel
def add_powers(sums, signals, smoothed, top, cutoff):  # type: ignore[no-untyped-def]
    """Add a few frames to the planes of the sums of a tile, whose first row is that one of the frames, in one pass over the pixels."""
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n = v1 = v2 = v3 = d0 = d1 = dd = v4 = v5 = d2 = 0.0
            for frame in range(signals.shape[0]):
                s = smoothed[frame, top + row, column]
                v = np.float64(signals[frame, top + row, column])
                if not s > cutoff or np.isnan(v):
                    continue
                d = np.float64(s) - v
                square = v * v
                n += 1.0
                v1 += v
                v2 += square
                v3 += square * v
                d0 += d
                d1 += v * d
                dd += d * d
                v4 += square * square
                v5 += square * square * v
                d2 += square * d
            sums[N, row, column] += n
            sums[V, row, column] += v1
            sums[V2, row, column] += v2
            sums[V3, row, column] += v3
            sums[D, row, column] += d0
            sums[VD, row, column] += d1
            sums[DD, row, column] += dd
            if sums.shape[0] > V4:
                sums[V4, row, column] += v4
                sums[V5, row, column] += v5
                sums[V2D, row, column] += d2


def writable(image: Image) -> Image:
    """The image, copied if it is read-only, as what came from another worker is: numba would compile that anew, in a worker."""
    return image if image.flags.writeable else image.copy()


def accumulate(
    sums: Sums | None,
    frames: Array,
    dark: Image,
    *,
    tile_rows: int,
    order: int,
    sigma: float,
    cutoff: float,
    boundary: str,
    truncate: float,
    valid: Valid = ALL_NUMBERS,
    limit: float | None = None,
    sought: bool = False,
) -> Sums:
    """The sums of each tile, of so many rows, with a block of frames added. Those that came in are not changed: a task may be run again.

    Readings from `limit` on are saturated; where it is sought, those of a frame that pile up at a full scale are too.
    """
    tops = range(0, len(dark), tile_rows)
    sums = no_sums(order, dark.shape, tile_rows) if sums is None else tuple(tile.copy() for tile in sums)
    dark = writable(dark)
    smoother = ValidSmoother(sigma, boundary, truncate)
    saturation = Saturation(limit, sought, sigma, boundary, truncate)
    signals = np.empty((min(FRAMES_A_BATCH, len(frames)), *dark.shape), np.float32)
    smoothed = np.empty_like(signals)
    for start in range(0, len(frames), FRAMES_A_BATCH):
        batch = frames[start : start + FRAMES_A_BATCH]
        for frame, signal, estimate in zip(batch, signals, smoothed, strict=False):
            subtract_dark(frame, dark, valid, signal)
            full = saturation.limit_of(frame, signal)
            estimate[...] = smoother(signal)
            spoilt = saturation.spoilt(frame, dark, estimate, full)
            if spoilt is not None:
                estimate[spoilt] = np.nan
                for top, tile in zip(tops, sums, strict=True):
                    tile[FULL] += spoilt[top : top + tile_rows]
        for top, tile in zip(tops, sums, strict=True):
            add_powers(tile, signals[: len(batch)], smoothed[: len(batch)], top, cutoff)
    return sums


def no_sums(order: int, shape: tuple[int, ...], tile_rows: int) -> Sums:
    """Sums of no frames."""
    height, width = shape
    return tuple(np.zeros((count_planes(order), min(tile_rows, height - top), width)) for top in range(0, height, tile_rows))


def sample_pixels(
    frames: Array, dark: Image, *, places: NDArray[np.intp], sigma: float, boundary: str, truncate: float, valid: Valid = ALL_NUMBERS
) -> Image:
    """Measured and expected signal of a few pixels in a block of frames: (frame, pixel, 2)."""
    smoother = ValidSmoother(sigma, boundary, truncate)
    signal = np.empty_like(dark)
    samples = np.empty((len(frames), len(places), 2), np.float32)
    for frame, sample in zip(frames, samples, strict=True):
        subtract_dark(frame, dark, valid, signal)
        sample[:, 0] = signal[tuple(places.T)]
        sample[:, 1] = smoother(signal)[tuple(places.T)]
    return samples


@kernel
def solve_normal_equations(matrix, right, inverse):  # type: ignore[no-untyped-def]
    """Solve a symmetric positive definite system of 1 to 3 unknowns into `right`, and its inverse; False if singular.

    Gauss–Jordan after scaling the diagonal to 1, because powers of counts differ by many orders of magnitude.
    """
    size = right.size
    scale = np.empty(size)
    for a in range(size):
        if not matrix[a, a] > 0:
            return False
        scale[a] = 1.0 / np.sqrt(matrix[a, a])
    for a in range(size):
        right[a] *= scale[a]
        for b in range(size):
            matrix[a, b] *= scale[a] * scale[b]
            inverse[a, b] = 1.0 if a == b else 0.0
    for a in range(size):
        pivot = matrix[a, a]
        if not pivot > 1e-12:
            return False
        for b in range(size):
            matrix[a, b] /= pivot
            inverse[a, b] /= pivot
        right[a] /= pivot
        for other in range(size):
            if other == a:
                continue
            factor = matrix[other, a]
            for b in range(size):
                matrix[other, b] -= factor * matrix[a, b]
                inverse[other, b] -= factor * inverse[a, b]
            right[other] -= factor * right[a]
    for a in range(size):
        right[a] *= scale[a]
        for b in range(size):
            inverse[a, b] *= scale[a] * scale[b]
    return True


@kernel
def fit_through_origin(sums, gain, gain_error, r_squared):  # type: ignore[no-untyped-def]
    """Regress S on V through the origin in each pixel: c = ΣVS/ΣV². The common case of `fit_pixels`, in closed form."""
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n, v1, v2, v3 = sums[N, row, column], sums[V, row, column], sums[V2, row, column], sums[V3, row, column]
            vd, dd = sums[VD, row, column], sums[DD, row, column]
            gain[row, column] = gain_error[row, column] = r_squared[row, column] = np.nan
            if n < 2 or not v2 > 0:
                continue
            excess = vd / v2
            left = max(dd - excess * vd, 0.0)
            gain[row, column] = 1 + excess
            noise = v1 - v3 / v2
            if noise > 0 and v3 >= 0:
                gain_error[row, column] = np.sqrt(left / noise * v3) / v2
            r_squared[row, column] = 1 - left / (v2 + 2 * vd + dd)


@kernel
def fit_pixels(sums, order, intercept, coefficients, gain_error, r_squared):  # type: ignore[no-untyped-def]
    """Regress S on V in each pixel: coefficients (offset, gain, curvature), the gain's standard error and R².

    S = V + D, so that D is regressed and 1 added to the gain. The errors take the variance as proportional to the
    signal, as photon noise is: Cov = φ·G⁻¹·H·G⁻¹ with G = Σ x·xᵀ, H = Σ V·x·xᵀ, and φ from the residuals.
    """
    first = 0 if intercept else 1
    size = order + 1 - first
    powers = np.empty(6)
    crossed = np.empty(3)
    gram, weighted, inverse = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    solution = np.empty(size)
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            for p in range(3):
                coefficients[p, row, column] = np.nan
            gain_error[row, column] = np.nan
            r_squared[row, column] = np.nan
            n = sums[N, row, column]
            if n < size + 1:
                continue
            for p in range(4):
                powers[p] = sums[p, row, column]
            crossed[0], crossed[1] = sums[D, row, column], sums[VD, row, column]
            if order == 2:
                powers[4], powers[5], crossed[2] = sums[V4, row, column], sums[V5, row, column], sums[V2D, row, column]
            for a in range(size):
                solution[a] = crossed[a + first]
                for b in range(size):
                    gram[a, b] = powers[a + b + 2 * first]
                    weighted[a, b] = powers[a + b + 2 * first + 1]
            if not solve_normal_equations(gram, solution, inverse):
                continue
            left = sums[DD, row, column]
            for a in range(size):
                left -= solution[a] * crossed[a + first]
            left = max(left, 0.0)
            for p in range(3):
                coefficients[p, row, column] = solution[p - first] if 0 <= p - first < size else 0.0
            coefficients[1, row, column] += 1.0

            gain = 1 - first
            variance = trace = 0.0
            for a in range(size):
                for b in range(size):
                    variance += inverse[gain, a] * weighted[a, b] * inverse[b, gain]
                    trace += inverse[a, b] * weighted[b, a]
            noise = powers[1] - trace
            if noise > 0 and variance >= 0:
                gain_error[row, column] = np.sqrt(left / noise * variance)
            total = powers[2] + 2 * crossed[1] + sums[DD, row, column]
            if intercept:
                total -= (powers[1] + crossed[0]) ** 2 / n
            if total > 0:
                r_squared[row, column] = 1 - left / total


def solve(
    sums: NDArray[np.float64], *, order: int, intercept: bool
) -> tuple[Image, Image, Image, Image, Image, NDArray[np.int32], NDArray[np.int32]]:
    """Gain, offset, curvature, gain error, R², frames used and frames saturated from the sums over the sweep."""
    shape = sums.shape[1:]
    coefficients = np.zeros((3, *shape), np.float32)
    gain_error, r_squared = np.empty(shape, np.float32), np.empty(shape, np.float32)
    if order == 1 and not intercept:
        fit_through_origin(sums, coefficients[1], gain_error, r_squared)
    else:
        fit_pixels(sums, order, intercept, coefficients, gain_error, r_squared)
    offset, gain, curvature = coefficients
    return gain, offset, curvature, gain_error, r_squared, sums[N].astype(np.int32), sums[FULL].astype(np.int32)


class Used(NamedTuple):
    """Of a fit, or a tile of it: frames used in a pixel, at most; pixels with two or more, and in how many of them the beam changed."""

    most: int
    pixels: int
    changed: int


@kernel
def count_changed(sums, least):  # type: ignore[no-untyped-def]
    """The pixels with two or more frames, and those of them whose expected signals deviate from their mean by a part of it, or more."""
    pixels = changed = 0
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n, beam = sums[N, row, column], sums[V, row, column] + sums[D, row, column]
            if n >= 2:
                squares = sums[V2, row, column] + 2 * sums[VD, row, column] + sums[DD, row, column]
                pixels += 1
                changed += squares * n - beam * beam >= (least * beam) ** 2
    return pixels, changed


def used_of(sums: NDArray[np.float64]) -> Used:
    """What the sums of a tile say."""
    return Used(int(sums[N].max()), *count_changed(sums, LEAST_CHANGE))


def check_used(most: int, cutoff: float) -> None:
    """Raise if no pixel has two frames above the cutoff.

    Raises
    ------
    InputError
        How many these are, at most.
    """
    if most < 2:
        raise InputError(
            f"expected at least 2 usable frames in the sweep, found {most}: a frame counts where its smoothed, "
            f"dark-subtracted signal is above cutoff = {cutoff:g} and not NaN. Lower the cutoff, or check that the dark "
            "is not brighter than the sweep and that the frames are not NaN or saturated."
        )


def check_changed(used: Used) -> None:
    """Raise if the beam was the same in all frames: gains would rest on its noise alone.

    Raises
    ------
    InputError
        In how many pixels it changed.
    """
    if used.changed < FEWEST_CHANGED * used.pixels:
        raise InputError(
            f"expected a sweep in which the beam changes from frame to frame, got up to {used.most} usable frames in which it deviates "
            f"from its mean by less than {LEAST_CHANGE:.0%} in all but {used.changed} of {used.pixels} pixels. Frames of one level are a "
            "flat: leave fit_response out, and give them to correct_response as its flat, without a response"
        )
