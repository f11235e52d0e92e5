"""Rows and columns of a grid's dots, found by walking from dot to dot: no centre, spacing or angle is guessed."""

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
LEAST_SHARE = 0.75  # of the dots, that one grid holds


def index_grid(places: Places) -> tuple[NDArray[np.bool_], Nodes]:
    """Which dots (dot, 2) are of the grid, and their rows and columns (dot, 2), which grow with y and x.

    Raises
    ------
    InputError
        No dot with four neighbours about it, or dots that are of more than one grid.
    """
    _, neighbours = cKDTree(places).query(places, min(CANDIDATES, len(places)))
    neighbours = np.ascontiguousarray(neighbours[:, 1:])
    far = np.iinfo(np.int64).max // 4
    left = np.ones(len(places), np.bool_)
    best, nodes = np.zeros(len(places), np.bool_), np.zeros((len(places), 2), np.int64)
    for seed, down, right in seeds(places, neighbours):
        if not left[seed]:
            continue
        found = np.full((len(places), 2), far)
        kernels.walk(places, neighbours, seed, down, right, TOLERANCE, STEPS, found)
        reached = found[:, 0] < far
        left &= ~reached
        if reached.sum() > best.sum():
            best, nodes = reached, found
        if best.sum() > left.sum():
            break
    if not best.any():
        raise InputError("no grid: no dot has four neighbours about it at even distances")
    consistent = best.copy()
    consistent[best] = lies_between(places[best], nodes[best])
    return consistent, nodes


def seeds(places: Places, neighbours: NDArray[np.int64]) -> list[tuple[int, Places, Places]]:
    """Dots to start from, the most even surroundings first, with the steps downwards and to the right there."""
    four = places[neighbours[:, :4]] - places[:, None]
    opposite = np.linalg.norm(four[:, :1] + four[:, 1:], axis=-1)
    partner = opposite.argmin(axis=1) + 1
    first = (four[:, 0] - four[np.arange(len(four)), partner]) / 2
    others = np.array([[k for k in (1, 2, 3) if k != one] for one in partner])
    second = (four[np.arange(len(four)), others[:, 0]] - four[np.arange(len(four)), others[:, 1]]) / 2
    length = np.linalg.norm(four, axis=-1).mean(axis=1)
    uneven = (opposite.min(axis=1) + np.linalg.norm(four.sum(axis=1), axis=-1)) / length
    cross = abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / length**2
    good = np.flatnonzero((uneven < TOLERANCE) & (cross > 0.5))
    return [(int(k), *down_and_right(first[k], second[k])) for k in good[np.argsort(uneven[good], kind="stable")]]


def down_and_right(one: Places, other: Places) -> tuple[Places, Places]:
    """The shortest steps of the grid that two steps (y, x) make: one that goes down along y, and one along x, to the right."""
    short, long = sorted((one, other), key=np.linalg.norm)
    while times := round(float(short @ long / (short @ short))):  # Gauss's reduction: near a missing dot a step may be a diagonal
        short, long = sorted((short, long - times * short), key=np.linalg.norm)
    down, right = (short, long) if abs(short[0] * long[1]) >= abs(short[1] * long[0]) else (long, short)
    return np.copysign(1, down[0]) * down, np.copysign(1, right[1]) * right


def lies_between(places: Places, nodes: Nodes) -> NDArray[np.bool_]:
    """Which dots lie about halfway between their neighbours on both sides, along rows and columns, where they have these."""
    at = {(row, column): k for k, (row, column) in enumerate(nodes.tolist())}
    fine = np.ones(len(places), np.bool_)
    for step in ((1, 0), (0, 1)):
        pairs = [
            (at.get((row - step[0], column - step[1]), -1), at.get((row + step[0], column + step[1]), -1)) for row, column in nodes.tolist()
        ]
        behind, ahead = np.array(pairs).T
        both = (behind >= 0) & (ahead >= 0)
        middle, length = (places[ahead] + places[behind]) / 2, np.linalg.norm(places[ahead] - places[behind], axis=1) / 2
        fine &= ~(both & (np.linalg.norm(places - middle, axis=1) > SMOOTH * length))
    return fine


def fit_even_grid(places: Places, nodes: Nodes) -> tuple[Places, Places]:
    """Origin and steps of the even grid nearest to the points, by least squares."""
    solved = np.linalg.lstsq(np.column_stack([np.ones(len(nodes)), nodes]), places, rcond=None)[0]
    return np.asarray(solved[0], float), np.asarray(solved[1:].T, float)
