"""What the tests of frames share."""

import numpy as np
import pytest

from tests.frames.subjects import HOLE, SHAPE


@pytest.fixture
def mask():
    masked = np.zeros(SHAPE, bool)
    masked[HOLE] = masked[0, 1] = True
    return masked
