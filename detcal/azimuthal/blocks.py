"""Blocks of frames through the kernels of the rings."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.azimuthal import clipping, kernels
from detcal.azimuthal.kernels import RingLanes, Rings
from detcal.azimuthal.quantile_errors import errors_of_batch, errors_of_groups
from detcal.azimuthal.quantiles import quantile_batch, quantile_groups
from detcal.frames.helping import together
from detcal.frames.lanes import in_groups, in_order, lines
from detcal.frames.readings import ALL_NUMBERS, Floats, Valid


def draw(profiles: NDArray[Any], images: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    """Profiles (frame, radial) on the detector."""
    centres, radius, norm, dark = images
    drawn = np.empty((len(profiles), *radius.shape), np.float32)
    for image, profile in zip(drawn, profiles, strict=True):
        image[:] = np.interp(radius, centres, profile, left=np.nan, right=np.nan) * norm + dark
    return drawn


def clip_block(
    frames: NDArray[Any],
    noise: NDArray[Any] | None = None,
    *,
    rings: Rings | RingLanes,
    valid: Valid,
    noise_valid: Valid = ALL_NUMBERS,
    model: int,
    threshold: float,
    most: int,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Statistics (frame, quantity, ring) of a block."""
    profiles, _ = clip(frames, noise, rings, (valid, noise_valid), model, threshold, most, threads)
    profiles[:, :3] *= rings.scale
    profiles[:, 4] /= rings.scale
    return profiles


def clip(
    frames: NDArray[Any],
    noise: NDArray[Any] | None,
    rings: Rings | RingLanes,
    valid: tuple[Valid, Valid],
    model: int,
    threshold: float,
    most: int,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Statistics (frame, quantity, ring) of a block, and the interval (frame, end, ring) of I that is kept, both by relative norms."""
    count = rings.number
    profiles, intervals = np.empty((len(frames), 5, count), np.float32), np.empty((len(frames), 2, count), np.float32)
    if isinstance(rings, RingLanes):

        def clip_one(number: int, batch: int, image: Floats, spread: Floats) -> None:
            clipping.clip_groups(image, spread, rings, batch, model, threshold, most, profiles[number], intervals[number])

        one_by_one(clip_one, frames, noise, rings, valid, threads)
        return profiles, intervals
    for group, batch, image, spread in in_batches(frames, noise, rings, valid):
        clipping.clip_batch(image, spread, rings, batch, model, threshold, most, profiles[group], intervals[group])
    return profiles, intervals


def one_by_one(
    work: Callable[[int, int, Floats, Floats], None],
    frames: NDArray[Any],
    noise: NDArray[Any] | None,
    rings: RingLanes,
    valid: tuple[Valid, Valid],
    threads: int,
) -> None:
    """Work with number of the frame, batch, raw − dark and variance of one frame, of rings side by side; batches are shared out to so many
    threads, each with room of its own."""
    flat, beside, batches = in_order(frames), None if noise is None else in_order(noise), iter(range(len(rings.batches) - 1))
    most = max(rows.stop - rows.start for rows in (kernels.rows_of(rings, batch) for batch in range(len(rings.batches) - 1)))

    def take() -> None:
        image = lines(most)
        spread = image if beside is None else lines(most)
        for batch in batches:  # of all frames, while what belongs to its rings lies in the cache
            for number in range(len(flat)):
                load_one(flat, beside, number, rings, batch, valid, image, spread)
                work(number, batch, image, spread)

    together(take, threads)


def load_one(
    frames: NDArray[Any],
    noise: NDArray[Any] | None,
    number: int,
    rings: RingLanes,
    batch: int,
    valid: tuple[Valid, Valid],
    image: Floats,
    spread: Floats,
) -> None:
    """raw − dark of the pixels of a batch of one of the frames (frame, pixel), and the variance if there is one."""
    rows = kernels.rows_of(rings, batch)
    size = rows.stop - rows.start
    kernels.load_rows(frames[number], valid[0], rings.darks[rows], rings.pixels[rows], image)
    if noise is not None:
        kernels.load_rows(noise[number], valid[1], None, rings.pixels[rows], spread)
        kernels.leave_out(image[:size], spread[:size])


def in_batches(
    frames: NDArray[Any], noise: NDArray[Any] | None, rings: Rings, valid: tuple[Valid, Valid]
) -> Iterator[tuple[slice, int, Floats, Floats]]:
    """raw − dark of groups of frames, batch of rings by batch, and the variance if there is one: the same two arrays each time.

    `valid` is of the frames, and of the variance.
    """
    image = kernels.room(rings)
    spread = image if noise is None else kernels.room(rings)
    for some, group in in_groups(frames):
        for batch in range(len(rings.batches) - 1):
            kernels.load_batch(some, valid[0], rings.dark, rings, batch, image)
            if noise is not None:
                kernels.load_batch(noise[group].reshape(some.shape), valid[1], None, rings, batch, spread)
                kernels.leave_out(image, spread)
            yield group, batch, image, spread


def outlier_block(
    frames: NDArray[Any],
    noise: NDArray[Any] | None = None,
    *,
    rings: Rings | RingLanes,
    valid: Valid,
    noise_valid: Valid,
    model: int,
    threshold: float,
    most: int,
    threads: int = 1,
) -> NDArray[np.bool_]:
    """What is left out of a block: of a frame of which nothing was measured, all."""
    profiles, intervals = clip(frames, noise, rings, (valid, noise_valid), model, threshold, most, threads)
    marked = np.zeros((len(frames), frames[0].size), np.bool_)
    if isinstance(rings, RingLanes):

        def mark_one(number: int, batch: int, image: Floats, _: Floats) -> None:
            clipping.mark_groups(image, rings, batch, intervals[number], marked[number])

        one_by_one(mark_one, frames, noise, rings, (valid, noise_valid), threads)
    else:
        marks = kernels.room(rings)
        for group, batch, image, _ in in_batches(frames, noise, rings, (valid, noise_valid)):
            marks[:] = 0
            clipping.mark_batch(image, rings, batch, intervals[group], marks)
            clipping.unload_marks(marks, rings, batch, marked[group])
    marked[~profiles[:, 3].any(axis=1)] = True  # no pixel is counted in any ring
    return marked.reshape(frames.shape)


def quantile_block(
    frames: NDArray[Any],
    *,
    rings: Rings | RingLanes,
    valid: Valid,
    quantiles: tuple[float, float],
    errors: bool = False,
    threads: int = 1,
) -> NDArray[np.float32]:
    """The mean between two quantiles, with errors its standard error and the standard deviation of a reading, and the number of pixels
    (frame, quantity, ring), of a block."""
    profiles, found = np.empty((len(frames), 2, rings.number), np.float32), np.empty((len(frames), 2 * errors, rings.number), np.float32)
    if isinstance(rings, RingLanes):

        def sort_one(number: int, batch: int, image: Floats, _: Floats) -> None:
            quantile_groups(image, rings, batch, quantiles, profiles[number])
            if errors:
                errors_of_groups(image, rings, batch, quantiles, found[number])

        one_by_one(sort_one, frames, None, rings, (valid, ALL_NUMBERS), threads)
    else:
        for group, batch, image, _ in in_batches(frames, None, rings, (valid, ALL_NUMBERS)):
            quantile_batch(image, rings, batch, quantiles, profiles[group])
            if errors:
                errors_of_batch(image, rings, batch, quantiles, found[group])
    whole = np.concatenate([profiles[:, :1], found, profiles[:, 1:]], axis=1) if errors else profiles
    whole[:, :-1] *= rings.scale[0]
    return whole
