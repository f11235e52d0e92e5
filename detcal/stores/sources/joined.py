"""Stacks in several files, one behind the other."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from dask.base import tokenize

from detcal.errors import InputError
from detcal.frames.stack import DIMS
from detcal.frames.valid import RECORDED
from detcal.stores.absence import Lacks
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Block, Reader
from detcal.stores.sources.scanned import Coords


@dataclass(frozen=True)
class Joined:
    """The frames of several readers in their order."""

    readers: tuple[Reader, ...]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many frames there are up to the end of each reader."""
        return tuple(accumulate(reader.shape[0] for reader in self.readers))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.ends[-1], *self.readers[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*{reader.dtype for reader in self.readers})  # reals where one lacks frames

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
        """Lines along the frames that every part has, joined, NaN where a part is not there; lines along rows and columns where they are
        the same in all."""
        known = first_there(self.readers).coords()
        lines = [reader.lines_like(known) if isinstance(reader, MissingPart) else reader.coords() for reader in self.readers]
        joined: Coords = {}
        for name, (dim, values, attrs) in known.items():
            each = [line[name][1] for line in lines if name in line and line[name][0] == dim]
            if dim == DIMS[0] and len(each) == len(self.readers):
                joined[name] = (dim, np.concatenate(each), attrs)
            elif dim != DIMS[0] and isinstance(values, np.ndarray) and all(np.array_equal(values, line) for line in each):
                joined[name] = (dim, values, attrs)
        return joined

    def attrs(self) -> dict[str, Any]:
        """Those of the first that is there; and which type was recorded, which one that lacks frames alone may say."""
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
        for reader, end in zip(self.readers, self.ends, strict=True):
            begin = end - reader.shape[0]
            low, high = max(start, begin), min(stop, end)
            if low < high:
                part = reader.read(low - begin, high - begin)
                if len(part) == stop - start:
                    return part.astype(self.dtype, copy=False)
                block = block if len(block) else np.empty((stop - start, *self.shape[1:]), self.dtype)
                block[low - start : high - start] = part
        return block


def first_there(readers: tuple[Reader, ...]) -> Reader:
    """The first part that is not missing."""
    return next(reader for reader in readers if not isinstance(reader, MissingPart))


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
