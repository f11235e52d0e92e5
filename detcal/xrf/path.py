"""The way of the stage: its lines, its pace, and where each exposure began and ended. ndarrays in, ndarrays out.

A position that is NaN is one of which nothing is known: the exposures beside it have no neighbour there.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detcal.xrf import kernels

Places = NDArray[np.float64]  # (spectrum, (across, along)) the lines

# In distances of the lines, and of the spectra along them:
NARROWEST = 1 / 16  # the box of an exposure during which the stage stood still
JUMPS = np.array([0.75, 2.0])  # between spectra that are further apart nothing was exposed: a step to the next line is no exposure
STEP = 0.25  # that leads to another line
CLEAR_MAJORITY = 0.25  # of moves along one axis, without which the turns decide


def lines_run_along(positions: Places) -> int:
    """Along which axis of the positions (spectrum, axis) the lines run: that of most moves.

    Lengths do not tell: between lines of two spectras' length the stage may go further than along them. Where there are about as many
    moves along both, which is so in lines of two spectra, it is the axis along which the path turns back, since lines follow one another
    in one direction.
    """
    moves = np.abs(np.diff(positions, axis=0))
    first, second = int((moves[:, 0] > moves[:, 1]).sum()), int((moves[:, 1] > moves[:, 0]).sum())
    if abs(first - second) >= max(1.0, CLEAR_MAJORITY * (first + second)):
        return 0 if first > second else 1
    known = positions[np.isfinite(positions).all(axis=1)]
    turns = [len(turning_points(axis)) for axis in known.T]
    if turns[0] != turns[1]:
        return int(np.argmax(turns))
    return int(np.argmax(np.nansum(moves, axis=0)))


def own_step(places: Places) -> Places:
    """Distance of the lines, and of the spectra along them while the stage moves."""
    places = places[np.isfinite(places).all(axis=1)]
    moves = np.abs(np.diff(places[:, 1]))
    usual = np.median(moves[moves > 0]) if moves.any() else 0.0
    width = float(np.median(moves[moves > usual / 2])) if usual else 0.0
    lines = level_parts(places, width)
    longest = max(line.stop - line.start for line in lines)
    long = [line for line in lines if line.stop - line.start >= longest / 2]  # not what was exposed on the way back
    levels = np.array([np.median(places[line, 0]) for line in (long if len(long) > 1 else lines)])
    gaps = np.abs(np.diff(levels))
    if gaps.size:  # neither rows that were gone along twice, nor the way home
        gaps = gaps[gaps > 0.2 * np.quantile(gaps, 0.9, method="lower")]
    height = float(np.median(gaps)) if gaps.size else width
    return np.array([height or width, width or height])


def level_parts(places: Places, width: float) -> list[slice]:
    """The spectra between the turns of the path, and between its steps to another line."""
    across, along = np.abs(np.diff(places, axis=0)).T
    steps = np.flatnonzero((across > along) & (across > STEP * width)) + 1
    edges = sorted({*steps.tolist(), *(line.start for line in scan_lines(places)), len(places)})
    return [slice(start, stop) for start, stop in pairwise(edges)]


def turning_points(along: NDArray[np.float64]) -> NDArray[np.int64]:
    """The last places of a path before it turns back, by more than a fifth of its extent."""
    turns = np.empty(len(along), np.int64)
    return turns[: kernels.turning_points(np.ascontiguousarray(along), 0.2 * np.ptp(along), turns)]


def scan_lines(places: Places) -> list[slice]:
    """The spectra of each line: between the turns of the path, each of which belongs to the line that it is nearer to."""
    turns = turning_points(places[:, 1])
    inner = turns[(turns > 0) & (turns < len(places) - 1)]
    across = places[:, 0]
    before = np.abs(across[inner] - across[inner - 1]) < np.abs(across[inner + 1] - across[inner])
    edges = [0, *(inner + before).tolist(), len(places)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def jumps_between(places: Places, own: Places) -> NDArray[np.bool_]:
    """Between which spectra and the next ones (spectrum − 1) nothing was exposed, or nobody knows what."""
    return ~(np.abs(np.diff(places, axis=0)) <= own * JUMPS).all(axis=1)


def along_the_path(places: Places, spectra: float, own: Places) -> Places:
    """Where the stage was so many exposures later, with its own steps: the lag is one of time, so that turns lag less than lines.

    Beyond a jump the path goes on as it did before, and nowhere out of the extent of the scan.
    """
    ends = np.flatnonzero(jumps_between(places, own)) + 1
    moved = [move_on(part, spectra) for part in np.split(places, ends)]
    return np.concatenate(moved).clip(np.nanmin(places, axis=0), np.nanmax(places, axis=0))


def move_on(part: Places, spectra: float) -> Places:
    """A part of a path without jumps so many exposures later, extrapolated at its ends."""
    last = len(part) - 1
    if last < 1:
        return part
    times = np.arange(len(part)) + spectra
    first = np.clip(np.floor(times), 0, last - 1).astype(np.int64)
    share = (times - first)[:, None]
    return np.asarray((1 - share) * part[first] + share * part[first + 1])


def swept(places: Places, own: Places) -> tuple[Places, Places]:
    """Where each exposure began and ended: halfway to its neighbours, or as far as on the other side where that would be a jump.

    One that has jumps on both sides covers what a usual one does.
    """
    halves = np.diff(places, axis=0) / 2
    jumps = jumps_between(places, own)
    edge, no_edge = np.zeros((1, 2)), np.ones(1, bool)
    before, after = np.concatenate([edge, halves]), np.concatenate([halves, edge])
    far_before, far_after = np.concatenate([no_edge, jumps])[:, None], np.concatenate([jumps, no_edge])[:, None]
    alone = np.array([0.0, own[1] / 2])
    before, after = (
        np.where(far, np.where(other_far, alone, other), near)
        for near, far, other, other_far in ((before, far_before, after, far_after), (after, far_after, before, far_before))
    )
    starts, ends = places - before, places + after
    narrowest = NARROWEST * own[1]
    short = np.abs(ends[:, 1] - starts[:, 1]) < narrowest
    middle = (starts[short, 1] + ends[short, 1]) / 2
    starts[short, 1], ends[short, 1] = middle - narrowest / 2, middle + narrowest / 2
    return starts, ends
