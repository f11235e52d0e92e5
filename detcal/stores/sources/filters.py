"""Chunks of HDF5 files decoded outside HDF5, which would decode one at a time in the whole process.

The decoders are those of HDF5's filters, called directly; Python's lock is released meanwhile. A chain of filters that is not
known here, or whose library this machine lacks, is left to HDF5.
"""

import zlib
from collections.abc import Callable
from ctypes import CDLL, c_int, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Values = tuple[int, ...]  # the options of a filter, as the file holds them
Decoder = Callable[[Bytes, Bytes, Values], None]  # from, to, options

GZIP, SHUFFLE, FLETCHER32, BLOSC, LZ4, BITSHUFFLE, ZSTD = 1, 2, 3, 32001, 32004, 32008, 32015  # the filters' numbers
CHECKSUM = 4  # bytes at the end of what went through fletcher32
BITSHUFFLE_CODECS = {2: "bshuf_decompress_lz4", 3: "bshuf_decompress_zstd"}


class Undecodable(Exception):
    """A chunk does not decompress to what it should hold."""


@dataclass(frozen=True)
class Pipeline:
    """The filters that each chunk of a dataset went through, in that order: a number and options each."""

    filters: tuple[tuple[int, Values], ...]

    def decode(self, chunk: bytes, skipped: int, target: Bytes) -> None:
        """Undo all filters but those whose bit in `skipped` is set.

        Raises
        ------
        Undecodable
            The chunk is damaged.
        """
        applied = [each for bit, each in enumerate(self.filters) if not skipped >> bit & 1]
        data = np.frombuffer(chunk, np.uint8)
        for stage in reversed(range(len(applied))):
            code, values = applied[stage]
            if code == FLETCHER32:
                data = without_checksum(data)
                continue
            checksums = sum(before == FLETCHER32 for before, _ in applied[:stage])
            found = np.empty(target.size + CHECKSUM * checksums, np.uint8) if stage else target
            decoder_of(code, values)(data, found, values)  # type: ignore[misc]  # there is one: `pipeline_of` has looked
            data = found
        if data is not target:
            if data.size != target.size:
                raise Undecodable
            target[...] = data


def pipeline_of(dataset: h5py.Dataset) -> Pipeline | None:
    """The filters of a dataset that is compressed; None if it is not, or if HDF5 must decode it."""
    if dataset.is_virtual or not dataset.chunks or not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True)):
        return None
    created = dataset.id.get_create_plist()
    filters = tuple((code, tuple(values)) for code, _, values, _ in map(created.get_filter, range(created.get_nfilters())))
    compressors = [place for place, (code, _) in enumerate(filters) if code not in (SHUFFLE, FLETCHER32)]
    # One compressor, since the size of what goes into a second is not known. And after it checksums alone.
    if len(compressors) != 1 or any(code == SHUFFLE for code, _ in filters[compressors[0] :]):
        return None
    known = all(code == FLETCHER32 or decoder_of(code, values) for code, values in filters)
    return Pipeline(filters) if known else None


def decoder_of(code: int, values: Values) -> Decoder | None:
    """What undoes a filter; None if it is not known, or its library is not here."""
    match code:
        case 1:
            return decode_gzip
        case 2:
            return decode_shuffle
        case 32001 if function("blosc", "blosc_decompress_ctx"):
            return decode_blosc
        case 32004 if function("lz4", "LZ4_decompress_safe"):
            return decode_lz4
        case 32008 if len(values) > 4 and function("bshuf", BITSHUFFLE_CODECS.get(values[4], "")):
            return decode_bitshuffle
        case 32015 if function("zstd", "ZSTD_decompress"):
            return decode_zstd
    return None


def decode_gzip(source: Bytes, target: Bytes, values: Values) -> None:
    """Deflate with zlib's header."""
    try:
        found = zlib.decompress(source.data, bufsize=target.size)
    except zlib.error:
        raise Undecodable from None
    check(len(found) == target.size)
    target[...] = np.frombuffer(found, np.uint8)


def decode_shuffle(source: Bytes, target: Bytes, values: Values) -> None:
    """Bytes of numbers back in their order, from all first bytes, then all second ones …; what is no whole number stays at the end."""
    check(source.size == target.size and bool(values))
    size = values[0]
    unshuffle = function("blosc2", "blosc2_unshuffle")
    if unshuffle is not None and size < 256:
        unshuffle(size, source.size, source.ctypes.data, target.ctypes.data)
        return
    whole = source.size // size * size
    target[:whole].reshape(-1, size)[...] = source[:whole].reshape(size, -1).T
    target[whole:] = source[whole:]


