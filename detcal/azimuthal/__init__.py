"""Frames in rings: integration, sigma-clipping, quantiles."""

from detcal.azimuthal.background import radial_background
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.filters import median_filter, quantile_filter
from detcal.azimuthal.geometry import build_bins
from detcal.azimuthal.hot_pixels import find_hot_pixels
from detcal.azimuthal.operations import (
    integrate,
    integrate_azimuthal,
    outlier_mask,
    sigma_clip,
)
from detcal.azimuthal.plots import plot_frame, plot_profiles

__all__ = [
    "AzimuthalBins",
    "build_bins",
    "find_hot_pixels",
    "integrate",
    "integrate_azimuthal",
    "median_filter",
    "outlier_mask",
    "plot_frame",
    "plot_profiles",
    "quantile_filter",
    "radial_background",
    "sigma_clip",
]
