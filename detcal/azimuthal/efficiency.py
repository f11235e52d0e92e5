"""The sensor's efficiency: rays that cross it obliquely have a longer way through it, and more of them are absorbed."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from detcal.sensor_layers import Layer, completed, describe, find_layer, known_layers, names_its_sensor


class Sensor(NamedTuple):
    """A layer that absorbs."""

    thickness_m: float
    attenuation_per_m: float

    def efficiency(self, cosine: NDArray[np.floating]) -> NDArray[np.float64]:
        """What it absorbs of rays, by the cosine of their angle with the normal; relative to rays along the normal."""
        depth = self.thickness_m * self.attenuation_per_m
        return np.asarray(np.expm1(-depth / np.abs(cosine)) / np.expm1(-depth), float)


def choose_sensor(geometry: Geometry, wanted: bool | None, flat_is_given: bool) -> Sensor | None:
    """The sensor whose efficiency is divided out, if it is.

    Raises
    ------
    InputError
        It is wanted, and nothing says which sensor it is, or how strongly it absorbs.

    Warns
    -----
    UserWarning
        The geometry names its sensor, but not all of it that is needed, and nobody says that it is not wanted.
    """
    if wanted not in (None, True, False):
        raise InputError(f"expected sensor_efficiency to be True, False or None, got {wanted!r}")
    if wanted is False or (wanted is None and (flat_is_given or not names_its_sensor(geometry))):
        return None
    try:
        return sensor_of(geometry)
    except InputError as error:
        if wanted:
            raise
        warnings.warn(f"{error}; it is not divided out (sensor_efficiency=False: that is meant)", stacklevel=3)
        return None


def sensor_of(geometry: Geometry) -> Sensor:
    """The one sensor that the geometry, its detector or the detector's model says."""
    known = known_layers(geometry)
    layer = completed(Layer(), known)
    absent = ["thickness"] * (layer.thickness_m is None) + ["material"] * (layer.attenuation_per_m is layer.material is None)
    absent += ["wavelength"] * (layer.attenuation_per_m is geometry.wavelength is None)
    if absent:
        missing = " and ".join(absent)
        raise InputError(f"the sensor's efficiency needs its {missing}; {describe(known, geometry)}: add what lacks to the geometry")
    return Sensor(*find_layer(geometry, layer))
