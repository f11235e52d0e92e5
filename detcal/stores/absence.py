"""What a file lacks of an array: chunks that were never written or are lost, and parts that a virtual dataset takes from nowhere.

HDF5 and zarr give a fill value for them, mostly 0, without a word. Here they are found; then they are NaN, or an error.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError, MissingWarning

Box = tuple[tuple[int, int], ...]  # from where up to but not including where, along each dimension
Flags = NDArray[np.bool_]

LONGEST_LIST = 4  # runs of numbers that a message names


@dataclass(frozen=True)
class Lacks:
    """Of each frame (or row) of an array, whether all of it is missing, or a part."""

    whole: Flags
    partly: Flags
    hint: str = ""  # what may be the reason

    def any(self) -> bool:
        """Whether anything is missing."""
        return bool(self.whole.any() or self.partly.any())

    def as_one(self) -> "Lacks":
        """The same for rows that are one frame together."""
        everything = np.array([bool(self.whole.all())])
        return Lacks(everything, ~everything & self.any(), self.hint)

    def of_frames(self, numbers: NDArray[np.int64]) -> "Lacks | None":
        """The same of some frames, by their numbers; None if nothing of these is missing."""
        found = Lacks(self.whole[numbers], self.partly[numbers], self.hint)
        return found if found.any() else None

    def describe(self, unit: str) -> str:
        """How many there are of each kind, and which."""
        kinds = {"": self.whole, "parts of ": self.partly}
        return " and ".join(
            f"{kind}{np.count_nonzero(flags)} of {len(flags)} {unit} ({runs(flags)})" for kind, flags in kinds.items() if flags.any()
        )


class Absence(Protocol):
    """Where an array lacks something."""

    def mask(self, box: Box) -> Flags | None:
        """What is missing of a part; None if nothing is."""

    def lacks(self, count: int = 1) -> Lacks:
        """What is missing along so many of the first dimensions, taken together."""


@dataclass(frozen=True)
class MissingChunks:
    """Chunks that are not there, True in a grid of all chunks."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    grid: Flags

    def mask(self, box: Box) -> Flags | None:
        found = self.grid[tuple(slice(start // size, -(-stop // size)) for (start, stop), size in zip(box, self.chunks, strict=True))]
        return spread(found, box, self.chunks) if found.any() else None

    def lacks(self, count: int = 1) -> Lacks:
        rows = self.grid.reshape(*self.grid.shape[:count], -1) if self.grid.ndim else self.grid.reshape(1, 1)
        box, chunks = tuple((0, length) for length in self.shape[:count]) or ((0, 1),), self.chunks[:count] or (1,)
        whole, some = (spread(np.asarray(flags), box, chunks).ravel() for flags in (rows.all(axis=-1), rows.any(axis=-1)))
        return Lacks(whole, some & ~whole)


def chunk_grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks along each dimension."""
    return tuple(-(-length // size) for length, size in zip(shape, chunks, strict=True))


def spread(grid: Flags, box: Box, chunks: tuple[int, ...]) -> Flags:
    """What is missing in a box, from the same of the chunks that have something in it."""
    places = [np.arange(start, stop) // size - start // size for (start, stop), size in zip(box, chunks, strict=True)]
    return np.asarray(grid[np.ix_(*places)])


def runs(flags: Flags) -> str:
    """The numbers of those that are set: 0, 4–7."""
    numbers = np.flatnonzero(flags)
    parts = [(part[0], part[-1]) for part in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)]
    named = [str(first) if first == last else f"{first}–{last}" for first, last in parts[:LONGEST_LIST]]
    return ", ".join(named + ["…"] * (len(parts) > LONGEST_LIST))


def with_nan(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type for values of another of which some are missing: integers become float32, those of more than 16 bits float64."""
    return dtype if dtype.kind in "fc" else np.result_type(dtype, np.float32)


def warn_of(source: str, lacks: Mapping[str, Lacks], unit: str, stacklevel: int) -> None:
    """One warning of all that a file lacks, by the names of its arrays.

    Parameters
    ----------
    unit
        What there are many of along the first dimension: "frames".
    stacklevel
        As for `warnings.warn`, from where this is called.
    """
    if lacks:
        told = "; ".join(each.describe(unit) + (f" of {name}" if name else "") for name, each in lacks.items())
        hint = next(iter(lacks.values())).hint
        warnings.warn(f"{source} lacks {told}: never written, or lost; what is missing is NaN{hint}", MissingWarning, stacklevel + 1)


def check_whole(path: str, lacks: Mapping[str, Lacks]) -> None:
    """Raise if something is missing of what a result would rest on.

    Raises
    ------
    InputError
        With the file and what it lacks, by the names of its arrays.
    """
    if lacks:
        told = "; ".join(f"of {name} {each.describe('rows')}" for name, each in lacks.items())
        raise InputError(
            f"expected all of {' and '.join(lacks)} in {path}, but it is damaged: {told} are not there; copy or write it again"
        )
