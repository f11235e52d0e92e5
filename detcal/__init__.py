"""detcal: out-of-core pipelines from raw X-ray detector frames to corrected science data.

response      pixel-wise gain from a beam sweep; correction of CT stacks
sensor        the blur of a thick sensor as a sparse matrix, and its inverse
distortion    map of a camera's distortion from an image of a hole grid; resampling of frames
azimuthal     integration, sigma-clipping and quantiles of diffraction frames in rings
xrf           X-ray fluorescence scans on regular grids, and element maps

`open_frames`, `save` and `load` read and write; `tree` lists what a file holds, `get_array` takes one array out of it.
Everything is imported on first use, so that a worker that only corrects frames does not carry the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcal import azimuthal, distortion, response, sensor, xrf
    from detcal.errors import DetcalError
    from detcal.stores import get_array, load, open_frames, save, tree

PLACES = {
    "azimuthal": "detcal.azimuthal",
    "distortion": "detcal.distortion",
    "response": "detcal.response",
    "sensor": "detcal.sensor",
    "xrf": "detcal.xrf",
    "DetcalError": "detcal.errors",
    "get_array": "detcal.stores",
    "load": "detcal.stores",
    "open_frames": "detcal.stores",
    "save": "detcal.stores",
    "tree": "detcal.stores",
}

__all__ = ["DetcalError", "azimuthal", "distortion", "get_array", "load", "open_frames", "response", "save", "sensor", "tree", "xrf"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'detcal' has no attribute {name!r}")
    module = import_module(PLACES[name])
    return module if module.__name__ == f"detcal.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
