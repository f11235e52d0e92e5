"""detcal: out-of-core pipelines from raw X-ray detector frames to corrected science data.

response      pixel-wise gain from a beam sweep; correction of CT stacks
sensor        the blur of a thick sensor as a sparse matrix, and its inverse
distortion    map of a camera's distortion from an image of a hole grid; resampling of frames
azimuthal     integration, sigma-clipping and quantiles of diffraction frames in rings
xrf           X-ray fluorescence scans on regular grids, and element maps
simulate      what detectors would record of all this, with the truth beside it

`open_frames`, `open_scan` (or `open_crono`, `open_maps`, `open_spectra`), `save` and `load` read and write; `convert_crono` does both;
`preview` draws a first look at a file of frames; `tree` lists what a file holds, `get_array` takes one array out of it.
Everything is imported on first use, so that a worker that only corrects frames does not carry the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcal import azimuthal, distortion, response, sensor, simulate, xrf
    from detcal.conversion import convert_crono
    from detcal.errors import DetcalError
    from detcal.first_look import preview
    from detcal.stores import get_array, load, open_frames, save, tree
    from detcal.stores.sources.any_scan import open_scan, open_spectra
    from detcal.stores.sources.crono import open_crono
    from detcal.stores.sources.fly_scans import open_maps
    from detcal.version import __version__

SUBJECTS = ("azimuthal", "distortion", "response", "sensor", "simulate", "xrf")
MODULES = {
    "DetcalError": "detcal.errors",
    "__version__": "detcal.version",
    "convert_crono": "detcal.conversion",
    "get_array": "detcal.stores",
    "load": "detcal.stores",
    "open_crono": "detcal.stores.sources.crono",
    "open_frames": "detcal.stores",
    "open_maps": "detcal.stores.sources.fly_scans",
    "open_scan": "detcal.stores.sources.any_scan",
    "open_spectra": "detcal.stores.sources.any_scan",
    "preview": "detcal.first_look",
    "save": "detcal.stores",
    "tree": "detcal.stores",
}

__all__ = [
    "DetcalError",
    "__version__",
    "azimuthal",
    "convert_crono",
    "distortion",
    "get_array",
    "load",
    "open_crono",
    "open_frames",
    "open_maps",
    "open_scan",
    "open_spectra",
    "preview",
    "response",
    "save",
    "sensor",
    "simulate",
    "tree",
    "xrf",
]


def __getattr__(name: str) -> Any:
    if name in SUBJECTS:
        return import_module(f"detcal.{name}")
    if name not in MODULES:
        raise AttributeError(f"module 'detcal' has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
