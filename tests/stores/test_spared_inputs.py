"""Outputs take the place of no input, have one of the known suffixes, and spare what appears meanwhile."""

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
from detcal_pipelines.chain import check_target
from detcal_pipelines.recipe import Recipe, read_recipe
from detcal_pipelines.steps.registry import own_steps
from detcal_pipelines.steps.sources import DarkSource, InputFile, Table, paths_in
from detcal_pipelines.template import output_of, render

import detcal
from detcal import open_frames, response, save
from detcal.errors import OutputError
from tests.stores.recipes import CORRECT, SHAPE, refused, write

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


@pytest.mark.parametrize(
    ("source", "output"),
    [("a_*.edf", "a_out.edf"), ("*.edf", "below/../b.edf"), ("below", "below/b.edf"), ("below/?_*.edf", "below/b_2.edf")],
)
def test_an_output_that_would_be_an_input_of_the_next_run_is_refused(source: str, output: str, folder: Path) -> None:
    (folder / "below").mkdir()
    for number in range(2):
        for name in (f"a_{number}.edf", f"below/a_{number}.edf"):
            fabio.edfimage.EdfImage(data=np.ones(SHAPE, np.uint16)).write(name)
    step = CORRECT.format(response='"gain.npy"')
    (said,) = refused(write(step, source=f'path = "{source}"', output=output))
    assert "would be one of the files of the input" in said
    kept = write(step, source=f'path = "{source}"', output="below/out.zarr")
    check_target(read_recipe(kept))


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
    message = rf"expected one of \.zarr, \.zip, \.h5, \.hdf5, \.nxs, \.tif, .* at the end of its name, {words}"
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
