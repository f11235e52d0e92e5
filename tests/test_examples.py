"""Every public function has an example that runs, and a user's type checker knows the functions."""

import doctest
import subprocess
import sys
from inspect import isfunction
from pathlib import Path

import pytest

import detcal
from detcal import azimuthal, distortion, response, sensor, xrf

ROOT = Path(__file__).parents[1]
FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (detcal, azimuthal, distortion, response, sensor, xrf)
    for name in module.__all__
    if isfunction(getattr(module, name))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (test,) = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name, globs={})
    assert test.examples, f"{name} has no Example"
    runner = doctest.DocTestRunner()
    lines: list[str] = []
    runner.run(test, out=lines.append)
    assert not runner.failures, "".join(lines)


def test_public_names_are_there():
    for module in (detcal, azimuthal, distortion, response, sensor, xrf):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert detcal.__version__
    with pytest.raises(AttributeError, match="module 'detcal' has no attribute 'open_nothing'"):
        detcal.open_nothing  # noqa: B018


WRONG = """\
import numpy as np

import detcal
from detcal import azimuthal, response

frames = detcal.open_frames("frames.h5")
response.fit_response(frames, sigma=50.0)
azimuthal.integrate(frames, "not bins")
"""


def test_a_type_checker_of_a_user_finds_what_is_wrong(tmp_path):
    (tmp_path / "script.py").write_text(WRONG)
    options = ["--config-file=", "--cache-dir", tmp_path / "cache", "--ignore-missing-imports", "--no-site-packages"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert len(wrong) == 1, done.stdout + done.stderr
    assert 'script.py:8: error: Argument 2 to "integrate" has incompatible type "str"; expected "AzimuthalBins"' in wrong[0]


def test_importing_the_package_loads_nothing_large():
    """`import detcal` is to take less than 0.15 s: numpy alone would take most of that."""
    large = ("numpy", "dask", "xarray", "numba", "h5py", "zarr", "pyFAI", "matplotlib")
    code = f"import sys; import detcal; print([name for name in {large} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"
