"""Pixels that record what is no light: hot ones, and what they do to a solution. ndarrays in, ndarrays out.

Light that enters a pixel obliquely is recorded further out too. A pixel that stands out, beside which others have not even a part of the
share that is theirs, is hot.
"""

import numpy as np

from detcal.frames.jit import kernel
from detcal.frames.readings import Frames, Valid, readings
from detcal.sensor.inversion import solve_frames
from detcal.sensor.sparse import Matrix

BRIGHT = 4.0  # times the frame's mean, and each neighbour: what is less is not looked at
LEAST_COUNTS = 50.0
LEAST_SHARE = 0.05  # of a pixel's light, in another: less tells nothing, and spreads little
PART = 0.25  # of that share: light that falls in a corner of the pixel may spill less than uniform light does
SIGMAS = 6.0


@kernel
def find_hot(frame, matrix, hot):  # type: ignore[no-untyped-def]
    """Mark (pixel,) the hot ones of a frame (pixel,), NaN where nothing was measured."""
    total, count = 0.0, 0
    for value in frame:
        if not np.isnan(value):
            total, count = total + value, count + 1
    bright = max(LEAST_COUNTS, BRIGHT * total / max(count, 1))
    for pixel in range(frame.size):
        value = frame[pixel]
        if value > bright and matrix.response[pixel] > 0:
            hot[pixel] = stands_out(frame, matrix.shape, pixel, value) and is_hot(frame, matrix, pixel, value)


@kernel
def stands_out(frame, shape, pixel, value):  # type: ignore[no-untyped-def]
    """Whether it is many times as bright as each of its eight neighbours."""
    row, column = pixel // shape[1], pixel % shape[1]
    for y in range(max(row - 1, 0), min(row + 2, shape[0])):
        for x in range(max(column - 1, 0), min(column + 2, shape[1])):
            near = y * shape[1] + x
            if near != pixel and frame[near] * BRIGHT > value:
                return False
    return True


@kernel
def is_hot(frame, matrix, pixel, value):  # type: ignore[no-untyped-def]
    """Whether a pixel further out records too little for this to be light."""
    (height, width), origin = matrix.shape, matrix.origin
    row, column = pixel // width, pixel % width
    down, right = 1 if row >= origin[0] else -1, 1 if column >= origin[1] else -1
    own = share_of(matrix, pixel, pixel)
    for i in range(matrix.reach + 1):
        for j in range(matrix.furthest + 1):
            y, x = row + i * down, column + j * right
            if i + j == 0 or not (0 <= y < height and 0 <= x < width):
                continue
            share = share_of(matrix, y * width + x, pixel) / own
            near = frame[y * width + x]
            lacking = share * value - near
            if (
                share > LEAST_SHARE
                and near < PART * share * value
                and lacking * lacking > SIGMAS**2 * (share * share * value + max(near, 1))
            ):
                return True
    return False


@kernel
def share_of(matrix, recorded, entry):  # type: ignore[no-untyped-def]
    """A coefficient of the matrix."""
    for k in range(matrix.indptr[recorded], matrix.indptr[recorded + 1]):
        if matrix.indices[k] == entry:
            return matrix.data[k]
    return np.float32(0)


def spread_of_hot(frames: Frames, matrix: Matrix, valid: Valid) -> tuple[int, int, int] | None:
    """Of the first of these frames (frame, y, x): how many pixels are hot, how many others the exact solution then has wrong, by more than
    the noise of a mean pixel, and how far away. None if no pixel is hot."""
    frame, hot = readings(frames[0], valid).ravel(), np.zeros(frames[0].size, bool)
    find_hot(frame, matrix, hot)
    if not hot.any():
        return None
    width = matrix.shape[1]
    alone = np.where(hot, frame, np.float32(0))  # the solution is linear
    noise = np.sqrt(np.nanmean(np.where(hot, np.nan, frame.clip(0)), dtype=float) + 1)
    wrong = np.flatnonzero(np.abs(solve_frames(alone.reshape(1, *matrix.shape), matrix).ravel()) > noise)
    wrong = wrong[~hot[wrong]]
    places = np.flatnonzero(hot)
    steps = [np.maximum(abs(wrong // width - place // width), abs(wrong % width - place % width)) for place in places]
    return len(places), len(wrong), int(np.min(steps, axis=0).max(initial=0))
