"""Repairing an output of a run: what is bad is computed again, from the same inputs in the same blocks, and nothing else is.

A store in a folder is repaired where it is. Of an output that is one file a store is made beside it, with the blocks that are sound if
the file has them as they were stored, and it takes the file's place as at the end of a run. So whatever breaks a repair off leaves
an output that can be verified, and repaired.
"""

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console

from detcal.errors import OutputError, PlanError, RunError
from detcal.stores.checksums import Seal
from detcal.stores.soundness import files_of, other_files
from detcal.stores.targets.replacing import clear_write_errors, put_in_place, remove, temporary_beside
from detcal.stores.targets.save import finished, stored_form
from detcal.stores.targets.zarr_store import complete, prepare_zarr
from detcal_pipelines.chain import build
from detcal_pipelines.compiling import with_kernels
from detcal_pipelines.fingerprint import differences, fingerprint
from detcal_pipelines.graph import Ends, Stage, Turns, Window, windows
from detcal_pipelines.interrupts import noticed_interrupts
from detcal_pipelines.ledger import Block, Event, History, as_list, whole_lines, write_lines
from detcal_pipelines.lock import only_run
from detcal_pipelines.mistakes import Place, first_mistakes
from detcal_pipelines.plan import Plan, here, plan_in
from detcal_pipelines.progress import block_bar
from detcal_pipelines.quarantine import Quarantine
from detcal_pipelines.raw import copy_frames, sources_of
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.threads import MemoryWatch, ThreadsRun, give_back_large_blocks
from detcal_pipelines.unfinished import Places, commit_of, settle, written_seal
from detcal_pipelines.verify import Findings, blocks_of, file_of, look_at

STORE = ".zarr"


def repair(output: Path, limits: tuple[int, int], console: Console) -> tuple[Findings, Findings]:
    """What was found of an output, and, after all that was bad is mended, what is found then.

    Parameters
    ----------
    limits
        Bytes, and tasks at once.

    Raises
    ------
    OutputError
        Nothing says how to make it again, what it was made of has changed, or another process is at work at it.
    RunError
        What was computed again is not what was written.
    KeyboardInterrupt
        At Ctrl-C and SIGTERM; it says what is there now.
    """
    places = Places.of(output)
    with only_run(places.lock, places.output), noticed_interrupts() as stop_if_interrupted:
        settle(places)
        found = look_at(places)
        if found.sound:
            return found, found
        try:
            Mending(places, found, limits, console, stop_if_interrupted).mend()
        except KeyboardInterrupt as stop:
            raise type(stop)(f"{output} is not repaired: the same command goes on with what is still bad") from None
        finally:
            remove(places.bad)
            remove(places.frames)
        return found, look_at(places)


@dataclass
class Sealing:
    """Takes the seals of blocks as they are written."""

    seal_of: Callable[[Block], Seal]
    count: int  # of all blocks
    show: Callable[[float], None]
    ends: Ends = field(default_factory=dict)
    seals: dict[Block, Seal] = field(default_factory=dict)

    def enter(self, window: Window, stages: list[Stage]) -> None:
        """A window is begun."""
        self.ends = window.ends

    def begun(self, key: Any) -> None:
        """A task is handed out."""

    def finished(self, key: Any) -> None:
        """A task has ended."""
        if key in self.ends:
            self.seals[self.ends[key]] = self.seal_of(self.ends[key])
            self.show(len(self.seals) / self.count)


