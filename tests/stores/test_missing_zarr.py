"""Chunks that a zarr store lacks are NaN with a warning that counts them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from detcal import get_array, load, open_frames, save
from detcal.errors import InputError, MissingWarning
from tests.stores.losses import STACK, check_frames, flip_a_byte, save_frames, without


def test_a_chunk_of_our_own_store_that_is_lost(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    (path / "data/c/1/0/0").unlink()
    check_frames(path, without(2, 3), r"f\.zarr(::data)? lacks 2 of 6 frames \(2–3\): never written, or lost; what is missing is NaN$")
    with pytest.warns(MissingWarning, match=r"f\.zarr lacks 2 of 6 rows \(2–3\) of data"):
        loaded = load(path)
    np.testing.assert_array_equal(loaded.data.values, without(2, 3))


def test_a_chunk_in_a_shard_that_is_lost(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr", shards={"frame": 4})  # with a chunk for each frame
    shard = path / "data/c/1/0/0"
    content = bytearray(shard.read_bytes())
    # the index of four chunks, of an offset and a size each, and its checksum; the last two lie behind the end of the stack
    index = np.frombuffer(content[-68:-4], "<u8").reshape(4, 2).copy()
    assert (index[2:] == 2**64 - 1).all()
    array = zarr.open_array(path / "data", mode="r+", config={"write_empty_chunks": False})
    del array
    index[1] = 2**64 - 1
    from google_crc32c import value

    content[-68:-4] = index.tobytes()
    content[-4:] = value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(content)
    check_frames(path, without(5), r"lacks 1 of 6 frames \(5\)")
    shard.write_bytes(b"")
    with pytest.raises(InputError, match=r"the shard data/c/1/0/0 in .*f\.zarr is cut short"):
        open_frames(path)
    shard.unlink()
    check_frames(path, without(4, 5), r"lacks 2 of 6 frames \(4–5\)")


def test_a_chunk_in_a_zip_that_is_lost(tmp_path: Path) -> None:
    whole = save_frames(tmp_path / "whole.zip")
    np.testing.assert_array_equal(load(whole).data.values, STACK)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "f.zip", "w") as target:
        for name in source.namelist():
            if name != "data/c/2/0/0":
                target.writestr(name, source.read(name))
    with pytest.warns(MissingWarning, match=r"f\.zip lacks 2 of 6 rows \(4–5\) of data"):
        np.testing.assert_array_equal(load(tmp_path / "f.zip").data.values, without(4, 5))
    with pytest.warns(MissingWarning, match=r"f\.zip::data lacks 2 of 6 rows"):
        np.testing.assert_array_equal(get_array(tmp_path / "f.zip", "data"), without(4, 5))


@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (2, 20, 30)}, {"chunks": (1, 7, 11)}])
def test_chunks_of_nothing_but_fill_values_that_another_program_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    stack = STACK.copy()
    stack[3] = 0
    zarr.create_array(tmp_path / "a.zarr", data=stack, **{"chunks": (1, 20, 30), **options})
    with pytest.warns(MissingWarning, match=r"lacks 1 of 6 frames \(3\).*fill value 0: if these were, use fillna\(0\)"):
        frames = open_frames(tmp_path / "a.zarr")
    np.testing.assert_array_equal(frames.values, without(3))
    np.testing.assert_array_equal(frames.fillna(0).values, stack)


def test_parts_of_frames_that_are_lost(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=STACK, chunks=(2, 7, 11))
    for lost in ("1/0/0", "1/2/2", "2/1/0"):
        (tmp_path / "a.zarr/c" / lost).unlink()
    wanted = STACK.astype(np.float32)
    wanted[2:4, :7, :11] = wanted[2:4, 14:, 22:] = wanted[4:, 7:14, :11] = np.nan
    check = r"lacks parts of 4 of 6 frames \(2–5\)"
    with pytest.warns(MissingWarning, match=check):
        np.testing.assert_array_equal(open_frames(tmp_path / "a.zarr").values, wanted)


def test_a_chunk_that_is_lost_after_the_store_was_opened_is_an_error(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    frames, loaded = open_frames(path, chunks={"frame": 2}), load(path)
    (path / "data/c/1/0/0").unlink()
    np.testing.assert_array_equal(frames[:2].values, STACK[:2])
    for stack in (frames, loaded.data):
        with pytest.raises(InputError, match=r"cannot read data in .*f\.zarr: 1 chunks are not there, and were when it was opened"):
            stack[2:4].compute()


def test_a_damaged_chunk_of_frames_is_an_error_that_names_them(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    flip_a_byte(path / "data/c/1/0/0")
    for stack in (open_frames(path), load(path).data, get_array(path, "data", compute=False)):
        with pytest.raises(InputError, match=r"cannot read data in .*f\.zarr: .*checksum"):
            stack.compute()


def test_coords_of_nothing_but_zero_are_written(tmp_path: Path) -> None:
    stack = xr.DataArray(STACK[:1], dims=("frame", "y", "x"), coords={"angle": ("frame", [0.0]), "x": np.zeros(30)}, name="data")
    save(stack, tmp_path / "f.zarr")
    assert (tmp_path / "f.zarr/angle/c/0").exists()
    np.testing.assert_array_equal(open_frames(tmp_path / "f.zarr").angle, [0])
    np.testing.assert_array_equal(load(tmp_path / "f.zarr").x, np.zeros(30))


def test_lost_angles_are_nan_with_a_warning(tmp_path: Path) -> None:
    stack = xr.DataArray(STACK, {"angle": ("frame", np.arange(6.0))}, ("frame", "y", "x"), "frames")
    (save(stack, tmp_path / "a.zarr") / "angle/c/0").unlink()
    with pytest.warns(MissingWarning, match=r"a\.zarr::angle lacks 6 of 6 values \(0–5\)"):
        frames = open_frames(tmp_path / "a.zarr")
    assert frames.angle.isnull().all()
    np.testing.assert_array_equal(frames.values, STACK)
