"""How many iterations of MLEM a frame is worth: as long as they predict counts that they have not seen. ndarrays in, ndarrays out.

Each count goes to one of two frames by chance: the parts of Poisson counts are independent. MLEM of the larger part predicts the smaller
one; first the better the more it iterates, until it begins to fit noise. Then MLEM of all counts takes as many.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.frames.lanes import in_groups
from detcal.frames.readings import Floats, Frames, Valid
from detcal.frames.simd import LANES, load, splat, store, where_number
from detcal.sensor.inversion import Counts, Matrix, Notes, em_step, maximise_likelihood, put_solution

HELD_OUT = 0.25  # share of the counts
MOST = 211  # iterations, where the caller names no limit: more are for spots of single pixels with 1e5 counts
FEW = 40  # counts of which the binomial distribution is summed up; it is a normal one beyond
GOLDEN = 0x9E3779B97F4A7C15  # and two more constants of splitmix64 (Steele, Lea and Flood 2014)
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
POWERS = (1 - HELD_OUT) ** np.arange(FEW + 1.0)


def auto_frames(frames: Frames, matrix: Matrix, valid: Valid, most: int | None, notes: Notes | None = None) -> Floats:
    """MLEM of as many iterations as each frame (frame, y, x) is worth; NaN where nothing was measured."""
    solved = np.empty((len(frames), frames[0].size), np.float32)
    for some, group in in_groups(frames):
        counts = Counts.of(some, matrix, valid)
        number = best_iterations(counts, matrix, most or MOST)
        found = maximise_likelihood(counts, matrix, number, None)[0]
        last = max(numbers_up_to(most or MOST))
        put_solution(found, counts, matrix, solved[group], None if notes is None else notes[group], number, number < last)
    return solved.reshape(frames.shape)


def best_iterations(counts: Counts, matrix: Matrix, most: int) -> NDArray[np.int64]:
    """How many iterations, at most so many, each lane is worth: compared are numbers that rise by half."""
    train, held = np.empty_like(counts.recorded), np.empty_like(counts.recorded)
    thin(counts.recorded, counts.unit, train, held)
    now, new, before = counts.start * np.float32(1 - HELD_OUT), np.empty_like(train), np.zeros_like(train)
    excess, gains = np.empty((1, LANES), np.float32), np.empty(LANES)
    best, running, done = np.ones(LANES, np.int64), np.ones(LANES, bool), 0
    for number in numbers_up_to(most):
        for _ in range(number - done):
            em_step(matrix, train, now, new, np.float32(0), excess)
            now, new = new, now
        done = number
        gain_of_prediction(matrix, now, held, before, gains)
        if number > 1:
            running &= gains > 0
            best[running] = number
        if not running.any():
            break
    return best


def numbers_up_to(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 9, …"""
    number = 1
    while number <= most:
        yield number
        number += max(1, number // 2)


@kernel
def gain_of_prediction(matrix, now, held, before, gains):  # type: ignore[no-untyped-def]
    """In each lane Σ (held − before)² − Σ (held − M·now)² over what was measured; `before` (pixel, lane) becomes M·now."""
    indptr, indices, data, width = matrix.indptr, matrix.indices, matrix.data, matrix.shape[1]
    nothing, row = splat(np.float32(0)), np.empty((1, LANES), np.float32)
    gains[:] = 0
    for begin in range(0, len(held), width):
        gain = nothing
        for pixel in range(begin, begin + width):
            expected = nothing
            for k in range(indptr[pixel], indptr[pixel + 1]):
                expected = expected + data[k] * load(now, indices[k])
            last = load(before, pixel)
            store(before, pixel, expected)
            gain = gain + where_number((expected - last) * (np.float32(2) * load(held, pixel) - expected - last), nothing)
        store(row, 0, gain)
        gains += row[0]


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
        for lane in range(LANES):
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

