"""Quarantine: what of a run's input cannot be read, or is not there, becomes NaN, is listed in the ledger, and the run goes on.

Tasks note damage in a folder beside the output, which the driver reads as blocks end. See detcal.stores.damage for what they do.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from math import ceil
from typing import Any

import zarr

from detcal.errors import InputError, RunError
from detcal.stores.damage import MISSING, DamageFound, Guard, read_notes
from detcal.stores.targets.replacing import remove
from detcal.stores.targets.save import as_dataset
from detcal.stores.targets.zarr_store import METADATA, NUMBERS
from detcal_pipelines.columns import span
from detcal_pipelines.ledger import Block, Event, History, Ledger, read_ledger
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.unfinished import Places

MOST_DEATHS = 3  # of processes, while they worked at a block
ONE = {"frames": "frame", "spectra": "spectrum"}
DEATHS = "deaths"  # in a note: these frames are not read again


class DeadlyBlocks(RunError):
    """Processes died, one after the other, while they worked at the same blocks."""


@dataclass
class Quarantine:
    """What of a run's input is known to be unreadable.

    Attributes
    ----------
    recipe, places
        Of the run.
    most
        Frames or spectra that may be; None: any number, but not all.
    noted
        Each with its file, unit (frames or spectra), frames (the first and the last), and the reason.
    """

    recipe: Recipe
    places: Places
    most: int | None = None
    noted: list[Event] = field(default_factory=list)
    looked: int = 0  # at the folder as it was changed then

    @classmethod
    def of_run(cls, recipe: Recipe, places: Places, most: int | None, *, restart: bool) -> "Quarantine":
        """What a run that broke off has found, if it can go on; and blocks at which processes died, one after the other."""
        found = cls(recipe, places, most)
        if restart or not (places.ledger.is_file() and (places.store / METADATA).is_file()):
            remove(places.bad)
            return found
        history = read_ledger(places.ledger)
        found.noted = [*history.quarantine]
        blocks = {block for process in history.processes for block in process.blocks if block not in history.done}
        found.add(notes_of([block for block in blocks if history.deaths(block) >= MOST_DEATHS], recipe, history))
        found.gather()
        return found

    @property
    def guard(self) -> Guard:
        """How the run is to read its input."""
        unread = tuple((note["frames"][0], note["frames"][1]) for note in self.noted if DEATHS in note)
        return Guard(str(self.places.bad), any(MISSING not in note for note in self.noted), unread)

    def look_again(self) -> None:
        """See to it that nothing is missed: two notes of one moment cannot be told by when the folder was changed."""
        self.looked = 0

    def add(self, notes: list[Event]) -> None:
        """Take note of what is not known yet."""
        self.noted += [note for note in notes if note not in self.noted]

    def gather(self) -> None:
        """Look for new notes of the tasks."""
        try:
            changed = self.places.bad.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed != self.looked:
            self.looked = changed
            self.add(read_notes(self.places.bad))

    def note_in(self, ledger: Ledger) -> None:
        """List in the ledger what is new.

        Raises
        ------
        RunError, InputError
            It is more than is allowed, or all that there is.
        """
        self.gather()
        for note in self.noted[len(ledger.history.quarantine) :]:
            ledger.note(bad=note)
        self.check()
        cut = ledger.history.header["cut"]
        if self.noted and self.noted[0]["unit"] == cut["unit"] and number_of(self.noted) >= cut["length"]:
            raise InputError(f"nothing of the input can be read: {self.describe()}")

    def check_missing(self) -> None:
        """Refuse more than is allowed of what is known to be missing now that the input was opened: before anything is computed."""
        self.gather()
        self.check()

    def check(self) -> None:
        """Refuse more than is allowed.

        Raises
        ------
        RunError
            How much there is.
        """
        if self.most is not None and number_of(self.noted) > self.most:
            raise RunError(
                f"{self.describe()}; at most {self.most} may be: allow more with --max-bad, or mend the input and begin anew with --restart"
            )

    def add_deadly(self, blocks: list[Block], ledger: Ledger) -> None:
        """Take note of blocks at which workers died, and list them in the ledger."""
        self.add(notes_of(blocks, self.recipe, ledger.history))
        self.note_in(ledger)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Damage that ends the tasks ends the run, if it is more than is allowed."""
        try:
            yield
        except DamageFound:
            self.look_again()
            self.gather()
            self.check()
            raise

    def go_on(self, error: RunError) -> None:
        """Prepare for a run that reads its input in another way, by what was found.

        Raises
        ------
        InputError, DeadlyBlocks
            Nothing new was noted, where this process looks: it would find the same once more.
        """
        self.look_again()
        self.gather()
        self.check()
        if self.recipe.guard != self.guard:
            return
        if isinstance(error, DeadlyBlocks):
            raise error
        raise InputError(f"{error} The note of it is not in {self.places.bad}: can workers write there?") from error

    def describe(self) -> str:
        """How much there is, and of which file what and why: a line."""
        return described(self.noted)


