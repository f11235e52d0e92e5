"""What several tests of faults share."""

from pathlib import Path

import numpy as np
import pytest

SIDE = 48
PONI = """\
poni_version: 2.1
Detector: Detector
Detector_config: {{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [{0}, {0}], "orientation": 3}}
Distance: 0.1
Poni1: 0.002
Poni2: 0.002
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 7e-11
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Gains and a geometry of frames of SIDE × SIDE."""
    np.save(tmp_path / "gain.npy", np.linspace(0.5, 2, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE))
    (tmp_path / "detector.poni").write_text(PONI.format(SIDE))
    return tmp_path
