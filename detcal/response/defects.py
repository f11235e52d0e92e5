"""Bad pixels, and why: what the sums of a fit say of each pixel beside its neighbours. ndarrays in, ndarrays out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.response.kernels import DD, V2, VD, D, N, Used, V, solve, used_of
from detcal.response.smoothing import Image

Reasons = NDArray[np.uint8]

# Bits of the reasons, in the order of NAMES
NAMES = ("never_lit", "dead", "hot", "stuck", "nonlinear", "blinking")
NEVER_LIT, DEAD, HOT, STUCK, NONLINEAR, BLINKING = (1 << bit for bit in range(len(NAMES)))

SQUARE = 64  # pixels: those of a square have the same neighbours, which are in it or up to half a square away
STRIDE = 5  # of the neighbours that are looked at: odd, so that odd and even columns, which detectors read out apart, are among them
FEWEST = 30  # neighbours from whose spread an outlier can be told
DEVIATION = 1.4826  # a standard deviation of normal noise over its median absolute deviation
LEAST = 1e-3  # of the signal: what is smaller makes no rings, however certain it is


class Limits(NamedTuple):
    """Of what is a good pixel: its part of what its neighbours read, and by how many standard deviations it differs from them."""

    dead: float = 0.1
    hot: float = 10.0
    nonlinear: float = 5.0
    blinking: float = 6.0


class Fit(NamedTuple):
    """What the sums of a tile say of each of its pixels alone.

    Attributes
    ----------
    images
        What `solve` finds.
    reasons
        Why pixels are bad, whatever their neighbours do: 0 in the others.
    bend, noise
        What shows pixels that are nonlinear, or blinking, beside their neighbours. No bend of a fit that is more than a line through
        the origin.
    used
        How many frames and pixels took part.
    """

    images: tuple[NDArray[Any], ...]
    reasons: Reasons
    bend: Image | None
    noise: Image
    used: Used


Around = Sequence[Any]  # the image of a tile between those above and below it, if any


def fit_alone(sums: NDArray[np.float64], *, order: int, intercept: bool, limits: Limits) -> Fit:
    """The fit of a tile, and what of its pixels is bad whatever their neighbours do."""
    images = solve(sums, order=order, intercept=intercept)
    gain = images[0]
    reasons = np.zeros(gain.shape, np.uint8)
    find_unfit(sums, order + 2 if intercept else order + 1, gain, limits, reasons)
    if order > 1 or intercept:
        return Fit(images, reasons, None, of_curves(gain, *images[3:6]), used_of(sums))
    return Fit(images, reasons, *of_lines(sums), used_of(sums))


def with_nonlinear(reasons: Around, bends: Around, limits: Limits) -> Reasons:
    """The reasons of a tile, with those of pixels whose line lacks an intercept unlike their neighbours'."""
    outliers = np.abs(against_neighbours(bends, reasons, 1.0)) > limits.nonlinear
    return with_outliers(reasons[1], outliers, NONLINEAR)


def with_blinking(reasons: Around, noises: Around, most: int, limits: Limits) -> Reasons:
    """The reasons of a tile, with those of pixels that scatter more than their neighbours; of a fit to so many frames, at most."""
    expected = np.sqrt(2 / max(1, most))  # the spread of the logarithm of a variance that so many frames tell
    return with_outliers(reasons[1], against_neighbours(noises, reasons, expected) > limits.blinking, BLINKING)


def with_outliers(reasons: Reasons, outliers: NDArray[np.bool_], bit: int) -> Reasons:
    """The reasons, and one more where pixels are outliers."""
    return np.where(outliers, reasons | np.uint8(bit), reasons)


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


def of_lines(sums: NDArray[np.float64]) -> tuple[Image, Image]:
    """How far a line through the origin is from what a pixel read, and what a line with an intercept leaves; NaN where nobody can tell.

    That is Student's t of the intercept, as a normal deviate (Wallace 1959), and the logarithm of the residuals' variance over what it is
    for the noise of photons, to which gain·signal is proportional. What is less than LEAST of the signal is taken for 0, or for this.
    """
    bend, noise = np.empty((2, *sums.shape[1:]), np.float32)
    fit_intercepts(sums, bend, noise)
    free = (sums[N] - 2).astype(np.float32)
    # numpy takes many logarithms at once, a kernel one after the other: a sixth of the time
    with np.errstate(invalid="ignore", divide="ignore"):
        deviate = np.sqrt(free * np.log1p(bend * bend / free))
        return np.copysign(deviate, bend), np.log(noise)


