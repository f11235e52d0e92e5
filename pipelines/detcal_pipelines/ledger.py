"""The ledger of a run: one line for all that happened, in a file beside the output, written by the process that drives the run alone.

Its first line is the header: what the run rests on, and how it is cut. Then come events: a process that begins or ends, blocks that are
begun or done, saved sums, memory. Each line begins with its checksum, so that what a crash left half-written is told from what is damaged.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any, Self
from zlib import crc32

from detcal.errors import OutputError
from detcal.stores.checksums import Seal
from detcal.stores.soundness import MALFORMED
from detcal.stores.targets.replacing import sync
from detcal_pipelines.logs import log_event

VERSION = 1
MARK, HEAD_BYTES = b'"detcal_ledger"', 100  # of its first line
SECONDS_BETWEEN_SYNCS = 5.0
UNSURE_SECONDS = 60.0  # what was written in the last minute before a machine went down may not be on its disk

Block = tuple[str, tuple[int, ...]]  # a file of the output: its array, and its place among the blocks of that
Event = dict[str, Any]


@dataclass(slots=True)  # there may be millions
class Done:
    """A block that is written."""

    seal: Seal
    seconds: float  # at which it was: of its process, since that began


@dataclass
class Process:
    """One of the processes that worked at a run, in turn.

    Attributes
    ----------
    begun
        What it said of itself as it began: host, pid, time, tasks, budget.
    end
        What it said at its end; None if it was killed, or is at work.
    blocks
        Those that it had begun and not done.
    seconds, memory, peak
        Of its last sign of life: since it began, bytes held, most bytes held.
    done
        Blocks that it did.
    times
        Seconds of its threads on reading, each step and writing.
    """

    begun: Event
    end: Event | None = None
    blocks: set[Block] = field(default_factory=set)
    seconds: float = 0.0
    memory: int = 0
    peak: int = 0
    done: int = 0
    times: dict[str, float] = field(default_factory=dict)


@dataclass
class History:
    """What a ledger tells."""

    header: Event
    done: dict[Block, Done] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    quarantine: list[Event] = field(default_factory=list)
    sums: Event | None = None  # that were saved last
    commit: Event | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Of all lines of a ledger, the header first."""
        header, *others = events
        found = cls(header)
        for event in others:
            found.add(event)
        return found

    def add(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case {"process": begun}:
                self.processes.append(Process(begun))
            case {"begun": blocks}:
                self.processes[-1].blocks.update(as_block(each) for each in blocks)
            case {"block": block, "seal": seal}:
                self.done[as_block(block)] = Done((seal[0], seal[1]), event["s"])
                self.processes[-1].blocks.discard(as_block(block))
                self.processes[-1].done += 1
            case {"lost": block}:
                self.done.pop(as_block(block), None)
            case {"bad": bad}:
                self.quarantine.append(bad)
            case {"sums": sums}:
                self.sums = sums
            case {"memory": memory}:
                self.processes[-1].memory, self.processes[-1].peak = memory["held"], memory["peak"]
            case {"times": times}:
                self.processes[-1].times = times
            case {"end": end}:
                self.processes[-1].end = end
            case {"commit": commit}:
                self.commit = commit
        if self.processes:
            self.processes[-1].seconds = event["s"]

    @property
    def blocks(self) -> int:
        """How many blocks the output has, in all its arrays."""
        return sum(int(array["blocks"]) for array in self.header["arrays"].values())

    @property
    def share(self) -> float:
        """Of the run that is done; of a sum, in blocks of its input."""
        if self.sums is not None and not self.done:
            return float(self.sums["share"])
        return len(self.done) / max(1, self.blocks)

    def unsure(self) -> list[Block]:
        """Blocks that were written in the last minute of their process, if that did not say that it ended."""
        if not self.processes or self.processes[-1].end is not None:
            return []
        last = self.processes[-1]
        own = list(self.done.items())[len(self.done) - last.done :]
        return [block for block, done in own if done.seconds > last.seconds - UNSURE_SECONDS]

    def deaths(self, block: Block) -> int:
        """How many processes were killed while they worked at a block."""
        return sum(process.end is None and block in process.blocks for process in self.processes)


class Ledger:
    """A ledger that a process writes to."""

    def __init__(self, path: Path, history: History) -> None:
        self.path, self.history = path, history
        self.started = self.synced = monotonic()
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 - it is open as long as the run

    @classmethod
    def begin(cls, path: Path, header: Event) -> Self:
        """A new one."""
        header = {"detcal_ledger": VERSION, **header}
        write_lines(path, [header])
        return cls(path, History(header))

    @classmethod
    def go_on(cls, path: Path) -> Self:
        """One that another process began; what was half-written at its end is cut off."""
        events, size = read_events(path)
        os.truncate(path, size)
        return cls(path, history_in(path, events))

    def note(self, **event: Any) -> None:
        """Add a line."""
        event["s"] = round(self.seconds, 3)
        self.history.add(event)
        self.file.write(as_line(event))
        log_event(event, self.history.share)
        if monotonic() - self.synced > SECONDS_BETWEEN_SYNCS:
            self.sync()

    @property
    def seconds(self) -> float:
        """Since this process began with it."""
        return monotonic() - self.started

    def sync(self) -> None:
        """See to it that all lines are on the disk."""
        os.fsync(self.file.fileno())
        self.synced = monotonic()

    def close(self) -> None:
        """Write no more."""
        self.sync()
        self.file.close()


def read_ledger(path: Path) -> History:
    """What a ledger tells.

    Raises
    ------
    OutputError
        It is damaged, or of another version.
    """
    return history_in(path, read_events(path)[0])


def history_in(path: Path, events: list[Event]) -> History:
    """What the lines of a ledger tell.

    Raises
    ------
    OutputError
        They are whole, and not what a ledger says.
    """
    try:
        history = History.of(events)
        check_header(history.header)
        if history.blocks < 1 or any(block[0] not in history.header["arrays"] for block in history.done):
            raise ValueError("no blocks, or some of no array")
    except MALFORMED as error:
        raise OutputError(f"{path} does not say what a ledger says: begin anew with --restart, or restore it") from error
    return history


def check_header(header: Event) -> None:
    """Raise one of `MALFORMED` if the first line does not say what runs need of it."""
    for name, keys in {"cut": ("unit", "length", "depth"), "fingerprint": ("recipe", "inputs", "steps")}.items():
        for key in keys:
            header[name][key]


def is_ledger(path: Path) -> bool:
    """Whether a file begins as ledgers do, damaged or not."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return MARK in file.read(HEAD_BYTES)


def read_events(path: Path) -> tuple[list[Event], int]:
    """All lines of a ledger, and where the last one ends: a crash may leave half of one behind."""
    events, damaged, good = whole_lines(path)
    if damaged and damaged[0] <= len(events):
        raise OutputError(f"{path} is damaged in line {damaged[0]}: begin anew with --restart, or restore it")
    if not events:
        raise OutputError(f"{path} is no ledger of detcal, or damaged in its first line: begin anew with --restart, or restore it")
    if events[0].get("detcal_ledger") != VERSION:
        raise OutputError(f"{path} is of another version of detcal: finish the run with that one, or begin anew with --restart")
    return events, good


def whole_lines(path: Path) -> tuple[list[Event], list[int], int]:
    """All lines of a ledger that are whole, the numbers of those that are not, and bytes of the former."""
    events: list[Event] = []
    damaged: list[int] = []
    good = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            event = event_of(line)
            if event is None:
                damaged.append(number)
            else:
                events.append(event)
                good += len(line)
    return events, damaged, good


def write_lines(path: Path, events: Iterable[Event]) -> None:
    """Write a ledger anew, in one step, even if the machine goes down."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(b"".join(map(as_line, events)))
    sync(new)
    new.replace(path)


def as_line(event: Event) -> bytes:
    """A line: checksum, then JSON, with Infinity and NaN, which a recipe may have."""
    text = json.dumps(event, separators=(",", ":")).encode()
    return b"%08x %s\n" % (crc32(text), text)


def event_of(line: bytes) -> Event | None:
    """What a line says; None if it is not whole."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(text):
        return None
    found = json.loads(text)
    return found if isinstance(found, dict) else None


def as_block(stored: list[Any]) -> Block:
    """A block as it is stored."""
    name, *place = stored
    return name, tuple(place)


def as_list(block: Block) -> list[Any]:
    """A block as it is to be stored."""
    return [block[0], *block[1]]


def now() -> float:
    """Seconds of the calendar."""
    return round(time(), 3)
