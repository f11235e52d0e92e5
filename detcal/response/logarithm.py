"""From transmission to attenuation, which tomography reconstructs from."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of, corrections_of
from detcal.frames.graph import map_frames
from detcal.frames.notes import with_notes
from detcal.frames.readings import Floats, Frames, Valid, readings
from detcal.frames.single import images_too
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings, recorded_dtype


@images_too
def minus_log(frames: ArrayLike, *, floor: float | None = None) -> xr.DataArray:
    """Take −ln of transmissions: the attenuation along each ray, lazily.

    Parameters
    ----------
    frames : (frame, y, x), or an image (y, x), which gives one
        Transmissions, as `correct_response` gives them with a flat.
    floor : transmission, optional
        What is below it is taken for it: behind what absorbs nearly all, noise makes transmissions of 0 and less. None: these are NaN.

    Returns
    -------
    DataArray (frame, y, x), float32
        NaN: not measured, or without a logarithm. Coords and chunks are those of `frames`; with a floor, the coordinate `floored` says how
        many transmissions of each frame were below it.

    Raises
    ------
    InputError
        A floor that is not positive, or frames of counts, integers or corrected without a flat.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import minus_log
    >>> minus_log(np.array([[[1.0, 0.5], [-0.1, np.nan]]]), floor=1e-4).values.round(2)
    array([[[-0.  ,  0.69],
            [ 9.21,   nan]]], dtype=float32)
    """
    if floor is not None and (isinstance(floor, bool | str) or not 0 < floor < np.inf):
        raise InputError(f"expected a floor above 0, got {floor!r}")
    stack = as_stack(frames)
    done = corrections_of(stack)
    if recorded_dtype(stack).kind != "f" or (done and "flat" not in done):
        raise InputError("expected transmissions, got frames of counts: divide by a flat first, with correct_response")
    stack, valid = find_readings(stack)
    attrs = attributes_of(stack, {"units": "1", "long_name": "attenuation"})
    if floor is None:
        return map_frames(log_block, stack, {"valid": valid}, whole=False, name="attenuation", attrs=attrs)
    options = {"valid": valid, "floor": floor}
    return with_notes(map_frames(floored_log, stack, options, whole=False, name="attenuation", attrs=attrs), {"floored": np.int64})


def log_block(block: Frames, valid: Valid) -> Floats:
    """−ln of the readings of a block, NaN where these have none."""
    values = readings(block, valid)
    values[~(values > 0)] = np.nan
    return minus_logarithm(values)


def floored_log(block: Frames, valid: Valid, floor: float) -> tuple[Floats, NDArray[np.float64]]:
    """−ln of the readings of a block, none below a floor, and how many of each frame were (frame, 1, 1)."""
    values = readings(block, valid)
    floored = np.count_nonzero(values < np.float32(floor), axis=(1, 2), keepdims=True).astype(float)
    np.maximum(values, np.float32(floor), out=values)  # NaN stays
    return minus_logarithm(values), floored


def minus_logarithm(values: Floats) -> Floats:
    """−ln, in place."""
    found: Floats = np.log(values, out=values)
    return np.negative(found, out=found)
