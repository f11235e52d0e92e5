"""Flats and darks that lie beside the projections: in datasets of their own (Data Exchange), and taken by a recipe without a word."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from detcal_pipelines.cli import main
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.steps.sources import paths_in

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response, correct_response
from detcal.stores import roles_in
from tests.stores.recipes import refused, write
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


@pytest.mark.parametrize("kind", [np.int64, np.float64], ids=["whole numbers", "reals"])
@pytest.mark.parametrize("frames", ["8:11", [10, 8]])
def test_projections_by_their_numbers_have_the_flats_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: Any, kind: type
) -> None:
    """Flats fade from 10000 at frame 4.5 to 8000 at 12.5: at frame 8.5 the beam is 9000."""
    monkeypatch.chdir(tmp_path)
    stack = make(KEY)
    stack[KEY == 1] = np.repeat([10100, 8100], [4, 2])[:, None, None]
    write_tomo(tmp_path / "scan.nxs", stack=stack, key=KEY.astype(kind), angles=np.arange(len(KEY)))
    written = write('operation = "correct_response"', source=f'path = "scan.nxs"\nframes = {json.dumps(frames)}', output="out.h5")
    done = CliRunner().invoke(main, ["run", str(written), "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    numbers = np.array(frames if isinstance(frames, list) else range(8, 11))
    beam = 10000 - 2000 * (numbers - 4.5) / 8
    np.testing.assert_allclose(open_frames("out.h5").values, np.broadcast_to((5000 / beam)[:, None, None], (len(beam), *SHAPE)), rtol=1e-5)


@pytest.mark.parametrize("frames", ["2:7", [3], 13, [12, 4]])
def test_the_flats_of_some_projections_are_those_of_all(tmp_path: Path, frames: Any) -> None:
    """Those after the last of some, which are not taken together, stay apart."""
    key = np.array([1, 1, *[0] * 5, 1, 2, 1, *[0] * 5, 1, 1])
    stack = np.where(key == 0, 500, np.arange(len(key)) % 8 * 50 + 1000)[:, None, None] * np.ones(SHAPE)
    write_tomo(tmp_path / "scan.nxs", stack=stack.astype(np.uint16), key=key, angles=np.arange(len(key)))
    everything, some, flat = (open_frames(tmp_path / "scan.nxs", frames=role) for role in ("projections", frames, "flats"))
    whole = correct_response(everything, flat=flat, dark=0)
    wanted = whole.sel(frame=np.isin(everything.frame_number, some.frame_number))
    np.testing.assert_array_equal(correct_response(some, flat=flat, dark=0).sortby("frame_number"), wanted)


@pytest.mark.filterwarnings("ignore:.*has an image_key")
@pytest.mark.parametrize(
    ("name", "frames"),
    [(name, frames) for name, numbers in (("scan.nxs", "7:12"), ("scan.h5", "0:5"))
     for frames in ("", '\nframes = "projections"', f'\nframes = "{numbers}"')],
)  # fmt: skip
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
        ('path = "scan.nxs"\nframes = "5:9"', "dark.npy", None),
        ('path = "scan.nxs"\nframes = "flats"', "dark.npy", None),
        ('path = "scan.nxs"\nframes = [11, 7]', "dark.npy", "scan.nxs"),
        ('path = ["scan.nxs"]', "dark.npy", "scan.nxs"),
    ):
        recipe = read_recipe(write(f'{CORRECT}\ndark = "dark.npy"', source=source))
        step: Any = recipe.steps[0]
        assert [Path(path).name for path in paths_in(step.dark)] == [dark]
        assert [Path(path).name for path in paths_in(step.flat)] == ([] if flat is None else [flat])
        assert flat is None or step.flat.flip == recipe.input.flip  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["[{names}]", "{{ path = [{names}] }}"], ids=["list", "table"])
@pytest.mark.parametrize("suffix", ["npy", "h5"])
def test_darks_and_flats_in_several_files_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, suffix: str) -> None:
    """As many frames in each file as it likes: 100 and 300, 300, 300 have the mean 250."""
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", np.full((3, *SHAPE), 500, np.uint16))
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    given = {}
    for key, scale in (("dark", 1), ("flat", 5)):
        for number, (count, value) in enumerate(((1, 100), (3, 300))):
            save_as(Path(f"{key}{number}.{suffix}"), np.full((count, *SHAPE), scale * value, np.uint16))
        given[key] = how.format(names=", ".join(f'"{key}{number}.{suffix}"' for number in range(2)))
    write(f"{CORRECT}\naverage = 'mean'\ndark = {given['dark']}\nflat = {given['flat']}", source='path = "scan.npy"', output="out.zarr")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(open_frames("out.zarr").values, 0.25, rtol=1e-6)


def save_as(path: Path, stack: np.ndarray[Any, Any]) -> None:
    if path.suffix == ".npy":
        np.save(path, stack)
    else:
        save(stack, path)


def test_what_is_wrong_with_one_of_a_list_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shape in (("scan.npy", SHAPE), ("dark.npy", SHAPE), ("small.npy", (4, 5))):
        np.save(name, np.ones((2, *shape), np.uint16))
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    for dark, said in (
        ('["dark.npy", "gone.npy"]', "steps[0].dark.path[1] (line 6): no such file: "),
        ('["dark.npy", "dark.npy"]', "expected each file once"),
        ('["dark.npy", "small.npy"]', "small.npy"),
        ("[]", "steps[0].dark.path (line 6): list should have at least 1 item"),
        ('["dark.npy", 3]', "steps[0].dark.path[1] (line 6): input should be a valid string, got 3"),
    ):
        (found,) = refused(write(f"{CORRECT}\ndark = {dark}", source='path = "scan.npy"'), "check")
        assert said in found


def test_two_tomography_files_are_one_stack_with_the_flats_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.nxs", "b.nxs"):
        write_nxtomo(tmp_path / name)
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    write(CORRECT, source='path = ["a.nxs", "b.nxs"]\nframes = "projections"', output="out.h5")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(open_frames("out.h5").values, np.full((10, *SHAPE), 0.5), rtol=1e-6)
