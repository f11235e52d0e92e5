"""What the README shows runs as it stands there, and its figures are those that the notebooks make."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner
from detcal_pipelines.cli import main

import detcal
from detcal import simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    """The README's only block of code in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A folder with the files that the README names."""
    detector = simulate.detector((64, 96))
    for name, stack in {
        "sweep": simulate.beam_sweep(detector, 8),
        "dark": simulate.dark_frames(detector, 2),
        "flat": simulate.flat_frames(detector, 2),
        "ct": simulate.ct_frames(detector, 4),
    }.items():
        detcal.save(stack, tmp_path / f"{name}.h5")
    return tmp_path


def test_the_python_runs(measured):
    with chdir(measured):
        exec(block("python"), {})
    assert detcal.load(measured / "corrected.zarr").corrected.shape == (4, 64, 96)


def test_the_commands_run(measured):
    commands = [shlex.split(line, comments=True) for line in block("sh").splitlines()]
    for program, *arguments in commands:
        assert program == "detcal"
        with chdir(measured):
            done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (arguments, done.output)
    assert detcal.load(measured / "response.zarr").gain.shape == (64, 96)


def test_each_job_has_a_figure_of_its_notebook():
    figures = re.findall(r"\]\((notebooks/figures/[^)]+)\)", README)
    assert [Path(figure).stem for figure in figures] == [
        "01_response", "02_sensor_thickness", "03_azimuthal_filtering", "04_distortion", "05_maxrf",
    ]  # fmt: skip
    for figure in figures:
        assert 0 < (ROOT / figure).stat().st_size <= 200_000, figure
