"""The inverses of the matrix, on frames side by side. ndarrays in, ndarrays out.

LANES frames go through the matrix together, pixel by pixel, each in a lane of its own: a coefficient is loaded once for all of
them. A few go one by one: what kernels take as (pixel, lane) is then (pixel,), and each frame's bits are the same. What entered a pixel
that was not measured, or that records nothing, is estimated from its neighbours (see `unmeasured`), and NaN in the result.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, lsmr

from detcal.frames.jit import exact_kernel, kernel
from detcal.frames.lanes import all_in_lanes, by_lane, from_lanes, lanes_for, to_lanes
from detcal.frames.readings import ALL_NUMBERS, Floats, Frames, Valid
from detcal.frames.simd import load, plus_product, splat_for, store, where_between, where_number, where_positive
from detcal.sensor.groups import MOST_ALONE, groups_of
from detcal.sensor.sparse import Matrix, expected_of, in_scipy, row_ends
from detcal.sensor.unmeasured import all_measured, put_all_light, put_light

MOST_ITERATIONS = 10_000  # of MLEM, for tolerances that float32 does not reach
LONGEST_STEP = 1e3  # of accelerated MLEM (SQUAREM): for a lane that stands still it would be infinite
STOPPED_EARLY = 7  # from here on scipy's LSMR ended at its number of iterations
NOTES = ("iterations", "residual", "converged")  # of each frame that was solved by iterations: how many; |M·a − b| / |b|; 1 or 0
Notes = NDArray[np.float64]  # (frame, NOTES)


# ------------------------------------------------------------------------------------------------------------ direct


@exact_kernel
def solve_row(row, step, matrix, first_row, frames, valid, left, ring):  # type: ignore[no-untyped-def]
    """Forward substitution along a row, from the origin's column outwards on both sides; the matrix begins at row `first_row`.

    left (column, lane): what was recorded in the frames (frame, pixel), in the end the solution; ring (rows · columns, lane): what enters
    the rows solved before this one, outwards by `step`, and this one. A row lies there at its number modulo the rows, which are a power
    of two.
    """
    indices, data = matrix.indices, matrix.data
    width, origin = matrix.shape[1], matrix.origin[1]
    last_slot = len(ring) // width - 1
    nothing = splat_for(ring, np.float32(0))
    lowest = row - matrix.reach if step == 1 else row  # entries come by rising rows
    for side in (1, -1):
        for column in range(origin if side == 1 else origin - 1, width if side == 1 else -1, side):
            pixel = row * width + column
            value = load(left, column)
            diagonal = np.float32(np.nan)  # of a pixel that records nothing
            slot, first = lowest & last_slot, lowest * width  # of the entry pixels' row, and its first pixel
            begin, end = row_ends(matrix, pixel - first_row * width)
            for k in range(begin, end):
                entry, share = indices[k], data[k]
                if entry == pixel:
                    diagonal = share
                    continue
                while entry >= first + width:
                    slot, first = slot + 1 & last_slot, first + width
                value = plus_product(value, splat_for(ring, -share), load(ring, slot * width + entry - first))
            value = np.float32(1 / diagonal) * value
            store(left, column, value)
            place = (row & last_slot) * width + column
            store(ring, place, where_number(value, nothing))
            if not all_measured(value, nothing):
                put_light(frames, valid, matrix, pixel, left, column, ring, place)


@kernel
def slots_of(reach):  # type: ignore[no-untyped-def]
    """Rows of a ring that holds as many as rays cross: a power of two."""
    slots = 1
    while slots < reach + 1:
        slots *= 2
    return slots


@exact_kernel
def solve_lanes(matrix, valid, frames, left, ring, solved):  # type: ignore[no-untyped-def]
    """a = M⁻¹·b of up to LANES frames (frame, pixel), row by row from the origin outwards; left and ring are room for `solve_row`.

    Rays only go outwards, so M is triangular in that order.
    """
    (height, width), origin = matrix.shape, matrix.origin[0]
    for step in (1, -1):  # both halves begin with the origin's row
        ring[:] = 0
        for row in range(origin, height if step == 1 else -1, step):
            to_lanes(frames, valid, row * width, (row + 1) * width, left)
            solve_row(row, step, matrix, 0, frames, valid, left, ring)
            from_lanes(left, row * width, (row + 1) * width, solved)


def solve_frames(frames: Frames, matrix: Matrix, valid: Valid = ALL_NUMBERS) -> Floats:
    """The exact solution of M·a = b for a block of frames (frame, y, x): NaN where nothing was measured."""
    solved = np.empty((len(frames), frames[0].size), np.float32)
    for some, group in groups_of(frames):
        left, ring = (lanes_for(some, rows * matrix.shape[1]) for rows in (1, slots_of(matrix.reach)))
        solve_lanes(matrix, valid, some, left, ring, solved[group])
    return solved.reshape(frames.shape)


# -------------------------------------------------------------------------------------------------------------- LSMR


def lsmr_frames(
    frames: Frames, matrix: Matrix, valid: Valid, iterations: int | None, tolerance: float, notes: Notes | None = None
) -> Floats:
    """The least-squares solution, by LSMR, frame by frame."""
    blur = in_scipy(matrix).astype(float)
    back = blur.T.tocsr()
    solved = np.empty((len(frames), frames[0].size), np.float32)
    for some, group in groups_of(frames):
        readings, estimates = with_light(some, matrix, valid)
        for lane, (recorded, light, found) in enumerate(zip(by_lane(readings).T, by_lane(estimates).T, solved[group], strict=False)):
            measured = ~np.isnan(recorded)
            operator = LinearOperator(
                blur.shape, lambda a, measured=measured: measured * (blur @ (measured * a.ravel())),
                lambda b, measured=measured: measured * (back @ (measured * b.ravel())), dtype=float,
            )  # fmt: skip
            target = np.where(measured, recorded - blur @ light, 0)
            solution, reason, done, misfit = lsmr(operator, target, atol=tolerance, btol=tolerance, maxiter=iterations)[:4]
            found[:] = np.where(measured, solution, np.nan)
            if notes is not None:
                size = np.linalg.norm(recorded[measured])
                notes[group][lane] = done, misfit / size if size > 0 else 0, reason < STOPPED_EARLY
    return solved.reshape(frames.shape)


# -------------------------------------------------------------------------------------------------------------- MLEM


@exact_kernel
def misfits(matrix, recorded, entered, width, sums):  # type: ignore[no-untyped-def]
    """In each lane, over what was measured: Σ(M·a − b)², and Σb²; in float64 over the rows."""
    row, nothing = np.empty(sums.shape, np.float32), splat_for(entered, np.float32(0))
    sums[:] = 0
    for begin in range(0, len(recorded), width):
        off = size = nothing
        for pixel in range(begin, begin + width):
            value = load(recorded, pixel)
            missed = expected_of(matrix, entered, pixel) - value
            off = off + where_number(missed * missed, nothing)
            size = size + where_number(value * value, nothing)
        store(row, 0, off)
        store(row, 1, size)
        sums += row


@exact_kernel
def em_step(matrix, recorded, holes, now, new, tolerance, excess):  # type: ignore[no-untyped-def]
    """new = now·Mᵀ(b / M·now) / Mᵀ1, all (pixel, lane): an iteration of expectation and maximisation.

    Forward and back projection go row by row together, while the rows are in the cache. Where nothing was measured the
    expectation takes its place, which leaves the maximum as it is without that pixel, and light stays what it is; `holes`: whether there
    are such. excess (1, lane): the largest |new − now| − tolerance·new.
    """
    indices, data = matrix.indices, matrix.data
    (height, width), reach, sensitivity = matrix.shape, matrix.reach, matrix.sensitivity
    one, nothing = splat_for(now, np.float32(1)), splat_for(now, np.float32(0))
    lowest, highest, worst = np.float32(-np.inf) + nothing, np.float32(np.inf) + nothing, nothing
    new[: min(reach, height) * width] = 0
    for row in range(height + reach):
        if row + reach < height:
            new[(row + reach) * width : (row + reach + 1) * width] = 0
        for pixel in range(row * width, min(row + 1, height) * width):
            expected = expected_of(matrix, now, pixel)
            ratio = where_number(where_positive(expected, load(recorded, pixel) / expected, nothing), one)
            begin, end = row_ends(matrix, pixel)
            for k in range(begin, end):
                store(new, indices[k], plus_product(load(new, indices[k]), splat_for(new, data[k]), ratio))
        for pixel in range(max(0, row - reach) * width, (row - reach + 1) * width):  # no row beyond adds to these
            before = load(now, pixel)
            after = np.float32(1 / sensitivity[pixel] if sensitivity[pixel] > 0 else 0) * (before * load(new, pixel))
            if holes:
                after = where_between(load(recorded, pixel), lowest, highest, after, before)
            store(new, pixel, after)
            change = after - before
            over = where_positive(change, change, nothing - change) - tolerance * after
            worst = where_positive(over - worst, over, worst)
    store(excess, 0, worst)


@exact_kernel
def measured_sums(recorded, response, width, sums):  # type: ignore[no-untyped-def]
    """In each lane, over what was measured: Σb, its number, and Σ response; in float64 over the rows."""
    row, nothing, one = np.empty(sums.shape, np.float32), splat_for(recorded, np.float32(0)), splat_for(recorded, np.float32(1))
    lowest, highest = np.float32(-np.inf) + nothing, np.float32(np.inf) + nothing
    sums[:] = 0
    for begin in range(0, len(recorded), width):
        total = count = reached = nothing
        for pixel in range(begin, begin + width):
            value = load(recorded, pixel)
            total = total + where_number(value, nothing)
            count = count + where_between(value, lowest, highest, one, nothing)
            reached = reached + where_between(value, lowest, highest, splat_for(recorded, response[pixel]), nothing)
        store(row, 0, total)
        store(row, 1, count)
        store(row, 2, reached)
        sums += row


@exact_kernel
def step_sums(start, first, second, width, sums):  # type: ignore[no-untyped-def]
    """In each lane Σr² and Σv², r = first − start, v = second − first − r; in float64 over the rows."""
    row, nothing = np.empty(sums.shape, np.float32), splat_for(start, np.float32(0))
    sums[:] = 0
    for begin in range(0, len(start), width):
        rr = vv = nothing
        for pixel in range(begin, begin + width):
            middle = load(first, pixel)
            r = middle - load(start, pixel)
            v = load(second, pixel) - middle - r
            rr, vv = rr + r * r, vv + v * v
        store(row, 0, rr)
        store(row, 1, vv)
        sums += row


@exact_kernel
def extrapolate(start, first, second, lengths, out):  # type: ignore[no-untyped-def]
    """start + 2·length·r + length²·v in each lane, but `second` where that is not positive."""
    length = load(lengths, 0)
    for pixel in range(len(start)):
        begin, middle, end = load(start, pixel), load(first, pixel), load(second, pixel)
        r = middle - begin
        v = end - middle - r
        further = begin + length * (np.float32(2) * r + length * v)
        store(out, pixel, where_positive(further, further, end))


def with_light(frames: Frames, matrix: Matrix, valid: Valid) -> tuple[Floats, Floats]:
    """Frames (frame, pixel) side by side, NaN where nothing was measured; and the light there, 0 elsewhere."""
    recorded = all_in_lanes(frames, valid)
    recorded[matrix.response == 0] = np.nan
    light = np.zeros_like(recorded)
    put_all_light(frames, valid, matrix, recorded, light)
    return recorded, light


def mlem_frames(
    frames: Frames, matrix: Matrix, valid: Valid, iterations: int | None, tolerance: float | None, notes: Notes | None = None
) -> Floats:
    """The non-negative solution of highest Poisson likelihood, for a block of frames (frame, y, x); NaN where nothing was measured."""
    solved = np.empty((len(frames), frames[0].size), np.float32)
    for some, group in groups_of(frames, MOST_ALONE):
        counts = Counts.of(some, matrix, valid)
        found, done, there = maximise_likelihood(counts, matrix, iterations or MOST_ITERATIONS, tolerance)
        put_solution(found, counts, matrix, solved[group], None if notes is None else notes[group], done, there | (tolerance is None))
    return solved.reshape(frames.shape)


def put_solution(found: Floats, counts: "Counts", matrix: Matrix, solved: Floats, notes: Notes | None, done: Any, there: Any) -> None:
    """Images (pixel, lane) with light where nothing was measured into frames (frame, pixel) with NaN there; and how they were found."""
    if notes is not None:
        sums = np.empty((2, *found.shape[1:]))
        misfits(matrix, counts.recorded, found, matrix.shape[1], sums)
        residual = np.sqrt(sums[0] / np.maximum(sums[1], np.finfo(float).tiny))
        notes[:] = np.stack(np.broadcast_arrays(np.atleast_1d(done), residual, there), axis=1)[: len(notes)]
    found *= counts.unit
    found[np.isnan(counts.recorded)] = np.nan
    from_lanes(found, 0, len(found), solved)


class Counts(NamedTuple):
    """Frames for MLEM, in units of a power of two: so squares stay within what float32 holds, and no digit changes.

    Attributes
    ----------
    recorded, light : (pixel, lane), of a frame alone (pixel,)
        What was measured, else NaN; and the light there, else 0.
    even, mean, unit : (lane,), of a frame alone a number
        The uniform light of which as much would be recorded; and of what was measured.
    """

    recorded: Floats
    light: Floats
    even: Floats
    mean: NDArray[np.float64]
    unit: Floats

    @classmethod
    def of(cls, frames: Frames, matrix: Matrix, valid: Valid) -> "Counts":
        """Those of frames (frame, pixel); negative counts are 0."""
        recorded, light = with_light(frames, matrix, valid)
        for image in (recorded, light):
            np.maximum(image, 0, out=image)
        sums = np.empty((3, *recorded.shape[1:]))
        measured_sums(recorded, matrix.response, matrix.shape[1], sums)
        total, count, uniform = sums
        unit = np.exp2(np.floor(np.log2(np.where(total > 0, total / np.maximum(count, 1), 1)))).astype(np.float32)
        for image in (recorded, light):
            image /= unit
        even = (total / unit / np.maximum(uniform, np.finfo(np.float32).tiny)).astype(np.float32)
        return cls(recorded, light, even, total / unit / np.maximum(count, 1), unit)


def first_step(
    matrix: Matrix, recorded: Floats, counts: Counts, share: float, now: Floats, new: Floats, room: Floats, tolerance: Any, excess: Floats
) -> None:
    """`em_step` of a share of the counts from a uniform image; `room` is for an image more.

    Where nothing was measured, what would have been recorded of the light there stands in for this step: were it that light beside a
    uniform image elsewhere, or a uniform image there too, pixels beside would be between the two for many iterations.
    """
    unknown, part = np.isnan(recorded), np.float32(share)
    response = part * matrix.response.reshape(-1, *(1,) * (recorded.ndim - 1))
    np.copyto(room, recorded)
    np.multiply(counts.light, response, out=room, where=unknown)
    now[:] = part * counts.even
    em_step(matrix, room, False, now, new, tolerance, excess)
    for image in (now, new):  # both, of which steps are extrapolated
        np.multiply(counts.light, part, out=image, where=unknown)


def maximise_likelihood(
    counts: Counts, matrix: Matrix, most: Any, tolerance: float | None
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """MLEM of frames side by side, in their units; after how many iterations each lane ended, and whether that was for its tolerance.

    Without a tolerance, so many iterations (of each lane, or of all). With one, each two iterations are extrapolated, and a third
    follows (SQUAREM, Varadhan and Roland 2008); a lane ends, whatever goes beside it, once an iteration changes no pixel by more than
    `tolerance` × (its value + the frame's mean), or after so many.
    """
    recorded, mean, holes = counts.recorded, counts.mean, bool(np.isnan(counts.recorded).any())
    start, first, second, found = (np.empty_like(recorded) for _ in range(4))
    lanes = start.shape[1:]
    excess, squares, lengths = np.empty((1, *lanes), np.float32), np.empty((2, *lanes)), np.empty((1, *lanes), np.float32)
    running, done = np.ones(lanes, bool), 0
    ends, reached = np.zeros(lanes, np.int64), np.zeros(lanes, bool)

    def iterate(now: Floats, new: Floats) -> bool:
        """One iteration; what has ended is kept. Whether any goes on."""
        nonlocal done
        change = np.float32(tolerance or 0)
        if done == 0:
            first_step(matrix, recorded, counts, 1, now, new, found, change, excess)
        else:
            em_step(matrix, recorded, holes, now, new, change, excess)
        done += 1
        there = excess[0] <= tolerance * mean if tolerance is not None else np.False_
        ended = running & (there | (done == most))
        if ended.any():
            np.copyto(found, new, where=ended)
            ends[ended], reached[ended] = done, np.broadcast_to(there, lanes)[ended]
        running[ended] = False
        return bool(running.any())

    while iterate(start, first):
        if tolerance is None:
            start, first = first, start
            continue
        if not iterate(first, second):
            break
        step_sums(start, first, second, matrix.shape[1], squares)
        lengths[0] = np.sqrt(squares[0] / np.maximum(squares[1], np.finfo(float).tiny)).clip(1, LONGEST_STEP)
        extrapolate(start, first, second, lengths, first)
        if not iterate(first, start):
            break
    return found, ends, reached
