"""Detectors of pyFAI, and what is said of those that are refused."""

import pytest
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from tests.sensor.rays import PITCH


def tilted(rotations=(0.3, -0.2, 0.7), orientation=3, mask=None):
    detector = Detector(PITCH, 75e-6, max_shape=(12, 16), orientation=orientation)
    if mask is not None:
        detector.mask = mask
    rot1, rot2, rot3 = rotations
    return Geometry(0.0123456789, 1.1e-3, -0.7e-3, rot1, rot2, rot3, detector=detector, wavelength=0.6968e-10)


def refused(message, call, *arguments, **options):
    """InputError with the message, in one line."""
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
