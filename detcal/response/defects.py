"""Bad pixels, and why: what the sums of a fit say of each pixel beside its neighbours. ndarrays in, ndarrays out."""

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.response.kernels import DD, V2, VD, D, N, V, solve
from detcal.response.smoothing import Image

Reasons = NDArray[np.uint8]

# Bits of the reasons, in the order of NAMES
NAMES = ("never_lit", "dead", "hot", "stuck", "nonlinear", "blinking")
NEVER_LIT, DEAD, HOT, STUCK, NONLINEAR, BLINKING = (1 << bit for bit in range(len(NAMES)))

TILE = 32  # pixels: those of a tile have the same neighbours, which are in it or up to half a tile away
STRIDE = 5  # of the neighbours that are looked at: odd, so that odd and even columns, which detectors read out apart, are among them
FEWEST = 30  # neighbours from whose spread an outlier can be told
DEVIATION = 1.4826  # a standard deviation of normal noise over its median absolute deviation
LEAST = 1e-3  # of the signal: what is smaller makes no rings, however certain it is


class Limits(NamedTuple):
    """Of what is a good pixel: its part of what its neighbours read, and by how many standard deviations it differs from them."""

    dead: float = 0.1
    hot: float = 10.0
    nonlinear: float = 5.0
    blinking: float = 5.0


def judge(
    sums: NDArray[np.float64], *, order: int, intercept: bool, cutoff: float, limits: Limits
) -> tuple[Image, Image, Image, Image, Image, NDArray[np.int32], NDArray[np.int32], Reasons]:
    """What `solve` finds, and the reasons why pixels are bad: 0 in good ones."""
    fitted = solve(sums, order=order, intercept=intercept, cutoff=cutoff)
    gain = fitted[0]
    reasons = np.zeros(gain.shape, np.uint8)
    find_unfit(sums, order + 2 if intercept else order + 1, gain, limits, reasons)
    bend, noise = np.empty((2, *gain.shape), np.float32)
    if order == 1 and not intercept:
        of_lines(sums, bend, noise)
        add_outliers(reasons, np.abs(against_neighbours(bend, reasons, 1.0)) > limits.nonlinear, NONLINEAR)
    else:
        of_curves(gain, *fitted[3:6], noise)
    expected = np.sqrt(2 / max(1, fitted[5].max()))  # the spread of the logarithm of a variance that so many frames tell
    add_outliers(reasons, against_neighbours(noise, reasons, expected) > limits.blinking, BLINKING)
    return *fitted, reasons


def add_outliers(reasons: Reasons, outliers: NDArray[np.bool_], bit: int) -> None:
    """Note a reason where pixels are outliers."""
    reasons[outliers] |= np.uint8(bit)


@kernel
def find_unfit(sums, fewest, gain, limits, reasons):  # type: ignore[no-untyped-def]
    """Note pixels that were never lit or whose gain nobody can tell, that are dead, hot, or stuck.

    Stuck: the smoothed beam varied by more than a tenth, and the pixel followed it by less than half.
    """
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n, v1, v2 = sums[N, row, column], sums[V, row, column], sums[V2, row, column]
            d0, d1, dd = sums[D, row, column], sums[VD, row, column], sums[DD, row, column]
            beam = v1 + d0
            if n < fewest:
                reasons[row, column] = NEVER_LIT
            elif not v1 > limits.dead * beam:
                reasons[row, column] = DEAD
            else:
                spread = v2 + 2 * d1 + dd - beam * beam / n
                follows = v2 + d1 - v1 * beam / n
                if spread * n > (0.1 * beam) ** 2 and follows * beam < 0.5 * spread * v1:
                    reasons[row, column] = STUCK
                if not v1 < limits.hot * beam:
                    reasons[row, column] |= HOT
                if reasons[row, column] == 0 and np.isnan(gain[row, column]):
                    reasons[row, column] = NEVER_LIT


