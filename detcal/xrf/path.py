"""The way of the stage: its lines, its pace, and where each exposure began and ended. ndarrays in, ndarrays out."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detcal.xrf import kernels

Places = NDArray[np.float64]  # (spectrum, (across, along)) the lines

# In distances of the lines, and of the spectra along them:
NARROWEST = 1 / 16  # the box of an exposure during which the stage stood still
JUMPS = np.array([1.5, 2.0])  # between spectra that are further apart nothing was exposed


def own_step(places: Places) -> Places:
    """Distance of the lines, and of the spectra along them while the stage moves."""
    along = places[:, 1]
    moves = np.abs(np.diff(along))
    usual = np.median(moves[moves > 0]) if moves.any() else 0.0
    width = float(np.median(moves[moves > usual / 2])) if usual else 0.0
    levels = np.array([np.median(places[line, 0]) for line in scan_lines(along) if line.stop - line.start > 2])
    gaps = np.abs(np.diff(levels))
    if gaps.size:  # neither rows that were gone along twice, nor the way home
        gaps = gaps[gaps > 0.2 * np.quantile(gaps, 0.9, method="lower")]
    height = float(np.median(gaps)) if gaps.size else width
    return np.array([height or width, width or height])


def scan_lines(along: Places) -> list[slice]:
    """The spectra of each line: between the turns of the path."""
    turns = np.empty(len(along), np.int64)
    count = kernels.turning_points(np.ascontiguousarray(along), 0.2 * np.ptp(along), turns)
    edges = [0, *turns[:count].tolist(), len(along)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def along_the_path(places: Places, spectra: float) -> Places:
    """Where the stage was so many exposures later: the lag is one of time, so that turns lag less than lines."""
    numbers = np.arange(len(places), dtype=np.float64)
    return np.stack([np.interp(numbers + spectra, numbers, axis) for axis in places.T], axis=1)


def swept(places: Places) -> tuple[Places, Places]:
    """Where each exposure began and ended: halfway to its neighbours, or as far as on the other side where that would be a jump."""
    own = own_step(places)
    halves = np.diff(places, axis=0) / 2
    jumps = (np.abs(halves) > own * JUMPS / 2).any(axis=1)
    edge, no_edge = np.zeros((1, 2)), np.ones(1, bool)
    before, after = np.concatenate([edge, halves]), np.concatenate([halves, edge])
    far_before, far_after = np.concatenate([no_edge, jumps]), np.concatenate([jumps, no_edge])
    before = np.where(far_before[:, None], np.where(far_after[:, None], 0, after), before)
    after = np.where(far_after[:, None], np.where(far_before[:, None], 0, before), after)
    starts, ends = places - before, places + after
    narrowest = NARROWEST * own[1]
    short = np.abs(ends[:, 1] - starts[:, 1]) < narrowest
    middle = (starts[short, 1] + ends[short, 1]) / 2
    starts[short, 1], ends[short, 1] = middle - narrowest / 2, middle + narrowest / 2
    return starts, ends
