"""What comes in and goes out: one image where one is expected, and outputs that take nothing's place."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import dask
import fabio
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from detcal_pipelines.chain import build
from detcal_pipelines.cli import main
from detcal_pipelines.recipe import Recipe, read_recipe
from detcal_pipelines.steps.registry import own_steps
from detcal_pipelines.steps.sources import DarkSource, InputFile, Table, paths_in
from detcal_pipelines.template import output_of, render

import detcal
from detcal import open_frames, response, save
from detcal.errors import InputError, OutputError
from detcal.frames.images import mask_of_image, one_image

SHAPE = (8, 9)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scan, gains, a mask, a geometry and a fitted response."""
    rng = np.random.default_rng(1)
    np.save(tmp_path / "scan.npy", rng.integers(900, 1100, (12, *SHAPE)).astype(np.uint16))
    np.save(tmp_path / "gain.npy", np.full(SHAPE, 1.5, np.float32))
    np.save(tmp_path / "mask.npy", np.eye(*SHAPE, dtype=np.uint8) * 255)
    save(response.Response.from_gain(np.ones(SHAPE)), tmp_path / "response.zarr")
    (tmp_path / "plane.poni").write_text(
        'poni_version: 2.1\nDetector: Detector\nDetector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [8, 9], "orientation": 3}\n'
        "Distance: 0.1\nPoni1: 0.0\nPoni2: 0.0\nRot1: 0.0\nRot2: 0.0\nRot3: 0.0\nWavelength: 1e-10\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(step: str, *, source: str = 'path = "scan.npy"', output: str = "out.zarr", name: str = "r.toml") -> Path:
    Path(name).write_text(f'[input]\n{source}\n[[steps]]\n{step}\n[output]\npath = "{output}"\n')
    return Path(name)


def refused(recipe: Path, *commands: str, options: tuple[str, ...] = ()) -> set[str]:
    """What check, plan and run say of a recipe that none of them takes."""
    said = set()
    for command in commands or ("check", "plan", "run"):
        done = CliRunner().invoke(main, [command, str(recipe), *(options if command != "plan" else ())])
        assert done.exit_code == 2, f"{command}: {done.output}"
        said.add(done.stderr.strip().splitlines()[-1])
    return said


CORRECT = 'operation = "correct_response"\nresponse = {response}'
RINGS = 'operation = "integrate"\ngeometry = "plane.poni"\nnpt = 5\nunit = "r_mm"\nmask = {mask}'
FIT = 'operation = "fit_response"\nsigma = 2.0\nmask = {mask}'

# --------------------------------------------------------------------------------------------------- a stack is no image


@pytest.mark.parametrize(("step", "key"), [(CORRECT, "response"), (RINGS, "mask"), (FIT, "mask")], ids=["response", "rings", "fit"])
def test_a_stack_is_no_image_of_gains_nor_a_mask(step: str, key: str, folder: Path) -> None:
    (said,) = refused(write(step.format(**{key: '"scan.npy"'})))
    assert re.search(r"expected a .*one image, got a stack of 12 frames .*scan\.npy.*{ path = .*scan\.npy.*, frames = 0 }", said)


def test_a_chosen_frame_and_a_stack_of_one_are_images(folder: Path) -> None:
    np.save("gains.npy", np.stack([np.full(SHAPE, value, np.float32) for value in (2, 3, 4)]))
    np.save("one.npy", np.full((1, *SHAPE), 5, np.float32))
    raw = np.load("scan.npy")
    for source, gain in (('{ path = "gains.npy", frames = 1 }', 3), ('{ path = "gains.npy", frames = [-1] }', 4), ('"one.npy"', 5)):
        found = build(read_recipe(write(CORRECT.format(response=source))))
        np.testing.assert_allclose(found.values, raw * np.float32(gain))


def test_counts_are_no_gains(folder: Path) -> None:
    np.save("flat.npy", np.full(SHAPE, 2000.0, np.float32))
    for source, words in (
        ('{ path = "scan.npy", frames = 3 }', "uint16 with a median of"),
        ('"flat.npy"', "float32 with a median of 2000"),
    ):
        (said,) = refused(write(CORRECT.format(response=source)), "check")
        assert "expected gains, reals about 1, got counts" in said
        assert words in said
    for values in (np.full(SHAPE, 3), np.full(SHAPE, 101.0)):
        with pytest.raises(InputError, match="got counts"):
            response.Response.from_gain(values)
    for gains in (np.ones(SHAPE, int), np.full(SHAPE, np.nan), np.full(SHAPE, 0.01), np.zeros(SHAPE, int)):
        assert response.Response.from_gain(gains).shape == SHAPE
    with pytest.raises(InputError, match=r"expected gains, one image, got a stack of 3 frames: choose one, as frames\[0\]"):
        response.Response.from_gain(np.ones((3, *SHAPE)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(SHAPE, 700, np.uint16), "no 0, so that no pixel is left"),
        (np.linspace(0, 1, 72).reshape(SHAPE), "fractions"),
        (np.arange(400).reshape(20, 20), "400 different values"),
    ],
)
def test_counts_are_no_mask(values: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"expected a mask, 0 in good pixels.*got {words}"):
        mask_of_image(one_image(values, "a mask"))


