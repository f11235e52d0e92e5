"""What a calibration, a dark or a mask lacks is an error where all results rest on it, else NaN with a warning."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from detcal_pipelines.cli import main

import detcal
from detcal import load, open_frames, response, save
from detcal.errors import InputError, MissingWarning
from detcal.frames.stack import as_image
from tests.stores.losses import SHAPE, STACK, flip_a_byte, make_map

CALIBRATIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: response.Response.from_gain(np.ones((20, 30))), "gain"),
    (lambda: response.Response.from_gain(np.ones((20, 30))), "mask"),
    (make_map, "corners_m"),
]


@pytest.mark.parametrize("suffix", ["zarr", "zip"])
@pytest.mark.parametrize(("make", "image"), CALIBRATIONS)
def test_a_calibration_of_which_a_chunk_is_lost(make: Callable[[], Any], image: str, suffix: str, tmp_path: Path) -> None:
    path = save(make(), tmp_path / f"c.{suffix}")
    if suffix == "zarr":
        next(file for file in (path / image).rglob("0") if file.is_file()).unlink()
    else:
        with zipfile.ZipFile(path) as source:
            kept = {name: source.read(name) for name in source.namelist() if not name.startswith(f"{image}/c/")}
        with zipfile.ZipFile(path, "w") as target:
            for name, content in kept.items():
                target.writestr(name, content)
    with pytest.raises(
        InputError, match=rf"all of {image} in .*c\.{suffix}, but it is damaged: of {image} .* are not there; copy or write it again"
    ):
        load(path)


def test_a_calibration_in_hdf5_of_which_an_image_was_never_written(tmp_path: Path) -> None:
    path = save(response.Response.from_gain(np.ones((20, 30))), tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        group = file["entry/gain"]
        attributes = dict(group["gain"].attrs)
        del group["gain"]
        group.create_dataset("gain", (20, 30), "f4").attrs.update(attributes)
    with pytest.raises(InputError, match=r"all of gain in .*c\.h5, but it is damaged: of gain 20 of 20 rows \(0–19\) are not there"):
        load(path)


def test_a_detector_in_nexus_of_which_the_mask_was_never_written(tmp_path: Path) -> None:
    path = save(make_map(), tmp_path / "c.nxs")
    with h5py.File(path, "r+") as file:
        del file["entry"].attrs["detcal_version"]  # as of another program
        detector = file["entry/instrument/detector"]
        del detector["mask"]
        detector.create_dataset("mask", (20, 30), "u4")
    with pytest.raises(InputError, match=r"all of mask in .*c\.nxs, but it is damaged: of mask 20 of 20 rows \(0–19\) are not there"):
        load(path)


def test_a_flipped_byte_in_a_calibration_is_named_when_it_is_computed(tmp_path: Path) -> None:
    path = save(response.Response.from_gain(np.ones((20, 30))), tmp_path / "response.zarr")
    flip_a_byte(path / "gain/c/0/0")
    corrected = response.correct_response(STACK, load(path))
    with pytest.raises(
        InputError, match=r"^cannot read gain in .*response\.zarr: .*checksum.* It may be damaged: copy or write it again\.$"
    ):
        corrected.compute()


def test_a_dark_of_which_frames_are_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", chunks=(1, 20, 30))[:4] = STACK[:4]
    with pytest.warns(MissingWarning, match="lacks 2 of 6 frames"):
        dark = open_frames(tmp_path / "dark.h5")
    with pytest.raises(InputError, match=r"expected a dark of which nothing is missing, but .*dark\.h5::/d lacks 2 of 6 frames \(4–5\)"):
        response.correct_response(STACK, response.Response.from_gain(np.ones((20, 30))), dark=dark)
    chosen = dark[:4].drop_attrs()  # as the message says
    np.testing.assert_allclose(as_image(chosen, SHAPE[1:], "a dark").compute(), STACK[:4].mean(axis=0), rtol=1e-6)


def test_a_response_that_does_not_say_what_it_is_any_more_is_damaged(tmp_path: Path) -> None:
    """It is not taken for an image, or for something else that holds some."""
    path = save(response.Response.from_gain(np.ones((20, 30))), tmp_path / "r.zarr")
    metadata = path / "zarr.json"
    metadata.write_text(metadata.read_text().replace("detcal_type", "detcal_tipe"))
    np.save(tmp_path / "f.npy", STACK)
    with pytest.raises(InputError, match=r"r\.zarr is damaged: its zarr\.json is not as it was written"):
        open_frames(tmp_path / "f.npy", mask=path)


RECIPE = """
[input]
path = "frames.npy"
[[steps]]
operation = "correct_response"
response = "{response}"
{more}
[output]
path = "out.zarr"
"""


@pytest.mark.parametrize(
    ("response", "more"),
    [("lost.h5", ""), ("gain.npy", 'dark = "lost.h5"'), ("gain.npy", 'flat = "lost.h5"'), ("lost.zarr", "")],
)
@pytest.mark.filterwarnings("default::detcal.errors.MissingWarning")
def test_a_recipe_with_an_image_of_which_parts_are_missing(
    response: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", STACK)
    np.save("gain.npy", np.ones((20, 30), np.float32))
    with h5py.File("lost.h5", "w") as file:
        file.create_dataset("d", (1, 20, 30), "u2", chunks=(1, 10, 30))[:, :10] = 1
    save(detcal.response.Response.from_gain(np.ones((20, 30))), "lost.zarr")
    Path("lost.zarr/gain/c/0/0").unlink()
    Path("r.toml").write_text(RECIPE.format(response=response, more=more))
    result = CliRunner().invoke(main, ["check", "r.toml"])
    assert result.exit_code == 2, result.output
    assert "lost." in result.output.splitlines()[-1]


@pytest.mark.parametrize("command", ["check", "plan", "run"])
@pytest.mark.parametrize("key", ["response", "mask"])
@pytest.mark.parametrize("image", ["gain", "mask"])
def test_a_flipped_byte_in_a_response_is_told_by_every_command(
    command: str, key: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", STACK)
    np.save("gain.npy", np.ones((20, 30), np.float32))
    save(response.Response.from_gain(np.ones((20, 30))), "response.zarr")
    flip_a_byte(Path("response.zarr", image, "c/0/0"))
    text = RECIPE.format(response="response.zarr" if key == "response" else "gain.npy", more="")
    Path("r.toml").write_text(text if key == "response" else text.replace("[[steps]]", 'mask = "response.zarr"\n[[steps]]'))
    result = CliRunner().invoke(main, [command, "r.toml"])
    assert result.exit_code == 2, result.output
    assert re.search(rf"cannot read {image} in .*response\.zarr: .*checksum", result.output.splitlines()[-1])
    assert not Path("out.zarr").exists()


def test_flags_are_still_those_of_the_type_that_was_recorded(tmp_path: Path) -> None:
    """Integers become reals where frames are missing; 65535 is no more a reading than before."""
    stack = np.full((4, 4, 5), 100, np.uint16)
    stack[:, 1, 2] = 65535
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", stack.shape, stack.dtype, chunks=(1, 4, 5))[:3] = stack[:3]
    save(da.from_array(stack, chunks=(1, 4, 5)), tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "data" / "c" / "3" / "0" / "0").unlink()
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["data"] = stack
    for name in ("a.h5", "a.zarr"):
        with pytest.warns(MissingWarning):
            frames = open_frames(tmp_path / name)
        found = response.correct_response(frames, response.Response.from_gain(np.ones((4, 5)))).values
        assert np.isnan(found[3]).all()
        assert np.isnan(found[:3, 1, 2]).all()
        assert np.nansum(found[:3]) == 3 * 19 * 100
        with pytest.warns(MissingWarning):
            joined = open_frames([tmp_path / "whole.h5", tmp_path / "a.h5"])
        found = response.correct_response(joined, response.Response.from_gain(np.ones((4, 5)))).values
        assert np.nansum(found) == 7 * 19 * 100


def test_a_mask_of_which_a_part_is_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file.create_dataset("data", (4, 4), np.uint8, chunks=(2, 4))[:2] = 0
    with pytest.warns(MissingWarning):
        mask = open_frames(tmp_path / "mask.h5")
    with pytest.raises(InputError, match=r"expected a mask of which nothing is missing, but .*mask.h5.* lacks"):
        response.fit_response(np.ones((3, 4, 4)), mask=mask)
