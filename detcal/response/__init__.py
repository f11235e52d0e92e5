"""Pixel-wise detector response: gain from a beam sweep, and the correction of CT stacks (Croton et al. 2019)."""

from detcal.response.calibration import Response
from detcal.response.cleaning import remove_zingers
from detcal.response.logarithm import minus_log
from detcal.response.operations import correct_response, fit_response
from detcal.response.plots import plot_pixel_calibrations
from detcal.response.resizing import crop, rebin
from detcal.response.rings import ring_amplitude

__all__ = [
    "Response",
    "correct_response",
    "crop",
    "fit_response",
    "minus_log",
    "plot_pixel_calibrations",
    "rebin",
    "remove_zingers",
    "ring_amplitude",
]
