"""How much of each eigenflat a frame was taken with: what leaves the least total variation. ndarrays in, ndarrays out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from detcal.frames.jit import kernel
from detcal.frames.readings import ALL_NUMBERS, Valid
from detcal.response.binning import bin_block
from detcal.response.correction import correct
from detcal.response.eigenflats import Eigenflats
from detcal.response.kernels import Array, writable
from detcal.response.smoothing import Image

Numbers = NDArray[np.float64]

BEYOND = 3.0  # times the largest weight of a flat: that of no frame is larger
ROUNDED = 0.1  # of the mean difference of neighbours: below it a difference counts by its square, so that there is a slope to go down
TOLERANCE = 1e-8  # of the variation: of weights it leaves about 1e-4


def correct_moved(frames: Array, *images: Image, eigenflats: Eigenflats, valid: Valid = ALL_NUMBERS) -> tuple[Image, Numbers]:
    """A block of frames corrected as by `correct`, over the parts of the eigenflats that each has; and the rms of these (frame, 1, 1)."""
    out = correct(frames, *images, valid=valid)
    change = np.zeros((len(out), 1, 1))
    if not len(eigenflats.images):
        return out, change
    eigenflats = eigenflats._replace(images=writable(eigenflats.images), coarse=writable(eigenflats.coarse))
    coarse = bin_block(out, factors=(eigenflats.size, eigenflats.size), mean=True)
    for frame, small, rms in zip(out, coarse, change, strict=True):
        weights = find_weights(small, eigenflats)
        divide_by_parts(frame, eigenflats.images, weights)
        rms[:] = np.linalg.norm(weights * eigenflats.rms)  # of components whose products add up to 0
    return out, change


def find_weights(image: Image, eigenflats: Eigenflats) -> Numbers:
    """The weights (component,) by which an image (y, x), in groups of pixels, is left with the least total variation."""
    images = eigenflats.coarse
    start, slope = np.zeros(len(images)), np.empty(image.shape)
    pixels = max(1, int(np.count_nonzero(~np.isnan(image))))
    smallest = variation(image, images, start, 1e-30, np.empty(image.shape), slope) / pixels
    if not smallest > 0:
        return start
    quotient = np.empty(image.shape)

    def cost(weights: Numbers) -> tuple[float, Numbers]:
        value = variation(image, images, weights, ROUNDED * smallest, quotient, slope)
        return value / (smallest * pixels), slopes(images, weights, quotient, slope) / (smallest * pixels)

    bounds = [(-BEYOND * largest, BEYOND * largest) for largest in eigenflats.largest]
    found: Any = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": TOLERANCE, "gtol": 1e-7})
    weights: Numbers = found.x
    return weights


@kernel
def variation(image, images, weights, rounding, quotient, slope):  # type: ignore[no-untyped-def]
    """The total variation of an image over 1 + Σ weights·images, which becomes `quotient`, and by `slope` its change with that.

    Neighbours of which one was not measured do not differ.
    """
    height, width = image.shape
    for row in range(height):
        for column in range(width):
            quotient[row, column] = image[row, column] / light(images, weights, row, column)
            slope[row, column] = 0.0
    total = 0.0
    for row in range(height):
        for column in range(width):
            here = quotient[row, column]
            if np.isnan(here):
                continue
            right = quotient[row, column + 1] - here if column + 1 < width else 0.0
            down = quotient[row + 1, column] - here if row + 1 < height else 0.0
            right = 0.0 if np.isnan(right) else right
            down = 0.0 if np.isnan(down) else down
            size = np.sqrt(right * right + down * down + rounding * rounding)
            total += size
            slope[row, column] -= (right + down) / size
            if right != 0:
                slope[row, column + 1] += right / size
            if down != 0:
                slope[row + 1, column] += down / size
    return total


@kernel
def light(images, weights, row, column):  # type: ignore[no-untyped-def]
    """That of a pixel relative to the average flat; NaN where it would not be above 0."""
    total = 1.0
    for number in range(weights.size):
        total += weights[number] * images[number, row, column]
    return total if total > 0 else np.nan


@kernel
def slopes(images, weights, quotient, slope):  # type: ignore[no-untyped-def]
    """The change of the total variation with each weight."""
    found = np.zeros(weights.size)
    for row in range(quotient.shape[0]):
        for column in range(quotient.shape[1]):
            value = quotient[row, column]
            if np.isnan(value):
                continue
            factor = slope[row, column] * value / light(images, weights, row, column)
            for number in range(weights.size):
                found[number] -= factor * images[number, row, column]
    return found


@kernel
def divide_by_parts(frame, images, weights):  # type: ignore[no-untyped-def]
    """Divide a frame in place by 1 + Σ weights·images; NaN where that is not above 0."""
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            frame[row, column] = frame[row, column] / light(images, weights, row, column)
