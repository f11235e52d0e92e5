"""What an output may take the place of, and where it may be."""

import shutil
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError, OutputError
from detcal.response import Response
from detcal.stores import check_output
from tests.stores.samples import SUFFIXES, content, make_failing, make_frames


@pytest.mark.parametrize(
    ("obj", "name", "options", "expected"),
    [
        (make_frames(), "a.h5", {"shards": {"frame": 4}}, r"chunks and shards are those of a \.zarr, and a\.h5 has none"),
        (make_frames(), "a.tif", {"chunks": {"frame": 1}}, r"a\.tif has none: leave them out"),
        (make_frames(), "a.zarr", {"chunks": {"frame": 2}, "shards": {"frame": 5}}, "expected shards of whole chunks"),
        (make_frames(), "a.zarr", {"chunks": {"row": 2}}, r"got \{'row': 2\}"),
        (da.zeros((4, 20_000, 20_000), chunks=(2, -1, -1)), "a.h5", {}, "less than 2 GiB"),
        (Response.from_gain(np.ones((6, 5))), "a.png", {}, "a .png is a picture of maps"),
        ("text", "a.zarr", {}, "to save, got str"),
        (make_frames(), "old.zarr", {}, "exists already"),
        (make_frames(), "folder", {"overwrite": True}, "not a zarr store"),
        (make_frames(), "gone/a.zarr", {}, "no such folder"),
    ],
    ids=["shards in h5", "chunks in tif", "shards", "chunks", "large chunks", "calibration in png", "text", "exists", "folder", "gone"],
)  # fmt: skip
def test_what_save_would_refuse_can_be_asked_for_before(obj: Any, name: str, options: Any, expected: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    save(np.ones((6, 5)), tmp_path / "old.zarr")
    before = content(tmp_path)
    for refuse in (check_output, save):
        with pytest.raises((InputError, OutputError), match=expected) as caught:
            refuse(obj, tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    assert content(tmp_path) == before
    check_output(make_frames(), tmp_path / "old.zarr", overwrite=True, shards={"frame": 4})
    check_output(make_frames(), tmp_path / "new.tif")
    assert content(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_exists_is_replaced_only_on_request(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save(np.zeros((3, 6, 5)), path)
    before = content(tmp_path)
    with pytest.raises(OutputError, match=f"a{suffix} exists already"):
        save(np.ones((3, 6, 5)), path)
    assert content(tmp_path) == before
    save(np.ones((3, 6, 5)), path, overwrite=True)
    assert (open_frames(path).values == 1).all()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_folder_replaces_a_file_or_a_link_and_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("a file")
    save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=True)
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "a.h5")
    save(np.full((3, 6, 5), 2), tmp_path / "a.h5", overwrite=True)
    assert (open_frames(tmp_path / "a.h5").values == 2).all()
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    save(np.full((3, 6, 5), 3), tmp_path / "link.zarr", overwrite=True)
    assert (open_frames(tmp_path / "link.zarr").values == 3).all()
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.h5", "a.zarr", "link.zarr"]


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_a_folder_that_is_no_store_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"thesis{suffix}"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/chapter").write_text("years of work")
    save(np.ones((6, 5)), folder / "inner/a.zarr")
    before = content(tmp_path)
    for overwrite in (True, False):
        with pytest.raises(OutputError, match=rf"thesis{suffix} is a folder that is not a zarr store"):
            save(np.ones((3, 6, 5)), folder, overwrite=overwrite)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OutputError, match="not a zarr store"):
        save(np.ones((3, 6, 5)), tmp_path / "link", overwrite=True)
    (tmp_path / "link").unlink()
    assert content(tmp_path) == before


@pytest.mark.parametrize("marker", [".zgroup", ".zarray"])
def test_a_store_of_the_second_version_is_replaced(marker: str, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / marker).touch()
    save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=True)
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()


@pytest.mark.parametrize("name", [".", "..", "../..", "../../a.zarr"])
def test_the_current_folder_and_those_around_it_are_never_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(np.ones((6, 5)), tmp_path / "a.zarr")
    (tmp_path / "a.zarr/inner").mkdir()
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path / "a.zarr/inner")
    with pytest.raises(OutputError, match="is the current folder, or holds it"):
        save(np.ones((3, 6, 5)), name, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_link_that_leads_nowhere_is_no_output(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").symlink_to("gone")
    with pytest.raises(OutputError, match=r"a\.zarr is a link to what is not there, gone"):
        save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=overwrite)
    assert [found.name for found in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("mode", [0o555, 0o666], ids=["not to write in", "not to enter"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_in_a_folder_that_is_not_ours_is_refused(suffix: str, mode: int, ordinary_folder: Path) -> None:
    folder = ordinary_folder / "results"
    folder.mkdir()
    save(np.zeros((3, 6, 5)), folder / f"a{suffix}")
    before = content(ordinary_folder)
    folder.chmod(mode)
    for name in (f"a{suffix}", f"new{suffix}"):
        with pytest.raises(OutputError, match=r"^cannot write in .*results: Permission denied$"):
            save(make_failing(), folder / name, overwrite=True)
    folder.chmod(0o755)
    assert content(ordinary_folder) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_closed_during_a_run_is_named(suffix: str, ordinary_folder: Path) -> None:
    def close_folder(writes: list[da.Array]) -> None:
        dask.compute(writes)
        ordinary_folder.chmod(0o555)

    with pytest.raises(OutputError, match=f"^cannot write in {ordinary_folder}: Permission denied$"):
        save(np.zeros((3, 6, 5)), ordinary_folder / f"a{suffix}", compute=close_folder)


def test_an_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no such folder: .*gone"):
        save(make_frames(), tmp_path / "gone/a.zarr")


@pytest.mark.parametrize("obj", ["text", None, xr.Dataset()], ids=["text", "None", "empty"])
def test_what_is_no_data_is_refused(obj: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a DataArray, Dataset, array or calibration to save"):
        save(obj, tmp_path / "a.zarr")
