"""Flats and darks that lie beside the projections: in datasets of their own (Data Exchange), and taken by a recipe without a word."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from detcal_pipelines.cli import main
from detcal_pipelines.recipe import read_recipe

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response
from detcal.stores import roles_in
from tests.stores.recipes import write
from tests.stores.test_selection import write_tomo

SHAPE = (8, 9)
KEY = np.repeat([2, 1, 0, 1], [3, 4, 5, 2])


def level(key: int) -> int:
    """Counts of darks, flats and projections: half of the beam goes through."""
    return {0: 5100, 1: 10100, 2: 100}[key]


def make(numbers: Any) -> np.ndarray[Any, Any]:
    return np.array([np.full(SHAPE, level(key)) for key in numbers], np.uint16)


def write_exchange(path: Path, names: Any = ("data", "data_white", "data_dark"), **attrs: Any) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        for name, key, count in zip(("data", "data_white", "data_dark"), (0, 1, 2), (5, 4, 3), strict=True):
            if name in names:
                group[name] = make([key] * count)
        group["theta"] = np.arange(5) * 36.0
        group["data"].attrs.update(attrs)
    return path


@pytest.mark.parametrize("dataset", [None, "/exchange/data", "exchange"])
@pytest.mark.parametrize("attrs", [{}, {"axes": "theta:y:x", "description": "transmission"}], ids=["plain", "axes"])
def test_exchange_files_tell_projections_flats_and_darks_apart(tmp_path: Path, dataset: str | None, attrs: dict[str, str]) -> None:
    path = write_exchange(tmp_path / "a.h5", **attrs)
    with h5py.File(path, "a") as file:
        file["exchange/web_camera_frame"] = np.zeros((3, 4, 5), np.uint8)
    for frames, key, count in ((None, 0, 5), ("projections", 0, 5), ("flats", 1, 4), ("darks", 2, 3)):
        found = open_frames(path, dataset, frames=frames)
        np.testing.assert_array_equal(found.values, make([key] * count))
        assert ("theta" in found.coords) == (key == 0)
    np.testing.assert_array_equal(open_frames(path).theta, np.arange(5) * 36.0)
    assert open_frames(path, "exchange/data_white").shape == (4, *SHAPE)


def test_what_an_exchange_file_lacks_is_refused(tmp_path: Path) -> None:
    path = write_exchange(tmp_path / "a.h5", names=("data", "data_white"))
    with pytest.raises(InputError, match=r"names the darks in .*a\.h5::/exchange/data, got none"):
        open_frames(path, frames="darks")


def test_lists_of_exchange_files_follow_each_other(tmp_path: Path) -> None:
    paths = [write_exchange(tmp_path / name) for name in ("a.h5", "b.h5")]
    assert open_frames(paths, frames="darks").shape == (6, *SHAPE)
    assert open_frames(paths).shape == (10, *SHAPE)


def write_nxtomo(path: Path) -> Path:
    return write_tomo(path, stack=make(KEY), key=KEY, angles=np.arange(len(KEY)))


def test_roles_are_those_that_are_there(tmp_path: Path) -> None:
    assert roles_in(write_exchange(tmp_path / "a.h5")) == ("projections", "flats", "darks")
    assert roles_in(write_exchange(tmp_path / "b.h5", names=("data",))) == ()
    assert roles_in(tmp_path / "a.h5", "exchange/data_dark") == ()
    assert roles_in(write_nxtomo(tmp_path / "c.nxs")) == ("projections", "flats", "darks")
    assert roles_in(write_tomo(tmp_path / "d.nxs", stack=make(KEY), key=np.minimum(KEY, 1), angles=KEY)) == ("projections", "flats")


CORRECT = 'operation = "correct_response"\nresponse = "gain.zarr"'


@pytest.mark.filterwarnings("ignore:.*has an image_key")
@pytest.mark.parametrize("name", ["scan.nxs", "scan.h5"])
@pytest.mark.parametrize("frames", ["", '\nframes = "projections"'])
def test_one_file_and_a_response_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, frames: str) -> None:
    monkeypatch.chdir(tmp_path)
    (write_nxtomo if name.endswith("nxs") else write_exchange)(tmp_path / name)
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    write(CORRECT, source=f'path = "{name}"{frames}', output="out.h5")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(open_frames("out.h5").values, np.full((5, *SHAPE), 0.5), rtol=1e-6)


def test_what_a_recipe_names_comes_before_what_lies_beside_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_nxtomo(tmp_path / "scan.nxs")
    np.save("dark.npy", np.zeros(SHAPE))
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    for source, dark, flat in (
        ('path = "scan.nxs"', "dark.npy", "scan.nxs"),
        ('path = "scan.nxs"\nflip = "ud"', "dark.npy", "scan.nxs"),
        ('path = "scan.nxs"\nframes = ":"', "dark.npy", None),
        ('path = ["scan.nxs"]', "dark.npy", None),
    ):
        recipe = read_recipe(write(f'{CORRECT}\ndark = "dark.npy"', source=source))
        step: Any = recipe.steps[0]
        assert step.dark.path.endswith(dark)
        assert step.flat is None if flat is None else step.flat.path.endswith(flat)
        assert flat is None or step.flat.flip == recipe.input.flip  # type: ignore[union-attr]