def test_masks_of_all_kinds_are_masks() -> None:
    bad = np.eye(*SHAPE, dtype=bool)
    bits = np.where(bad, np.arange(9) + 2**31, 0).astype(np.uint32)
    for values in (bad, bad.astype(float) * 255, bits, np.where(bad, np.nan, 0.0), -bad.astype(np.int8), bad[None]):
        np.testing.assert_array_equal(mask_of_image(one_image(values, "a mask")), bad)


def test_a_response_has_no_frames_to_choose(folder: Path) -> None:
    (said,) = refused(write(CORRECT.format(response='{ path = "response.zarr", flip = "ud" }')), "check")
    assert "a response has no frames to choose or to turn over" in said


# ----------------------------------------------------------------------------------------------- recipes choose frames


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
    np.testing.assert_allclose(found.values, np.full((3, *SHAPE), 0.5), rtol=1e-6)  # (1102 - 102) / (2102 - 102)
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
        ('flip = "up"', "input.flip (line 3): input should be 'ud', 'lr' or 'both', got 'up'"),
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


# ---------------------------------------------------------------------------------------- outputs take nothing's place


class Inner(Table):
    """A table of someone else's step."""

    dark: DarkSource
    more: list[DarkSource]


def test_every_path_of_a_recipe_is_found_by_its_type(folder: Path) -> None:
    sources = [DarkSource.model_validate({"path": name}, context={"folder": "."}) for name in ("scan.npy", "gain.npy")]
    assert list(paths_in(Inner(dark=sources[0], more=sources))) == [str(folder / name) for name in ("scan.npy", "scan.npy", "gain.npy")]
    found = read_recipe(write(CORRECT.format(response='"gain.npy"')))
    assert all(isinstance(path, str) for path in found.inputs())
    assert isinstance(found.input.path, InputFile)  # type: ignore[union-attr]
    assert Recipe.model_validate_json(found.model_dump_json(), context={"folder": "."}).inputs() == found.inputs()


@pytest.mark.parametrize("name", own_steps())
def test_no_path_of_a_ready_recipe_is_forgotten(name: str, tmp_path: Path) -> None:
    lines = re.sub(r'^# (\w+ = "[\w.]+\.(?:zarr|h5|edf|poni)")', r"\1", render(name), flags=re.MULTILINE)
    (tmp_path / "r.toml").write_text(lines)
    named = {path for path in re.findall(r'^\w+ = "([\w.]+\.\w+)"', lines, re.MULTILINE) if path != output_of(own_steps()[name])}
    assert named
    for path in named:
        (tmp_path / path).touch()
    assert set(read_recipe(tmp_path / "r.toml").inputs()) == {str(tmp_path / path) for path in named}


