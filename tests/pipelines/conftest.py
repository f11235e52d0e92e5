"""A run that others build on."""

import pytest

from detcal import save, simulate
from tests.pipelines.commands import detcal


@pytest.fixture(scope="session")
def detector():
    return simulate.detector((128, 160), dead=3, stuck=2)


@pytest.fixture(scope="session")
def finished(detector, tmp_path_factory):
    """A folder with raw files and what the two recipes made of them."""
    folder = tmp_path_factory.mktemp("run")
    save(simulate.beam_sweep(detector, 40), folder / "sweep.h5")
    save(simulate.dark_frames(detector), folder / "dark.h5")
    save(simulate.flat_frames(detector), folder / "flat.h5")
    save(simulate.ct_frames(detector, 50), folder / "ct.h5")
    for name in ("fit_response", "correct_response"):
        detcal(folder, "init", name)
        detcal(folder, "check", f"{name}.toml")
        detcal(folder, "run", f"{name}.toml", "--workers", "2")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Links to the raw files and the response, and fresh recipes."""
    for name in ("sweep.h5", "dark.h5", "flat.h5", "ct.h5", "response.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    for name in ("fit_response", "correct_response"):
        detcal(tmp_path, "init", name)
    return tmp_path
