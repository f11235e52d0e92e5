"""What each frame is divided by: a monitor, a transmission, an exposure."""

from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.maps import sizes_of_map

NAME = "normalization"  # of the coordinate, where the numbers have no name of their own
ATTRIBUTE = "normalized_by"  # of what was divided: the name of that coordinate


def find_normalization(frames: xr.DataArray, given: Any) -> xr.DataArray | None:
    """The factors of the frames, if they have any."""
    return None if given is None else factors_of(frames, given)


def factors_of(frames: xr.DataArray, given: Any, what: str = "frames", option: str = NAME) -> xr.DataArray:
    """A positive number for each frame, under the name of the frames' coordinate or attribute that it is, or else that of the option.

    Parameters
    ----------
    frames
        From `as_stack`.
    given
        A number, one for each frame (of a map, of which frames know their places, also by row and column), or the name of a coordinate or
        an attribute.
    what, option
        What the frames are, and the option, for an error.

    Raises
    ------
    InputError
        No such coordinate, another number of numbers than of frames, or what is not positive.
    """
    named = isinstance(given, str)
    if named and given not in frames.coords and not isinstance(frames.attrs.get(given), int | float | np.number):
        known = ", ".join(map(str, frames.coords)) or "none"
        read = "; a dataset is read by get_array(path, dataset), in a recipe by { path, dataset, frames }" if "/" in given else ""
        raise InputError(f"expected a coordinate of the {what} as {option}, got {given!r}: they have {known}{read}")
    if not named and option in frames.coords:
        raise InputError(f"expected {what} without a coordinate {option}, beside a {option} that is given: rename it, or give its name")
    source: Any = frames.coords.get(given, frames.attrs.get(given)) if named else given
    numbers, of_map = np.asarray(source), tuple(sizes_of_map(frames.coords).values())
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"expected numbers as {option}, got {numbers.dtype} {given!r:.60}")
    if of_map and numbers.shape == of_map:
        numbers = numbers.ravel()
    if numbers.ndim == 0:
        numbers = np.full(len(frames), numbers)
    if numbers.shape != (len(frames),):
        each = f"{len(frames)} {what}" + (f", {of_map} of a map" if of_map else "")
        raise InputError(
            f"expected a {option} for each of the {each}, or one for all, got {numbers.shape} numbers: in a recipe "
            "{ path, dataset, frames } chooses some"
        )
    numbers = numbers.astype(float)
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers > 0)))
    if bad.size:
        more = f" and {bad.size - 1} more that are not" if bad.size > 1 else ""
        raise InputError(f"expected positive numbers as {option}, got {numbers[bad[0]]:g} for frame {bad[0]}{more}: leave such {what} out")
    units = getattr(source, "attrs", {}).get("units")
    attrs = {} if units is None else {"units": units}
    return xr.DataArray(numbers, dims="frame", name=given if named else option, attrs=attrs)
