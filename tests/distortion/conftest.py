"""What the runs on hole grids share."""

import numpy as np
import pytest
from detcal_pipelines.template import render

from detcal import save, simulate
from tests.distortion.runs import RECIPES, SHAPE
from tests.pipelines.commands import change, detcal


@pytest.fixture(scope="session")
def grid():
    return simulate.hole_grid(SHAPE, pitch_px=24.0)


@pytest.fixture(scope="session")
def frames(grid):
    stack = np.random.default_rng(0).poisson(grid.image, (20, *SHAPE)).astype(np.int32)
    stack[3, 50] = -1
    return stack


@pytest.fixture(scope="session")
def finished(grid, frames, tmp_path_factory):
    """A folder with an image of a grid and frames, and what the two recipes made of them."""
    folder = tmp_path_factory.mktemp("distortion")
    save(grid.image[None], folder / "grid.edf")
    save(frames, folder / "scan.h5")
    for name in RECIPES:
        (folder / f"{name}.toml").write_text(render(name))
        detcal(folder, "run", f"{name}.toml", "--workers", "2")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Links to the inputs and the map, and fresh recipes."""
    for name in ("grid.edf", "scan.h5", "distortion.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    for name in RECIPES:
        (tmp_path / f"{name}.toml").write_text(render(name))
    change(tmp_path, "fit_distortion.toml", '"distortion.zarr"', '"new.zarr"')
    return tmp_path
