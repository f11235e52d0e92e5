"""Darks and flats beside the frames that they are of: the same detector took both, and flags the same numbers in both."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from detcal.frames.flags import AS_RECORDED, MISSING, RANGE, by_attributes, can_hold, numbers_of
from detcal.frames.stack import default_dims
from detcal.frames.valid import recorded_dtype


def with_flags_of(frames: xr.DataArray, image: Any, name: str) -> Any:
    """A dark or a flat with the flags of its frames as attributes, where it says nothing itself.

    But for 0, and numbers from 0 on below a valid_min: in a dark these are mostly readings, and negative ones where it was made real.

    Parameters
    ----------
    frames : (frame, y, x)
        Whose attributes are heeded.
    image : (y, x), (frame, y, x), or anything else
        What is no image stays as it is.
    name
        What to call it in an error.
    """
    if np.ndim(image) < 2:
        return image
    found = image if isinstance(image, xr.DataArray) else xr.DataArray(image, dims=default_dims(image, name))
    dtype = recorded_dtype(found)
    flags = flags_for(frames.attrs, dtype)
    if not flags or by_attributes(found.attrs, dtype) is not None:
        return image
    return found.assign_attrs(flags)


def flags_for(attrs: Mapping[Any, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The flags among the attributes of frames, or of what was made of them, that darks and flats of a type may have too."""
    names = {name: name if AS_RECORDED + name not in attrs else AS_RECORDED + name for name in (*RANGE, MISSING)}
    given = {name: numbers_of(name, attrs[said]) for name, said in names.items() if attrs.get(said) is not None}
    missing = [number for number in given.get(MISSING, ()) if number < 0 or (number > 0 and can_hold(dtype, number))]  # neither 0 nor NaN
    ends = given.get("valid_range", ())
    low = max([*given.get("valid_min", ()), *ends[:1]], default=-np.inf)
    high = min([*given.get("valid_max", ()), *ends[1:]], default=np.inf)
    found: dict[str, Any] = {MISSING: missing} if missing else {}
    found |= {"valid_min": min(low, 0.0)} if np.isfinite(low) and dtype.kind in "iu" else {}
    return found | ({"valid_max": high} if np.isfinite(high) else {})