def in_place(folder: Path) -> dict[str, str]:
    """Outputs that would take the place of something, or lie in it."""
    (folder / "store.zarr").mkdir()
    zarr.open_group(folder / "store.zarr", mode="w").create_array("frames", data=np.load("scan.npy"))
    (folder / "link.h5").symlink_to("gain.npy")
    os.link("gain.npy", "hard.h5")
    (folder / "below").mkdir()
    (folder / "around.zarr").mkdir()
    zarr.open_group(folder / "around.zarr", mode="w")
    return {
        "r.toml": "would take the place of the recipe",
        "link.h5": "would take the place of the input",
        "hard.h5": "would take the place of the input",
        "below/../gain.npy": "would take the place of the input",
        "store.zarr/out.zarr": "lies inside the input",
        "store.zarr/frames/out.zarr": "lies inside the input",
        "store.zarr": "would take the place of the input",
        ".": "would take the place of the input",
    }


@pytest.mark.parametrize(
    "output", ["r.toml", "link.h5", "hard.h5", "below/../gain.npy", "store.zarr/out.zarr", "store.zarr/frames/out.zarr", "store.zarr", "."]
)
def test_no_command_writes_over_or_into_what_a_recipe_names(output: str, folder: Path) -> None:
    words = in_place(folder)[output]
    (said,) = refused(write(CORRECT.format(response='"gain.npy"'), source='path = "store.zarr"', output=output), options=("--overwrite",))
    assert words in said


def test_no_command_writes_over_the_folder_of_the_recipe(folder: Path) -> None:
    in_place(folder)
    recipe = write(CORRECT.format(response='"../gain.npy"'), source='path = "../scan.npy"', output=".", name="around.zarr/r.toml")
    (said,) = refused(recipe, options=("--overwrite",))
    assert "would take the place of the recipe" in said


def test_files_of_a_glob_are_not_written_over(folder: Path) -> None:
    for number in range(2):
        fabio.edfimage.EdfImage(data=np.ones(SHAPE, np.uint16)).write(f"a_{number}.edf")
    step = CORRECT.format(response='"gain.npy"')
    (said,) = refused(write(step, source='path = "a_*.edf"', output="a_1.edf"), options=("--overwrite",))
    assert "would take the place of the input" in said
    (said,) = refused(write(step, source='path = ["a_0.edf", "a_1.edf"]', output="a_1.edf"), options=("--overwrite",))
    assert "would take the place of the input" in said


def test_save_spares_what_the_result_is_read_from(folder: Path) -> None:
    for number in range(3):
        fabio.edfimage.EdfImage(data=np.ones(SHAPE, np.uint16)).write(f"a_{number}.edf")
    os.link("a_1.edf", "b.edf")
    many = open_frames("a_*.edf")
    for name in ("a_0.edf", "a_1.edf", "b.edf"):
        with pytest.raises(OutputError, match="would take the place of the source"):
            save((many * 2).drop_attrs(), name, overwrite=True)
    save(many, "store.zarr")
    derived = open_frames("store.zarr").astype("f4") + 1
    loaded = detcal.load("store.zarr")
    for obj, name, words in (
        (derived, "store.zarr", "take the place"),
        (derived, "store.zarr/new.zarr", "lies inside"),
        (loaded, "store.zarr", "take the place"),
        ((loaded.frames + 1).drop_attrs(), "store.zarr/new.zarr", "lies inside"),
    ):
        with pytest.raises(OutputError, match=words):
            save(obj, name, overwrite=True)
    save(derived, "elsewhere.zarr")
    with h5py.File("part.h5", "w") as file:
        file["data"] = np.zeros((4, *SHAPE))
    with h5py.File("whole.h5", "w") as file:
        layout = h5py.VirtualLayout((4, *SHAPE), "f8")
        layout[:] = h5py.VirtualSource("part.h5", "data", (4, *SHAPE))
        file.create_virtual_dataset("data", layout)
    with pytest.raises(OutputError, match=r"would take the place of the source .*part\.h5"):
        save(open_frames("whole.h5") + 1, "part.h5", overwrite=True)