def decode_bitshuffle(source: Bytes, target: Bytes, values: Values) -> None:
    """A header of the size of what was compressed, 8 bytes, and of a block in it, 4, big-endian; then blocks of LZ4 or zstd."""
    header, size = 12, values[2]
    check(source.size > header and size > 0 and number_at(source, 0, 8) == target.size)
    decompress = function("bshuf", BITSHUFFLE_CODECS[values[4]])
    body, block = source[header:], number_at(source, 8, 4) // size
    check(decompress(body.ctypes.data, target.ctypes.data, target.size // size, size, block) == body.size)  # type: ignore[misc]


def decode_lz4(source: Bytes, target: Bytes, values: Values) -> None:
    """A header of the size of all, 8 bytes, and of a block, 4; then blocks behind their compressed sizes, 4; all big-endian."""
    decompress = function("lz4", "LZ4_decompress_safe")
    check(source.size >= 12 and number_at(source, 0, 8) == target.size)
    block, place = number_at(source, 8, 4), 12
    check(block > 0 or not target.size)
    for start in range(0, target.size, max(1, block)):
        wanted = target[start : start + block]
        check(place + 4 <= source.size)
        body = source[place + 4 : place + 4 + number_at(source, place, 4)]
        place += 4 + body.size
        if body.size == wanted.size:  # it would not become smaller, and lies there as it was
            wanted[...] = body
        else:
            check(decompress(body.ctypes.data, wanted.ctypes.data, body.size, wanted.size) == wanted.size)  # type: ignore[misc]


def decode_blosc(source: Bytes, target: Bytes, values: Values) -> None:
    """Blosc, whose header says how much it holds and takes up."""
    check(source.size >= 16 and little_at(source, 4) == target.size and 16 <= little_at(source, 12) <= source.size)
    decompress = function("blosc", "blosc_decompress_ctx")
    check(decompress(source.ctypes.data, target.ctypes.data, target.size, 1) == target.size)  # type: ignore[misc]


def decode_zstd(source: Bytes, target: Bytes, values: Values) -> None:
    """A frame of zstd, whose errors are sizes that cannot be."""
    decompress = function("zstd", "ZSTD_decompress")
    check(decompress(target.ctypes.data, target.size, source.ctypes.data, source.size) == target.size)  # type: ignore[misc]


def without_checksum(data: Bytes) -> Bytes:
    """What stands before a checksum, if that fits."""
    check(data.size >= CHECKSUM)
    body, stored = data[:-CHECKSUM], little_at(data, data.size - CHECKSUM)
    found = fletcher32(body)
    swapped = (found & 0x00FF00FF) << 8 | found >> 8 & 0x00FF00FF  # as HDF5 wrote it once, and takes it still
    check(stored in (found, swapped))
    return body


def fletcher32(data: Bytes) -> int:
    """HDF5's checksum: sums of big-endian words, and of these sums, modulo 65535, where a multiple of it is 65535 and not 0."""
    words = np.append(data, np.uint8(0)).view(">u2") if data.size % 2 else data.view(">u2")
    first = second = 0
    step = 2**20  # so that the sums of a step keep to 64 bits
    for start in range(0, words.size, step):
        part = words[start : start + step].astype(np.uint64)
        second += int(part @ np.arange(part.size, 0, -1).astype(np.uint64)) + first * part.size
        first += int(part.sum())
    return folded(second) << 16 | folded(first)


def folded(total: int) -> int:
    """A sum modulo 65535, as adding the carry gives it."""
    return (total - 1) % 65535 + 1 if total else 0


def number_at(data: Bytes, place: int, size: int) -> int:
    """A big-endian number."""
    return int.from_bytes(data[place : place + size].tobytes(), "big")


def little_at(data: Bytes, place: int) -> int:
    """A little-endian number of four bytes."""
    return int.from_bytes(data[place : place + 4].tobytes(), "little")


def check(good: bool) -> None:
    """Whether a chunk is still what it should be."""
    if not good:
        raise Undecodable


# What the libraries of HDF5's filters are called with, and give back.
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bshuf_decompress_lz4": (c_int64, (c_void_p, c_void_p, c_size_t, c_size_t, c_size_t)),
    "bshuf_decompress_zstd": (c_int64, (c_void_p, c_void_p, c_size_t, c_size_t, c_size_t)),
    "LZ4_decompress_safe": (c_int, (c_void_p, c_void_p, c_int, c_int)),
    "blosc_decompress_ctx": (c_int, (c_void_p, c_void_p, c_size_t, c_int)),
    "blosc2_unshuffle": (c_int32, (c_int32, c_int32, c_void_p, c_void_p)),
    "ZSTD_decompress": (c_size_t, (c_void_p, c_size_t, c_void_p, c_size_t)),
}


@cache
def function(library: str, name: str) -> Callable[..., int] | None:
    """A function of one of hdf5plugin's libraries; None if it is not there."""
    if name not in SIGNATURES:
        return None
    try:
        found = getattr(CDLL(str(Path(hdf5plugin.PLUGIN_PATH, f"libh5{library}.so"))), name)
    except (OSError, AttributeError):
        return None
    found.restype, found.argtypes = SIGNATURES[name]
    return found
