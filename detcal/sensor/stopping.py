"""How many iterations of MLEM a frame is worth: as long as they predict counts that they have not seen. ndarrays in, ndarrays out.

Each count goes to one of two frames by chance: the parts of Poisson counts are independent. MLEM of the larger part predicts the smaller
one; first the better the more it iterates, until it begins to fit noise. Then MLEM of all counts takes as many.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import exact_kernel, kernel
from detcal.frames.lanes import by_lane
from detcal.frames.readings import Floats, Frames, Valid
from detcal.frames.simd import load, splat_for, store, where_number
from detcal.sensor.groups import MOST_ALONE, groups_of
from detcal.sensor.inversion import Counts, Notes, em_step, first_step, maximise_likelihood, put_solution, solve_frames
from detcal.sensor.sparse import Matrix, expected_of

HELD_OUT = 0.25  # share of the counts
MOST = 211  # iterations, where the caller names no limit: more are for spots of single pixels with 1e5 counts
LEAST_GAIN = 0.5  # of the noise of a gain: iterations that gain less go on for long, for nothing
CERTAIN = 3.0  # standard errors
EDGE = 2  # times as far as rays reach: so far from the detector's edges predictions are compared
FEW = 40  # counts of which the binomial distribution is summed up; it is a normal one beyond
GOLDEN = 0x9E3779B97F4A7C15  # and two more constants of splitmix64 (Steele, Lea and Flood 2014)
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
POWERS = (1 - HELD_OUT) ** np.arange(FEW + 1.0)


def auto_frames(
    frames: Frames, matrix: Matrix, valid: Valid, most: int | None, is_mild: Callable[[], bool] = lambda: False, notes: Notes | None = None
) -> Floats:
    """What entered (frame, y, x), by MLEM of as many iterations as each frame is worth; NaN where nothing was measured.

    Where the largest number is not enough, and the exact solution is nearer to what entered, that: of 0 iterations. It is looked at if
    it amplifies little noise, `is_mild`: else chance decides which is nearer.
    """
    solved = np.empty((len(frames), frames[0].size), np.float32)
    for some, group in groups_of(frames, MOST_ALONE):
        counts = Counts.of(some, matrix, valid)
        numbers, ended, exact = find_end(counts, matrix, most or MOST, len(some), is_mild)
        found = maximise_likelihood(counts, matrix, numbers, None)[0]
        for lane in np.flatnonzero(exact):
            image, recorded, light = (by_lane(images)[:, lane] for images in (found, counts.recorded, counts.light))
            solution = exact_solution(recorded[None], matrix)[0]
            image[:] = np.where(np.isnan(solution), light, solution)
        put_solution(
            found, counts, matrix, solved[group], None if notes is None else notes[group], np.where(exact, 0, numbers), ended | exact
        )
    return solved.reshape(frames.shape)


def find_end(
    counts: Counts, matrix: Matrix, most: int, lanes: int, is_mild: Callable[[], bool]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """How many iterations, at most so many, each lane is worth: compared are numbers that rise by half.

    And whether that is its end, which is before the largest number; else, whether the exact solution is better.
    """
    train, held = np.empty_like(counts.recorded), np.empty_like(counts.recorded)
    thin(by_lane(counts.recorded), np.atleast_1d(counts.unit), by_lane(train), by_lane(held))
    now, new, before = np.empty_like(train), np.empty_like(train), np.empty_like(train)
    side_by_side = train.shape[1:]
    excess, gains = np.empty((1, *side_by_side), np.float32), np.empty((2, *side_by_side))
    holes = bool(np.isnan(train).any())
    best, running, done = np.ones(side_by_side, np.int64), np.ones(side_by_side, bool), 0
    for number in numbers_up_to(most):
        for _ in range(number - done):
            if number == 1:
                first_step(matrix, train, counts, 1 - HELD_OUT, now, new, before, np.float32(0), excess)
            else:
                em_step(matrix, train, holes, now, new, np.float32(0), excess)
            now, new = new, now
        done = number
        gain_of_prediction(matrix, inner_part(matrix), now, held, before, gains)
        if number > 1:
            noise = 2 * np.sqrt((1 - HELD_OUT) / HELD_OUT * gains[1] / counts.unit)  # of a gain, as held-out counts scatter
            running &= gains[0] > LEAST_GAIN * noise
            best[running] = number
        if not running.any():
            break
    exact = np.zeros(side_by_side, bool)
    unfinished = np.flatnonzero(np.atleast_1d(running)[:lanes])
    for lane in unfinished if len(unfinished) and is_mild() else []:
        entered, counted, unseen = (by_lane(images)[:, lane] for images in (now, train, held))
        exact.flat[lane] = exact_is_better(entered, counted, unseen, matrix)
    return best, ~running, exact


def exact_is_better(entered: Floats, train: Floats, held: Floats, matrix: Matrix) -> bool:
    """Whether the exact solution of `train` (pixel,) is nearer to what entered than an image is.

    That is, nearer to the exact one of `held`, which has no bias; by more than rows scatter.
    """
    exact, other = exact_solution(np.stack([train, held]), matrix).astype(float)
    rows, columns = inner_part(matrix)
    gain = ((entered - other) ** 2 - (exact - other) ** 2).reshape(matrix.shape)[slice(*rows), slice(*columns)]
    of_rows = np.nansum(gain, axis=1)
    return bool(of_rows.sum() > CERTAIN * of_rows.std() * np.sqrt(len(of_rows)))


def exact_solution(frames: Floats, matrix: Matrix) -> Floats:
    """Of frames (frame, pixel)."""
    return solve_frames(frames.reshape(len(frames), *matrix.shape), matrix).reshape(frames.shape)


def inner_part(matrix: Matrix) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns (first, last + 1) that are not near the edges: there iterations come to their end late, as light leaves beyond."""
    borders = [min(EDGE * matrix.furthest, size // 4) for size in matrix.shape]
    return (borders[0], matrix.shape[0] - borders[0]), (borders[1], matrix.shape[1] - borders[1])


def numbers_up_to(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 9, …"""
    number = 1
    while number <= most:
        yield number
        number += max(1, number // 2)


@exact_kernel
def gain_of_prediction(matrix, part, now, held, before, gains):  # type: ignore[no-untyped-def]
    """gains (2, lane): Σ (held − before)² − Σ (held − M·now)² over what was measured of a part, and Σ (M·now − before)²·M·now.

    There `before` (pixel, lane) becomes M·now.
    """
    nothing, sums, width = splat_for(now, np.float32(0)), np.empty(gains.shape, np.float32), matrix.shape[1]
    rows, columns = part
    gains[:] = 0
    for row in range(rows[0], rows[1]):
        gain = spread = nothing
        for pixel in range(row * width + columns[0], row * width + columns[1]):
            expected = expected_of(matrix, now, pixel)
            last = load(before, pixel)
            store(before, pixel, expected)
            step = expected - last
            gain = gain + where_number(step * (np.float32(2) * load(held, pixel) - expected - last), nothing)
            spread = spread + step * step * expected
        store(sums, 0, gain)
        store(sums, 1, spread)
        gains += sums


@kernel
def thin(recorded, unit, train, held):  # type: ignore[no-untyped-def]
    """Each count to `held`, by the chance HELD_OUT, or to `train`, (pixel, lane) all; `held` is scaled to what `train` predicts.

    Numbers that are not whole are rounded by chance. The chance is that of the pixel: same counts, same parts.
    """
    for pixel in range(len(recorded)):
        bits = scrambled(np.uint64(pixel))
        more = scrambled(bits)
        fraction, chance = uniform(bits), uniform(more)
        bell = normal(scrambled(more))
        for lane in range(recorded.shape[1]):
            count = recorded[pixel, lane] * unit[lane]
            if np.isnan(count):
                train[pixel, lane] = held[pixel, lane] = np.nan
                continue
            taken = min(np.float64(count), binomial(np.floor(count + fraction), chance, bell))
            train[pixel, lane] = (count - taken) / unit[lane]
            held[pixel, lane] = taken * ((1 - HELD_OUT) / HELD_OUT) / unit[lane]


@kernel
def binomial(count, chance, bell):  # type: ignore[no-untyped-def]
    """How many of so many counts are held out: `chance` is uniform from 0 to 1, `bell` is normal."""
    if count > FEW:
        return max(0.0, np.rint(HELD_OUT * count + np.sqrt(HELD_OUT * (1 - HELD_OUT) * count) * bell))
    taken, share = 0, POWERS[int(count)]
    below = share
    while chance > below and taken < count:
        share *= (count - taken) / (taken + 1) * (HELD_OUT / (1 - HELD_OUT))
        taken += 1
        below += share
    return float(taken)


@kernel
def scrambled(number):  # type: ignore[no-untyped-def]
    """64 bits that look like chance, of a whole number."""
    bits = number + np.uint64(GOLDEN)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(SECOND)
    return bits ^ (bits >> np.uint64(31))


@kernel
def uniform(bits):  # type: ignore[no-untyped-def]
    """A number from 0 to 1."""
    return float(bits >> np.uint64(11)) * 2.0**-53


@kernel
def normal(bits):  # type: ignore[no-untyped-def]
    """A normal number, nearly: the sum of four uniform ones, of mean 0 and variance 1."""
    total = 0.0
    for part in range(4):
        total += float((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF))
    return (total / 65535 - 2) * np.sqrt(3.0)
