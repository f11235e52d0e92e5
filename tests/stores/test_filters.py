"""Chunks that are decoded outside HDF5 are what HDF5 makes of them, for every chain of filters, type and layout."""

import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detcal import get_array, open_frames
from detcal.errors import InputError
from detcal.stores.sources.filters import Pipeline, fletcher32
from detcal.stores.sources.hdf5_data import Hdf5Array

SHAPE = (7, 23, 31)
FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"},
    "shuffle gzip": {"compression": "gzip", "shuffle": True},
    "shuffle gzip fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "bitshuffle lz4": {**hdf5plugin.Bitshuffle(cname="lz4")},
    "bitshuffle zstd": {**hdf5plugin.Bitshuffle(cname="zstd")},
    "lz4": {**hdf5plugin.LZ4()},
    "lz4 in blocks": {**hdf5plugin.LZ4(nbytes=1024)},
    "zstd": {**hdf5plugin.Zstd()},
    "shuffle zstd": {"shuffle": True, **hdf5plugin.Zstd()},
    "blosc lz4": {**hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)},
    "blosc zstd bits": {**hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE)},
    "blosc blosclz": {**hdf5plugin.Blosc(cname="blosclz", shuffle=hdf5plugin.Blosc.NOSHUFFLE)},
    "blosc zlib": {**hdf5plugin.Blosc(cname="zlib")},
}
LEFT_TO_HDF5: dict[str, dict[str, Any]] = {
    "plain": {},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "bitshuffle": {**hdf5plugin.Bitshuffle(cname="none")},
    "blosc2": {**hdf5plugin.Blosc2()},
    "scaleoffset gzip": {"scaleoffset": 0, "compression": "gzip"},
}
CHUNKS = [(1, 23, 31), (3, 23, 31), (2, 10, 8), (7, 1, 31), (1, 32, 32)]  # of one frame, several, tiles, rows, and larger than a frame


def numbers(dtype: str) -> np.ndarray[Any, Any]:
    """Some that compress, and some that do not."""
    rng = np.random.default_rng(3)
    stack = rng.poisson(3, SHAPE).astype(dtype)
    if stack.dtype.kind in "iu":
        limits = np.iinfo(stack.dtype)
        stack[2] = rng.integers(limits.min, limits.max, SHAPE[1:], stack.dtype.newbyteorder("="), endpoint=True)
    return stack


def write(path: Path, stack: Any, chunks: tuple[int, ...], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=stack, chunks=chunks, maxshape=(None, None, None), **options)
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "u8", "f4", ">f8", "?"])
@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_values_are_those_of_h5py(options: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    stack = numbers(dtype)
    for chunks in CHUNKS:
        path = write(tmp_path / "a.h5", stack, chunks, **options)
        with h5py.File(path) as file:
            wanted = file["d"][...]
        with patch.object(h5py.Dataset, "__getitem__", None):  # the numbers do not come from there
            found = open_frames(path, "d", chunks={"frame": 2}).values
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("options", LEFT_TO_HDF5.values(), ids=LEFT_TO_HDF5)
def test_chains_that_are_not_known_are_left_to_hdf5(options: dict[str, Any], tmp_path: Path) -> None:
    stack = numbers("u2")
    for chunks in CHUNKS:
        path = write(tmp_path / "a.h5", stack, chunks, **options)
        with h5py.File(path) as file:
            wanted = file["d"][...]
        with patch.object(Pipeline, "decode", None):
            np.testing.assert_array_equal(open_frames(path).values, wanted)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_index_of_any_layout(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=ndim, max_size=ndim)))
    chunks = tuple(data.draw(st.integers(1, length)) for length in shape)
    options = data.draw(st.sampled_from(list(FILTERS.values())))
    stack = np.random.default_rng(0).integers(0, 9, shape, np.uint16)
    path = tmp_path_factory.mktemp("any") / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=stack, chunks=chunks, **options)
        array = Hdf5Array.of(file["d"])
    key = tuple(data.draw(st.one_of(st.slices(length), st.integers(-length, length - 1))) for length in shape)
    np.testing.assert_array_equal(array[key], stack[key])
    np.testing.assert_array_equal(get_array(path, "d", compute=False)[key].compute(), stack[key])


