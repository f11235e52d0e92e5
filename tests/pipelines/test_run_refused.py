"""One clear line for bad input, and nothing written."""

import re

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.recipe import read_recipe

from detcal import load, open_frames, save
from detcal.response import correct_response
from tests.pipelines.commands import change, detcal, fails, in_process


def test_an_output_that_exists_is_left_alone(folder):
    message = fails(folder, "run", "fit_response.toml")
    assert message == (
        f"{folder / 'response.zarr'} exists already: choose another name, or overwrite it (--overwrite, in a recipe overwrite = true under "
        "[output], from Python overwrite=True)"
    )


def test_missing_files_and_datasets(folder):
    change(folder, "fit_response.toml", '"sweep.h5"', '"sweeep.h5"')
    change(folder, "fit_response.toml", '"dark.h5"', '"drak.h5"')
    message = fails(folder, "run", "fit_response.toml")
    assert "2 mistakes" in message
    assert "input.path (line 6): no such file" in message
    assert re.search(r"steps\[0\]\.dark\.path \(line \d+\): no such file", message)
    change(folder, "correct_response.toml", '# dataset = "/entry/data/data"', 'dataset = "/nowhere"')
    assert "no dataset /nowhere in" in fails(folder, "check", "correct_response.toml")


def test_a_truncated_file(folder):
    whole = (folder / "sweep.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    change(folder, "fit_response.toml", '"sweep.h5"', '"cut.h5"')
    message = fails(folder, "run", "fit_response.toml", "--overwrite")
    assert message.startswith(f"cannot read {folder / 'cut.h5'}: ")
    assert "\n" not in message


def test_shapes_that_disagree(folder):
    save(np.zeros((3, 20, 20)), folder / "small.h5")
    change(folder, "fit_response.toml", '"dark.h5"', '"small.h5"')
    message = fails(folder, "check", "fit_response.toml")
    assert message == "expected a dark of shape (128, 160) (y, x), as the frames, got (20, 20)"
    change(folder, "correct_response.toml", '"ct.h5"', '"small.h5"')
    assert "expected frames of shape (128, 160) (y, x), as the response, got (20, 20)" in fails(folder, "plan", "correct_response.toml")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((5, 128, 160), np.float32), "at least 2 usable frames in the sweep, found 0"),
        (np.full((5, 128, 160), np.nan, np.float32), "at least 2 usable frames in the sweep, found 0"),
        (np.full((1, 128, 160), 5000, np.uint16), "expected a sweep of at least 2 frames, got 1"),
        (np.full((5, 128, 160), 5000, np.uint16), "expected a sweep in which the beam changes from frame to frame, got up to 5 usable"),
    ],
)
def test_sweeps_that_cannot_be_fitted(folder, frames, message):
    save(frames, folder / "bad.h5")
    change(folder, "fit_response.toml", '"sweep.h5"', '"bad.h5"')
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert message in fails(folder, "run", "fit_response.toml", "--workers", "1")


def test_a_dark_brighter_than_the_sweep(folder):
    save(np.full((128, 160), 60000, np.uint16), folder / "bright.h5")
    change(folder, "fit_response.toml", '"dark.h5"', '"bright.h5"')
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "check that the dark is not brighter than the sweep" in fails(folder, "run", "fit_response.toml", "--workers", "1")


def test_an_all_zero_flat(folder):
    save(np.zeros((128, 160), np.uint16), folder / "zero.h5")
    change(folder, "correct_response.toml", '"flat.h5"', '"zero.h5"')
    assert "expected a flat that is brighter than its dark" in fails(folder, "run", "correct_response.toml", "--workers", "1")


def test_a_budget_that_is_too_small(folder):
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "the budget is 100 MiB: the least is" in fails(folder, "run", "fit_response.toml", "--memory", "100MiB")


def test_a_scheduler_that_does_not_answer(folder):
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "no scheduler answers at tcp://127.0.0.1:9" in fails(folder, "run", "fit_response.toml", "--scheduler", "tcp://127.0.0.1:9")


def test_what_is_neither_a_response_nor_gains(folder):
    save(xr.Dataset({"a": ("x", np.arange(3))}), folder / "other.zarr")
    change(folder, "correct_response.toml", '"response.zarr"', '"other.zarr"')
    assert "no dataset of shape (frame, y, x)" in fails(folder, "check", "correct_response.toml")


