"""A file that is damaged or may not be read says so in one line: it never gives other data."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fabio.cbfimage import CbfImage

from detcal import load, open_frames, tree
from detcal.errors import InputError
from tests.stores.kinds import (
    Stack,
    make_stack,
    write_cbf,
    write_edf,
    write_hdf5,
    write_npy,
    write_tiff,
    write_tiff_pages,
    write_tiff_without_description,
    write_zarr,
    write_zarr_array,
)


@pytest.mark.parametrize(
    "write",
    [write_hdf5, write_npy, write_tiff, write_tiff_without_description, write_tiff_pages, write_edf, write_cbf],
    ids=lambda write: write.__name__,
)
def test_a_file_that_is_cut_short_never_gives_other_data(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("int32"))
    whole, content = open_frames(path).values, path.read_bytes()
    messages = []
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        found = values_or_message(path)
        if isinstance(found, str):
            messages.append(found)
        else:
            np.testing.assert_array_equal(found, whole)  # only padding was cut off
    assert len(messages) >= 38
    assert all(path.name in message and "\n" not in message for message in messages)


def values_or_message(path: Path) -> Stack | str:
    """The frames, or why there are none."""
    try:
        return open_frames(path).values
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.tif", "a.edf", "a.cbf"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, np.random.default_rng(3).bytes(3000)], ids=["empty", "text", "random"])
def test_garbage_is_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        open_frames(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_a_folder_is_called_is_no_reason(tmp_path: Path) -> None:
    folder = tmp_path / "hdf5plugin" / "imagecodecs"
    folder.mkdir(parents=True)
    (folder / "a.raw").write_bytes(b"nonsense" * 100)
    with pytest.raises(InputError, match=r"a\.raw.* It may be cut short, or of another kind than its name says\.$"):
        open_frames(folder / "a.raw")


def test_a_flipped_byte_in_a_cbf_is_refused(tmp_path: Path) -> None:
    path = write_cbf(tmp_path, make_stack("int32"))
    content = bytearray(path.read_bytes())
    content[content.index(CbfImage.STARTER) + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"scan_00000\.cbf is damaged.*checksum"):
        open_frames(path)


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, make_stack("uint16"), chunks=(2, 20, 31), fletcher32=True)
    with h5py.File(path) as file:
        place = file["entry/data/data"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    frames = open_frames(path, chunks={"frame": 2})
    frames[:2].compute()
    with pytest.raises(InputError, match=r"cannot read .*stack\.h5"):
        frames[2:4].compute()


@pytest.mark.parametrize("damage", [lambda chunk: chunk[: len(chunk) // 2], lambda chunk: b"", lambda chunk: b"nonsense" + chunk[8:]])
def test_a_damaged_zarr_chunk_is_refused_when_it_is_read(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_zarr(tmp_path, make_stack("uint16"))
    chunk = path / "entry/frames/c/0/0/0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    frames = open_frames(path, chunks={"frame": 2})
    frames[2:].compute()
    with pytest.raises(InputError, match=r"cannot read .*stack\.zarr"):
        frames[:2].compute()


@pytest.mark.parametrize("metadata", ["", "{", "{}", '{"zarr_format": 3, "node_type": "array"}'])
def test_garbage_in_zarr_metadata_is_refused_in_one_line(metadata: str, tmp_path: Path) -> None:
    path = write_zarr_array(tmp_path, make_stack("uint16"))
    (path / "zarr.json").write_text(metadata)
    with pytest.raises(InputError, match=r"array\.zarr") as caught:
        open_frames(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "write", [write_hdf5, write_npy, write_zarr, write_zarr_array, write_tiff, write_edf, write_cbf], ids=lambda write: write.__name__
)  # fmt: skip
def test_a_file_that_may_not_be_read_is_told_from_one_that_is_damaged(
    write: Callable[[Path, Stack], Path], ordinary_folder: Path
) -> None:  # fmt: skip
    path = write(ordinary_folder, make_stack("int32"))
    frames = open_frames(path)
    path.chmod(0)
    for read in (lambda: open_frames(path), lambda: load(path), lambda: tree(path), frames.compute):
        with pytest.raises(InputError, match=f"^no permission to read {path}$"):
            read()
    path.chmod(0o700)
    ordinary_folder.chmod(0)
    with pytest.raises(InputError, match=f"^no permission to read {path}$"):
        open_frames(path)
    ordinary_folder.chmod(0o700)