def described(notes: list[Event]) -> str:
    """How much was noted, and of which file what and why: a line."""
    kinds = groupby(sorted(notes, key=file_of), file_of)
    files = [f"{runs_of(list(those))} of {file}" for file, those in kinds]
    more = f" and of {len(files) - 3} more files" if len(files) > 3 else ""
    return f"{counted(notes)} cannot be read: {'; '.join(files[:3])}{more} ({notes[0]['reason']})"


def counted(notes: list[Event]) -> str:
    """How much was noted."""
    unit, number = notes[0]["unit"], number_of(notes)
    return f"1 {ONE.get(unit, unit)}" if number == 1 else f"{number} {unit}"


def number_of(notes: list[Event]) -> int:
    """How many frames or spectra were noted."""
    return len({number for note in notes for number in range(note["frames"][0], note["frames"][1] + 1)})


def file_of(note: Event) -> str:
    """The file that a note is of."""
    return str(note["file"])


def runs_of(notes: list[Event]) -> str:
    """Numbers of frames: 3, 5–7."""
    spans = [span(*frames) for frames in sorted(note["frames"] for note in notes)]
    return ", ".join(spans[:4] + ["…"] * (len(spans) > 4))


def notes_of(blocks: Iterable[Block], recipe: Recipe, history: History) -> list[Event]:
    """The frames of blocks at which several processes have died: nobody knows why, and the next one would die there too.

    Where a block of the output is of the same frames alone: not of a sum over all, nor of a map.
    """
    cut, last = history.header["cut"], recipe.steps[-1]
    if cut["unit"] != "frames" or last.gives not in ("frames", "table") or recipe.input is None:
        return []
    paths = recipe.input.path if isinstance(recipe.input.path, list) else [recipe.input.path]
    return [
        {
            "file": str(paths[0]),
            "unit": cut["unit"],
            "frames": [number * cut["depth"], min((number + 1) * cut["depth"], cut["length"]) - 1],
            "reason": "processes were killed, one after the other, while they worked at these",
            DEATHS: True,
        }
        for number in sorted({block[1][0] for block in blocks if is_of_frames(block, history)})
    ]


def is_of_frames(block: Block, history: History) -> bool:
    """Whether blocks of an array are the blocks that the frames are cut into."""
    cut = history.header["cut"]
    return bool(history.header["arrays"][block[0]]["shape"][0] == ceil(cut["length"] / cut["depth"]))


def types_differ(places: Places, result: Any) -> bool:
    """Whether the store of a run that broke off has no room for the NaN that the result has now."""
    if not (places.store / METADATA).is_file():
        return False
    stored = dict(zarr.open_group(places.store, mode="r").arrays())
    numbers = {str(name): variable.dtype for name, variable in as_dataset(result).items() if variable.dtype.kind in NUMBERS}
    return any(stored[name].dtype != dtype for name, dtype in numbers.items())