def test_a_response_in_hdf5_and_masks_of_any_kind_are_taken(folder):
    response = load(folder / "response.zarr")
    save(response, folder / "response.h5")
    save(response.mask, folder / "mask.zarr")
    change(folder, "correct_response.toml", '"response.zarr"', '"response.h5"')
    detcal(folder, "run", "correct_response.toml", "--workers", "1")
    images = [open_frames(folder / name) for name in ("ct.h5", "dark.h5", "flat.h5")]
    np.testing.assert_array_equal(
        open_frames(folder / "corrected.zarr"), correct_response(images[0], response, dark=images[1], flat=images[2])
    )
    for mask in ("mask.zarr", "response.h5", "response.zarr"):
        recipe = detcal_recipe(folder, mask)
        np.testing.assert_array_equal(recipe.steps[0].mask.open(), response.mask)


def detcal_recipe(folder, mask):
    change(folder, "fit_response.toml", '# mask = "first.zarr"', f'mask = "{mask}"')
    recipe = read_recipe(folder / "fit_response.toml")
    change(folder, "fit_response.toml", f'mask = "{mask}"', '# mask = "first.zarr"')
    return recipe


@pytest.mark.parametrize("output", [".", "sweep.h5", "dark.h5"])
def test_an_output_never_takes_the_place_of_an_input(folder, output):
    change(folder, "fit_response.toml", 'path = "response.zarr"', f'path = "{output}"')
    for command in ("check", "run"):
        assert "would take the place of the input" in fails(folder, command, "fit_response.toml", "--overwrite")
    assert (folder / "sweep.h5").exists()


def test_an_empty_path_is_none(folder):
    change(folder, "fit_response.toml", 'path = "response.zarr"', 'path = ""')
    assert "output.path (line 38): expected a path, got an empty one" in fails(folder, "check", "fit_response.toml")


def test_a_folder_that_is_no_store_is_not_overwritten(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").write_text("kept")
    change(folder, "fit_response.toml", 'path = "response.zarr"', 'path = "notes"')
    assert "not a zarr store" in fails(folder, "run", "fit_response.toml", "--overwrite")
    assert (folder / "notes" / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "response.zarr"', 'path = "response.png"', "a .png is a picture of maps"),
        ("# shard_frames", "shard_frames", "expected sizes"),
        (
            "# precision",
            "precision",
            "precision is that of frames, float32 (frame, y, x), or of a map of them, and the result is a Response: leave precision out",
        ),
        ("# precision = 0.125", "precision = 0", "output.precision"),
        ("# precision = 0.125", "precision = -0.5", "output.precision"),
        ("# precision = 0.125", "precision = 1.5", "output.precision"),
        ("# precision = 0.125", 'precision = "fine"', "output.precision"),
        ('path = "response.zarr"', 'path = "nowhere/response.zarr"', "no such folder"),
    ],
)
def test_check_finds_what_run_would_refuse(folder, old, new, message):
    change(folder, "fit_response.toml", old, new)
    assert message in fails(folder, "check", "fit_response.toml", "--overwrite")


def test_a_missing_folder_is_told_with_its_line_and_the_other_mistakes(folder):
    change(folder, "fit_response.toml", 'path = "response.zarr"', 'path = "nowhere/response.zarr"')
    change(folder, "fit_response.toml", 'path = "sweep.h5"', 'path = "gone.h5"')
    lines = (folder / "fit_response.toml").read_text().splitlines()
    line = 1 + next(number for number, each in enumerate(lines) if "nowhere" in each)
    told = fails(folder, "check", "fit_response.toml")
    assert told.startswith("2 mistakes in ")
    assert told.splitlines()[-1] == f"  output.path (line {line}): no such folder: {folder / 'nowhere'}"


def test_other_wrong_words_on_the_command_line(folder):
    assert "Is a directory" in fails(folder, "check", ".")
    for memory in ("0", "-1GiB", "many"):
        done = in_process(folder, "plan", "fit_response.toml", "--memory", memory)
        assert done.exit_code == 2
        assert "expected a size such as 1GiB" in done.stderr
    assert "of memory for the demo, got 1 MiB" in fails(folder, "demo", "--memory", "1MiB")


def test_init_does_not_overwrite(folder):
    assert "fit_response.toml exists already" in fails(folder, "init", "fit_response")
