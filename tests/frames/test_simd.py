"""Rows of sixteen in kernels: an array that has none raises, and does not end the process."""

import numpy as np
import pytest
from numba import njit

from detcal.azimuthal.kernels import load_tiles
from detcal.frames.lanes import lines
from detcal.frames.readings import ALL_NUMBERS
from detcal.frames.simd import load, splat, store, stream


@njit
def copy_by_stream(source, target):
    for row in range(len(target)):
        stream(target, row, load(source, row))


@njit
def fill_by_store(target, number):
    for row in range(len(target)):
        store(target, row, splat(number))


@njit
def read_first(source, target):
    store(target, 0, load(source, 0))


def off_by(places):
    """Rows that begin some numbers after a line of the cache."""
    numbers = lines(5).ravel()
    return numbers[places : places + 64].reshape(4, 16)


def test_whole_lines_are_copied():
    source, target = np.arange(64, dtype=np.float32).reshape(4, 16), lines(4)
    copy_by_stream(source, target)
    np.testing.assert_array_equal(target, source)


@pytest.mark.parametrize("places", [1, 4, 8, 15])
def test_streaming_past_the_lines_of_the_cache_raises(places):
    with pytest.raises(ValueError, match=r"begins at a multiple of 64 bytes: make it with detcal\.frames\.lanes\.lines"):
        copy_by_stream(off_by(0), off_by(places))
    source = off_by(places)  # which may be loaded from anywhere
    source[:] = 3
    target = lines(4)
    copy_by_stream(source, target)
    assert (target == 3).all()


@pytest.mark.parametrize("width", [1, 8, 15, 17, 32])
def test_rows_of_another_width_raise(width):
    other = np.zeros((4, width), np.float32)
    with pytest.raises(ValueError, match=r"expected an array \(n, 16\), got one of another width"):
        fill_by_store(other, np.float32(1))
    with pytest.raises(ValueError, match=r"expected an array \(n, 16\)"):
        read_first(other, lines(1))
    with pytest.raises(ValueError, match=r"expected an array \(n, 16\)"):
        copy_by_stream(lines(4), other)
    assert not other.any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 16), np.float32)[::2],
        np.zeros((4, 32), np.float32)[:, ::2],
        np.asfortranarray(np.zeros((4, 16), np.float32)),
        np.zeros((4, 16)),
        np.zeros(64, np.float32),
    ],
    ids=["rows", "columns", "order", "type", "dims"],
)
def test_arrays_without_rows_are_refused_before_anything_runs(array):
    with pytest.raises(TypeError, match="expected a contiguous array"):
        fill_by_store(array, np.float32(1))


def test_numbers_that_are_no_float32_by_their_place_raise():
    array = np.frombuffer(bytearray(4 * 64 + 1), np.uint8)[1:].view(np.float32).reshape(4, 16)
    for call in (lambda: fill_by_store(array, np.float32(1)), lambda: read_first(array, lines(1)), lambda: copy_by_stream(lines(4), array)):
        with pytest.raises(ValueError, match=r"that begins at a multiple of (4|64) bytes"):
            call()


def test_pixels_are_not_loaded_into_misaligned_rows():
    frames, tiles, places = np.ones((1, 16), np.float32), np.zeros(1, np.int64), np.zeros((1, 16), np.int32)
    with pytest.raises(ValueError, match="multiple of 64 bytes"):
        load_tiles(frames, ALL_NUMBERS, None, tiles, places, off_by(1))
