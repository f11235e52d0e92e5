"""The demo, where it goes wrong."""

import tracemalloc

import numpy as np
import pytest
from detcal_pipelines import demo
from detcal_pipelines.demo import run_demo
from rich.console import Console

from detcal.errors import RunError

GIB = 2**30


@pytest.fixture
def small(monkeypatch):
    """A demo of small images."""
    for name, value in {"SHAPE": (64, 64), "SWEEP_FRAMES": 4, "CT_FRAMES": 6, "FLAT_FRAMES": 2, "ANGLES": np.zeros(6)}.items():
        monkeypatch.setattr(demo, name, value)
    return monkeypatch


@pytest.mark.parametrize("error", [RunError("it failed"), KeyboardInterrupt()])
def test_raw_frames_stay_when_a_later_part_fails(small, tmp_path, error):
    def fail(*_):
        raise error

    small.setattr(demo, "run_ready", fail)
    with pytest.raises(type(error), match=r"the raw frames stay in .*demo: `detcal run .*fit_response.toml` goes on with them"):
        run_demo(tmp_path / "demo", GIB, Console(quiet=True))
    kept = {path.name for path in (tmp_path / "demo").iterdir()}
    assert kept == {"sweep.h5", "dark.h5", "flat.h5", "ct.h5", "fit_response.toml", "correct_response.toml"}


def test_half_a_simulation_is_removed(small, tmp_path):
    def fail(*_):
        raise OSError("a full disk")

    small.setattr(demo, "write_hdf5", fail)
    with pytest.raises(OSError, match="a full disk"):
        run_demo(tmp_path / "demo", GIB, Console(quiet=True))
    assert not (tmp_path / "demo").exists()


def test_of_the_truth_no_whole_images_are_kept(small):
    """Eight rows of each are looked at; views of them would keep all the images, 2 GiB in the demo."""
    small.setattr(demo, "SHAPE", (256, 256))
    small.setattr(demo, "ANGLES", np.zeros(100))
    small.setattr(demo, "ROWS", slice(124, 132))
    tracemalloc.start()
    assert demo.true_rows().shape == (100, 8, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 256 * 256 * 4
