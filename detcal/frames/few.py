"""Which of two or three readings of a pixel strays: these alone do not tell what their noise is, but most pixels around them do.

ndarrays in, ndarrays out. It takes much, so that no good reading strays: a reading has to be further from the next one than their noise
and that of photons (counts) would bring it; and where more than a few pixels of a cell look so, it was the beam that changed.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CELL = 32  # pixels along y, and along x where there are so many rows
FEWEST = 30  # pixels of a cell, from which noise is told
MOST = 0.02  # of the pixels of a cell that may have a zinger
DEVIATIONS = 4.42  # of a difference of two readings: one in 10⁵ is larger, either way
FEW_COUNTS = 5.0  # the square of half of that: what few photons, whose noise is not normal, need beside their number
# Over a standard deviation of normal noise: the median of the difference of two readings, and of the largest and smallest of three
MEDIAN_SPREAD = (0.9539, 1.588)


def find_stray(gaps: Numbers, level: Numbers, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which gaps between readings are too wide for noise.

    Parameters
    ----------
    gaps : (gap, y, x)
        Of two readings their difference; of three those of the smallest and of the largest to the one between.
    level : (y, x)
        The smaller of two readings, the middle one of three.
    known : (y, x)
        Pixels that have all readings; the others are not looked at.
    """
    found = np.zeros(gaps.shape, np.bool_)
    for cell in cells(level.shape):
        here = known[cell]
        if np.count_nonzero(here) >= FEWEST:
            found[:, *cell][:, here] = strays_of(gaps[:, *cell][:, here], level[cell][here])
    return found


def cells(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Parts of an image, all about as large: wider ones in one of few rows."""
    rows, columns = min(CELL, shape[0]), CELL * CELL // min(CELL, shape[0])
    return product(parts_of(shape[0], rows), parts_of(shape[1], columns))


def parts_of(size: int, part: int) -> list[slice]:
    """A line cut into parts that are all about as long, and no shorter than that, if it is as long."""
    edges = np.linspace(0, size, max(1, size // part) + 1).astype(int).tolist()
    return [slice(*each) for each in pairwise(edges)]


def strays_of(gaps: Numbers, level: Numbers) -> NDArray[np.bool_]:
    """The same of the pixels of a cell: (gap, pixel).

    A pixel that is brighter than most has more noise, as photons have: one of a dark that is hot, say.
    """
    noise = np.median(gaps.sum(axis=0)) / MEDIAN_SPREAD[len(gaps) - 1]
    usual = np.median(level)
    brighter: Any = np.maximum(level / usual, 1) if usual > 0 else 1.0
    variance = np.maximum(noise**2 * brighter, np.maximum(level, 0) + FEW_COUNTS)
    found: NDArray[np.bool_] = gaps > DEVIATIONS * np.sqrt(2 * variance)
    return found if found.any(axis=0).mean() <= MOST else np.zeros_like(found)
