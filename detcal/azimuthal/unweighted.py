"""Means in which each pixel counts the same: ⟨I⟩ = Σc·I/Σc, with I = (raw − dark)/norm and c the share of a pixel in the ring.

They are what weighted means, Σc·(raw − dark)/Σc·norm, are of entries with the shares c/norm. What these count is then Σc/norm, and what
they divide by is Σc, the number of pixels.
"""

from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.azimuthal.calibration import AzimuthalBins
from detcal.frames.readings import Floats


def without_weights(bins: AzimuthalBins) -> AzimuthalBins:
    """The bins with the shares c/norm, lazily; norms of about 1, so that the squares of these are numbers of float32."""
    parts = (bins.data.data, bins.indices.data, bins.norm.data)
    shares = da.from_delayed(dask.delayed(over_norms)(*parts), bins.data.shape, np.float32)
    return replace(bins, data=xr.DataArray(shares, dims="entry"))


def over_norms(shares: Any, pixels: Any, norm: Any) -> Floats:
    """Shares over relative norms."""
    norms = np.asarray(norm).ravel()
    return np.asarray(shares) / (norms[np.asarray(pixels)] * scale_of(norms))


def scale_of(norm: Any) -> NDArray[np.float32]:
    """What makes norms about 1: a power of two, by which nothing is rounded."""
    return np.exp2(-np.frexp(np.asarray(norm).max())[1], dtype=np.float32)


def counted_by_weight(profiles: xr.Dataset, bins: AzimuthalBins, weight: str, alone_is_unknown: bool) -> xr.Dataset:
    """Profiles whose count is the number of pixels again, and so is what they are divided by.

    Of a single pixel there is no spread: its errors are NaN where they come from that.
    """
    scale = da.from_delayed(dask.delayed(scale_of)(bins.norm.data), (), np.float32)
    pixels = profiles[weight].copy(data=profiles[weight].data * scale)
    if bins.split == "no":
        pixels = pixels.copy(data=np.rint(pixels.data))
    found = {"count": pixels.assign_attrs(profiles["count"].attrs), weight: pixels}
    if alone_is_unknown:
        found |= {name: profiles[name].where(pixels > 1).assign_attrs(profiles[name].attrs) for name in ("sem", "std")}
    return profiles.assign(found)
