"""The geometry that frames say they were recorded in: what `open_frames` reads of a NeXus file's NXdetector and beam."""

from typing import Any

import numpy as np
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from detcal.poni import KEV_M

PLACE = ("detector_distance_m", "beam_center_y_px", "beam_center_x_px", "pixel_size_y_m", "pixel_size_x_m")


def geometry_of(frames: xr.DataArray) -> Geometry:
    """A detector upright to the beam, as the attributes of frames have it; its sensor, if they name it, and a wavelength if they know it.

    Raises
    ------
    InputError
        Frames that do not say where their detector stood.
    """
    found = {name: number_in(frames, name) for name in (*PLACE, "wavelength_m", "energy_kev", "sensor_thickness_m")}
    absent = [name for name in PLACE if found[name] is None]
    if absent:
        raise InputError(
            f"expected frames that say where their detector stood, got none of {', '.join(absent)} in their attributes, where open_frames "
            "has them from NeXus files: set them, or give a .poni file"
        )
    distance, beam_y, beam_x, height, width = (float(found[name] or 0) for name in PLACE)
    if not (height > 0 and width > 0):
        raise InputError(f"expected pixels of a size above 0, got pixel_size_y_m {height:g} and pixel_size_x_m {width:g}: set them anew")
    rows, columns = frames.shape[-2:]
    detector = Detector(height, width, max_shape=(rows, columns), orientation=3)
    material, thickness = frames.attrs.get("sensor_material"), found["sensor_thickness_m"]
    if material is not None and thickness is not None:
        detector.set_config({"sensor": {"material": str(material), "thickness": thickness}})
    wavelength, energy = found["wavelength_m"], found["energy_kev"]
    if wavelength is None and energy is not None and energy > 0:
        wavelength = KEV_M / energy
    return Geometry(distance, beam_y * height, beam_x * width, detector=detector, wavelength=wavelength)


def number_in(frames: xr.DataArray, name: str) -> float | None:
    """A single number among the attributes."""
    value: Any = frames.attrs.get(name)
    if value is None:
        return None
    if np.ndim(value) or not np.isreal(value) or not np.isfinite(value):
        raise InputError(f"expected a number as attribute {name} of the frames, got {value!r:.60}")
    return float(value)
