"""Frames that an HDF5 file lacks are NaN with a warning that counts them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from detcal import get_array, open_frames, response, save
from detcal.errors import MissingWarning
from tests.stores.losses import SHAPE, STACK, check_frames, make_map, without, write

# -------------------------------------------------------------------------------------------------------------------- HDF5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "lzf"},  # which HDF5 decodes
        {**hdf5plugin.Bitshuffle(cname="lz4")},
    ],
    ids=["plain", "gzip", "lzf", "bitshuffle"],
)
def test_frames_of_a_scan_that_was_aborted(options: dict[str, Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", SHAPE, "u2", chunks=(1, 20, 30), fillvalue=7, **options)
        data[:2], data[3] = STACK[:2], STACK[3]
    check_frames(tmp_path / "a.h5", without(2, 4, 5), r"a\.h5::/?d lacks 3 of 6 frames \(2, 4–5\): never written, or lost")


def test_frames_that_were_written_in_part(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", chunks=(2, 20, 10), compression="gzip")[:3, :, :20] = STACK[:3, :, :20]
    wanted = without(4, 5)
    wanted[:, :, 20:] = np.nan
    wanted[3, :, :20] = 0  # in a chunk that was written: HDF5 keeps no note of what of it was
    check_frames(tmp_path / "a.h5", wanted, r"lacks 2 of 6 frames \(4–5\) and parts of 4 of 6 frames \(0–3\)")


def test_an_image_of_which_a_part_is_missing_is_one_frame(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE[1:], "u2", chunks=(5, 30))[:5] = STACK[0, :5]
    with pytest.warns(MissingWarning, match=r"lacks parts of 1 of 1 frames \(0\)"):
        frames = open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames[0, :5].values, STACK[0, :5])
    assert np.isnan(frames[0, 5:].values).all()


def test_a_dataset_in_one_piece_that_was_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2")
        file["scalar"] = 4
    check_frames(tmp_path / "a.h5", without(*range(6)), r"lacks 6 of 6 frames \(0–5\)")
    assert get_array(tmp_path / "a.h5", "scalar") == 4


def test_a_file_of_raw_numbers_that_is_too_short(tmp_path: Path) -> None:
    STACK.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", external=[(str(tmp_path / "raw.bin"), 0, STACK.nbytes)])
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5").values, STACK)
    os.truncate(tmp_path / "raw.bin", STACK.nbytes // 2 + 100)
    check_frames(tmp_path / "a.h5", without(3, 4, 5), r"lacks 3 of 6 frames \(3–5\)")


@pytest.mark.parametrize(
    ("lost", "told", "numbers"), [("b.bin", r"3 of 6 frames \(3–5\)", (3, 4, 5)), ("a.bin", "6 of 6 frames", range(6))]
)
def test_a_file_of_raw_numbers_that_is_gone(lost: str, told: str, numbers: Any, tmp_path: Path) -> None:
    """What lies behind it, HDF5 cannot read either."""
    for name, part in (("a.bin", STACK[:3]), ("b.bin", STACK[3:])):
        part.tofile(tmp_path / name)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", external=[(str(tmp_path / name), 0, STACK.nbytes // 2) for name in ("a.bin", "b.bin")])
    (tmp_path / lost).unlink()
    check_frames(tmp_path / "a.h5", without(*numbers), f"lacks {told}")


@pytest.mark.parametrize(("stored", "read"), [("u1", "f4"), ("u2", "f4"), ("i4", "f8"), ("u8", "f8"), (">f4", ">f4"), ("?", "f4")])
def test_types_take_nan(stored: str, read: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, stored, chunks=(1, 20, 30))[1:] = 1
    with pytest.warns(MissingWarning, match="lacks 1 of 6 frames"):
        frames = open_frames(tmp_path / "a.h5")
    assert frames.dtype == frames.values.dtype == np.dtype(read)
    assert np.isnan(frames.values).sum() == 600


# ------------------------------------------------------------------------------------------------------- many, and at once


def test_many_chunks_are_opened_quickly(tmp_path: Path) -> None:
    number, frame = 20_000, np.ones((2, 2), "u2").tobytes()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", (number, 2, 2), "u2", chunks=(1, 2, 2))
        for place in range(number):
            if place != 777:
                data.id.write_direct_chunk((place, 0, 0), frame)
    with pytest.warns(MissingWarning, match=r"lacks 1 of 20000 frames \(777\)"):
        frames = open_frames(tmp_path / "a.h5")
    assert np.flatnonzero(np.isnan(frames[:, 0, 0].values)).tolist() == [777]


def test_files_can_be_read_while_h5py_visits_one(tmp_path: Path) -> None:
    """h5py holds its lock meanwhile, for which other threads would wait for ever."""
    write(tmp_path / "a.h5", STACK, chunks=(1, 20, 30), compression="gzip")
    save(response.Response.from_gain(np.full((20, 30), 2.0)), tmp_path / "c.h5")
    save(make_map(), tmp_path / "map.h5")
    code = """if True:
        import h5py, detcal
        def visit(name, item):
            print(int(detcal.get_array("a.h5", name).sum()), detcal.open_frames("a.h5").shape, len(detcal.tree("a.h5")) > 9)
            print(type(detcal.load("c.h5")).__name__, type(detcal.load("map.h5")).__name__)
        with h5py.File("a.h5") as file:
            file.visititems(visit)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{STACK.sum()} (6, 20, 30) True", "Response DistortionMap"], done.stderr
