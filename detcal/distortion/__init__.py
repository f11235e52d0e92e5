"""A camera's distortion from one image of a hole grid, and frames without it."""

from detcal.distortion.calibration import DistortionMap, GridPoints
from detcal.distortion.geometry import fit_distortion
from detcal.distortion.points import find_grid_points

__all__ = ["DistortionMap", "GridPoints", "find_grid_points", "fit_distortion"]
