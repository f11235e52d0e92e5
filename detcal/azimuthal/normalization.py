"""Profiles of frames that were divided by a monitor, a transmission, an exposure; and as they were before."""

import dask.array as da
import numpy as np
import xarray as xr

from detcal.frames.normalization import ATTRIBUTE, factors_of

DIVIDED, MULTIPLIED = ("intensity", "sem", "std"), ("sum_normalization",)


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
