"""Recipes choose frames of a file, and turn them over."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from detcal_pipelines.chain import build
from detcal_pipelines.cli import main
from detcal_pipelines.recipe import read_recipe

from detcal import open_frames
from tests.stores.recipes import CORRECT, RINGS, SHAPE, refused, write


def write_tomo(path: str) -> None:
    """Darks of 100 and 104, flats of 2100 and 2104 and projections of 1102 counts, in turn."""
    key = np.array([2, 1, 0, 0, 2, 0, 1])
    levels = np.array([100, 2100, 1102, 1102, 104, 1102, 2104])
    ramp = np.arange(SHAPE[0])[:, None]  # so that rows differ
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = (levels[:, None, None] + ramp + np.zeros((7, *SHAPE))).astype(np.uint16)
        file["entry/instrument/detector/image_key"] = key
        file["entry/sample/rotation_angle"] = np.arange(7.0)


def test_a_tomo_file_is_its_own_dark_and_flat(folder: Path) -> None:
    write_tomo("scan.nxs")
    step = 'operation = "correct_response"\nresponse = "response.zarr"\ndark = {dark}\nflat = {flat}'
    recipe = write(step.format(dark='"scan.nxs"', flat='"scan.nxs"'), source='path = "scan.nxs"')
    with pytest.warns(UserWarning, match="3 projections, 2 flats, 2 darks"):
        found = build(read_recipe(recipe))
    flat = np.interp([2, 3, 5], [1, 6], [2100, 2104])  # between those before and after
    np.testing.assert_allclose(found.values, (1000 / (flat - 102))[:, None, None] * np.ones(SHAPE), rtol=1e-6)
    np.testing.assert_array_equal(found.rotation_angle, [2, 3, 5])
    named = step.format(dark='{ path = "scan.nxs", frames = 0 }', flat='{ path = "scan.nxs", frames = [6] }')
    found = build(read_recipe(write(named, source='path = "scan.nxs"\nframes = "projections"')))
    np.testing.assert_allclose(found.values, np.full((3, *SHAPE), 1002 / 2004), rtol=1e-6)


def test_frames_and_flip_of_the_input_are_planned_and_used(folder: Path) -> None:
    raw = np.load("scan.npy")
    recipe = write(CORRECT.format(response='"gain.npy"'), source='path = "scan.npy"\nframes = "2:9:3"\nflip = "both"')
    np.testing.assert_allclose(build(read_recipe(recipe)).values, raw[2:9:3, ::-1, ::-1] * 1.5)
    done = CliRunner().invoke(main, ["plan", str(recipe)])
    assert "(3, 8, 9)" in done.output, done.output
    mask = np.load("mask.npy") != 0
    rings = build(read_recipe(write(RINGS.format(mask='{ path = "mask.npy", flip = "lr" }'))))
    assert int(rings["count"][0].sum()) == (~mask).sum()
    np.testing.assert_array_equal(open_frames("mask.npy", flip="lr").values[0] != 0, mask[:, ::-1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('frames = "flat"', 'input.frames (line 3): expected frames: a number, a list of numbers, a slice such as "10:50"'),
        ("frames = 1.5", "input.frames (line 3): expected frames"),
        ("frames = []", "input.frames (line 3): expected frames"),
        ("frames = true", "input.frames (line 3): expected frames"),
        ('flip = "up"', "input.flip (line 3): expected 'ud', 'lr' or 'both', got 'up'"),
    ],
)
def test_wrong_choices_are_mistakes_in_a_recipe(line: str, words: str, folder: Path) -> None:
    recipe = write(CORRECT.format(response='"gain.npy"'), source=f'path = "scan.npy"\n{line}')
    (said,) = refused(recipe, "check")
    assert words in said


def test_darks_of_the_same_file_are_turned_over_alike(folder: Path) -> None:
    write_tomo("scan.nxs")
    step = 'operation = "correct_response"\nresponse = "gain.npy"\ndark = "scan.nxs"'
    (said,) = refused(write(step, source='path = "scan.nxs"\nflip = "ud"'), "check")
    assert "dark lies in the file of the frames: give it the same flip as [input]" in said
