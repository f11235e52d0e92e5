"""Forward models with known truth, seeded: what a detector would have recorded, for tests, notebooks and the demo.

Every frame has its own random stream, so that a stack does not depend on how it is cut into blocks. Nothing here touches files.
"""

from detcal.simulate.distortion import HoleGrid, distort, hole_grid, undistort
from detcal.simulate.response import (
    ROWS_A_STRIP,
    Detector,
    beam_sweep,
    ct_frames,
    dark_frames,
    detector,
    flat_frames,
    poisson_deviates,
    reconstruct_slice,
    swept_beam,
    transmission,
)
from detcal.simulate.sensor import thick_sensor_frames
from detcal.simulate.xrf import PAINTS, maxrf_scan, paint, paint_spectra, true_map

__all__ = [
    "PAINTS",
    "ROWS_A_STRIP",
    "Detector",
    "HoleGrid",
    "beam_sweep",
    "ct_frames",
    "dark_frames",
    "detector",
    "distort",
    "flat_frames",
    "hole_grid",
    "maxrf_scan",
    "paint",
    "paint_spectra",
    "poisson_deviates",
    "reconstruct_slice",
    "swept_beam",
    "thick_sensor_frames",
    "transmission",
    "true_map",
    "undistort",
]
