"""The average of the frames of a dark or a flat: one pass over them, whose sums depend on the blocks alone."""

import warnings
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray
from scipy.special import stdtrit

from detcal.errors import InputError
from detcal.frames.few import find_stray
from detcal.frames.graph import fold_blocks, whole_frames
from detcal.frames.jit import kernel
from detcal.frames.readings import Floats, Frames, Valid, readings, values_and_known

Average = Literal["clipped", "mean", "median"]

CHANCE = 1e-5  # that noise alone has a reading left out
FEWEST = 4  # readings of which one may be left out: of two others, the noise is not known
STRIP_BYTES = 2**25  # of all frames' readings, that a median is found of at once

# The planes of what a clipped mean is found from: number, sum and sum of squares of the readings, the two largest and the smallest.
N, SUM, SQUARES, LARGEST, SECOND, SMALLEST = range(6)

Planes = NDArray[np.float64]


def check_average(average: str) -> None:
    """Refuse an average that there is not."""
    if average not in get_args(Average):
        raise InputError(f"expected average to be one of {', '.join(get_args(Average))}, got {average!r}")


def average_frames(frames: xr.DataArray, valid: Valid, average: Average = "clipped") -> da.Array:
    """The average (y, x) of the readings of frames (frame, y, x) as float32 in one chunk, lazily; NaN where there is none.

    Parameters
    ----------
    frames, valid
        From `find_readings`.
    average
        "clipped": the mean without a pixel's largest reading, its two largest, and its smallest, where they stand out from the others
        (an externally studentised residual that noise has once in 10⁵ readings): zingers, and a reading that was dropped. Of four
        readings or more. Of three frames, those that are further from the middle one than the noise of the pixels around says, and than
        that of photons. Of two nobody can tell which one is wrong: where they differ so much, a warning says it. "mean": of all.
        "median": all readings of some rows are held at once, and a frame is decoded once for each such strip.

    Raises
    ------
    InputError
        An average that there is not.
    """
    check_average(average)
    rows = frames.data.chunks[1]
    if average == "median":
        most = max(1, STRIP_BYTES // (4 * frames.shape[0] * frames.shape[2]))
        rows = tuple(min(most, frames.shape[1] - top) for top in range(0, frames.shape[1], most))
    # integers that are all alike may yet have been rounded
    rounding = 1 / 12 if frames.dtype.kind in "iu" else 0.0
    clipped = {2: mean_of_two, 3: mean_of_three}.get(len(frames), partial(clipped_mean, rounding=rounding))
    ways: dict[str, tuple[Any, Any, Any]] = {
        "clipped": (add_extremes, merge_extremes, clipped),
        "mean": (add_sums, np.add, mean_of_sums),
        "median": (add_readings, append_readings, median_of_readings),
    }
    add, merge, finish = ways[average]
    found: list[Delayed] = []
    for top, bottom in pairwise(np.cumsum((0, *rows)).tolist()):  # of a file by rows no chunk is read twice, and few rows are held
        sums = fold_blocks(whole_frames(frames[:, top:bottom]), partial(add, valid=valid), merge, *found[-1:], partial_sums=1)
        found.append(delayed(finish, pure=True)(sums))
    strips = [da.from_delayed(each, (size, frames.shape[2]), np.float32) for each, size in zip(found, rows, strict=True)]
    image: da.Array = da.concatenate(strips).rechunk(-1)
    return image


# ---------------------------------------------------------------------------------------------------------------- mean


def add_sums(so_far: NDArray[np.float64] | None, block: Frames, *before: Any, valid: Valid) -> NDArray[np.float64]:
    """Sum and number (2, y, x) of the readings; what comes before says no more than that its turn has come."""
    sums = np.zeros((2, *block.shape[1:])) if so_far is None else so_far.copy()
    for frame in block:
        values, good = values_and_known(frame, valid)
        np.add(sums[0], values, out=sums[0], where=good)
        sums[1] += good
    return sums


def mean_of_sums(sums: NDArray[np.float64]) -> Floats:
    """The mean reading; NaN where there was none."""
    return np.divide(sums[0], sums[1], out=np.full(sums.shape[1:], np.nan), where=sums[1] > 0).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- clipped


def add_extremes(so_far: Planes | None, block: Frames, *before: Any, valid: Valid) -> Planes:
    """The planes above, with the readings of a block added."""
    if so_far is None:
        planes = np.zeros((SMALLEST + 1, *block.shape[1:]))
        planes[LARGEST : SECOND + 1], planes[SMALLEST] = -np.inf, np.inf
    else:
        planes = so_far.copy()
    for frame in block:
        add_frame(planes, readings(frame, valid))
    return planes


@kernel
def add_frame(planes, frame):  # type: ignore[no-untyped-def]
    """Add the readings of a frame (y, x) to the planes."""
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            value = np.float64(frame[row, column])
            if not np.isnan(value):
                planes[N, row, column] += 1
                planes[SUM, row, column] += value
                planes[SQUARES, row, column] += value * value
                add_large(planes, row, column, value)
                planes[SMALLEST, row, column] = min(planes[SMALLEST, row, column], value)


@kernel
def add_large(planes, row, column, value):  # type: ignore[no-untyped-def]
    """Put a reading where it belongs among the two largest."""
    if value > planes[LARGEST, row, column]:
        planes[SECOND, row, column] = planes[LARGEST, row, column]
        planes[LARGEST, row, column] = value
    elif value > planes[SECOND, row, column]:
        planes[SECOND, row, column] = value


def merge_extremes(first: Planes, second: Planes) -> Planes:
    """The planes of the readings of two parts of the frames."""
    planes = first.copy()
    merge_into(planes, second)
    return planes


@kernel
def merge_into(planes, others):  # type: ignore[no-untyped-def]
    """The planes of all, in place of those of the first."""
    for row in range(planes.shape[1]):
        for column in range(planes.shape[2]):
            for plane in range(SQUARES + 1):
                planes[plane, row, column] += others[plane, row, column]
            add_large(planes, row, column, others[LARGEST, row, column])
            add_large(planes, row, column, others[SECOND, row, column])
            planes[SMALLEST, row, column] = min(planes[SMALLEST, row, column], others[SMALLEST, row, column])


def clipped_mean(planes: Planes, rounding: float) -> Floats:
    """The mean of the readings but for those that stand out; NaN where there was none."""
    numbers = np.arange(FEWEST, int(planes[N].max()) + 1)
    limits = np.concatenate([np.full(FEWEST, np.inf), stdtrit(numbers - 2.0, 1 - CHANCE / 2)])  # by the number of readings
    mean = np.empty(planes.shape[1:], np.float32)
    average_rest(planes, limits, rounding, mean)
    return mean


@kernel
def average_rest(planes, limits, rounding, mean):  # type: ignore[no-untyped-def]
    """The mean of each pixel's readings without those that stand out from the others."""
    for row in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            n, total, squares = planes[N, row, column], planes[SUM, row, column], planes[SQUARES, row, column]
            large, second, small = planes[LARGEST, row, column], planes[SECOND, row, column], planes[SMALLEST, row, column]
            # the two largest together first: one of them would hide the other
            if n >= FEWEST + 1 and stands_out(second, n - 1, total - large, squares - large * large, limits, rounding):
                n, total, squares = n - 2, total - large - second, squares - large * large - second * second
            elif n >= FEWEST and stands_out(large, n, total, squares, limits, rounding):
                n, total, squares = n - 1, total - large, squares - large * large
            if n >= FEWEST and stands_out(small, n, total, squares, limits, rounding):
                n, total = n - 1, total - small
            mean[row, column] = total / n if n > 0 else np.nan


@kernel
def stands_out(value, n, total, squares, limits, rounding):  # type: ignore[no-untyped-def]
    """Whether one of n values lies further from the mean of the others than these vary: Student's t with n − 2 degrees of freedom."""
    others = n - 1
    mean = (total - value) / others
    variance = max((squares - value * value - others * mean * mean) / (others - 1), 0.0) + rounding
    return (value - mean) ** 2 > limits[int(n)] ** 2 * variance * (1 + 1 / others)


def mean_of_three(planes: Planes) -> Floats:
    """The mean of the readings of three frames but for those that stray from the middle one; NaN where there was none."""
    known = planes[N] == 3
    small, middle, large = (np.where(known, planes[plane], 0.0) for plane in (SMALLEST, SECOND, LARGEST))
    low, high = find_stray(np.stack([middle - small, large - middle]), middle, known)
    return mean_of_sums(np.stack([planes[SUM] - low * small - high * large, planes[N] - low - high]))


def mean_of_two(planes: Planes) -> Floats:
    """The mean of the readings of two frames, with a warning where one of them strays; NaN where there was none."""
    known = planes[N] == 2
    small, large = (np.where(known, planes[plane], 0.0) for plane in (SMALLEST, LARGEST))
    count = np.count_nonzero(find_stray((large - small)[None], small, known))
    if count:
        warnings.warn(
            f"two frames that are averaged differ in {count} pixels by far more than noise, as by zingers; of two nobody can tell "
            "which one is wrong: their mean is taken. Give three frames or more, of which what strays is left out",
            UserWarning,
            stacklevel=2,
        )
    return mean_of_sums(planes[: SUM + 1][::-1])


# -------------------------------------------------------------------------------------------------------------- median


def add_readings(so_far: Floats | None, block: Frames, *before: Any, valid: Valid) -> Floats:
    """All readings."""
    found = readings(block, valid)
    return found if so_far is None else np.concatenate([so_far, found])


def append_readings(first: Floats, second: Floats) -> Floats:
    """The readings of two parts of the frames."""
    return np.concatenate([first, second])


def median_of_readings(values: Floats) -> Floats:
    """The median reading; NaN where there was none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        return np.nanmedian(values, axis=0).astype(np.float32)
