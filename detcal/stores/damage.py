"""Damage that is found while frames are read: from Python an error; in a run NaN, and a note.

A run opens its input under a guard. Where a block cannot be read, what of it is damaged is found frame by frame, and noted in a folder
beside the output, in which whoever drives the run finds it: tasks may be at work on other machines, and end with their process.
NaN needs reals. So the first damage among whole numbers ends the tasks (`DamageFound`), and the run goes on with frames of a type that
has NaN: what follows from the type (kernels, memory, the results' types, and whether steps look for what is missing) is known beforehand.

What is not there at all is noted likewise when the input is opened: a run tells it as what it could not read.

Files that change while a run reads them end it: nothing is to be made of two versions.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from os import stat
from pathlib import Path
from stat import S_ISDIR
from typing import Any
from uuid import uuid4

import numpy as np

from detcal.errors import InputError, RunError
from detcal.frames.selection import consecutive
from detcal.stores.absence import Lacks, with_nan
from detcal.stores.sources.readers import Around, Block, Reader, recorded_as
from detcal.stores.sources.urls import is_url

PARTS_OF_A_BLOCK = 8  # that are read one after the other where their type changes: no second copy of the block
Spans = tuple[tuple[int, int], ...]  # of frames: the first and the last
State = tuple[int, int]  # of a file: size, and when it was changed


class DamageFound(RunError):
    """Some of a run's input cannot be read, and its type has no NaN: it is noted, and the run can go on with a type that has."""


@dataclass(frozen=True)
class Guard:
    """How a run reads its input.

    Attributes
    ----------
    folder
        Where tasks note what they could not read.
    found
        Whether damage is known: then frames are of a type that has NaN.
    unread
        Frames that are taken as damaged, and not read.
    """

    folder: str
    found: bool = False
    unread: Spans = ()


MISSING = "missing"  # in a note: these frames were never there, which is known before any is read
GUARD: ContextVar[Guard | None] = ContextVar("detcal_guard", default=None)


@contextmanager
def guarding(guard: Guard | None) -> Iterator[None]:
    """What is opened meanwhile is a run's input, and guarded."""
    token = GUARD.set(guard)
    try:
        yield
    finally:
        GUARD.reset(token)


def guarded(reader: Reader, unit: str, *, grows: bool = False) -> Reader:
    """A reader of so called frames, guarded if a run opens it; of files that may grow meanwhile, if so."""
    guard = GUARD.get()
    if guard is None:
        return reader
    return Guarded(reader, guard, unit, {file: state_of(file) for file in reader.files(0, reader.shape[0])}, grows)


def note_missing(source: str, lacks: Lacks, unit: str) -> None:
    """Note for a run what is missing of its input, in so called frames; frames of which a part is there are told by a warning alone."""
    guard = GUARD.get()
    if guard is None or not lacks.whole.any():
        return
    for run in consecutive(np.flatnonzero(lacks.whole).tolist()):
        reason = f"never written, or lost{lacks.hint}"
        note = {"file": source, "unit": unit, "frames": [run.start, run.stop - 1], "reason": reason, MISSING: True}
        write_note(Path(guard.folder), note)


def state_of(file: str) -> State:
    """What changes when a file does; a folder changes with whatever is put beside what is read, and a server may not tell."""
    if is_url(file):
        return (0, 0)
    status = stat(file)
    return (0, 0) if S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Guarded(Around):
    """The frames of another reader: NaN where they cannot be read, which is noted; an error if a file is not as it was at opening."""

    guard: Guard
    unit: str
    states: dict[str, State]
    grows: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return with_nan(self.reader.dtype) if self.guard.found else self.reader.dtype

    def attrs(self) -> dict[str, Any]:
        return recorded_as(self.reader.dtype, self.dtype) | self.reader.attrs()

    def read(self, start: int, stop: int) -> Block:
        if not self.guard.found:
            with suppress(InputError):  # what it is of is looked for below
                return self.read_unchanged(start, stop)
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        damage: list[tuple[int, str]] = []
        own = self.chunk_frames
        step = max(own, (stop - start) // PARTS_OF_A_BLOCK // own * own)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            damage += self.fill(block[first - start : last - start], first, last)
        self.note(damage)
        if damage and self.dtype != with_nan(self.dtype):
            raise DamageFound(f"{self.unit} {damage[0][0]} cannot be read: {damage[0][1]}")
        return block

    def read_unchanged(self, start: int, stop: int) -> Block:
        """Frames of files that are as they were.

        Raises
        ------
        RunError
            Of another file, or none: whatever was read, or was found to be damaged, is not what the run began with.
        """
        try:
            return self.reader.read(start, stop)
        finally:
            for file in self.reader.files(start, stop):
                check_unchanged(file, self.states[file], grows=self.grows)

    def fill(self, block: Block, start: int, stop: int) -> list[tuple[int, str]]:
        """Read frames into a block, those that can be; the numbers of the others, with the reason."""
        if not self.is_unread(start, stop):
            try:
                block[...] = self.read_unchanged(start, stop)
                return []
            except InputError as error:
                reason = str(error)  # the error itself would keep what was read until then
        elif stop - start == 1:
            block[...] = np.nan
            return []
        if stop - start == 1:
            if block.dtype.kind in "fc":
                block[...] = np.nan
            return [(start, reason)]
        middle = (start + stop) // 2
        return [*self.fill(block[: middle - start], start, middle), *self.fill(block[middle - start :], middle, stop)]

    def is_unread(self, start: int, stop: int) -> bool:
        """Whether some of these frames are not to be read."""
        return any(first < stop and start <= last for first, last in self.guard.unread)

    def note(self, damage: list[tuple[int, str]]) -> None:
        """Note frames that cannot be read, those that follow each other in a file together."""
        runs = groupby(enumerate(damage), lambda each: (each[1][0] - each[0], self.files(each[1][0], each[1][0] + 1)[0]))
        for (_, file), run in runs:
            (_, (first, reason)), *others = run
            last = others[-1][1][0] if others else first
            write_note(Path(self.guard.folder), {"file": file, "unit": self.unit, "frames": [first, last], "reason": reason})


def check_unchanged(file: str, before: State, *, grows: bool) -> None:
    """Refuse a file that is not as it was; one that grows may be longer.

    Raises
    ------
    RunError
        What is different.
    """
    try:
        size, changed = state_of(file)
    except OSError as error:
        raise RunError(f"{file} was there when the run began, and is not any more ({error.strerror}): put it back as it was") from None
    if size < before[0] or not (grows or (size, changed) == before):
        what = f"it was {before[0]} bytes long, and is {size}" if size != before[0] else "it was written anew, or its time was set"
        raise RunError(f"{file} has changed since the run began ({what}): put it back as it was, or begin anew with --restart")


# ------------------------------------------------------------------------------------------------------------ notes


def write_note(folder: Path, note: dict[str, Any]) -> None:
    """Put a note into a folder, under a name made of its content: a task that is done again notes nothing new."""
    text = json.dumps(note, sort_keys=True)
    folder.mkdir(exist_ok=True)
    new = folder / f".{uuid4().hex}"
    new.write_text(text)
    new.replace(folder / f"{blake2b(text.encode(), digest_size=8).hexdigest()}.json")


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """All notes in a folder, in the order of their frames; none if there is no folder."""
    notes = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return sorted(notes, key=lambda note: (note["frames"], note["file"]))
