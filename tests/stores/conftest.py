"""What several tests of the stores share."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from detcal import response, save
from tests.stores.recipes import SHAPE


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of a user who is not allowed everything, as which the test runs."""
    nobody, own = 65534, os.geteuid()
    with TemporaryDirectory() as name:
        if own == 0:
            os.chown(name, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(own)
            os.chmod(name, 0o700)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scan, gains, a mask, a geometry and a fitted response."""
    rng = np.random.default_rng(1)
    np.save(tmp_path / "scan.npy", rng.integers(900, 1100, (12, *SHAPE)).astype(np.uint16))
    np.save(tmp_path / "gain.npy", np.full(SHAPE, 1.5, np.float32))
    np.save(tmp_path / "mask.npy", np.eye(*SHAPE, dtype=np.uint8) * 255)
    save(response.Response.from_gain(np.ones(SHAPE)), tmp_path / "response.zarr")
    (tmp_path / "plane.poni").write_text(
        'poni_version: 2.1\nDetector: Detector\nDetector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [8, 9], "orientation": 3}\n'
        "Distance: 0.1\nPoni1: 0.0\nPoni2: 0.0\nRot1: 0.0\nRot2: 0.0\nRot3: 0.0\nWavelength: 1e-10\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path