@pytest.mark.parametrize("name", ["gain.zarr", "dark.h5", "flat.tif", "raw.zarr"])
def test_save_spares_the_calibration_the_dark_and_the_flat_of_a_result(folder: Path, name: str) -> None:
    save(response.Response.from_gain(np.ones(SHAPE)), "gain.zarr", overwrite=True)
    save(np.ones((3, *SHAPE), np.float32), "raw.zarr", overwrite=True)
    save(np.zeros((2, *SHAPE), np.float32), "dark.h5", overwrite=True)
    save(np.full((2, *SHAPE), 3, np.float32), "flat.tif", overwrite=True)
    found = response.correct_response(
        open_frames("raw.zarr"), detcal.load("gain.zarr"), dark=open_frames("dark.h5"), flat=open_frames("flat.tif")
    )
    with pytest.raises(OutputError, match=rf"would take the place of the source .*{name}"):
        save(found, name, overwrite=True)


# --------------------------------------------------------------------------------------------------------- names of kinds


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out", "got none"),
        ("out.csv", r"got \.csv$"),
        ("out.npy", r"got \.npy$"),
        ("out.zar", r"got \.zar; did you mean out\.zarr\?$"),
        ("out.tff", r"got \.tff; did you mean out\.tiff?\?$"),
        ("out.h5.gz", r"got \.gz"),
        ("out.zarr.", "got"),
    ],
)
def test_unknown_suffixes_are_refused_by_all(name: str, words: str, folder: Path) -> None:
    message = rf"expected one of \.zarr, \.zip, \.h5, \.hdf5, \.nxs, \.tif, \.tiff, \.edf at the end of its name, {words}"
    for said in refused(write(CORRECT.format(response='"gain.npy"'), output=name)):
        assert re.search(message, said)
    with pytest.raises(OutputError, match=message):
        save(np.ones((3, *SHAPE)), name)
    assert not Path(name).exists()


def test_suffixes_may_be_in_capitals(folder: Path) -> None:
    assert save(np.ones((3, *SHAPE)), "OUT.H5").is_file()
    assert save(np.ones((3, *SHAPE)), "a.b.ZARR").is_dir()


# ------------------------------------------------------------------------------------------------- what appears meanwhile


@pytest.mark.parametrize("suffix", [".zarr", ".zip", ".h5", ".tif"])
@pytest.mark.parametrize("other", ["file", "folder", "empty folder", "link"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_an_output_that_appears_meanwhile_stays(
    suffix: str, other: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / f"out{suffix}"

    def no_link(*_: Any) -> None:
        raise PermissionError(1, "no links here")

    def appear(writes: Any) -> None:
        dask.compute(writes, scheduler="synchronous")
        match other:
            case "file":
                target.write_text("mine")
            case "folder":
                target.mkdir()
                (target / "kept").write_text("mine")
            case "empty folder":
                target.mkdir()
            case "link":
                target.symlink_to("nowhere")

    if not links:
        monkeypatch.setattr("detcal.stores.targets.replacing.link", no_link)
    values = np.arange(24.0).reshape(2, 3, 4)
    with pytest.raises(OutputError, match=rf"out{suffix} appeared while this was computed, .*: the result is in .*out-1{suffix}$"):
        save(values, target, compute=appear)
    kept = target.readlink() if other == "link" else sorted(target.iterdir()) if target.is_dir() else target.read_text()
    assert kept == {"file": "mine", "folder": [target / "kept"], "empty folder": [], "link": Path("nowhere")}[other]
    np.testing.assert_array_equal(open_frames(tmp_path / f"out-1{suffix}").values, values)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out-1{suffix}", f"out{suffix}"]


def test_a_folder_of_others_that_appears_meanwhile_stays_whoever_overwrites(tmp_path: Path) -> None:
    def appear(writes: Any) -> None:
        dask.compute(writes, scheduler="synchronous")
        shutil.rmtree(tmp_path / "out.zarr")
        (tmp_path / "out.zarr").mkdir()
        (tmp_path / "out.zarr/thesis").write_text("mine")

    save(xr.DataArray(np.ones((2, 3, 4))), tmp_path / "out.zarr")
    with pytest.raises(OutputError, match="not a zarr store"):
        save(np.ones((2, 3, 4)), tmp_path / "out.zarr", overwrite=True, compute=appear)
    assert (tmp_path / "out.zarr/thesis").read_text() == "mine"
