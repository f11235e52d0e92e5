"""Whole numbers below 0 of which nobody says whether they are readings: they are taken as such, and it is said while frames are computed.

Frames are not read when a graph is built, and all may have some of their flags elsewhere: in a geometry, say. So each block's first frame
is looked at when the block is there: a detector writes its gaps into every frame.
"""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.frames.graph import map_frames

ADVICE = "dummy = -1, or [-1, -2], say, where frames are opened ([input] of a recipe); or dummy = nan, if all are readings"


def watched(frames: xr.DataArray) -> xr.DataArray:
    """The same frames, lazily, with one warning as they are computed if there are numbers below 0."""
    return map_frames(look, frames, whole=False, dtype=frames.dtype, name=frames.name, attrs=frames.attrs)


def look(block: NDArray[Any]) -> NDArray[Any]:
    """The block as it is."""
    if len(block) and np.less(block[0], 0).any():
        warnings.warn(f"counts below 0 are taken as readings, since nothing says that they stand for none: give {ADVICE}", stacklevel=2)
    return block
