"""Frames as a step of another package takes them: reals, NaN where nothing was measured."""

import numpy as np
import xarray as xr

from detcal.frames.corrections import attributes_of
from detcal.frames.valid import find_readings, without


def measured(frames: xr.DataArray) -> xr.DataArray:
    """Frames as float32, lazily, with NaN for what was not measured: flagged numbers, masked pixels, what is infinite.

    Parameters
    ----------
    frames : (frame, y, x)
        As a step takes them: raw, with flags in their attributes, or a result of another step.

    Returns
    -------
    DataArray (frame, y, x) float32
        With the coordinates and attributes of the frames, which say now that NaN alone is no reading.
    """
    stack, valid = find_readings(frames)
    found = without(stack, valid).astype(np.float32)
    found.attrs = attributes_of(frames, {})
    return found
