"""The checksums that the chunks of detcal's stores end in: what tells a chunk from every other, and whether it is whole.

A chunk file ends in the CRC32C of all that comes before. A shard holds several such chunks, and at its end an index of where they lie.
Files are read in pieces: nothing is allocated because a file says that it, or a part of it, is large.
"""

import json
from collections.abc import Iterator, Mapping
from math import prod
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

CRC_BYTES = 4
INDEX_ENTRY = 16  # bytes: where a chunk of a shard begins, and how long it is
ABSENT = 2**64 - 1  # in place of both, for chunks behind the end of the array, which a shard at its edge does not hold
PIECE_BYTES = 2**20  # that are read at once

Seal = tuple[int, int]  # bytes of a chunk file, and a checksum of its checksums; of any other file, bytes and the checksum of all of it


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
        return seal_in(file, chunks)


def seal_in(file: IO[bytes], chunks: int) -> Seal:
    """As `seal_of`, of an open file."""
    size = file.seek(0, SEEK_END)
    if not chunks:
        return size, int.from_bytes(part(file, size, size - CRC_BYTES, CRC_BYTES), "little")
    index = index_of(file, size, chunks)
    crcs = [part(file, size, start + length - CRC_BYTES, CRC_BYTES) for start, length in places_of(index)]
    return size, google_crc32c.value(b"".join(crcs) + index.tobytes())


def fault_of(path: Path, chunks: int = 0) -> str | None:
    """What is wrong with a chunk file, or a shard of so many chunks: all of it is read. None if it is whole."""
    try:
        with open(path, "rb") as file:
            return fault_in(file, chunks)
    except FileNotFoundError:
        return "it is not there"


def fault_in(file: IO[bytes], chunks: int) -> str | None:
    """As `fault_of`, of an open file."""
    size = file.seek(0, SEEK_END)
    try:
        if not chunks:
            return None if is_sound(file, size, 0, size) else "its checksum is wrong"
        index = index_of(file, size, chunks)
        places = places_of(index)
        if sum(length for _, length in places) + index.nbytes + CRC_BYTES != size:
            return "its chunks do not fill it"
        wrong = sum(not is_sound(file, size, start, length) for start, length in places)
        return f"the checksums of {wrong} of its {chunks} chunks are wrong" if wrong else None
    except ValueError as error:
        return str(error)


def is_sound(file: IO[bytes], size: int, start: int, length: int) -> bool:
    """Whether a chunk, a part of a file of a size, ends in its checksum."""
    check_inside(size, start, length)
    file.seek(start)
    return checksum(pieces(file, length - CRC_BYTES)) == int.from_bytes(file.read(CRC_BYTES), "little")


def index_of(file: IO[bytes], size: int, chunks: int) -> NDArray[np.uint64]:
    """Where the chunks of a shard begin, and how long they are."""
    content = part(file, size, size - chunks * INDEX_ENTRY - CRC_BYTES, chunks * INDEX_ENTRY + CRC_BYTES)
    if google_crc32c.value(content[:-CRC_BYTES]) != int.from_bytes(content[-CRC_BYTES:], "little"):
        raise ValueError("the checksum of its index is wrong")
    return np.frombuffer(content[:-CRC_BYTES], "<u8").reshape(chunks, 2)


def places_of(index: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Where the chunks begin that are in a shard, and how long they are."""
    return [(start, length) for start, length in index.tolist() if start != ABSENT]


def part(file: IO[bytes], size: int, start: int, length: int) -> bytes:
    """Some bytes of a file, which must be there."""
    check_inside(size, start, length)
    file.seek(start)
    return file.read(length)


def check_inside(size: int, start: int, length: int) -> None:
    """Refuse a part that reaches beyond its file."""
    if not 0 <= start <= start + length <= size or length < CRC_BYTES:
        raise ValueError(f"it is cut short, to {size} bytes")


def checksum_of(path: Path) -> Seal:
    """Bytes and checksum of a whole file."""
    with open(path, "rb") as file:
        return checksum_in(file)


def checksum_in(file: IO[bytes]) -> Seal:
    """As `checksum_of`, of an open file."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    return size, checksum(pieces(file, size))


def pieces(file: IO[bytes], length: int) -> Iterator[bytes]:
    """The next bytes of a file, not all at once."""
    while length > 0 and (piece := file.read(min(length, PIECE_BYTES))):
        length -= len(piece)
        yield piece


def checksum(contents: Iterator[bytes]) -> int:
    """The CRC32C of pieces that follow each other."""
    found = 0
    for each in contents:
        found = google_crc32c.extend(found, each)
    return int(found)


def checksum_of_metadata(metadata: Mapping[str, Any]) -> int:
    """The CRC32C of what JSON says, however it is laid out."""
    return int(google_crc32c.value(json.dumps(metadata, sort_keys=True).encode()))
