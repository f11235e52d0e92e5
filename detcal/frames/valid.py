"""What of a stack was measured: one rule for the frames, darks, flats and variances of all subjects; and the one check of masks.

A pixel's reading was not measured if it is NaN or infinite, masked, or flagged. Masks add up: each becomes NaN. Of flags, numbers that
stand for "no reading", the first source that speaks wins:

1. the caller: `dummy` of an operation;
2. the attributes of the frames, which `open_frames` and readers put there: valid_min, valid_max and missing_value, a number or several
   (CF conventions). Our own results have missing_value = NaN: in them no number is a flag;
3. the detector of a geometry, as pyFAI knows it: the whole numbers within dummy ± delta_dummy;
4. the type in which the frames were recorded: the largest number of an unsigned one of 16 bits or more.

In a result all numbers are readings: what only a geometry can say of raw frames is to be said before the first operation. A recipe does
so by itself.

A dark or a flat that says nothing itself has the flags of the frames that it is beside, see `detcal.frames.beside`. Negative numbers are
readings, unless a source says otherwise; where nobody says anything of whole ones, a warning does. Numbers are compared as float32, as
which kernels take them.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError, are_two_numbers
from detcal.frames.arrays import ArrayLike
from detcal.frames.flags import AS_RECORDED, MISSING, RANGE, Dummy, Flags, Run, by_attributes, by_caller, by_detector, by_type, can_hold
from detcal.frames.graph import map_frames
from detcal.frames.negative import left_out, watched
from detcal.frames.readings import ALL_NUMBERS, Valid, values_and_known

RECORDED = "recorded_dtype"  # attribute: the type of frames that became floats, so that masked pixels can be NaN
MOST_FLAGS = 100  # numbers that follow each other, of a detector
# Attributes that say which numbers of frames are readings, or were when they were raw
FLAGS = (*RANGE, MISSING, RECORDED, *(AS_RECORDED + name for name in (*RANGE, MISSING)))


# ---------------------------------------------------------------------------------------------------------- the rule


def find_readings(
    stack: xr.DataArray,
    *,
    dummy: Any = None,
    detector: Dummy | None = None,
    largest_is_flag: bool = True,
    beside: bool = False,
    variance: bool = False,
) -> tuple[xr.DataArray, Valid]:
    """The stack, and which of its numbers are readings.

    Parameters
    ----------
    stack : (frame, y, x)
        From `as_stack`.
    dummy
        What the caller of an operation gave.
    detector
        dummy and delta_dummy of the detector that took the frames, where a geometry says which it is.
    largest_is_flag
        False for images in which the largest number is a bright spot that saturates.
    beside
        The stack goes with others, as a dark or a variance: a dummy that it cannot hold is that of the others.
    variance
        The stack is one: numbers below 0 are none, and need no word.

    Returns
    -------
    stack
        As it came; or with NaN for flags that are too many for a kernel, replaced while blocks are read.
    valid
        For the kernels.

    Raises
    ------
    InputError
        A dummy that is no number, or that the frames cannot hold; attributes that are none.

    Warns
    -----
    UserWarning
        0 counts are no reading, by nothing but the detector's model: X-Spectrum's. Once frames are computed: there are numbers below 0 that
        are readings, though the detector's model flags them, since a source before it does not; or since nobody says anything of them.
    """
    dtype = recorded_dtype(stack)
    if beside and dummy is not None and not can_hold(dtype, dummy):
        dummy = None
    sources = by_caller(dummy, dtype), by_attributes(stack.attrs, dtype), by_detector(detector, dtype)
    flags = next((found for found in sources if found is not None), by_type(dtype) if largest_is_flag else Flags())
    if flags is sources[-1] and any(first <= 0 <= last for first, last in flags.runs):
        warnings.warn(
            "the detector's model, pyFAI's, has it that 0 counts are no reading, so that few counts read too high: where 0 is a reading,"
            " give dummy=, the number that is none, or dummy=nan",
            stacklevel=4,
        )
    left = [] if flags is sources[-1] or variance else left_out(flags, sources[-1])
    if left or (dtype.kind == "i" and not any(sources) and not variance):
        stack = watched(stack, left)
    return for_kernels(stack, flags, dtype)


def recorded_dtype(stack: xr.DataArray) -> np.dtype[Any]:
    """The type in which frames were recorded."""
    return np.dtype(stack.attrs.get(RECORDED, stack.dtype))


def for_kernels(stack: xr.DataArray, flags: Flags, dtype: np.dtype[Any]) -> tuple[xr.DataArray, Valid]:
    """Flags as one range and one run, which is what kernels look for; a run at an end of the type is cut off by the range.

    Whatever else there is becomes NaN before.
    """
    valid, runs = ALL_NUMBERS.within(*inside(flags.low, flags.high)), list(flags.runs)
    if len(runs) > 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if runs[0][0] <= limits.min:
            valid, runs = valid.within(float(np.nextafter(np.float32(runs[0][1]), np.float32(np.inf))), valid.most), runs[1:]
        if len(runs) > 1 and runs[-1][1] >= np.float32(limits.max):
            valid, runs = valid.within(valid.least, float(np.nextafter(np.float32(runs[-1][0]), -np.float32(np.inf)))), runs[:-1]
    for run in runs[1:]:
        stack = without(stack, of_run(run))
    return stack, valid if not runs else of_run(runs[0], valid)


def of_run(run: Run, valid: Valid = ALL_NUMBERS) -> Valid:
    """The readings that are left without a run of numbers."""
    return valid._replace(flag=float(run[0]), more=float(run[1] - run[0]))


def inside(low: float, high: float) -> tuple[float, float]:
    """The ends of a range as float32, rounded inwards: 4294967294 is the largest count, say, and would be 4294967296, as the flag is."""
    with np.errstate(over="ignore"):
        least, most = np.float32(low), np.float32(high)
    if float(least) < low:
        least = np.nextafter(least, np.float32(np.inf))
    if float(most) > high:
        most = np.nextafter(most, -np.float32(np.inf))
    return float(least), float(most)


def without(data: xr.DataArray, valid: Valid) -> xr.DataArray:
    """Frames or spectra with NaN for what is no reading, lazily, as reals."""
    kind = float_dtype(data.dtype)
    return map_frames(nan_for_flags, data, {"valid": valid}, whole=False, dtype=kind, name=data.name, attrs=data.attrs)


def nan_for_flags(block: NDArray[Any], valid: Valid) -> NDArray[np.floating[Any]]:
    """A block as reals with NaN for what is no reading."""
    found: NDArray[np.floating[Any]] = block.astype(float_dtype(block.dtype))
    found[~values_and_known(block, valid)[1]] = np.nan
    return found


def spectra_readings(spectra: xr.DataArray) -> xr.DataArray:
    """Spectra over dask with NaN for what their attributes say is no reading; the same, if these say nothing.

    Their type says nothing: a channel that holds its largest number would cost all others a second pass, to become reals.
    """
    flags = by_attributes(spectra.attrs, spectra.dtype)
    if flags is None or flags == Flags():
        return spectra
    found = without(spectra, ALL_NUMBERS.within(*inside(flags.low, flags.high)))
    for run in flags.runs:
        found = without(found, of_run(run))
    return found.drop_attrs(deep=False).assign_attrs(settled(spectra.attrs))


def readings_alone(values: NDArray[Any], frames: xr.DataArray) -> NDArray[Any]:
    """Some numbers of a stack with NaN for what its attributes say is no reading; as they are, if these say nothing.

    For files that keep no attributes: without these, only what the type says can be known of whole numbers.
    """
    recorded = recorded_dtype(frames)
    flags = by_attributes(frames.attrs, recorded) or (by_type(recorded) if RECORDED in frames.attrs else Flags())
    return values if flags == Flags() else nan_where_flagged(values, flags)


def nan_where_flagged(values: NDArray[Any], flags: Flags) -> NDArray[np.floating[Any]]:
    """Some numbers as reals with NaN for what is flagged."""
    found = nan_for_flags(values, ALL_NUMBERS.within(*inside(flags.low, flags.high)))
    for run in flags.runs:
        found = nan_for_flags(found, of_run(run))
    return found


# ------------------------------------------------------------------------------------------- flags and masks of frames


def with_flags(frames: xr.DataArray, mask: Any = None, dummy: Any = None, valid_range: Any = None) -> xr.DataArray:
    """Frames with what their user knows of them: numbers that are no readings, as attributes; NaN in masked pixels, lazily.

    Parameters
    ----------
    frames : (frame, y, x)
        Over dask.
    mask : (y, x), optional
        True, or not 0: not measured. Frames of integers become reals that hold the same numbers.
    dummy : number or several, optional
        Stand for "no reading"; NaN: no number does.
    valid_range : (low, high), optional
        What is outside is no reading. dummy and valid_range take the place of all that the file says.

    Raises
    ------
    InputError
        A mask of another shape, or a stack; a dummy or range that is none.
    """
    if dummy is not None or valid_range is not None:
        attrs = without_flags(frames.attrs) | checked_flags(dummy, valid_range, recorded_dtype(frames))
        frames = frames.drop_attrs(deep=False).assign_attrs(attrs)
    if mask is None:
        return frames
    height, width = frames.shape[1:]
    masked = da.asarray(as_mask(mask, (height, width), "frames"))
    kind = float_dtype(frames.dtype)
    recorded = {RECORDED: str(recorded_dtype(frames))} if frames.dtype != kind else {}
    return map_frames(mask_block, frames, images=[masked], whole=False, dtype=kind, name=frames.name, attrs=frames.attrs | recorded)


def with_detector(frames: xr.DataArray, detector: Dummy | None) -> xr.DataArray:
    """Frames with what the detector that took them flags, as attributes, for operations that do not know it; not 0, which is mostly a
    reading. As they are, where their own attributes speak, which come first."""
    flags = by_detector(detector, recorded_dtype(frames))
    own = by_attributes(frames.attrs, frames.dtype)
    if own is not None:
        left = left_out(own, flags)
        return watched(frames, left) if left else frames
    if flags is None:
        return frames
    numbers = [number for first, last in flags.runs if last - first < MOST_FLAGS for number in np.arange(first, last + 1).tolist()]
    return frames if not numbers or 0 in numbers else frames.drop_attrs(deep=False).assign_attrs(frames.attrs | {MISSING: numbers})


def checked_flags(dummy: Any, valid_range: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """The attributes that say what a caller gave.

    Raises
    ------
    InputError
        No numbers, a number that the frames cannot hold, or a range that does not rise.
    """
    found: dict[str, Any] = {}
    if valid_range is not None:
        if not are_two_numbers(valid_range) or not valid_range[0] <= valid_range[1]:
            raise InputError(f"expected valid_range as two rising numbers (low, high), got {valid_range!r}")
        found |= {"valid_min": plain(valid_range[0]), "valid_max": plain(valid_range[1])}
    if dummy is not None:
        numbers = list(dummy) if np.ndim(dummy) == 1 and not isinstance(dummy, str) and len(dummy) else [dummy]
        for number in numbers:
            by_caller(number, dtype)
        found[MISSING] = [plain(number) for number in numbers] if len(numbers) > 1 else plain(numbers[0])
    return found


def plain(number: Any) -> Any:
    """A number as Python's own, as attributes of files are."""
    return number.item() if isinstance(number, np.generic) else number


