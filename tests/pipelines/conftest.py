"""Runs that tests of several files look at."""

import warnings

import numpy as np
import pytest

from detcal import save, simulate
from detcal.response import Response
from tests.pipelines.commands import detcal
from tests.pipelines.inputs import OPTIONS, write_inputs
from tests.pipelines.reports import EVIL, recipe_run


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


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """Inputs of all recipes, and what their runs wrote: the response comes from a fit here."""
    place = tmp_path_factory.mktemp("reports")
    write_inputs(place, 48, 12, 6)
    recipe_run(place, "fit_response")
    text = (place / "correct_response.toml").read_text()
    (place / "correct_response.toml").write_text(text.replace('"response.zarr"', '"new_response.zarr"'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what simulated scans lack
        for name in OPTIONS.keys() - {"fit_response", "median_filter", "quantile_filter"}:  # as integrate
            recipe_run(place, name)
    return place


@pytest.fixture
def small(tmp_path):
    """A folder with a recipe that takes a moment, whose input has a name that wants to be a tag."""
    np.save(tmp_path / EVIL, np.random.default_rng(0).poisson(900, (6, 16, 24)).astype(np.uint16))
    save(Response.from_gain(np.ones((16, 24))), tmp_path / "response.zarr")
    (tmp_path / "small.toml").write_text(
        f'[input]\npath = "{EVIL}"\n[[steps]]\noperation = "correct_response"\nresponse = "response.zarr"\n[output]\npath = "out.zarr"\n'
    )
    return tmp_path
