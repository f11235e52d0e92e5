"""Some rows of many frames: what is read of a file whose chunks hold few rows of each frame, as for a tomographic reconstruction.

Readers give whole frames. Of a file with chunks of all frames and a few rows that would be all of it, however few frames are wanted; its
blocks are rows therefore. Whatever cannot read rows apart reads whole frames.
"""

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np

from detcal.stores.damage import Guarded
from detcal.stores.indexing import bounds_of, take
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.readers import Around, AsArray, Block
from detcal.stores.sources.selected import FLIPPED, Flipped, Selected
from detcal.stores.sources.series import Hdf5Series
from detcal.stores.sources.zarr_reader import ZarrReader

Span = tuple[int, int]  # from, up to but not including


@singledispatch
def rows_a_chunk(reader: Any) -> int:
    """Rows in a chunk of the file; all, where frames are read whole."""
    return int(reader.shape[1])


@rows_a_chunk.register
def _(reader: Hdf5Reader | ZarrReader) -> int:
    return reader.chunk_rows


@rows_a_chunk.register
def _(reader: Selected | Flipped | Guarded | Hdf5Series) -> int:
    return rows_a_chunk(reader.reader)


@rows_a_chunk.register
def _(reader: Joined) -> int:
    return max(map(rows_a_chunk, reader.readers))


@singledispatch
def read_rows(reader: Any, frames: Span, rows: Span) -> Block:
    """Some rows of some frames (frame, y, x)."""
    found: Block = reader.read(*frames)[:, slice(*rows)]
    return found


@read_rows.register
def _(reader: Hdf5Reader | ZarrReader, frames: Span, rows: Span) -> Block:
    return reader.read_rows(frames, rows)


@read_rows.register
def _(reader: Selected, frames: Span, rows: Span) -> Block:
    return replace(reader, reader=Rows(reader.reader, rows)).read(*frames)


@read_rows.register
def _(reader: Flipped, frames: Span, rows: Span) -> Block:
    height = reader.shape[1]
    recorded = (height - rows[1], height - rows[0]) if "y" in FLIPPED[reader.flip] else rows
    return replace(reader, reader=Rows(reader.reader, recorded)).read(*frames)


@read_rows.register
def _(reader: Joined, frames: Span, rows: Span) -> Block:
    return replace(reader, readers=tuple(Rows(each, rows) for each in reader.readers)).read(*frames)


@read_rows.register
def _(reader: Hdf5Series, frames: Span, rows: Span) -> Block:
    return read_rows(reader.reader, frames, rows)


@read_rows.register
def _(reader: Guarded, frames: Span, rows: Span) -> Block:
    """What is damaged are rows: a chunk holds some of all frames, none of which would be whole."""
    guard = replace(reader.guard, unread=())  # frames, at which processes died: these were not read by rows
    across = replace(reader, reader=Across(reader.reader, frames), guard=guard, unit="rows")
    return np.ascontiguousarray(across.read(*rows).transpose(1, 0, 2))


@dataclass(frozen=True)
class Part(Around):
    """A part of another stack, of which everything but the numbers is as there."""

    span: Span


class Rows(Part):
    """Some rows of all frames."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.reader.shape[0], self.span[1] - self.span[0], self.reader.shape[2])

    def read(self, start: int, stop: int) -> Block:
        return read_rows(self.reader, (start, stop), self.span)


class Across(Part):
    """The rows of some frames as a stack (y, frame, x), as which they are damaged."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.reader.shape[1], self.span[1] - self.span[0], self.reader.shape[2])

    @property
    def chunk_frames(self) -> int:
        return rows_a_chunk(self.reader)

    def files(self, start: int, stop: int) -> list[str]:
        return self.reader.files(*self.span)

    def read(self, start: int, stop: int) -> Block:
        return read_rows(self.reader, self.span, (start, stop)).transpose(1, 0, 2)


class RowArray(AsArray):
    """A reader as dask takes it, of which only the rows, and frames, between the first and last are read."""

    def __getitem__(self, key: tuple[Any, ...]) -> Block:
        (frames, inside), (rows, across) = (bounds_of(part, length) for part, length in zip(key[:2], self.shape[:2], strict=True))
        read = read_rows(self.reader, frames, rows)
        found = take(read, (inside, across, key[2]))
        return found if found.nbytes == read.nbytes else found.copy()  # a view would keep all that was read
