"""Maps in files: arrays of more dimensions than a stack has, whose frames are read one after the other, rows first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.frames.maps import Sizes, default_names, numbers_in_map
from detcal.frames.stack import DIMS

# By name: dimension, values, attributes; of images, ("y", "x") and values over dask
Line = tuple[str | tuple[str, ...], Any, dict[str, Any]]
Coords = dict[str, Line]
RESERVED = {*DIMS, "radial", "azimuthal"}  # names of dimensions that results have


@dataclass(frozen=True)
class Scanned:
    """The dimensions of an array in a file that count frames, if they are several: names and sizes."""

    dims: tuple[str, ...] = ()
    sizes: Sizes = ()

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Scanned":
        """Of an array with rows and columns of frames at its end."""
        return cls(default_names(len(shape) - 2), shape[:-2]) if len(shape) > 3 else cls()

    def numbers(self) -> Coords:
        """The number of each frame along each of them."""
        return {**numbers_in_map(self.dims, self.sizes)} if self.dims else {}

    def named(self, names: Sequence[str]) -> "Scanned":
        """With the names that the file has for all dimensions, where they are as many, and mean nothing else."""
        own = tuple(names[: len(self.dims)])
        return Scanned(own, self.sizes) if len({*own} - RESERVED) == len(self.dims) else self

    def line(self, values: Any, axis: int) -> tuple[str, Any]:
        """What lies along one dimension of the array, counted from its end, and along which of a stack; of a map for each frame."""
        if not self.dims or axis >= -2:
            return DIMS[axis], values
        place = axis + 2 + len(self.sizes)
        shape = [size if number == place else 1 for number, size in enumerate(self.sizes)]
        return DIMS[0], np.broadcast_to(np.reshape(values, shape), self.sizes).ravel()


NO_MAP = Scanned()


def frames_a_chunk(sizes: Sizes, chunks: Sizes) -> int:
    """Frames, one after the other, that make whole chunks of a file, by the dimensions that count them: a number of which every such
    piece begins with a chunk."""
    several = next((number for number, chunk in enumerate(chunks) if chunk > 1), len(chunks) - 1)
    cut_short = sizes[several] % chunks[several] and prod(sizes[:several]) > 1
    return prod(sizes[several:]) if cut_short else chunks[several] * prod(sizes[several + 1 :])


def boxes(start: int, stop: int, sizes: Sizes) -> Iterator[tuple[slice, ...]]:
    """The parts of a map in which the frames from start to stop, without it, lie, in their order."""
    if len(sizes) == 1:
        yield (slice(start, stop),)
        return
    row = prod(sizes[1:])
    first, last = -(-start // row), stop // row  # whole rows
    if last < first:  # within one
        yield from in_row(last, start - last * row, stop - last * row, sizes)
        return
    if start < first * row:
        yield from in_row(first - 1, start - (first - 1) * row, row, sizes)
    if first < last:
        yield (slice(first, last), *(slice(0, size) for size in sizes[1:]))
    if last * row < stop:
        yield from in_row(last, 0, stop - last * row, sizes)


def in_row(row: int, start: int, stop: int, sizes: Sizes) -> Iterator[tuple[slice, ...]]:
    """The same of frames of one row."""
    for inner in boxes(start, stop, sizes[1:]):
        yield (slice(row, row + 1), *inner)


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Parts of a map as one stack."""
    stacks = [part.reshape(-1, *part.shape[-2:]) for part in parts]
    return stacks[0] if len(stacks) == 1 else np.concatenate(stacks)
