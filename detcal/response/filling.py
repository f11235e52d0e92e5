"""Values for bad pixels from the good ones around them. ndarrays in, ndarrays out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.response.smoothing import Image

REACH = 8  # pixels: what is further from the good ones on all sides, as inside a module gap, nobody can tell
STEPS = np.array([(0, 1), (1, 0), (1, 1), (1, -1)])  # along a row, a column, and both diagonals
MOST = 2 * len(STEPS)  # neighbours of a pixel


class Fill(NamedTuple):
    """Which good pixels each bad one is filled from: flat indices and weights (pixel, MOST); a weight of 0: there are fewer."""

    pixels: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    weights: Image

    def where(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels that are filled, as an image."""
        filled = np.zeros(shape, np.bool_)
        filled.flat[self.pixels] = True
        return filled


def plan_fill(*images: Image) -> Fill:
    """How to fill the pixels in which one of some images (y, x) is not finite: by lines between the nearest good pixels on opposite sides.

    The value is the mean of lines along the row, the column and both diagonals, each weighted by the inverse distances of its two ends, so
    that what is linear is met exactly. Where no line has two ends, as in a corner, the nearest good pixels are taken by inverse distance.
    Ends are up to REACH steps away; pixels that have none are left out.
    """
    good = np.logical_and.reduce([np.isfinite(image) for image in images])
    pixels = np.flatnonzero(~good)
    neighbours, weights = np.zeros((len(pixels), MOST), np.int64), np.zeros((len(pixels), MOST), np.float32)
    find_ends(good, pixels, STEPS, neighbours, weights)
    has = weights.any(axis=1)
    return Fill(pixels[has], neighbours[has], weights[has])


@kernel
def find_ends(good, pixels, steps, neighbours, weights):  # type: ignore[no-untyped-def]
    """The ends of the lines through each of some pixels, and their weights."""
    width = good.shape[1]
    distances = np.empty(weights.shape[1])
    for number in range(pixels.size):
        row, column = pixels[number] // width, pixels[number] % width
        lines = False
        for end in range(distances.size):
            sign = 1 - 2 * (end % 2)
            down, right = sign * steps[end // 2, 0], sign * steps[end // 2, 1]
            far = first_good(good, row, column, down, right)
            neighbours[number, end] = (row + far * down) * width + column + far * right if far else 0
            distances[end] = far * np.sqrt(down * down + right * right)
            lines = lines or (end % 2 == 1 and far > 0 and distances[end - 1] > 0)
        for end in range(distances.size):
            if distances[end] > 0 and (distances[end ^ 1] > 0 or not lines):
                weights[number, end] = 1 / distances[end]


@kernel
def first_good(good, row, column, down, right):  # type: ignore[no-untyped-def]
    """How many steps away the first good pixel is; 0: none is in reach."""
    for far in range(1, REACH + 1):
        y, x = row + far * down, column + far * right
        if not (0 <= y < good.shape[0] and 0 <= x < good.shape[1]):
            return 0
        if good[y, x]:
            return far
    return 0


def fill_frames(frames: Image, *, fill: Fill) -> Image:
    """Frames (frame, y, x) with bad pixels filled; of neighbours without a reading in a frame the others serve, NaN if there are none."""
    found = frames.copy()
    weigh_neighbours(found.reshape(len(found), -1), fill.pixels, fill.neighbours, fill.weights)
    return found


@kernel
def weigh_neighbours(frames, pixels, neighbours, weights):  # type: ignore[no-untyped-def]
    """Put the weighted mean of its neighbours in each of some pixels of frames (frame, pixel)."""
    for frame in range(frames.shape[0]):
        for number in range(pixels.size):
            total, known = 0.0, 0.0
            for end in range(weights.shape[1]):
                value, weight = frames[frame, neighbours[number, end]], weights[number, end]
                if weight > 0 and not np.isnan(value):
                    total += weight * value
                    known += weight
            frames[frame, pixels[number]] = total / known if known > 0 else np.nan
