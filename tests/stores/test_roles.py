"""Flats and darks that lie beside the projections: in datasets of their own (Data Exchange), and taken by a recipe without a word."""

import json
import re
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


@pytest.mark.parametrize(
    ("frames", "means", "taken", "numbers"),
    [("5:9", "2 projections, 2 flats", '"7:9"', [7, 8]), (":", "5 projections, 6 flats, 3 darks", '"7:12"', [*range(7, 12)]),
     ([13, 9, 0, 7, 8], "3 projections, 1 flat, 1 dark", "[9, 7, 8]", [9, 7, 8])],
)  # fmt: skip
@pytest.mark.parametrize("response", ["", 'response = "gain.zarr"'])
@pytest.mark.filterwarnings("ignore:frames = ")
def test_of_numbers_that_mean_flats_and_darks_too_the_projections_are_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: Any, means: str, taken: str, numbers: list[int], response: str
) -> None:
    """By the flats and darks of the file, of which those that were among the numbers are some."""
    monkeypatch.chdir(tmp_path)
    stack = make(KEY)
    stack[KEY == 0] += 100 * np.arange(5, dtype=np.uint16)[:, None, None]
    write_tomo(tmp_path / "scan.nxs", stack=stack, key=KEY, angles=np.arange(len(KEY)))
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    write(f'operation = "correct_response"\n{response}', source=f'path = "scan.nxs"\nframes = {json.dumps(frames)}', output="out.zarr")
    said = f"counts in the whole stack, and means {means} by its image_key: correct_response takes the projections, frames = {taken}"
    with pytest.warns(UserWarning, match=re.escape(said)):
        read_recipe(tmp_path / "r.toml")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    expected = 0.5 + (np.array(numbers) - 7) / 100
    np.testing.assert_allclose(open_frames("out.zarr").values, np.broadcast_to(expected[:, None, None], (len(numbers), *SHAPE)), rtol=1e-6)


def test_numbers_that_mean_flats_alone_are_corrected_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_nxtomo(tmp_path / "scan.nxs")
    with pytest.warns(UserWarning, match=r'"3:5" counts in .* means 2 flats by its image_key: correct_response takes all of them$'):
        recipe = read_recipe(write('operation = "correct_response"', source='path = "scan.nxs"\nframes = "3:5"'))
    assert recipe.input.frames == "3:5"  # type: ignore[union-attr]
    step: Any = recipe.steps[0]
    assert (step.flat, step.dark.role) == (None, "darks")


def test_flats_among_projections_are_refused_with_advice_that_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_nxtomo(tmp_path / "scan.nxs")
    some, dark = open_frames(path, frames="5:9"), open_frames(path, frames="darks")
    with pytest.raises(
        InputError, match=r'got 4 frames of which 2 are none by their image_key: .* frames = "7:9" .* in Python by frames\['
    ):
        correct_response(some, dark=dark)
    assert correct_response(some[some.image_key == 0], dark=dark).shape == (2, *SHAPE)
    assert correct_response(some, Response.from_gain(np.ones(SHAPE))).shape == (4, *SHAPE)  # gains are those of all
    behind = '[[steps]]\noperation = "correct_response"\ndark = "scan.nxs"'  # a recipe takes the projections alone
    with pytest.warns(UserWarning, match='takes the projections, frames = "7:9"'):
        recipe = read_recipe(write(f'operation = "remove_zingers"\n{behind}', source='path = "scan.nxs"\nframes = "5:9"'))
    assert recipe.input.frames == "7:9"  # type: ignore[union-attr]


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
        ("[]", "steps[0].dark.path (line 6): expected 1 or more values, got []"),
        ('["dark.npy", 3]', "steps[0].dark.path[1] (line 6): expected a text, got 3"),
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


CROP = 'operation = "crop"\nregion = "2:7, 1:6"'


