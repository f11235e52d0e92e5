"""Decoding of bitshuffle-LZ4 chunks outside HDF5, which would decode one at a time in the whole process.

The decoder is the one of the HDF5 filter, called directly; Python's lock is released meanwhile.
"""

from ctypes import CDLL, c_char_p, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError

FILTER, LZ4 = 32008, 2  # the filter's number, and that of its compression
HEADER = 12  # bytes: the size of what was compressed, 8, and of a block in it, 4; big-endian


def is_alone(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's chunks are whole frames, and went through this filter and no other."""
    if dataset.ndim != 3 or dataset.is_virtual or not dataset.chunks or dataset.chunks[1:] != dataset.shape[1:]:
        return False
    created = dataset.id.get_create_plist()
    if created.get_nfilters() != 1:
        return False
    code, _, values, _ = created.get_filter(0)
    return code == FILTER and len(values) > 4 and values[4] == LZ4


def read_chunks(dataset: h5py.Dataset, start: int, stop: int) -> list[bytes] | None:
    """The chunks of frames start … stop as they lie in the file; None if one of them is not there, or is not compressed."""
    depth = dataset.chunks[0]
    chunks = []
    for first in range(start - start % depth, stop, depth):
        info = dataset.id.get_chunk_info_by_coord((first, 0, 0))
        if info.byte_offset is None or info.filter_mask:
            return None
        chunks.append(dataset.id.read_direct_chunk((first, 0, 0))[1])
    return chunks


def decode(chunks: list[bytes], chunk_shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The frames of some chunks."""
    frames = np.empty((len(chunks), *chunk_shape), dtype)
    for chunk, part in zip(chunks, frames, strict=True):
        block = int.from_bytes(chunk[8:HEADER], "big") // dtype.itemsize
        body = chunk[HEADER:]
        if int.from_bytes(chunk[:8], "big") != part.nbytes or decoder()(body, part.ctypes.data, part.size, dtype.itemsize, block) != len(
            body
        ):
            raise InputError("a chunk of it does not decompress")
    return frames.reshape(-1, *chunk_shape[1:])


@cache
def decoder() -> Any:
    """bshuf_decompress_lz4(from, to, elements, bytes an element, elements a block), which returns the bytes that it has read."""
    function = CDLL(str(Path(hdf5plugin.PLUGIN_PATH, "libh5bshuf.so"))).bshuf_decompress_lz4
    function.argtypes, function.restype = (c_char_p, c_void_p, c_size_t, c_size_t, c_size_t), c_int64
    return function