def without_flags(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes without those that say which numbers are readings."""
    return {name: value for name, value in attrs.items() if name not in (*RANGE, MISSING)}


def settled(attrs: Mapping[Any, Any], dummy: float | None = None) -> dict[Any, Any]:
    """The attributes of a result: what was not measured is NaN in it, or the dummy, and all other numbers are readings.

    What flagged its raw frames stays known, for their darks.
    """
    kept = {name: value for name, value in without_flags(attrs).items() if name != RECORDED}
    given = {name: np.asarray(attrs[name]) for name in (*RANGE, MISSING) if name in attrs}
    flagged = {AS_RECORDED + name: attrs[name] for name, each in given.items() if each.dtype.kind in "iuf" and not np.isnan(each).all()}
    return kept | flagged | {MISSING: np.nan if dummy is None else float(dummy)}


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floats that hold the same numbers: float32 for integers of up to 16 bits, else float64."""
    return np.result_type(dtype, np.float32)


def mask_block(block: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
    """A block as floats with NaN in masked pixels."""
    found: NDArray[np.floating[Any]] = block.astype(float_dtype(block.dtype))
    found[:, mask] = np.nan
    return found


def check_nothing_lacks(data: Any, name: str) -> None:
    """Raise if the file of an image lacks a part of it, as `open_frames` says in its attributes: a result would rest on it.

    Raises
    ------
    InputError
        With the file, and what it lacks.
    """
    attrs = getattr(data, "attrs", {})
    if "lacks" in attrs:
        raise InputError(
            f"expected {name} of which nothing is missing, but {attrs.get('source', 'its file')} lacks {attrs['lacks']}: copy or measure it"
            " again, or choose frames that are whole (in Python, then call drop_attrs)"
        )


def as_mask(mask: ArrayLike | None, shape: tuple[int, ...], owner: str) -> NDArray[np.bool_] | da.Array:
    """An image of what is not measured, as booleans; lazy if it came so.

    Parameters
    ----------
    mask : (y, x), or None
        True, not 0, or NaN: not measured. None: all False. A stack of a single image is one.
    shape
        It has to have.
    owner
        Of that shape, for an error: "frames", say.

    Raises
    ------
    InputError
        Another shape, a stack, or no numbers.
    """
    if mask is None:
        return np.zeros(shape, np.bool_)
    check_nothing_lacks(mask, "a mask")
    if isinstance(mask, xr.DataArray):
        mask = (mask.transpose("y", "x") if set(mask.dims) == {"y", "x"} else mask).data
    image: Any = mask if isinstance(mask, da.Array) else np.asarray(mask)
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim == 3:
        raise InputError(f"expected a mask of shape {tuple(shape)} (y, x), as the {owner}, got a stack {image.shape}: give one image")
    if image.shape != tuple(shape):
        raise InputError(f"expected a mask of shape {tuple(shape)} (y, x), as the {owner}, got {image.shape}")
    if image.dtype.kind not in "biuf":
        raise InputError(f"expected a mask of booleans or numbers, got {image.dtype}")
    return image if image.dtype == np.bool_ else image != 0
