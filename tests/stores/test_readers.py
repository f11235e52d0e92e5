"""Every kind of file gives back what was written to it."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.stores.sources.frames import block_frames
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.opening import open_reader
from detcal.stores.sources.readers import FrameArray, NpyReader
from tests.stores.kinds import (
    CASES,
    INDICES,
    Stack,
    make_stack,
    write_edf,
    write_hdf5,
    write_image_hdf5,
    write_image_zarr,
    write_npy,
    write_tiff,
    write_zarr,
    write_zarr_array,
)


@pytest.mark.parametrize(("write", "dtype"), CASES)
def test_every_kind_of_file_gives_back_its_frames(write: Callable[[Path, Stack], Any], dtype: str, tmp_path: Path) -> None:
    stack = make_stack(dtype)
    frames = open_frames(write(tmp_path, stack), chunks={"frame": 4})
    assert frames.dims == ("frame", "y", "x")
    assert frames.attrs["units"] == "counts"
    assert frames.dtype == frames.data.compute().dtype == stack.dtype
    np.testing.assert_array_equal(frames.values, stack)
    assert frames.chunks == ((4, 2), (20,), (31,))
    for index in INDICES:
        np.testing.assert_array_equal(frames.data[index].compute(), stack[index], err_msg=str(index))


def test_only_the_frames_that_an_index_wants_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack("uint16")
    reads: list[tuple[int, int]] = []
    read = NpyReader.read
    monkeypatch.setattr(NpyReader, "read", lambda reader, start, stop: reads.append((start, stop)) or read(reader, start, stop))
    frames = FrameArray(NpyReader.open(str(write_npy(tmp_path, stack))))
    for index in INDICES:  # any of them may come from dask, which fuses what it can of a later index into the read
        key = index if isinstance(index, tuple) else (index,)
        key = (*key, *(slice(None),) * (3 - len(key)))
        np.testing.assert_array_equal(frames[key], stack[key], err_msg=str(index))
    assert reads == [(0, 1), (5, 6), (1, 6), (0, 6), (2, 5), (0, 0), (0, 6), (0, 6), (1, 4), (3, 4)]
    reads.clear()
    open_frames(tmp_path / "stack.npy")[4].compute()
    assert reads == [(4, 5)]


@pytest.mark.parametrize(("write", "dtype"), CASES)
def test_a_reader_is_small_and_reads_after_pickling(write: Callable[[Path, Stack], Any], dtype: str, tmp_path: Path) -> None:
    stack = make_stack(dtype)
    reader, _ = open_reader(write(tmp_path, stack), None)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 5000
    np.testing.assert_array_equal(pickle.loads(pickled).read(1, 4), stack[1:4])


@pytest.mark.parametrize(
    "write",
    [write_image_hdf5, write_npy, write_image_zarr, write_tiff, lambda folder, image: write_edf(folder, image[None])],
    ids=["hdf5", "npy", "zarr", "tiff", "edf"],
)
def test_an_image_is_a_stack_of_one_frame(write: Callable[[Path, Stack], Any], tmp_path: Path) -> None:
    image = make_stack("uint16")[0]
    frames = open_frames(write(tmp_path, image))
    assert frames.shape == (1, *image.shape)
    np.testing.assert_array_equal(frames.values[0], image)
    np.testing.assert_array_equal(frames[0].values, image)
    np.testing.assert_array_equal(frames[0:1, 3:5].values, image[None, 3:5])


@given(
    frames=st.integers(1, 5000), own=st.integers(1, 300), height=st.integers(1, 4000), wanted=st.none() | st.integers(1, 6000)
)  # fmt: skip
def test_blocks_are_whole_chunks_of_the_file(frames: int, own: int, height: int, wanted: int | None) -> None:
    reader = Hdf5Reader("a.h5", "data", (frames, height, 2048), np.dtype("u2"), own, height, "")
    block = block_frames(reader, wanted)
    assert 1 <= block <= frames
    assert block == frames or block % own == 0
    if wanted is not None:
        assert min(frames, wanted) <= block < wanted + own
    elif own * height * 4096 <= 2**26:
        assert block * height * 4096 <= 2**26
    else:
        assert block == min(frames, own)


def test_blocks_follow_the_chunks_of_an_hdf5_dataset(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, np.zeros((23, 8, 8), "u2"), chunks=(5, 3, 3))
    assert open_frames(path, chunks={"frame": 7}).chunks == ((10, 10, 3), (8,), (8,))
    assert open_frames(path, chunks={"frame": 1}).chunks == ((5, 5, 5, 5, 3), (8,), (8,))
    assert open_frames(path).chunks == ((23,), (8,), (8,))


def test_blocks_follow_the_chunks_of_a_zarr_array(tmp_path: Path) -> None:
    path = write_zarr(tmp_path, np.ones((9, 8, 8), "u2"), chunks=(2, 3, 3), shards=(4, 9, 9))
    assert open_frames(path, chunks={"frame": 3}).chunks == ((4, 4, 1), (8,), (8,))
    assert open_frames(path, chunks={"frame": 1}).chunks[0] == (2, 2, 2, 2, 1)


def test_a_reader_works_in_a_process_that_has_opened_nothing_yet(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    path = write_hdf5(tmp_path, stack, chunks=(1, 20, 31), **hdf5plugin.Bitshuffle(cname="lz4"))
    reader, _ = open_reader([str(path)], None)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read(2, 4).sum())"
    run = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(reader), capture_output=True, check=True)
    assert int(run.stdout) == stack[2:4].sum()


def test_a_dataset_is_chosen_by_name_or_because_it_is_the_only_stack(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/dark"] = stack[0]
        file["entry/mask"] = stack > 5
        file["entry/note"] = [["a", "b"]]
        file["entry/frames"] = stack
        file["entry/valid"] = stack > 6
    assert open_frames(tmp_path / "a.h5").attrs["source"].endswith("a.h5::/entry/frames")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", "entry/dark").values[0], stack[0])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/flat"] = stack[:2]
    with pytest.raises(InputError, match=r"choose one with dataset=:\n  /entry/flat \(2, 20, 31\)\n  /entry/frames \(6, 20, 31\)$"):
        open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", "/entry/flat").values, stack[:2])


def test_an_array_of_a_zarr_group_is_chosen_by_name(tmp_path: Path) -> None:
    stack = make_stack("int32")
    path = write_zarr(tmp_path, stack)
    np.testing.assert_array_equal(open_frames(path, "entry/frames").values, stack)
    assert open_frames(path, "dark").shape == (1, 20, 31)
    zarr.open_group(path).create_array("second", data=stack)
    with pytest.raises(InputError, match=r"choose one with dataset=:\n(  entry/frames .*\n  second|  second .*\n  entry/frames) "):
        open_frames(path)
    with pytest.raises(InputError, match=r"no array gone in .*stack\.zarr"):
        open_frames(path, "gone")


def test_two_thousand_files_are_not_opened_one_by_one(tmp_path: Path) -> None:
    first = make_stack("uint16")[:1]
    write_edf(tmp_path, first, "scan_0000.edf")
    for number in range(1, 2000):
        (tmp_path / f"scan_{number:04}.edf").touch()  # no image: to open it is an error
    frames = open_frames(tmp_path / "scan_*.edf", chunks={"frame": 1})
    assert frames.shape == (2000, 20, 31)
    np.testing.assert_array_equal(frames[0].values, first[0])
    with pytest.raises(InputError, match=r"scan_1999\.edf"):
        frames[-1].compute()


def add_text(path: Path, name: str, text: str | bytes) -> None:
    """An attribute of the frames in an HDF5 file or zarr store."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file["entry/data/data"].attrs[name] = text
    else:
        zarr.open_array(path, path="entry/frames", mode="r+").attrs[name] = text


