"""Recipes of hole grids, what commands say of them, and maps that must agree."""

import numpy as np
from click.testing import CliRunner
from detcal_pipelines.chain import build
from detcal_pipelines.cli import main
from detcal_pipelines.recipe import read_recipe

from detcal import save

MIB = 2**20
RECIPES = "fit_distortion", "correct_distortion"
SHAPE = (200, 240)
PITCH_M = 5e-3
BLANK = np.full((1, *SHAPE), 100, np.float32)


def computed(folder, name):
    """What a recipe writes, without the start of processes for it."""
    recipe = read_recipe(folder / f"{name}.toml")
    return save(build(recipe, 16), recipe.output.path)


def shown_by(folder, *arguments):
    """What a command prints that begins no processes."""
    command, recipe, *options = arguments
    done = CliRunner().invoke(main, [command, str(folder / recipe), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refused(folder, *arguments):
    """The one line of a command that must fail, and write nothing."""
    command, recipe, *options = arguments
    before = sorted(folder.rglob("*"))
    done = CliRunner().invoke(main, [command, str(folder / recipe), *options], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert done.output.count("error: ") == 1
    assert sorted(folder.rglob("*")) == before
    return done.output.partition("error: ")[2].strip()


def assert_same_map(found, wanted):
    for name in ("corners_m", "mask", "row", "column", "point_y", "point_x", "residual_px"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert found.pixel_size_m == wanted.pixel_size_m
    assert found.cross_validated_rms_px == wanted.cross_validated_rms_px < 0.05
