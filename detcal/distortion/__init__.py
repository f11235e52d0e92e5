"""A camera's distortion from one image of a hole grid, and frames without it."""

from detcal.distortion.calibration import DistortionMap, GridPoints, OverlapMatrix
from detcal.distortion.geometry import fit_distortion
from detcal.distortion.matrix import build_overlaps
from detcal.distortion.operations import correct_distortion, uncorrect
from detcal.distortion.plots import plot_distortion
from detcal.distortion.points import find_grid_points

__all__ = [
    "DistortionMap",
    "GridPoints",
    "OverlapMatrix",
    "build_overlaps",
    "correct_distortion",
    "find_grid_points",
    "fit_distortion",
    "plot_distortion",
    "uncorrect",
]