@kernel
def fit_intercepts(sums, t, left):  # type: ignore[no-untyped-def]
    """Student's t of the intercept in each pixel, and the residuals' variance over that of photons; NaN where nobody can tell."""
    for row in range(sums.shape[1]):
        for column in range(sums.shape[2]):
            n, v1, v2 = sums[N, row, column], sums[V, row, column], sums[V2, row, column]
            d0, d1, dd = sums[D, row, column], sums[VD, row, column], sums[DD, row, column]
            t[row, column] = left[row, column] = np.nan
            if n < 4 or not v1 > 0 or not v2 > 0:
                continue
            spread, gain, beam = v2 - v1 * v1 / n, 1 + d1 / v2, (v1 + d0) / n
            if not spread > 1e-6 * v2 or not gain > 0 or not beam > 0:
                continue
            slope = (d1 - v1 * d0 / n) / spread
            offset = (d0 - slope * v1) / n
            variance = max(dd - d0 * d0 / n - slope * slope * spread, n * (LEAST * beam) ** 2) / (n - 2)
            left[row, column] = variance / (gain * beam)
            t[row, column] = offset * np.sqrt(n * spread / (variance * v2)) if abs(offset) > LEAST * beam else 0.0


def of_curves(gain: Image, gain_error: Image, r_squared: Image, frames_used: NDArray[np.int32]) -> Image:
    """The same logarithm, from a fit of more than a line through the origin."""
    least = gain_error / np.sqrt(np.maximum(1 - r_squared, 1e-12)) * LEAST
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Image = np.log(np.maximum(gain_error, least) ** 2 * frames_used / gain**3).astype(np.float32)
    return found


def against_neighbours(values: Around, reasons: Around, least: float) -> Image:
    """By how many standard deviations (at least `least`) each pixel differs from the median of the good ones around it.

    0 or NaN where these are too few, or it is none of them.
    """
    height, width = values[1].shape
    padded = with_edges(known_of(values[1], reasons[1]), *edges_of(values, reasons))
    near = in_order(around_squares(padded))
    middle, count = median_of(near)
    spread, _ = median_of(in_order(np.abs(near - middle[..., None])))
    deviation: Any = np.where(count < FEWEST, np.float32(np.inf), np.maximum(DEVIATION * spread, least))
    half = SQUARE // 2
    squares = padded[half:-half, half:-half].reshape(len(middle), SQUARE, -1, SQUARE)
    with np.errstate(invalid="ignore"):
        found = (squares - middle[:, None, :, None]) / deviation[:, None, :, None]
    return found.reshape(len(middle) * SQUARE, -1)[:height, :width]


def known_of(values: Image, reasons: Reasons) -> Image:
    """The values of good pixels; NaN in the others."""
    return np.where(reasons == 0, values, np.float32(np.nan))


def edges_of(values: Around, reasons: Around) -> tuple[Image, Image]:
    """The rows above and below that squares at its edge look at; none where the detector ends."""
    (above, own, below), (why_above, _, why_below) = values, reasons
    nothing = own[:0]
    return (
        nothing if above is None else known_of(above[-SQUARE // 2 :], why_above[-SQUARE // 2 :]),
        nothing if below is None else known_of(below[: SQUARE // 2], why_below[: SQUARE // 2]),
    )


def with_edges(known: Image, above: Image, below: Image) -> Image:
    """Whole squares with half a square around them: of other tiles, or NaN."""
    half = SQUARE // 2
    height, width = (size + -size % SQUARE for size in known.shape)
    padded = np.full((height + 2 * half, width + 2 * half), np.float32(np.nan))
    rows, columns = slice(half, half + len(known)), slice(half, half + known.shape[1])
    padded[rows, columns] = known
    padded[half - len(above) : half, columns] = above
    padded[rows.stop : rows.stop + len(below), columns] = below
    return padded


def around_squares(padded: Image) -> Image:
    """Of each square some pixels of it and around it: (square, square, pixel)."""
    around = sliding_window_view(padded, (2 * SQUARE, 2 * SQUARE))[::SQUARE, ::SQUARE, ::STRIDE, ::STRIDE]
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