@dataclass
class Mending:
    """The repair of an output whose lock is held."""

    places: Places
    found: Findings
    limits: tuple[int, int]
    console: Console
    stop_if_interrupted: Callable[[], None]

    def mend(self) -> None:
        """Make good all that is bad."""
        self.check_unchanged()
        output = self.places.output
        if output.is_dir() and output.suffix.lower() == STORE:
            with clear_write_errors(output, output):
                self.mend_store()
        elif self.found.faults or self.history.commit is None:
            self.make_again()
        else:
            self.note({}, self.history.commit)

    @cached_property
    def history(self) -> History:
        """What the ledger says."""
        if self.found.record.history is None:
            raise OutputError(
                f"{self.places.output} cannot be repaired: no ledger says which inputs it was made of, and how; if a recipe made it, "
                "run that again with --overwrite, else write or copy it again"
            )
        return self.found.record.history

    @cached_property
    def recipe(self) -> Recipe:
        """What made the output, which takes the same of the input as damaged."""
        recipe = recipe_of(self.history, self.places.output)
        recipe.guard = self.quarantine_of(recipe).guard
        return recipe

    @cached_property
    def quarantine(self) -> Quarantine:
        """What of the input could not be read then."""
        return self.quarantine_of(self.recipe)

    def quarantine_of(self, recipe: Recipe) -> Quarantine:
        """The same, of a recipe that is to be read in that way."""
        return Quarantine(recipe, self.places, noted=[*self.history.quarantine])

    def check_unchanged(self) -> None:
        """Refuse to mix what rests on different things."""
        basis = with_kernels(self.recipe, lambda: fingerprint(self.recipe, sources_of(self.recipe, build(self.recipe))), self.console)
        changed = differences(self.history.header["fingerprint"], basis)
        if changed:
            raise OutputError(
                f"{self.places.output} cannot be repaired, since something has changed: {'; '.join(changed)}. "
                "Put it back as it was, or run the recipe again with --overwrite"
            )

    @cached_property
    def planned(self) -> Plan:
        """The same blocks as then, within the memory that there is now."""
        beside = self.places.output.with_name(f".{self.places.output.name}")  # a name that is free: the output may not be what it should be
        recipe = self.recipe.model_copy(update={"output": self.recipe.output.model_copy(update={"path": str(beside)})})
        depth = self.history.header["cut"]["depth"]
        try:
            found = plan_in(recipe, [here(self.limits)], depth, self.history.header["cut"].get("copied"))
        except PlanError as error:
            raise PlanError(f"{self.places.output} has blocks of {depth}, and is repaired with these: {error}") from None
        return replace(found, copy=None if found.copy is None else replace(found.copy, store=self.places.frames))

    @cached_property
    def dataset(self) -> xr.Dataset:
        """What is to be stored, lazily; the partial sums of a fit are as many as then, since the order of sums depends on them."""
        cut = self.history.header["cut"]
        return stored_form(build(self.recipe, cut["depth"], cut["begun"], self.planned.copy), self.history.header["provenance"])

    def writes(self, store: Path) -> dict[str, da.Array]:
        """The lazy writes of a store, which is begun if it is not there."""
        shards = self.recipe.output.shard_frames
        writes = prepare_zarr(self.dataset, store, shards=None if shards is None else {"frame": shards})
        if writes.keys() != self.history.header["arrays"].keys():
            raise OutputError(f"{self.places.output} cannot be repaired: its ledger is of other arrays than {', '.join(writes)}")
        return writes

    @cached_property
    def sound(self) -> set[Block]:
        """Blocks that are there as they were written, and known to be."""
        if not self.found.readable:
            return set()
        bad = {fault.file for fault in self.found.faults}
        return {block for block in blocks_of(self.history) if block in self.history.done and file_of(block) not in bad and self.has(block)}

    def has(self, block: Block) -> bool:
        """Whether the output is a store in which a block is looked for."""
        return file_of(block) in self.found.contents.chunks

    def mend_store(self) -> None:
        """Make good a store where it is: first what does not belong there, then metadata and coordinates, then blocks."""
        store, contents = self.places.output, self.found.contents
        bad = {fault.file for fault in self.found.faults}
        for name in bad - contents.chunks.keys() - contents.others.keys():
            remove(store / name)
        if self.history.commit is None or bad & contents.others.keys():
            self.restore_others(store, None if self.history.commit is None else bad)
        missing = set(blocks_of(self.history)) - self.sound
        for block in missing:
            remove(store / file_of(block))  # zarr would read it first
        writes = self.writes(store) if missing else {}
        self.note(self.compute(writes, store), commit_of(store, store, self.history.header["arrays"]))

    def restore_others(self, store: Path, bad: Collection[str] | None) -> None:
        """Put back all that is in a store beside blocks, or what is bad of it: what is written when a store is begun."""
        with temporary_beside(store) as fresh:
            self.writes(fresh)
            complete(fresh)
            for name in other_files(fresh, self.history.header["arrays"]):
                if bad is None or name in bad:
                    remove(store / name)
                    (store / name).parent.mkdir(parents=True, exist_ok=True)
                    (fresh / name).replace(store / name)

    def make_again(self) -> None:
        """Make an output anew that is one file, with the blocks that are sound in it."""
        output = self.places.output
        with temporary_beside(output) as store, clear_write_errors(output, store):
            writes = self.writes(store)
            self.unpack(store)
            seals = self.compute(writes, store)
            with finished(self.dataset, store, output) as whole:
                commit = commit_of(store, whole, writes)
                put_in_place(whole, output, overwrite=True)
        self.note(seals, commit)

    def unpack(self, store: Path) -> None:
        """Take the blocks that are sound out of a zip file."""
        for block in self.sound:
            (store / file_of(block)).parent.mkdir(parents=True, exist_ok=True)
            with files_of(self.places.output) as files, files.open(file_of(block)) as source, open(store / file_of(block), "wb") as target:
                shutil.copyfileobj(source, target)

    def compute(self, writes: dict[str, da.Array], store: Path) -> dict[Block, Seal]:
        """Compute and write into a store all blocks that are not sound; their seals.

        Raises
        ------
        RunError
            These are not what was noted.
        """
        graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in writes.values()))
        turns = Turns(writes, self.sound)
        blocks = sum(turns.sizes())
        give_back_large_blocks()
        copy_frames(self.planned, self.console, self.stop_if_interrupted)
        with MemoryWatch() as watch, block_bar("repair", blocks, self.console) as show:
            run = ThreadsRun(self.planned, watch, self.stop_if_interrupted, self.say)
            sealing = Sealing(lambda block: written_seal(store, block, self.history), blocks, show)
            for window in windows(graph, turns):
                run.compute(sealing, window)
        self.check_readable()
        self.check_same(sealing.seals)
        return sealing.seals

    def say(self, text: str) -> None:
        """One line above the progress."""
        self.console.print(text, soft_wrap=True)

    def check_readable(self) -> None:
        """Refuse what is made of input that could be read then, and is damaged now."""
        self.quarantine.gather()
        if len(self.quarantine.noted) > len(self.history.quarantine):
            raise RunError(
                f"{self.places.output} cannot be repaired: {self.quarantine.describe()}, and not all of that was damaged then: "
                "mend the input, or run the recipe again with --overwrite"
            )

    def check_same(self, seals: dict[Block, Seal]) -> None:
        """Refuse blocks that are not what was noted of them."""
        others = [file_of(block) for block, seal in seals.items() if block in self.history.done and self.history.done[block].seal != seal]
        if others:
            raise RunError(
                f"{len(others)} of {len(seals)} blocks of {self.places.output} were computed again, and are not what was written: "
                f"{others[0]}, …; a library may be of another version: run the recipe again with --overwrite"
            )

    def note(self, seals: dict[Block, Seal], commit: Event) -> None:
        """Write into the ledger what is lost of it, or what is not as it was noted: a file that is made again may hold the time."""
        kept = self.history.commit or {}
        if not self.found.record.faults and tuple(commit.get("output", ())) == tuple(kept.get("output", ())):
            return
        path = self.places.last_ledger
        events = whole_lines(path)[0]
        seconds = self.history.processes[-1].seconds if self.history.processes else 0.0
        lost = [{"block": as_list(block), "seal": seal, "s": seconds} for block, seal in seals.items() if block not in self.history.done]
        process = [{"process": {}, "s": 0.0}] if self.found.record.faults else []  # whose own line may be lost
        write_lines(path, [events[0], *process, *events[1:], *lost, {"commit": commit, "s": seconds}])


