"""From which number on a reading is saturated."""

from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.valid import recorded_dtype


def find_limit(frames: xr.DataArray, saturation: float | None) -> float | None:
    """The smallest number that is saturated, in frames as they were recorded; None if nobody says, and their type has no largest.

    The caller says, or the file (the number after its valid_max), or the type of integers of up to 16 bits: its largest. Wider ones are
    not filled by detectors, and flag what is no reading. Fewer bits than the type has, `detcal.response.saturation` finds in a sweep.

    Raises
    ------
    InputError
        A saturation that is no number.
    """
    if saturation is not None:
        if isinstance(saturation, bool | str) or not 0 < saturation < np.inf:
            raise InputError(f"expected saturation as a number of counts above 0, got {saturation!r}")
        return float(saturation)
    dtype = recorded_dtype(frames)
    limits = [float(np.iinfo(dtype).max)] if dtype.kind in "iu" and dtype.itemsize <= 2 else []
    highest = said_highest(frames)
    if highest is not None:
        limits.append(float(np.nextafter(np.float32(highest), np.float32(np.inf))))
    return min(limits, default=None)


def said_highest(frames: xr.DataArray) -> float | None:
    """The largest number that is a reading, by the file; None if it does not say."""
    highest: Any = frames.attrs.get("valid_max")
    return float(highest) if isinstance(highest, int | float | np.number) and np.isfinite(highest) else None
