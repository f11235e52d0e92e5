"""X-ray fluorescence scans: smoothing, regular grids from scattered positions, element maps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from detcal.xrf.calibration import ScanGrid
from detcal.xrf.convert import convert_crono, convert_scan
from detcal.xrf.elements import element_maps
from detcal.xrf.grid import build_scan_grid
from detcal.xrf.lines import calibrate_energy
from detcal.xrf.operations import regrid, regrid_rate, smooth_spectra, summary_spectra

if TYPE_CHECKING:
    from detcal.stores.sources.scans import open_crono, open_maps, open_spectra

# Readers touch files, so that they live in the stores, which know the subjects: imported on first use
READERS = ("open_crono", "open_maps", "open_spectra")

__all__ = [
    "ScanGrid",
    "build_scan_grid",
    "calibrate_energy",
    "convert_crono",
    "convert_scan",
    "element_maps",
    "open_crono",
    "open_maps",
    "open_spectra",
    "regrid",
    "regrid_rate",
    "smooth_spectra",
    "summary_spectra",
]


def __getattr__(name: str) -> Any:
    if name not in READERS:
        raise AttributeError(f"module 'detcal.xrf' has no attribute {name!r}")
    return getattr(import_module("detcal.stores.sources.scans"), name)
