"""Quantiles and medians of frames in rings, as lazy graphs."""

import xarray as xr

from detcal.azimuthal.blocks import quantile_block
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.normalization import normalized
from detcal.azimuthal.profiles import QUANTITIES, as_profiles, readings_for, rings_for
from detcal.azimuthal.several import over_geometries
from detcal.errors import InputError, are_two_numbers
from detcal.frames.arrays import ArrayLike
from detcal.frames.maps import over_maps
from detcal.frames.normalization import find_normalization


@over_geometries
@over_maps()
def quantile_filter(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    quantiles: tuple[float, float] = (0.4, 0.6),
    normalization: ArrayLike | float | str | None = None,
    errors: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """The mean between two quantiles of each ring, lazily; with two equal ones the quantile itself.

    Pixels are sorted by I = (raw − dark)/norm and weigh c·norm, c the share in the ring. On an edge of the range lies part of a pixel's
    weight, so that a narrow range is never empty. A single quantile on the border of two pixels is the mean of both. Weights are rounded
    to 2^-19 of the largest in the ring, or less: pixels that differ by no more may weigh the same.

    Parameters
    ----------
    frames, bins, normalization, dummy
        As for `integrate`.
    quantiles
        The lower and the upper one, from 0 to 1; two equal ones give that quantile itself.
    errors
        Give errors too, from the spread in each ring; that takes longer.

    Returns
    -------
    Dataset (frame, radial), or (frame, azimuthal, radial)
        intensity, and count, the number of pixels with a reading. In a ring without any NaN and 0.
        With errors also sem, the standard error, by the values about a quantile (of whole counts, of which many are equal, as if each
        were spread over its unit: the quantile itself goes in steps), or by what lies between the two; and std, the standard
        deviation of a pixel, half of the distance between the quantiles 15.9 % and 84.1 %. NaN of a single pixel; sem of the quantiles 0
        and 1 too.

    Raises
    ------
    InputError
        Frames of another shape than the bins, quantiles that are none, a normalization as for `integrate`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, quantile_filter
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, ::4] = 9999
    >>> quantile_filter(frame, bins, quantiles=(0.3, 0.6)).intensity.values.tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    if not are_two_numbers(quantiles) or not 0 <= quantiles[0] <= quantiles[1] <= 1:
        raise InputError(f"expected two rising quantiles from 0 to 1, got {quantiles}")
    stack, valid = readings_for(bins, frames, dummy)
    low, high = map(float, quantiles)
    factors = find_normalization(stack, normalization)
    options = {"valid": valid, "quantiles": (low, high), "errors": errors} | rings_for(stack, bins, frames)
    names = QUANTITIES if errors else ("intensity", "count")
    found = as_profiles(names, quantile_block, stack, bins, options)
    return normalized(found, factors)


@over_geometries
@over_maps()
def median_filter(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    normalization: ArrayLike | float | str | None = None,
    errors: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """The weighted median of each ring: `quantile_filter` with quantiles (0.5, 0.5).

    Parameters
    ----------
    frames, bins, normalization, dummy
        As for `integrate`.
    errors
        Give errors too, from the spread in each ring; that takes longer.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, median_filter
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, ::4] = 9999
    >>> median_filter(frame, bins).intensity.values.tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    return quantile_filter(frames, bins, quantiles=(0.5, 0.5), normalization=normalization, errors=errors, dummy=dummy)