@pytest.mark.parametrize("write", [write_hdf5, write_zarr], ids=lambda write: write.__name__)
def test_frames_keep_the_units_and_the_name_that_were_stored(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("float32"))
    assert open_frames(path).attrs.keys() == {"units", "source"}
    add_text(path, "units", "1")
    add_text(path, "long_name", "transmission")
    add_text(path, "other", "text")
    attrs = open_frames(path).attrs
    assert (attrs["units"], attrs["long_name"]) == ("1", "transmission")
    assert attrs.keys() == {"units", "long_name", "source"}


def test_units_of_a_fixed_length_are_text(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, make_stack("float32"))
    add_text(path, "units", np.bytes_(b"keV"))
    assert open_frames(path).attrs["units"] == "keV"


@pytest.mark.parametrize("name", ["stack.cxi", "stack.h5oina", "stack", "stack.tif"])
def test_an_hdf5_file_of_any_name_is_opened(name: str, tmp_path: Path) -> None:
    stack = make_stack("uint16")
    with h5py.File(tmp_path / name, "w") as file:
        file["scan/frames"] = stack
    np.testing.assert_array_equal(open_frames(tmp_path / name).values, stack)


@pytest.mark.parametrize("write", [write_image_hdf5, write_image_zarr, write_hdf5, write_zarr_array], ids=lambda write: write.__name__)
def test_a_mask_is_found_by_itself(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    mask = make_stack("uint16") > 30000
    mask = mask[0] if "image" in write.__name__ else mask
    frames = open_frames(write(tmp_path, mask))
    assert frames.dtype == bool
    np.testing.assert_array_equal(frames.values, mask.reshape(-1, *mask.shape[-2:]))


def test_an_image_in_a_zarr_store_has_its_axes(tmp_path: Path) -> None:
    image = xr.DataArray(make_stack("float32")[0] > 1000, {"x": np.arange(31) / 2}, ("y", "x"), "mask")
    for name in ("a.zarr", "a.h5"):
        save(image, tmp_path / name)
        frames = open_frames(tmp_path / name)
        np.testing.assert_array_equal(frames.values[0], image)
        np.testing.assert_array_equal(frames.x, image.x)


def test_brackets_in_the_name_of_a_file_are_no_pattern(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    write_npy(tmp_path, stack).rename(tmp_path / "stack[1].npy")
    np.testing.assert_array_equal(open_frames(tmp_path / "stack[1].npy").values, stack)


def test_frames_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack("uint16")
    write_npy(tmp_path, stack)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    frames = open_frames("stack.npy")
    monkeypatch.chdir("elsewhere")
    np.testing.assert_array_equal(frames.values, stack)