def test_filters_that_a_chunk_did_not_go_through(tmp_path: Path) -> None:
    """A bit of the mask stands for each filter; gzip leaves out what it cannot make smaller, and a program may write what it likes."""
    stack = numbers("u2")
    path = write(tmp_path / "a.h5", stack, (1, 23, 31), shuffle=True, compression="gzip")
    with h5py.File(path, "r+") as file:
        plain = stack[0].astype("<u2")
        shuffled = plain.tobytes()[::2] + plain.tobytes()[1::2]
        file["d"].id.write_direct_chunk((4, 0, 0), plain.tobytes(), filter_mask=3)
        file["d"].id.write_direct_chunk((5, 0, 0), shuffled, filter_mask=2)
        stack[4] = stack[5] = stack[0]
        np.testing.assert_array_equal(file["d"][...], stack)
    with patch.object(h5py.Dataset, "__getitem__", None):
        np.testing.assert_array_equal(open_frames(path, "d").values, stack)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("kept", [0.6, 0.0])
def test_a_damaged_chunk_is_named(name: str, kept: float, tmp_path: Path) -> None:
    stack = numbers("u2")
    path = write(tmp_path / "a.h5", stack, (2, 23, 31), **FILTERS[name])
    with h5py.File(path, "r+") as file:
        chunk = file["d"].id.read_direct_chunk((4, 0, 0))[1]
        file["d"].id.write_direct_chunk((4, 0, 0), chunk[: max(1, int(len(chunk) * kept))])
    frames = open_frames(path, chunks={"frame": 2})
    np.testing.assert_array_equal(frames[:4].values, stack[:4])
    with pytest.raises(InputError, match=r"cannot read the chunk of frame 4 to 5 in .*a\.h5::/d: it does not decompress"):
        frames.compute(scheduler="synchronous")


def test_a_flipped_byte_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", numbers("u2"), (1, 23, 31), shuffle=True, fletcher32=True, compression="gzip")
    with h5py.File(path, "r+") as file:
        chunk = bytearray(file["d"].id.read_direct_chunk((3, 0, 0))[1])
        chunk[-1] ^= 1
        file["d"].id.write_direct_chunk((3, 0, 0), bytes(chunk))
    with pytest.raises(InputError, match=r"the chunk of frame 3 in .*does not decompress"):
        open_frames(path).compute(scheduler="synchronous")


def test_the_checksum_is_the_sum_of_sums() -> None:
    """By its definition: both sums modulo 65535, kept from being 0 unless all words are."""
    for data in (b"", b"\x01", b"abcde", bytes(99), b"\xff" * 4000, np.random.default_rng(0).bytes(5001)):
        first = second = 0
        for place in range(0, len(data), 2):
            first += int.from_bytes(data[place : place + 2].ljust(2, b"\0"), "big")
            second += first
        wanted = [total % 65535 or (65535 if total else 0) for total in (second, first)]
        assert fletcher32(np.frombuffer(data, np.uint8)) == wanted[0] << 16 | wanted[1]


def test_threads_decode_at_once(tmp_path: Path) -> None:
    """Two chunks are in the decoder at the same time, which they never are in HDF5."""
    path = write(tmp_path / "a.h5", numbers("u2"), (1, 23, 31), compression="gzip")
    both = threading.Barrier(2, timeout=30)
    decode = Pipeline.decode

    def wait(*arguments: Any) -> None:
        both.wait()
        decode(*arguments)

    frames = open_frames(path, chunks={"frame": 1})[:4]
    with patch.object(Pipeline, "decode", wait):
        np.testing.assert_array_equal(frames.compute(scheduler="threads", num_workers=2).values, numbers("u2")[:4])
