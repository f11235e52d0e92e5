"""Stacks in several files, one behind the other."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from dask.base import tokenize

from detcal.errors import InputError, MissingWarning
from detcal.frames.flags import Flags
from detcal.frames.stack import DIMS
from detcal.frames.valid import RECORDED, nan_where_flagged
from detcal.stores.absence import Lacks, with_nan
from detcal.stores.sources.facts import factor_between
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Block, Reader
from detcal.stores.sources.scanned import Coords, Line


@dataclass(frozen=True)
class Joined:
    """The frames of several readers in their order.

    Attributes
    ----------
    flags
        What is no reading in the frames of each reader, where that differs: it is NaN. None, where frames say it as one.
    facts
        How frames were recorded, where that differs: a name, and a number of each reader.
    said
        What all say of the frames together, where that is known; else what the first says counts.
    """

    readers: tuple[Reader, ...]
    flags: tuple[Flags, ...] = ()
    facts: tuple[tuple[str, tuple[float, ...]], ...] = ()
    said: dict[str, Any] | None = field(default=None, compare=False)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many frames there are up to the end of each reader."""
        return tuple(accumulate(reader.shape[0] for reader in self.readers))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.ends[-1], *self.readers[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        own = np.result_type(*{reader.dtype for reader in self.readers})  # reals where one lacks frames
        return with_nan(own) if self.flags else own

    @property
    def chunk_frames(self) -> int:
        return max(reader.chunk_frames for reader in self.readers)

    @property
    def version(self) -> str:
        return str(tokenize([reader.version for reader in self.readers]))

    @property
    def lacks(self) -> Lacks | None:
        each = [reader.lacks for reader in self.readers]
        hint = next((lacks.hint for lacks in each if lacks), None)
        if hint is None:
            return None
        nothing = [np.zeros(reader.shape[0], np.bool_) for reader in self.readers]
        whole, partly = (
            np.concatenate([getattr(lacks, kind) if lacks else none for lacks, none in zip(each, nothing, strict=True)])
            for kind in ("whole", "partly")
        )
        return Lacks(whole, partly, hint)

    def coords(self) -> Coords:
        """Lines along the frames, joined; lines along rows and columns where they are the same in all."""
        lines = [reader.coords() for reader in self.readers]
        joined = join_lines(self.readers, lines)
        lengths = [reader.shape[0] for reader in self.readers]
        others: Coords = {name: (DIMS[0], np.repeat(numbers, lengths), {}) for name, numbers in self.facts}
        for name, (dim, values, attrs) in first_there(self.readers).coords().items():
            each = [line[name][1] for line in lines if name in line and line[name][0] == dim]
            if dim != DIMS[0] and isinstance(values, np.ndarray) and all(np.array_equal(values, line) for line in each):
                others[name] = (dim, values, attrs)
        return joined | others

    def attrs(self) -> dict[str, Any]:
        """What is said of all; or by the first that is there, with which type was recorded, which one that lacks frames alone may say."""
        if self.said is not None:
            return self.said
        lacking = (reader.attrs().get(RECORDED) for reader in self.readers if reader.lacks is not None)
        recorded = next((kind for kind in lacking if kind is not None), None)
        return first_there(self.readers).attrs() | ({} if recorded is None else {RECORDED: recorded})

    def files(self, start: int, stop: int) -> list[str]:
        begins = (0, *self.ends)
        places = (
            (reader, max(start, first) - first, min(stop, last) - first)
            for reader, first, last in zip(self.readers, begins, self.ends, strict=False)
        )
        return [file for reader, low, high in places if low < high for file in reader.files(low, high)]

    def read(self, start: int, stop: int) -> Block:
        block = np.empty((0, *self.shape[1:]), self.dtype)
        for place, (reader, end) in enumerate(zip(self.readers, self.ends, strict=True)):
            begin = end - reader.shape[0]
            low, high = max(start, begin), min(stop, end)
            if low < high:
                part = reader.read(low - begin, high - begin)
                if self.flags:
                    part = with_nan_in(part, self.flags[place], self.dtype)
                if len(part) == stop - start:
                    return part.astype(self.dtype, copy=False)
                block = block if len(block) else np.empty((stop - start, *self.shape[1:]), self.dtype)
                block[low - start : high - start] = part
        return block


def first_there(readers: tuple[Reader, ...]) -> Reader:
    """The first part that is not missing."""
    return next(reader for reader in readers if not isinstance(reader, MissingPart))


def with_nan_in(frames: Block, flags: Flags, dtype: np.dtype[Any]) -> Block:
    """Frames as reals with NaN for what is flagged, one at a time: little is held beside them."""
    found = np.empty(frames.shape, dtype)
    for frame, into in zip(frames, found, strict=True):
        into[...] = nan_where_flagged(frame, flags)
    return found


def parts_of(reader: Reader) -> list[Reader]:
    """What was joined, and joined again."""
    return [inner for each in reader.readers for inner in parts_of(each)] if isinstance(reader, Joined) else [reader]


def name_of(reader: Reader) -> str:
    """What to call the frames of one part in a message."""
    path = getattr(reader, "path", None) or next(iter(reader.files(0, 1)), "a part")
    dataset = getattr(reader, "dataset", None)
    return f"{path}::{dataset}" if dataset else str(path)


def join_lines(readers: Sequence[Reader], lines: Sequence[Coords]) -> Coords:
    """What lies along the frames of each reader, joined, in the units of the first that has it; NaN where one has none.

    Warns
    -----
    MissingWarning
        A line of numbers that a part lacks, which is there itself; or has in units that are unknown beside those of the first.
    """
    joined: Coords = {}
    for name in dict.fromkeys(name for line in lines for name, (dim, *_) in line.items() if dim == DIMS[0]):
        having = {place: line[name] for place, line in enumerate(lines) if name in line and line[name][0] == DIMS[0]}
        first, (_, known, attrs) = next(iter(having.items()))
        each = [in_units(having.get(place), str(attrs.get("units", ""))) for place in range(len(lines))]
        lost = [name_of(reader) for reader, line in zip(readers, each, strict=True) if line is None and not isinstance(reader, MissingPart)]
        numbers = all(values.dtype.kind in "iuf" for _, values, _ in having.values())
        if lost:
            warnings.warn(
                f"{name} of {name_of(readers[first])} is {'NaN' if numbers else 'left out'}, as it is not said, or in other units, for the "
                f"frames of {lost[0]}{f' and {len(lost) - 1} more files' if len(lost) > 1 else ''}",
                MissingWarning, stacklevel=4,
            )  # fmt: skip
        if numbers or all(line is not None for line in each):
            none = with_nan(known.dtype)
            values = [np.full(reader.shape[0], np.nan, none) if line is None else line for reader, line in zip(readers, each, strict=True)]
            joined[name] = (DIMS[0], np.concatenate(values), attrs)
    return joined


def in_units(line: Line | None, units: str) -> Any:
    """The values of a line in some units; None if there is none, or in units of which nobody knows how many they are."""
    if line is None:
        return None
    _, values, attrs = line
    own = str(attrs.get("units", ""))
    factor = factor_between(own, units) if own and units else 1.0
    return values if factor == 1 else None if factor is None else values * factor


def join(readers: list[Reader], names: list[str]) -> Reader:
    """One reader for all of them.

    Raises
    ------
    InputError
        Frames of another shape or type than those of the first.
    """
    check_alike(readers, names)
    return readers[0] if len(readers) == 1 else Joined(tuple(readers))


def check_alike(readers: list[Reader], names: list[str]) -> None:
    """Raise if frames are of another shape or type than those of the first."""
    first = readers[0]
    for reader, name in zip(readers, names, strict=True):
        promoted = reader.lacks is not None or first.lacks is not None  # integers to reals
        if reader.shape[1:] != first.shape[1:] or (reader.dtype != first.dtype and not promoted):
            raise InputError(
                f"expected frames of shape {first.shape[1:]} and type {first.dtype}, as in {names[0]}, got {reader.shape[1:]} "
                f"and {reader.dtype} in {name}"
            )
