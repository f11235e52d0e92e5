"""What the tests of profiles share."""

import logging

import numpy as np
import pyFAI
import pytest


@pytest.fixture(scope="module")
def pilatus():
    """A geometry with gaps, and a frame with spots and hot pixels."""
    logging.disable(logging.WARNING)
    geometry = pyFAI.load({"detector": "Pilatus 300k", "distance": 0.15, "poni1": 0.05, "poni2": 0.04, "rot1": 0.1, "wavelength": 1e-10})
    rng = np.random.default_rng(6)
    shape = geometry.detector.shape
    frame = rng.poisson(200, shape).astype(np.int32)
    frame[rng.random(shape) < 1e-3] += 3000
    frame[geometry.detector.mask != 0] = -1
    yield geometry, frame
    logging.disable(logging.NOTSET)
