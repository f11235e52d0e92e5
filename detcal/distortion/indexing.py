"""Rows and columns of a grid's dots, found by walking from dot to dot: no centre, spacing or angle is guessed."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detcal.distortion import kernels
from detcal.errors import InputError

Places = NDArray[np.float64]
Nodes = NDArray[np.int64]

CANDIDATES = 25  # nearest dots among which a dot's neighbours are sought: two steps each way
TOLERANCE = 0.3  # of a step, by which a neighbour may lie off its place
SMOOTH = 0.15  # of a step, by which a dot may lie off the middle of its neighbours on both sides
STEPS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1), (2, 0), (-2, 0), (0, 2), (0, -2)])
FULL = 0.9  # share of a lattice's places that have a dot, above which none of larger cells agrees better
FEW = 0.1  # of the dots with regular surroundings
MOST_WALKS = 16
LEAST_AROUND = 6  # dots that tell a lattice's steps
FAR = np.iinfo(np.int64).max // 4  # number of a dot that is not reached


class Lattice(NamedTuple):
    """Dots of a lattice: which (dot,), and their rows and columns (dot, 2), which mean nothing for the others."""

    reached: NDArray[np.bool_]
    nodes: Nodes

    @property
    def dots(self) -> int:
        """How many there are."""
        return int(self.reached.sum())

    @property
    def places(self) -> int:
        """Of the lattice, with a dot or without, from the first dot of each row to its last, or of each column, whichever are more."""
        return max(spanned(self.nodes[self.reached], axis) for axis in (0, 1))

    @property
    def fullness(self) -> float:
        """Share of its places that have a dot."""
        return self.dots / self.places

    @property
    def agreement(self) -> float:
        """How well places and dots, those that are not of it among them, go together (Dice 1945): 1 if each has the other.

        A speck between dots makes a lattice of smaller cells that holds one dot more, but half of its places are empty; a lattice of
        larger cells is full, but most dots are not of it.
        """
        return 2 * self.dots / (self.places + len(self.reached))


def index_grid(places: Places) -> tuple[NDArray[np.bool_], Nodes]:
    """Which dots (dot, 2) are of the grid, and their rows and columns (dot, 2), which grow with y and x.

    Raises
    ------
    InputError
        No dot with four neighbours about it.
    """
    places = np.ascontiguousarray(places)  # as all that the kernel is compiled for
    _, neighbours = cKDTree(places).query(places, min(CANDIDATES, len(places)))
    neighbours = np.ascontiguousarray(neighbours[:, 1:])
    found = lattices(places, neighbours)
    if not found:
        raise InputError("no grid: no dot has four neighbours about it at regular distances")
    best = max(found, key=lambda lattice: lattice.agreement)
    while best.fullness < FULL and (coarser := largest_cells(places, neighbours, best)).agreement > best.agreement:
        best = coarser
    return best.reached, best.nodes


def lattices(places: Places, neighbours: NDArray[np.int64]) -> list[Lattice]:
    """The lattices that the surroundings of dots suggest, each walked as far as it goes, until few dots suggest another than a full one."""
    starts = seeds(places, neighbours)
    left = np.ones(len(starts.dots), np.bool_)
    found = []
    for k in range(len(left)):
        if left[k]:
            found.append(walk(places, neighbours, int(starts.dots[k]), *down_and_right(starts.one[k], starts.other[k])))
            left &= ~starts.agree(found[-1])
            left[k] = False
            if len(found) == MOST_WALKS or (found[-1].fullness > FULL and left.mean() < FEW):
                break
    return found


def walk(places: Places, neighbours: NDArray[np.int64], seed: int, down: Places, right: Places) -> Lattice:
    """The dots that are reached from a dot by the steps downwards and to the right there, without those that lie off their neighbours."""
    nodes = np.full((len(places), 2), FAR)
    kernels.walk(places, neighbours, seed, down, right, TOLERANCE, STEPS, nodes)
    reached = nodes[:, 0] < FAR
    reached[reached] = lies_between(places[reached], nodes[reached])
    return Lattice(reached, nodes)


def largest_cells(places: Places, neighbours: NDArray[np.int64], fine: Lattice) -> Lattice:
    """Of the lattices of larger cells within another the one that agrees best, walked anew.

    With specks in many cells, no dot of the grid may have four others of it about it, and nothing but their surroundings suggests it.
    """
    best = max(coarser_lattices(fine), key=lambda lattice: lattice.agreement)
    dots = np.flatnonzero(best.reached)
    if len(dots) < LEAST_AROUND:
        return fine
    _, some = cKDTree(places[dots]).query(np.median(places[dots], axis=0), LEAST_AROUND)
    around = dots[some]
    _, affine = fit_even_grid(places[around], best.nodes[around])
    if np.linalg.matrix_rank(affine) < 2:
        return fine
    return walk(places, neighbours, int(around[0]), *down_and_right(affine[:, 0], affine[:, 1]))


def coarser_lattices(fine: Lattice) -> Iterator[Lattice]:
    """All lattices of two to four cells of another, which its dots may be of: with steps (rows, skew) and (0, columns) of the other's."""
    nodes = fine.nodes[fine.reached]
    for rows, columns in ((1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1)):
        for skew, row, column in product(range(columns), range(rows), range(columns)):
            down, beside = np.divmod(nodes[:, 0] - row, rows)
            right, beyond = np.divmod(nodes[:, 1] - column - skew * down, columns)
            held = (beside == 0) & (beyond == 0)
            if held.any():
                reached, found = fine.reached.copy(), np.full_like(fine.nodes, FAR)
                reached[reached] = held
                found[reached] = np.column_stack([down, right])[held]
                yield Lattice(reached, found)


