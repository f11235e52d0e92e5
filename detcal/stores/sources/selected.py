"""Some frames of a stack in files, and stacks that are turned over: readers around another reader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.selection import BEFORE, KEY, NUMBER, OF_STACK, Runs
from detcal.frames.stack import DIMS
from detcal.stores.absence import Lacks
from detcal.stores.sources.image_keys import angles_of
from detcal.stores.sources.nxtomo import KEYS
from detcal.stores.sources.readers import Around, Block, Reader
from detcal.stores.sources.scanned import Coords

Flip = Literal["ud", "lr", "both"]
FLIPPED: dict[str, tuple[str, ...]] = {"ud": ("y",), "lr": ("x",), "both": ("y", "x")}

GAP_BYTES = 2**20  # to open a file once more takes as long as to read about this much
PIECE_BYTES = 2**22  # read at once of frames that lie apart, if that is more than an eighth of the block
ROWS = 64  # flipped at once: what is held meanwhile stays in the cache


@dataclass(frozen=True)
class Selected(Around):
    """Some frames of another reader, in runs of their numbers."""

    runs: Runs

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(map(len, self.runs)), *self.reader.shape[1:])

    @property
    def lacks(self) -> Lacks | None:
        lacks = self.reader.lacks
        return None if lacks is None else lacks.of_frames(self.numbers())

    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the frames in the other reader."""
        return np.concatenate([np.arange(run.start, run.stop, run.step) for run in self.runs])

    def coords(self) -> Coords:
        numbers = self.numbers()
        lines = {**angles_of(self.reader), **self.reader.coords()}
        found = {name: (dim, values[numbers] if dim == DIMS[0] else values, attrs) for name, (dim, values, attrs) in lines.items()}
        if KEY not in found:
            return found
        if NUMBER not in found or OF_STACK not in found[NUMBER][2]:  # else they are those in another stack, out of which they came
            found[NUMBER] = (DIMS[0], numbers, {"long_name": "number of the frame in its stack"})
        if (found[KEY][1] == KEYS["flats"]).all():
            before = np.cumsum(lines[KEY][1] == KEYS["projections"])[numbers]
            found[BEFORE] = (DIMS[0], before, {"long_name": "number of projections before it in its stack"})
        if len(np.unique(found[KEY][1])) == 1:
            del found[KEY]  # they were asked for
        return found

    def files(self, start: int, stop: int) -> list[str]:
        wanted = self.numbers()[start:stop]
        parts = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1) if wanted.size else []
        return list(dict.fromkeys(file for part in parts for file in self.reader.files(int(part[0]), int(part[-1]) + 1)))

    def read(self, start: int, stop: int) -> Block:
        wanted = self.numbers()[start:stop]
        if not wanted.size or (np.diff(wanted) == 1).all():
            return self.reader.read(int(wanted[0]), int(wanted[-1]) + 1) if wanted.size else self.reader.read(0, 0)
        block = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for place, first, last in pieces(wanted, self.reader):
            # by mode="clip" straight into the block, without a copy between
            np.take(self.reader.read(first, last + 1), wanted[place] - first, axis=0, out=block[place], mode="clip")
        return block


def pieces(wanted: NDArray[np.int64], reader: Reader) -> Iterator[tuple[slice, int, int]]:
    """What to read at once: places in `wanted`, the first and the last frame; gaps are read over where that is faster.

    Pieces end with chunks of the file, so that none is decoded twice, and are small, so that little is held beside the block.
    """
    frame_bytes = max(1, reader.dtype.itemsize * reader.shape[1] * reader.shape[2])
    chunk = reader.chunk_frames
    most_chunks = max(1, len(wanted) // 8, PIECE_BYTES // frame_bytes) // chunk or 1
    start = 0
    for place in range(1, len(wanted) + 1):
        if place < len(wanted):
            before, number, first = int(wanted[place - 1]), int(wanted[place]), int(wanted[start])
            near = before < number and ((number - before - 1) * frame_bytes <= GAP_BYTES or number // chunk == before // chunk)
            if near and number // chunk - first // chunk < most_chunks:
                continue
        yield slice(start, place), int(wanted[start]), int(wanted[place - 1])
        start = place


@dataclass(frozen=True)
class Flipped(Around):
    """The frames of another reader with their rows ("ud"), columns ("lr") or both in reverse order."""

    flip: str

    def coords(self) -> Coords:
        return {
            name: (dims, values[tuple(slice(None, None, -1 if dim in FLIPPED[self.flip] else 1) for dim in np.atleast_1d(dims))], attrs)
            for name, (dims, values, attrs) in self.reader.coords().items()
        }  # fmt: skip

    def read(self, start: int, stop: int) -> Block:
        block = self.reader.read(start, stop)
        if not block.flags.writeable:
            block = block.copy()
        if "y" in FLIPPED[self.flip]:
            flip_rows(block)
        if "x" in FLIPPED[self.flip]:
            flip_columns(block)
        return block


def check_flip(flip: str) -> None:
    """Refuse a flip that there is not."""
    if flip not in get_args(Flip):
        raise InputError(f'expected flip to be "ud" (rows reversed), "lr" (columns reversed) or "both", got {flip!r}')


def turned_image(image: NDArray[Any], flip: Flip | None) -> NDArray[Any]:
    """An image (y, x) turned over as frames are."""
    return image if flip is None else np.flip(image, tuple(("y", "x").index(dim) for dim in FLIPPED[flip]))


def flip_rows(block: Block) -> None:
    """Reverse the rows of each frame in place."""
    height = block.shape[1]
    for frame in block:
        for top in range(0, height // 2, ROWS):
            end = min(top + ROWS, height // 2)
            upper, lower = frame[top:end], frame[height - end : height - top]
            held = upper.copy()
            upper[...] = lower[::-1]
            lower[...] = held[::-1]


def flip_columns(block: Block) -> None:
    """Reverse the columns of each frame in place."""
    for frame in block:
        for top in range(0, len(frame), ROWS):
            rows = frame[top : top + ROWS]
            rows[...] = rows[:, ::-1].copy()
