"""The demo: in small, and where it goes wrong."""

import re
import tracemalloc

import numpy as np
import pytest
from detcal_pipelines import demo
from detcal_pipelines.demo import run_demo
from matplotlib.image import imread
from rich.console import Console

from detcal.errors import RunError
from detcal.stores import open_frames
from tests.pipelines.commands import AMPLE


@pytest.fixture
def small(monkeypatch):
    """A demo of small images."""
    monkeypatch.setattr(demo, "compile_kernels", lambda: None)
    for name, value in {"SHAPE": (64, 64), "SWEEP_FRAMES": 4, "CT_FRAMES": 6, "FLAT_FRAMES": 2, "ANGLES": np.zeros(6)}.items():
        monkeypatch.setattr(demo, name, value)
    return monkeypatch


@pytest.mark.parametrize("error", [RunError("it failed"), KeyboardInterrupt()])
def test_raw_frames_stay_when_a_later_part_fails(small, tmp_path, error):
    def fail(*_):
        raise error

    small.setattr(demo, "run_ready", fail)
    with pytest.raises(type(error), match=r"the raw frames stay in .*demo: `detcal run .*fit_response.toml` continues with them"):
        run_demo(tmp_path / "demo", AMPLE, Console(quiet=True))
    kept = {path.name for path in (tmp_path / "demo").iterdir()}
    assert kept == {"sweep.h5", "dark.h5", "flat.h5", "ct.h5", "fit_response.toml", "correct_response.toml"}


def test_half_a_simulation_is_removed(small, tmp_path):
    def fail(*_):
        raise OSError("a full disk")

    small.setattr(demo, "write_hdf5", fail)
    with pytest.raises(OSError, match="a full disk"):
        run_demo(tmp_path / "demo", AMPLE, Console(quiet=True))
    assert not (tmp_path / "demo").exists()


def test_in_small_it_ends_with_fewer_rings_and_a_picture(small, tmp_path, capsys):
    for name, value in {
        "SHAPE": (64, 256), "ROWS": slice(28, 36), "SWEEP_FRAMES": 32, "CT_FRAMES": 60,
        "ANGLES": np.linspace(0, np.pi, 60, endpoint=False), "SLICE": 64,
    }.items():  # fmt: skip
        small.setattr(demo, name, value)
    run_demo(tmp_path / "demo", AMPLE, Console(width=200))
    printed = capsys.readouterr().out
    rings = {
        name: float(re.search(rf"ring amplitude, {re.escape(name)} .*?([0-9.]+) ‰", printed)[1])
        for name in ("no pixel correction", "flat field (2 frames)", "detcal")
    }
    assert 20 < rings["no pixel correction"] < 40  # gains scatter by 30 ‰
    assert rings["detcal"] < 0.7 * rings["flat field (2 frames)"] < 0.2 * rings["no pixel correction"]
    assert imread(tmp_path / "demo" / "demo.png").std() > 0.1


def test_kernels_of_both_runs_are_compiled_while_frames_are_simulated(monkeypatch):
    compiled = []

    def note(recipe, prepare, console):
        compiled.append((recipe.steps[0].operation, open_frames(recipe.input.path).dtype))

    monkeypatch.setattr(demo, "with_kernels", note)
    with demo.compiled_meanwhile():
        pass
    assert compiled == [("fit_response", np.uint16), ("correct_response", np.uint16)]


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