def spanned(nodes: Nodes, axis: int) -> int:
    """Places from the first node (node, 2) of each row, or of each column, to its last."""
    order = np.lexsort((nodes[:, 1 - axis], nodes[:, axis]))
    lines, along = nodes[order, axis], nodes[order, 1 - axis]
    begins = np.flatnonzero(np.diff(lines, prepend=lines[0] - 1))
    ends = np.append(begins[1:], len(lines)) - 1
    return int((along[ends] - along[begins] + 1).sum())


class Seeds(NamedTuple):
    """Dots to start from (seed,), the most regular surroundings first, and two steps of the grid there (seed, 2).

    around (seed, 4): the nearest dots, two and two on opposite sides.
    """

    dots: NDArray[np.int64]
    one: Places
    other: Places
    around: NDArray[np.int64]

    def agree(self, lattice: Lattice) -> NDArray[np.bool_]:
        """Which seeds would walk the same lattice: their steps are a basis of it too."""
        one, opposite_one, other, opposite_other = lattice.nodes[self.around].transpose(1, 0, 2)
        reached = lattice.reached[self.dots] & lattice.reached[self.around].all(axis=1)
        cells = cross(one - opposite_one, other - opposite_other)  # of two steps each way
        return np.asarray(reached & (abs(cells) == 4))


def cross(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Areas, with a sign, of the parallelograms of pairs of vectors (pair, 2)."""
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])


def seeds(places: Places, neighbours: NDArray[np.int64]) -> Seeds:
    """Dots that lie in the middle of their four nearest ones."""
    four = places[neighbours[:, :4]] - places[:, None]
    opposite = np.linalg.norm(four[:, :1] + four[:, 1:], axis=-1)
    partner = opposite.argmin(axis=1) + 1
    others = np.array([(2, 3), (1, 3), (1, 2)])[partner - 1]
    pairs = np.column_stack([np.zeros(len(four), int), partner, others])
    first, opposite_first, second, opposite_second = np.take_along_axis(four, pairs[:, :, None], axis=1).transpose(1, 0, 2)
    length = np.linalg.norm(four, axis=-1).mean(axis=1)
    uneven = (opposite.min(axis=1) + np.linalg.norm(four.sum(axis=1), axis=-1)) / length
    steps = (first - opposite_first) / 2, (second - opposite_second) / 2
    good = np.flatnonzero((uneven < TOLERANCE) & (abs(cross(*steps)) / length**2 > 0.5))
    good = good[np.argsort(uneven[good], kind="stable")]
    return Seeds(good, steps[0][good], steps[1][good], np.take_along_axis(neighbours[:, :4], pairs, axis=1)[good])


def down_and_right(one: Places, other: Places) -> tuple[Places, Places]:
    """The shortest steps of the grid that two steps (y, x) make: one that goes down along y, and one along x, to the right."""
    short, long = sorted((one, other), key=np.linalg.norm)
    while times := round(float(short @ long / (short @ short))):  # Gauss's reduction: near a missing dot a step may be a diagonal
        short, long = sorted((short, long - times * short), key=np.linalg.norm)
    down, right = (short, long) if abs(short[0] * long[1]) >= abs(short[1] * long[0]) else (long, short)
    return np.copysign(1, down[0]) * down, np.copysign(1, right[1]) * right


def lies_between(places: Places, nodes: Nodes) -> NDArray[np.bool_]:
    """Which dots lie about halfway between their neighbours on both sides, along rows and columns, where they have these."""
    rows, columns = (nodes - nodes.min(axis=0) + 1).T
    width = columns.max() + 2
    numbers = rows * width + columns
    order = np.argsort(numbers)

    def at(wanted: Nodes) -> NDArray[np.int64]:
        near = order[np.searchsorted(numbers, wanted, sorter=order).clip(max=len(order) - 1)]
        return np.where(numbers[near] == wanted, near, -1)

    fine = np.ones(len(places), np.bool_)
    for step in (width, 1):
        behind, ahead = at(numbers - step), at(numbers + step)
        middle, length = (places[ahead] + places[behind]) / 2, np.linalg.norm(places[ahead] - places[behind], axis=1) / 2
        fine &= ~((behind >= 0) & (ahead >= 0) & (np.linalg.norm(places - middle, axis=1) > SMOOTH * length))
    return fine


def fit_even_grid(places: Places, nodes: Nodes) -> tuple[Places, Places]:
    """Origin and steps of the regular grid nearest to the points, by least squares."""
    solved = np.linalg.lstsq(np.column_stack([np.ones(len(nodes)), nodes]), places, rcond=None)[0]
    return np.asarray(solved[0], float), np.asarray(solved[1:].T, float)
