"""What the intensities of each frame are divided by: a monitor, a transmission, an exposure."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError

NAME = "normalization"  # of the coordinate, where the numbers have no name of their own
ATTRIBUTE = "normalized_by"  # of what was divided: the name of that coordinate
DIVIDED, MULTIPLIED = ("intensity", "sem", "std"), ("sum_normalization",)


def find_normalization(frames: xr.DataArray, given: Any) -> xr.DataArray | None:
    """The factors of the frames, if they have any."""
    return None if given is None else factors_of(frames, given)


def factors_of(frames: xr.DataArray, given: Any) -> xr.DataArray:
    """A positive number for each frame, under the name of the frames' coordinate that it is, or else NAME.

    Raises
    ------
    InputError
        No such coordinate, another number of numbers than of frames, or what is not positive.
    """
    if isinstance(given, str) and given not in frames.coords:
        known = ", ".join(map(str, frames.coords)) or "none"
        raise InputError(f"expected a coordinate of the frames as normalization, got {given!r}: they have {known}")
    if not isinstance(given, str) and NAME in frames.coords:
        raise InputError(f"expected frames without a coordinate {NAME}, beside a normalization that is given: rename it, or give its name")
    numbers = np.asarray(frames.coords[given] if isinstance(given, str) else given)
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"expected numbers as normalization, got {numbers.dtype} {given!r:.60}")
    if numbers.ndim == 0:
        numbers = np.full(len(frames), numbers)
    if numbers.shape != (len(frames),):
        raise InputError(f"expected a normalization for each of the {len(frames)} frames, or one for all, got {numbers.shape} numbers")
    numbers = numbers.astype(float)
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers > 0)))
    if bad.size:
        more = f" and {bad.size - 1} more that are not" if bad.size > 1 else ""
        raise InputError(
            f"expected positive numbers as normalization, got {numbers[bad[0]]:g} for frame {bad[0]}{more}: leave such frames out"
        )
    units = getattr(frames.coords[given] if isinstance(given, str) else given, "attrs", {}).get("units")
    attrs = {} if units is None else {"units": units}
    return xr.DataArray(numbers, dims="frame", name=given if isinstance(given, str) else NAME, attrs=attrs)


def normalized(profiles: xr.Dataset, factors: xr.DataArray | None) -> xr.Dataset:
    """Profiles of frames that were so much brighter, or longer exposed; their factors become a coordinate."""
    if factors is None:
        return profiles
    by = factors.astype(np.float32).data
    found = {}
    for name in (*DIVIDED, *MULTIPLIED):
        if name in profiles:
            line = profiles[name]
            lazy = da.from_array(by, chunks=(line.data.chunks[0],)).reshape((-1, *(1,) * (line.ndim - 1)))
            attrs = {**line.attrs, ATTRIBUTE: factors.name}
            if name in DIVIDED and "units" in factors.attrs:
                attrs["units"] = f"{line.attrs['units']}/({factors.attrs['units']})"
            found[name] = line.copy(data=line.data / lazy if name in DIVIDED else line.data * lazy).assign_attrs(attrs)
    return profiles.assign(found).assign_coords({factors.name: factors})


def denormalized(profile: xr.DataArray) -> xr.DataArray:
    """A profile as it was before it was normalized."""
    if ATTRIBUTE not in profile.attrs:
        return profile
    factors = factors_of(profile, profile.attrs[ATTRIBUTE])
    attrs = {name: value for name, value in profile.attrs.items() if name != ATTRIBUTE}
    return (profile * factors.astype(np.float32)).drop_attrs(deep=False).assign_attrs(attrs)
