"""Errors of medians and quantiles, and of means between two, from the spread in each ring. ndarrays in, ndarrays out.

Of n readings that count as n' = (Σω)²/Σω² equal ones, the share below a quantile q is known to δ = √(q(1 − q)/n'): the quantile lies
between those of q − δ and q + δ, half of whose distance is its standard error. A mean between two quantiles, b − a apart, has the variance
of the values with what lies beyond drawn to the quantiles (winsorized), over (b − a)²·n' (Tukey and McLaughlin, Sankhya A 25, 331, 1963;
Huber, Robust Statistics, 1981, section 3.3). The standard deviation of a reading is half of the distance of the quantiles that, of normal
values, lie one standard deviation from the median.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.azimuthal.blocks import quantile_block
from detcal.frames.jit import kernel
from detcal.frames.readings import Floats, Frames, Valid, readings

BELOW, ABOVE = 0.5 * math.erfc(1 / math.sqrt(2)), 0.5 * math.erfc(-1 / math.sqrt(2))  # of normal values


class Entries(NamedTuple):
    """The entries of all rings in CSR: where each begins, and pixel and share of each; norm and dark by pixel."""

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    shares: Floats
    norm: Floats
    dark: Floats


def block_with_errors(frames: Frames, *, entries: Entries, rings: Any, valid: Valid, quantiles: tuple[float, float]) -> Floats:
    """The mean between two quantiles, its standard error, the standard deviation, and the number of pixels (frame, quantity, ring)."""
    means = quantile_block(frames, rings=rings, valid=valid, quantiles=quantiles)
    found = np.empty((len(frames), 4, means.shape[2]), np.float32)
    found[:, ::3] = means
    norm, dark = entries.norm.ravel(), entries.dark.ravel()
    for frame, errors in zip(frames, found[:, 1:3], strict=True):
        values = (readings(frame, valid).ravel() - dark) / norm
        errors_of_frame(values, entries.starts, entries.pixels, entries.shares, norm, quantiles, errors)
    return found


@kernel
def errors_of_frame(values, starts, pixels, shares, norm, quantiles, errors):  # type: ignore[no-untyped-def]
    """Of the intensities (pixel,) of one frame: errors (2, ring)."""
    longest = 0
    for ring in range(len(starts) - 1):
        longest = max(longest, starts[ring + 1] - starts[ring])
    some, weights = np.empty(longest, np.float32), np.empty(longest)
    for ring in range(len(starts) - 1):
        count = 0
        for k in range(starts[ring], starts[ring + 1]):
            value = values[pixels[k]]
            if np.isfinite(value):
                some[count], weights[count] = value, shares[k] * norm[pixels[k]]
                count += 1
        errors[0, ring], errors[1, ring] = errors_of_ring(some[:count], weights[:count], quantiles[0], quantiles[1])


@kernel
def errors_of_ring(values, weights, low, high):  # type: ignore[no-untyped-def]
    """The standard error of the mean between two quantiles, or of one, and the standard deviation of a reading; NaN of a single one."""
    if len(values) < 2:
        return np.nan, np.nan
    order = np.argsort(values)
    total = squares = 0.0
    for k in range(len(values)):
        total += weights[k]
        squares += weights[k] * weights[k]
    equal = total * total / squares
    deviation = 0.5 * (quantile_of(values, weights, order, ABOVE * total) - quantile_of(values, weights, order, BELOW * total))
    if low == high:
        unknown = math.sqrt(low * (1 - low) / equal)
        if unknown == 0:
            return np.nan, deviation
        first = quantile_of(values, weights, order, max(0.0, low - unknown) * total)
        last = quantile_of(values, weights, order, min(1.0, low + unknown) * total)
        return 0.5 * (last - first), deviation
    least, most = quantile_of(values, weights, order, low * total), quantile_of(values, weights, order, high * total)
    mean = 0.0
    for k in range(len(values)):
        mean += weights[k] * (min(max(values[k], least), most) - least)
    mean /= total
    spread = 0.0
    for k in range(len(values)):
        spread += weights[k] * (min(max(values[k], least), most) - least - mean) ** 2
    return math.sqrt(spread / total / equal) / (high - low), deviation


@kernel
def quantile_of(values, weights, order, wanted):  # type: ignore[no-untyped-def]
    """Where the sum of the weights comes to what is wanted: each value at the middle of its weight, straight lines between."""
    below = 0.0
    for k in range(len(order)):
        middle = below + 0.5 * weights[order[k]]
        if middle >= wanted:
            if k == 0:
                return float(values[order[0]])
            before, after = float(values[order[k - 1]]), float(values[order[k]])
            length = 0.5 * (weights[order[k - 1]] + weights[order[k]])
            return after - (after - before) * (middle - wanted) / length
        below += weights[order[k]]
    return float(values[order[-1]])
