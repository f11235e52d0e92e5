"""Files that are still being written: the frames that are there are taken if so asked, that number is noted, and growth is no change."""

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from detcal_pipelines import recording, run

import detcal
from detcal import open_frames, save
from detcal.errors import InputError, OutputError, RunError
from detcal.stores.damage import check_unchanged, state_of
from tests.pipelines.commands import detcal as command
from tests.pipelines.commands import fails, in_process

SHAPE = (4, 5)


def make_frames(first: int, last: int) -> Any:
    return np.arange(first, last, dtype=np.uint16)[:, None, None] + np.ones(SHAPE, np.uint16)


def write(path: Path, count: int, *, wanted: int = 0) -> None:
    """A file of so many frames, or of more that are to come."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (wanted or count, *SHAPE), "u2", maxshape=(None, *SHAPE), chunks=(1, *SHAPE), compression="gzip")
        data[:count] = make_frames(0, count)


def grow(path: Path, count: int) -> None:
    with h5py.File(path, "a") as file:
        before = len(file["data"])
        file["data"].resize(count, axis=0)
        file["data"][before:] = make_frames(before, count)


def test_the_frames_that_are_there_now(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 4, wanted=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # frames that are to come are not missing
        frames = open_frames(tmp_path / "a.h5", newest=True)
    assert frames.dtype == np.uint16
    assert frames.attrs["newest"] == 4
    np.testing.assert_array_equal(frames.values, make_frames(0, 4))
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", newest=3, frames="::-1").values, make_frames(0, 3)[::-1])


def test_a_frame_that_was_left_out_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 2, wanted=10)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["data"][4] = 7
    with pytest.warns(match=r"lacks 2 of 5 frames \(2–3\)"):
        frames = open_frames(tmp_path / "a.h5", newest=True)
    assert frames.shape == (5, *SHAPE)
    assert np.isnan(frames[2:4]).all()


def test_a_series_and_a_store_that_grow(tmp_path: Path) -> None:
    store = zarr.create_array(tmp_path / "a.zarr", shape=(4, *SHAPE), chunks=(1, *SHAPE), dtype="u2")
    store[:] = make_frames(0, 4)
    for number in range(4):
        tifffile.imwrite(tmp_path / f"a_{number}.tif", make_frames(number, number + 1)[0])
    opened = [open_frames(tmp_path / name, newest=newest) for name in ("a.zarr", "a_*.tif") for newest in (True, 3)]
    assert [len(frames) for frames in opened] == [4, 3, 4, 3]
    for frames in opened:
        np.testing.assert_array_equal(frames.values, make_frames(0, len(frames)))


def test_the_first_projections(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 6)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["image_key"] = [2, 1, 0, 0, 0, 0]
        file.move("data", "entry/instrument/detector/data")
    frames = open_frames(tmp_path / "a.h5", frames="projections", newest=4)
    np.testing.assert_array_equal(frames.values, make_frames(2, 4))
    with pytest.raises(InputError, match=r"none of the first 2 frames in .*a\.h5.* is one of the projections: wait for more of them"):
        open_frames(tmp_path / "a.h5", frames="projections", newest=2)


@pytest.mark.parametrize(("count", "newest", "said"), [(0, True, "expected a frame in"), (3, 4, "from 1 to 3, the frames that are there")])
def test_frames_that_are_not_there_yet(tmp_path: Path, count: int, newest: Any, said: str) -> None:
    write(tmp_path / "a.h5", count, wanted=10)
    with pytest.raises(InputError, match=f"{said}.*: wait until more are written"):
        open_frames(tmp_path / "a.h5", newest=newest)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a file of six frames, which has nine once a run has begun."""
    write(tmp_path / "a.h5", 6)
    np.save(tmp_path / "gain.npy", np.ones(SHAPE, np.float32))
    (tmp_path / "r.toml").write_text(
        '[input]\npath = "a.h5"\nnewest = true\nchunk_frames = 1\n[[steps]]\noperation = "correct_response"\nresponse = "gain.npy"\n'
        '[output]\npath = "out.zarr"\n'
    )
    prepare = run.prepare_zarr

    def begin(*args: Any, **options: Any) -> Any:
        grow(tmp_path / "a.h5", 9)
        return prepare(*args, **options)

    monkeypatch.setattr(run, "prepare_zarr", begin)
    return tmp_path


def check_output(folder: Path) -> None:
    """Six frames, and a note of it."""
    found = detcal.load(folder / "out.zarr")
    np.testing.assert_array_equal(found.corrected.values, make_frames(0, 6))
    assert json.loads(found.attrs["detcal_recipe"])["input"]["newest"] == 6


def test_a_file_that_grows_while_a_run_reads_it(folder: Path) -> None:
    assert "the first 6 frames are taken" in command(folder, "run", "r.toml").output
    check_output(folder)
    (folder / "out.zarr/corrected/c/1/0/0").unlink()
    assert "all sound" in command(folder, "verify", "--repair", "out.zarr").output
    check_output(folder)


def test_a_run_goes_on_with_the_frames_that_it_began_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal, written = recording.written_seal, []

    def stop(*args: Any) -> Any:
        written.append(args)
        if len(written) == 3:
            raise OutputError("the disk is gone")
        return seal(*args)

    monkeypatch.setattr(recording, "written_seal", stop)
    assert "the same command goes on from there" in in_process(folder, "run", "r.toml").stderr
    monkeypatch.setattr(recording, "written_seal", seal)
    assert "the first 6 frames are taken" in command(folder, "run", "r.toml").output
    check_output(folder)


def test_without_it_a_file_that_grows_has_changed(folder: Path) -> None:
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text.replace("newest = true\n", ""))
    done = in_process(folder, "run", "r.toml")
    assert done.exit_code == 1
    assert "has changed since the run began" in done.stderr
    (folder / "r.toml").write_text(text.replace("true", "12"))
    assert "expected newest of true, or from 1 to 9, the frames that are there, in" in fails(folder, "check", "r.toml")


def test_a_file_that_is_cut_has_changed(tmp_path: Path) -> None:
    save(make_frames(0, 3), tmp_path / "a.h5")
    before = state_of(str(tmp_path / "a.h5"))
    with open(tmp_path / "a.h5", "ab") as file:
        file.write(b"more")
    check_unchanged(str(tmp_path / "a.h5"), before, grows=True)
    with open(tmp_path / "a.h5", "r+b") as file:
        file.truncate(100)
    with pytest.raises(RunError, match=r"it was .* bytes long, and is 100"):
        check_unchanged(str(tmp_path / "a.h5"), before, grows=True)
