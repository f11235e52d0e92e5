"""Profiles drawn back on the detector."""

import dask.array as da
import xarray as xr

from detcal.azimuthal.blocks import draw
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.normalization import denormalized
from detcal.azimuthal.profiles import as_bins
from detcal.errors import InputError
from detcal.frames.corrections import attributes_of
from detcal.frames.graph import map_frames
from detcal.frames.maps import over_maps
from detcal.frames.stack import DIMS


@over_maps(keeps=1)
def radial_background(profile: xr.DataArray, bins: AzimuthalBins) -> xr.DataArray:
    """Profiles drawn back on the image, lazily: the counts that a frame would have if it were the same all around.

    Parameters
    ----------
    profile : (frame, radial), or (row, column, radial)
        As `intensity` of a filter with these bins; linear between the bins' centres, NaN beyond them and next to NaN.
        What was divided by a normalization is multiplied by it again.
    bins
        Not those of a 2-D integration.

    Returns
    -------
    DataArray (frame, y, x) float32
        profile·norm + dark, with the frames' coordinates: frames − background are the spots.

    Raises
    ------
    InputError
        If the profile has other dimensions, or the bins are of a 2-D integration.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, median_filter, radial_background
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, 10, 14] = 9999
    >>> spots = frame - radial_background(median_filter(frame, bins).intensity, bins)
    >>> float(spots.max())
    9949.0
    """
    if as_bins(bins).azimuths is not None:
        raise InputError("expected bins of rings, got those of a 2-D integration: build them without npt_azimuth")
    rings = len(bins.centres)
    if not isinstance(profile, xr.DataArray) or set(profile.dims) != {"frame", "radial"} or profile.sizes["radial"] != rings:
        came = dict(profile.sizes) if isinstance(profile, xr.DataArray) else type(profile).__name__
        raise InputError(f"expected a DataArray (frame, radial) of {rings} rings, as intensity of a filter with these bins, got {came}")
    profile = denormalized(profile).transpose("frame", "radial")
    lazy = profile.copy(data=da.asarray(profile.data))
    return map_frames(
        draw, lazy, {"images": bins.images_in_memory}, dims=DIMS, sizes=dict(zip(DIMS[1:], bins.shape, strict=True)), name="background",
        attrs=attributes_of(profile, {"units": "counts"}, undone=bins.corrections),
    )  # fmt: skip
