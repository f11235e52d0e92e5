"""What is said where a name, a kind of file or a value is wrong: what was expected, what came, and how to mend it."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from click.testing import CliRunner
from detcal_pipelines.cli import main

import detcal
from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import correct_response
from tests.stores.recipes import refused, write

SHAPE = (8, 9)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a few files: what a recipe and a user name."""
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", np.full((3, *SHAPE), 500, np.uint16))
    save(np.full((4, *SHAPE), 500.0), "sweep.h5")
    with h5py.File("scan.h5", "w") as file:
        file["entry/data/data"] = np.ones((4, *SHAPE), np.uint16)
        file["entry/data/monitor"] = np.ones(4)
        for number in range(6):
            file[f"entry/log/{number}"] = float(number)
    return tmp_path


def said(*arguments: str) -> str:
    """The last line of a command that is refused."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    return done.stderr.strip().splitlines()[-1]


# ---------------------------------------------------------------------------------------------------- names in files


@pytest.mark.parametrize("wrong", ["/entry/data/frames", "/entry/data/part_*", "/entry/detector/data", ["/entry/data/frames"]])
def test_a_wrong_name_in_a_file_is_told_with_what_there_is(wrong: Any) -> None:
    there = r"it holds /entry/data/data \(4, 8, 9\), /entry/data/monitor \(4,\); `detcal tree .*scan\.h5` lists all$"
    if isinstance(wrong, str):
        with pytest.raises(InputError, match=rf"no dataset {re.escape(wrong)} in .*scan\.h5: .* is not there; {there}"):
            open_frames("scan.h5", wrong)
        assert f"no dataset {wrong} in " in said("preview", "scan.h5", "--dataset", wrong)
    else:
        with pytest.raises(InputError, match=there):
            open_frames("scan.h5", wrong)


def test_a_group_is_no_dataset() -> None:
    with pytest.raises(InputError, match=r"no dataset entry/data in .*: that is a group; it holds /entry/data/data \(4, 8, 9\), "):
        open_frames("scan.h5", ["entry/data", "entry/data/data"])


def test_a_wrong_name_in_a_store_too() -> None:
    save(xr.Dataset({"frames": (("frame", "y", "x"), np.ones((2, *SHAPE))), "mask": (("y", "x"), np.ones(SHAPE))}), "a.zarr")
    for action in (lambda: open_frames("a.zarr", "data"), lambda: detcal.get_array("a.zarr", "data")):
        with pytest.raises(InputError, match=r"no array data in .*a\.zarr: it holds frames \(2, 8, 9\), mask \(8, 9\); `detcal tree"):
            action()
    zarr.create_array("b.zarr", data=np.ones((2, *SHAPE)))
    with pytest.raises(InputError, match=r"no array data in .*b\.zarr: it holds / \(2, 8, 9\)"):
        open_frames("b.zarr", "data")


def test_many_names_are_counted() -> None:
    with h5py.File("many.h5", "w") as file:
        for number in range(12):
            file[f"part/{number:02}"] = np.ones((2, number + 1))
    with pytest.raises(InputError, match=r"it holds /part/11 \(2, 12\), .*/part/07 \(2, 8\), and 7 more; `detcal tree"):
        open_frames("many.h5", "frames")


# ------------------------------------------------------------------------------------------------------ kinds of files


def test_a_sweep_in_place_of_a_response_is_told_what_makes_one() -> None:
    (found,) = refused(write('operation = "correct_response"\nresponse = "sweep.h5"'))
    assert "expected a response or gains, one image, got a stack of 4 frames" in found
    assert found.endswith("or give another file; of a beam sweep fit_response makes a response")
    np.save("counts.npy", np.full(SHAPE, 500, np.uint16))
    (found,) = refused(write('operation = "correct_response"\nresponse = "counts.npy"'))
    assert "expected gains, reals about 1, got counts" in found
    assert found.endswith("; of a beam sweep fit_response makes a response")
    with pytest.raises(InputError, match=r"expected a Response, got DataArray: .* of a beam sweep fit_response makes a response"):
        correct_response(np.ones((2, *SHAPE)), open_frames("sweep.h5"))  # type: ignore[arg-type]


def test_tree_says_what_shows_other_files() -> None:
    tifffile.imwrite("a.tif", np.ones(SHAPE, np.float32))
    Path("a.xy").write_text("1 2\n3 4\n")
    Path("a.h5").write_text("cut")
    assert said("tree", "a.tif").endswith("got a.tif: `detcal preview a.tif` shows its frames")
    assert said("tree", "a.xy") == (
        "error: expected a zarr store or an HDF5 file, of which tree lists the names, got a.xy: another program has to show it"
    )
    assert "cannot read a.h5" in said("tree", "a.h5")


def test_an_output_that_exists_is_told_how_to_be_overwritten() -> None:
    save(np.ones((2, *SHAPE)), "out.zarr")
    recipe = write('operation = "correct_response"\ndark = 3.0')
    (found,) = refused(recipe, "check", "run")
    assert "out.zarr exists already" in found
    for key in ("--overwrite", "overwrite = true under [output]", "overwrite=True"):
        assert key in found
    recipe.write_text(recipe.read_text() + "overwrite = true\n")
    assert CliRunner().invoke(main, ["check", str(recipe)]).exit_code == 0
    assert CliRunner().invoke(main, ["check", str(write('operation = "correct_response"\ndark = 3.0')), "--overwrite"]).exit_code == 0


# -------------------------------------------------------------------------------------------------- values and mistakes


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("intercept = 1", "steps[0].intercept (line 5): expected true or false, got 1"),
        ('intercept = "yes"', "steps[0].intercept (line 5): expected true or false, got 'yes'"),
        ("sigma = true", "steps[0].sigma (line 5): expected a number, got true"),
        ("partial_sums = 1.5", "steps[0].partial_sums (line 5): expected a whole number, got 1.5"),
        ("sigma = 0", "steps[0].sigma (line 5): expected a number above 0, got 0"),
        ("order = 3", "steps[0].order (line 5): expected 1 or 2, got 3"),
    ],
)
def test_values_are_told_in_plain_english(step: str, wanted: str) -> None:
    (found,) = refused(write(f'operation = "fit_response"\n{step}'), "check")
    assert found.strip() == wanted


def test_a_switch_that_may_be_a_number_too_is_told_at_its_own_place() -> None:
    (found,) = refused(write('operation = "minus_log"', source='path = "scan.npy"\nnewest = "yes"'), "check")
    assert found.strip() == "input.newest (line 3): expected true or false, got 'yes'"


def test_a_number_in_its_place_is_told_as_one() -> None:
    (found,) = refused(write('operation = "minus_log"', source='path = "scan.npy"\nnewest = -1'), "check")
    assert found.strip() == "input.newest (line 3): expected a number above 0, got -1"


def test_unknown_steps_are_called_so() -> None:
    assert "steps[0].operation (line 4): unknown step; did you mean fit_response?" in refused(write('operation = "fit_respons"')).pop()
    assert said("steps", "fit_respons") == said("init", "fit_respons") == "error: unknown step; did you mean fit_response?"


def test_check_tells_all_mistakes_at_once() -> None:
    """Of the output, of the input, and of each image that a step is given."""
    save(np.ones((2, *SHAPE)), "out.zarr")
    np.save("mask.npy", np.full(SHAPE, 0.5))
    tifffile.imwrite("broken.tif", np.ones(SHAPE, np.float32))
    Path("broken.tif").write_bytes(Path("broken.tif").read_bytes()[:50])
    step = 'operation = "correct_response"\nresponse = "sweep.h5"\nmask = "mask.npy"\nflat = "broken.tif"'
    recipe = write(step, source='path = "scan.h5"\ndataset = "nothing"', output="scan.h5")
    done = CliRunner().invoke(main, ["check", str(recipe)])
    lines = done.stderr.strip().splitlines()
    assert lines[0] == f"error: 5 mistakes in {recipe.absolute()}:"
    for line, part in zip(
        lines[1:],
        ("take the place of the input", "no dataset nothing", "got a stack of 4 frames", "broken.tif", "expected a mask"),
        strict=True,
    ):
        assert part in line
    alone = write('operation = "correct_response"\nresponse = "sweep.h5"')
    (found,) = refused(alone, "check", options=("--overwrite",))
    assert found.startswith("error: expected a response or gains")


# ------------------------------------------------------------------------------------------------------- other doors


def test_angles_are_the_axis_of_frames_that_have_them() -> None:
    coords = {"frame_number": ("frame", np.arange(3)), "rotation_angle": ("frame", np.arange(3) * 60.0)}
    save(xr.DataArray(np.ones((3, *SHAPE), np.float32), coords, ("frame", "y", "x"), "attenuation"), "att.nxs")
    with h5py.File("att.nxs") as file:
        assert file["entry/attenuation"].attrs["axes"].tolist() == ["rotation_angle", ".", "."]
    assert set(open_frames("att.nxs").coords) == {"frame_number", "rotation_angle"}


def test_simulations_are_reached_from_the_package() -> None:
    assert detcal.simulate.maxrf_scan(2, 3, channels=8).sizes["energy"] == 8
    assert "simulate" in dir(detcal)
