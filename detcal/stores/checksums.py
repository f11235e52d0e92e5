"""The checksums that the chunks of detcal's stores end in: what tells a chunk from every other, and whether it is whole.

A chunk file ends in the CRC32C of all that comes before. A shard holds several such chunks, and at its end an index of where they lie.
"""

from math import prod
from os import SEEK_END
from pathlib import Path
from typing import IO

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

CRC_BYTES = 4
INDEX_ENTRY = 16  # bytes: where a chunk of a shard begins, and how long it is

Seal = tuple[int, int]  # bytes of a chunk file, and a checksum of its checksums


def chunks_in_shard(array: zarr.Array) -> int:
    """How many chunks a file of an array holds; 0 if the file is one chunk."""
    return prod(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True)) if array.shards else 0


def seal_of(path: Path, chunks: int = 0) -> Seal:
    """What tells the content of a chunk file, or a shard of so many chunks, from all others: read off its checksums, not its data.

    Raises
    ------
    ValueError
        It is cut short.
    OSError
        It cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, SEEK_END)
        if not chunks:
            return size, int.from_bytes(part(file, size, size - CRC_BYTES, CRC_BYTES), "little")
        index = index_of(file, size, chunks)
        crcs = [part(file, size, int(start + length) - CRC_BYTES, CRC_BYTES) for start, length in index]
        return size, google_crc32c.value(b"".join(crcs) + index.tobytes())


def fault_of(path: Path, chunks: int = 0) -> str | None:
    """What is wrong with a chunk file, or a shard of so many chunks: all of it is read. None if it is whole."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, SEEK_END)
            if not chunks:
                return None if is_sound(part(file, size, 0, size)) else "its checksum is wrong"
            index = index_of(file, size, chunks)
            if int(index[:, 1].sum()) + index.nbytes + CRC_BYTES != size:
                return "its chunks do not fill it"
            wrong = sum(not is_sound(part(file, size, int(start), int(length))) for start, length in index)
            return f"the checksums of {wrong} of its {chunks} chunks are wrong" if wrong else None
    except FileNotFoundError:
        return "it is not there"
    except ValueError as error:
        return str(error)


def is_sound(content: bytes) -> bool:
    """Whether a chunk ends in its checksum."""
    return google_crc32c.value(content[:-CRC_BYTES]) == int.from_bytes(content[-CRC_BYTES:], "little")


def index_of(file: IO[bytes], size: int, chunks: int) -> NDArray[np.uint64]:
    """Where the chunks of a shard begin, and how long they are."""
    content = part(file, size, size - chunks * INDEX_ENTRY - CRC_BYTES, chunks * INDEX_ENTRY + CRC_BYTES)
    if not is_sound(content):
        raise ValueError("the checksum of its index is wrong")
    return np.frombuffer(content[:-CRC_BYTES], "<u8").reshape(chunks, 2)


def part(file: IO[bytes], size: int, start: int, length: int) -> bytes:
    """Some bytes of a file, which must be there."""
    if not 0 <= start <= start + length <= size or length < CRC_BYTES:
        raise ValueError(f"it is cut short, to {size} bytes")
    file.seek(start)
    return file.read(length)
