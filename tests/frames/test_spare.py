"""Memory that is used again: never while any part of an array is held, and not without end."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from detcal.frames import spare
from detcal.frames.spare import reused
from detcal.stores.sources.hdf5 import Hdf5Reader


def place_of(array):
    return np.asarray(array).__array_interface__["data"][0] // 64


@pytest.fixture(autouse=True)
def nothing_spare():
    spare.SPARE.clear()


@pytest.mark.parametrize(
    "part", [lambda a: a, lambda a: a[0], lambda a: a.reshape(-1)[3:][:1], lambda a: a.T[1].view(np.int32), memoryview]
)
def test_memory_is_used_again_once_no_part_of_an_array_is_held(part):
    held = part(reused((2, 3)))
    others = [reused((2, 3)) for _ in range(4)]
    assert not any(np.shares_memory(held, other) for other in others)
    place = place_of(held)
    del others, held
    again = [reused((2, 3)) for _ in range(spare.MOST_SPARE)]
    assert place in [place_of(array) for array in again]


def test_memory_of_another_type_is_used_again_and_little_is_kept():
    first = reused((4, 6), np.uint16)
    place = place_of(first)
    other = reused((7,), np.uint8)
    del first, other
    assert place_of(reused((3, 2), np.int64)) == place
    arrays = [reused((size,), np.uint8) for size in range(1, 9)]
    del arrays
    assert len(spare.SPARE) == spare.MOST_SPARE
    assert reused((0, 5)).shape == (0, 5)


def test_no_more_bytes_are_kept_than_that(monkeypatch):
    monkeypatch.setattr(spare, "MOST_BYTES", 99)
    for size, kept in ((100, []), (60, [60]), (40, [40]), (39, [40, 39]), (30, [39, 30])):  # or one of a size that none asks for stays
        reused((size,), np.uint8)
        assert [memory.size for memory in spare.SPARE] == kept


def test_blocks_of_a_file_are_decoded_into_memory_of_blocks_before(tmp_path):
    stack = np.arange(6 * 40 * 50, dtype=np.uint32).reshape(6, 40, 50)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=stack, chunks=(1, 40, 50), **hdf5plugin.Bitshuffle(cname="lz4"))
    reader = Hdf5Reader.open(str(tmp_path / "a.h5"), "data")
    place = place_of(reader.read(0, 2))
    held = reader.read(2, 4)
    assert place_of(held) == place
    np.testing.assert_array_equal(reader.read(0, 2), stack[:2])
    np.testing.assert_array_equal(held, stack[2:4])
