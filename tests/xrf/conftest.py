"""What the tests of scans share."""

import shutil
from pathlib import Path

import pytest

from detcal import simulate
from detcal.stores.targets.crono_writer import write_crono


@pytest.fixture(scope="session")
def simulated():
    return simulate.maxrf_scan(12, 15, channels=256, counts=0.3, lag=0.3).compute()


@pytest.fixture(scope="session")
def original(simulated, tmp_path_factory):
    path = tmp_path_factory.mktemp("crono") / "map.HDF5"
    return write_crono(simulated.assign(spectra=simulated.spectra.chunk(spectrum=50)), path)


@pytest.fixture
def crono(original, tmp_path):
    """A copy that may be spoilt."""
    return Path(shutil.copy(original, tmp_path / "map.HDF5"))


@pytest.fixture(scope="session")
def scan():
    """A small scan with wobble and lag, in memory."""
    return simulate.maxrf_scan(24, 30, channels=64, counts=0.5, lag=0.4).compute()