@kernel
def of_lines(sums, bend, noise):  # type: ignore[no-untyped-def]
    """How far a line through the origin is from what a pixel read, and what a line with an intercept leaves; NaN where nobody can tell.

    That is Student's t of the intercept, as a normal deviate (Wallace 1959), and the logarithm of the residuals' variance over what it is
    for the noise of photons, to which gain·signal is proportional. What is less than LEAST of the signal is taken for 0, or for this.
    """
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n, v1, v2 = sums[N, row, column], sums[V, row, column], sums[V2, row, column]
            d0, d1, dd = sums[D, row, column], sums[VD, row, column], sums[DD, row, column]
            bend[row, column] = noise[row, column] = np.nan
            if n < 4 or not v1 > 0 or not v2 > 0:
                continue
            spread, gain, beam = v2 - v1 * v1 / n, 1 + d1 / v2, (v1 + d0) / n
            if not spread > 1e-6 * v2 or not gain > 0 or not beam > 0:
                continue
            slope = (d1 - v1 * d0 / n) / spread
            offset = (d0 - slope * v1) / n
            left = max(dd - d0 * d0 / n - slope * slope * spread, n * (LEAST * beam) ** 2) / (n - 2)
            noise[row, column] = np.log(left / (gain * beam))
            t = offset * np.sqrt(n * spread / (left * v2))
            bend[row, column] = np.sign(t) * np.sqrt((n - 2) * np.log1p(t * t / (n - 2))) if abs(offset) > LEAST * beam else 0.0


def of_curves(gain: Image, gain_error: Image, r_squared: Image, frames_used: NDArray[np.int32], noise: Image) -> None:
    """The same logarithm, from a fit of more than a line through the origin."""
    least = gain_error / np.sqrt(np.maximum(1 - r_squared, 1e-12)) * LEAST
    with np.errstate(divide="ignore", invalid="ignore"):
        noise[...] = np.log(np.maximum(gain_error, least) ** 2 * frames_used / gain**3)


def against_neighbours(values: Image, reasons: Reasons, least: float) -> Image:
    """By how many standard deviations (at least `least`) each pixel differs from the median of the good ones around it; 0: too few."""
    known = np.where(reasons == 0, values, np.float32(np.nan))
    near = in_order(around_tiles(known))
    middle, count = median_of(near)
    spread, _ = median_of(in_order(np.abs(near - middle[..., None])))
    deviation = np.where(count < FEWEST, np.float32(np.inf), np.maximum(DEVIATION * spread, least))
    with np.errstate(invalid="ignore"):
        found = (known - over_tiles(middle, known.shape)) / over_tiles(deviation, known.shape)
    return np.nan_to_num(found, copy=False, nan=0.0)


def around_tiles(known: Image) -> Image:
    """Of each tile some pixels of it and around it: (tile, tile, pixel)."""
    half = TILE // 2
    bottom, right = (half + -size % TILE for size in known.shape)
    padded = np.pad(known, ((half, bottom), (half, right)), constant_values=np.nan)
    around = sliding_window_view(padded, (2 * TILE, 2 * TILE))[::TILE, ::TILE, ::STRIDE, ::STRIDE]
    return around.reshape(*around.shape[:2], -1)


def in_order(values: Image) -> Image:
    """Along the last axis, what is NaN behind the others."""
    return np.sort(values, axis=-1)


def median_of(ordered: Image) -> tuple[Image, NDArray[Any]]:
    """Medians along the last axis, NaN left out, and of how many numbers they are."""
    count = np.count_nonzero(~np.isnan(ordered), axis=-1)
    below, above = (np.take_along_axis(ordered, np.maximum(each, 0)[..., None], -1)[..., 0] for each in ((count - 1) // 2, count // 2))
    median: Image = (below + above) * np.float32(0.5)
    return median, count


def over_tiles(of_each: Image, shape: tuple[int, ...]) -> Image:
    """What each tile has, in each of its pixels."""
    return of_each.repeat(TILE, axis=0).repeat(TILE, axis=1)[: shape[0], : shape[1]]
