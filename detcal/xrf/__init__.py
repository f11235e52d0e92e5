"""X-ray fluorescence scans: smoothing, regular grids from scattered positions, element maps."""

from detcal.xrf.calibration import ScanGrid
from detcal.xrf.convert import convert_scan
from detcal.xrf.elements import element_maps
from detcal.xrf.grid import build_scan_grid
from detcal.xrf.lines import calibrate_energy
from detcal.xrf.operations import regrid, regrid_rate
from detcal.xrf.spectra import smooth_spectra, summary_spectra

__all__ = [
    "ScanGrid",
    "build_scan_grid",
    "calibrate_energy",
    "convert_scan",
    "element_maps",
    "regrid",
    "regrid_rate",
    "smooth_spectra",
    "summary_spectra",
]