TWICE = f'{CROP}\n[[steps]]\noperation = "crop"\nregion = "1:, :"'
BEFORE = [('operation = "remove_zingers"\nthreshold = 1000.0', np.s_[:]), (CROP, np.s_[:, 2:7, 1:6]), (TWICE, np.s_[:, 3:7, 1:6])]
STACKS = ["entry/data/data", "exchange/data", "exchange/data_white", "exchange/data_dark"]
THEN_CORRECT = '[[steps]]\noperation = "correct_response"'


@pytest.mark.filterwarnings("ignore:.*has an image_key")
@pytest.mark.parametrize("write_file", [write_nxtomo, write_exchange], ids=["nxtomo", "exchange"])
@pytest.mark.parametrize(("before", "place"), BEFORE, ids=["zingers", "crop", "two crops"])
def test_a_chain_has_the_flats_and_darks_of_its_file_as_its_last_step_alone_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_file: Any, before: str, place: Any
) -> None:
    """Every pixel of every frame reads something else, and no reading stands out."""
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "scan.h5")
    with h5py.File("scan.h5", "r+") as file:
        slope = (1 + np.arange(72).reshape(SHAPE) / 100)[None]
        for stack in filter(None, map(file.get, STACKS)):
            stack[...] = (stack[()] * slope).astype(np.uint16)
    for steps, output in (('operation = "correct_response"', "alone.zarr"), (f"{before}\n{THEN_CORRECT}", "out.zarr")):
        done = CliRunner().invoke(main, ["run", str(write(steps, source='path = "scan.h5"', output=output)), "--memory", "4GiB"])
        assert done.exit_code == 0, done.output
    alone, found = open_frames("alone.zarr"), open_frames("out.zarr")
    np.testing.assert_array_equal(found, alone.values[place])
    assert found.attrs["corrections"] == ["dark", "flat"]
    assert found.attrs.get("resized_alike") == (None if found.shape == alone.shape else ["dark", "flat"])


@pytest.mark.filterwarnings("ignore:.*has an image_key")
def test_flats_of_joined_pixels_are_those_of_the_file_joined_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(4 · 5100 − 4 · 100)/(4 · 10100 − 4 · 100)."""
    monkeypatch.chdir(tmp_path)
    write_nxtomo(tmp_path / "scan.nxs")
    write('operation = "rebin"\nfactors = 2\n[[steps]]\noperation = "correct_response"', source='path = "scan.nxs"', output="out.h5")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(open_frames("out.h5"), np.full((5, 4, 4), 0.5), rtol=1e-6)


def test_a_dark_of_the_whole_detector_is_cropped_with_the_frames_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = np.arange(72.0).reshape(SHAPE)
    np.save("scan.npy", np.full((3, *SHAPE), 500.0))
    np.save("dark.npy", image)
    np.save("small.npy", image[:3])
    correct = '\n[[steps]]\noperation = "correct_response"\ndark = "{name}.npy"'
    write(CROP + correct.format(name="dark"), source='path = "scan.npy"', output="out.zarr")
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    found = open_frames("out.zarr")
    np.testing.assert_array_equal(found, np.broadcast_to(500 - image[2:7, 1:6], (3, 5, 5)))
    assert found.attrs["resized_alike"] == ["dark"]
    told = " ".join(CliRunner().invoke(main, ["report", "out.zarr", "--text"]).output.split())
    assert "dark of the whole detector went the way of the frames: crop 2:7, 1:6 of 8 x 9." in told
    (said,) = refused(write(CROP + correct.format(name="small"), source='path = "scan.npy"'))
    assert (
        "expected a dark of shape (5, 5) (y, x), as the frames, or (8, 9), as these before they were cropped or rebinned, got (3, 9)"
        in said
    )


@pytest.mark.filterwarnings("ignore:.*has an image_key")
def test_flats_of_the_file_are_told_to_be_left_out_behind_a_step_that_changes_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_nxtomo(tmp_path / "scan.nxs")
    written = write('operation = "minus_log"\n[[steps]]\noperation = "correct_response"\ndark = 0.0', source='path = "scan.nxs"')
    with pytest.warns(UserWarning, match=r"correct_response does not take the flat .* since minus_log comes before it: put"):
        step: Any = read_recipe(written).steps[1]
    assert step.flat is None