def recipe_of(history: History, output: Path) -> Recipe:
    """The recipe that a ledger holds; of an output that was moved with its inputs, with these where they are now.

    Raises
    ------
    OutputError
        What it names is not there any more.
    """
    text = history.header["provenance"]["detcal_recipe"]
    try:
        return checked(text)
    except ValidationError as error:
        reasons = dict.fromkeys(reason_of(place, mistake) for place, mistake in first_mistakes(error).items())
    try:
        values = json.loads(text)
        return checked(json.dumps(moved(values, Path(values["output"]["path"]).parent, output.parent)))
    except ValidationError:
        raise OutputError(
            f"{output} cannot be repaired: its recipe cannot be used any more: {'; '.join(reasons)}. "
            "Put back what is missing, or run the recipe again with --overwrite"
        ) from None


def reason_of(place: Place, mistake: ErrorDetails) -> str:
    """What is wrong with a recipe that was right once: mostly a file is not there any more, and our own words say which."""
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    return f"{'.'.join(map(str, place))}: {mistake['msg'].lower()}"


def checked(text: str) -> Recipe:
    """A recipe as it was noted, whose paths are absolute."""
    return Recipe.model_validate_json(text, context={"folder": "."})


def moved(value: Any, before: Path, after: Path) -> Any:
    """The same values, with the paths in one folder as those in another."""
    if isinstance(value, dict):
        return {name: moved(each, before, after) for name, each in value.items()}
    if isinstance(value, list):
        return [moved(each, before, after) for each in value]
    inside = isinstance(value, str) and Path(value).is_relative_to(before)
    return str(after / Path(value).relative_to(before)) if inside else value
