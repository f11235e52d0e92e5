"""Runs in processes of their own that are killed at random moments, and started again until they are done.

The processes are forked from one that has imported everything already, so that hundreds of them take minutes.
"""

import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from detcal_pipelines import sums
from detcal_pipelines.cli import main
from detcal_pipelines.ledger import History, Ledger, read_events, read_ledger
from detcal_pipelines.sums import share_saved
from detcal_pipelines.unfinished import Places, settle

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "tests.faults.warm"])
ENDED_IN_ORDER = {0, 1, 2, 3, 130, 143}
SECONDS_TO_END = 120


def run_recipe(recipe: Path, options: list[str], log: Path) -> None:
    """`detcal run`, in this process, which ends with its exit code; what it prints goes to a file as it comes."""
    with open(log, "w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sums.SECONDS_BETWEEN_SAVES, sums.SHARE_OF_TIME = 0.0, 1.0  # runs are short here
    main(["run", str(recipe), *options])


Kill = Callable[[int, Random], str]  # something of a run, by the number of its process; says how


def kill_run(number: int, random: Random) -> str:
    """End the process that drives the run."""
    how = random.choice(["SIGKILL", "SIGTERM"])
    os.kill(number, getattr(signal, how))
    return how


@dataclass
class Series:
    """What happened to a recipe's runs."""

    recipe: Path
    output: Path
    options: list[str]
    kills: Counter[str] = field(default_factory=Counter)  # by how, and by where the run was
    starts: int = 0

    @property
    def log(self) -> Path:
        return self.recipe.with_suffix(".log")

    def start(self) -> multiprocessing.Process:
        """Begin with a run, or go on."""
        self.starts += 1
        process = PROCESSES.Process(target=run_recipe, args=(self.recipe, self.options, self.log))
        process.start()
        return process

    def undisturbed(self) -> float:
        """Seconds of a run that nobody ends."""
        begin = time.monotonic()
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.log.read_text()
        return time.monotonic() - begin

    def wait(self, process: multiprocessing.Process, random: Random, seconds: float, writing: float) -> None:
        """Wait for a random moment of a run of so many seconds, half of the times of those in which it writes."""
        if random.random() < 0.5:
            while process.is_alive() and not Places.of(self.output).ledger.exists():
                process.join(0.005)
            seconds = writing
        process.join(random.uniform(0, seconds))

    def moment(self) -> str:
        """Where the run is."""
        places = Places.of(self.output)
        if self.output.exists():
            return "after"
        some = share_saved(places.sums) or (places.ledger.exists() and read_ledger(places.ledger).done)
        return "between" if some else "before"

    def disturbed(self, random: Random, kills: int, seconds: float, writing: float, kill: Kill = kill_run) -> None:
        """Kill it, or what works for it, so many times within so many seconds of its start, and let it come to its end."""
        left = kills
        while left:
            process = self.start()
            self.wait(process, random, seconds, writing)
            if process.is_alive():
                self.kills += Counter([kill(process.pid, random), self.moment()])
                left -= 1
            process.join(SECONDS_TO_END)
            assert process.exitcode is not None, "it does not end"
            assert process.exitcode in ENDED_IN_ORDER | {-signal.SIGKILL, -signal.SIGTERM}, self.log.read_text()
            if self.output.exists():
                said = process.exitcode in (0, -signal.SIGKILL) or "was written" in self.log.read_text()
                assert said, f"a false done: {self.log.read_text()}"
                if left:
                    remove_output(self.output)
        if not self.output.exists():
            self.undisturbed()
        if (places := Places.of(self.output)).ended:  # it was killed between the output's name and the ledger's, which any command mends
            settle(places)


def remove_output(output: Path) -> None:
    """Remove an output with its ledger."""
    places = Places.of(output)
    places.last_ledger.unlink(missing_ok=True)
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def left_of(output: Path) -> list[Path]:
    """Hidden files beside an output."""
    return list(output.parent.glob(f".{output.name}*"))


def contents(path: Path) -> dict[str, bytes]:
    """All files of an output but the metadata, in which the time of writing may stand."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file() and file.name != "zarr.json"}


def times_done(output: Path) -> Counter[tuple[object, ...]]:
    """How many times each block was done, those that were lost left out."""
    events, _ = read_events(Places.of(output).last_ledger)
    done = Counter(tuple(event["block"]) for event in events if "block" in event)
    done.subtract(tuple(event["lost"]) for event in events if "lost" in event)
    return done


def same(one: Path, other: Path) -> bool:
    """Whether two HDF5 files hold the same."""
    with h5py.File(one) as first, h5py.File(other) as second:
        names: list[str] = []
        first.visit(names.append)
        pairs = [(first[name], second[name]) for name in names if isinstance(first[name], h5py.Dataset)]
        return bool(pairs) and all(np.array_equal(one[()], two[()], equal_nan=one.dtype.kind == "f") for one, two in pairs)


def is_at_work(ledger: Path) -> bool:
    """Whether a run has noted its first block."""
    return ledger.exists() and b'"block"' in ledger.read_bytes()


def has_done(blocks: int, history: History) -> bool:
    """Whether so many blocks are noted."""
    return len(history.done) >= blocks


def has_begun(history: History) -> bool:
    """Whether a block is begun."""
    return bool(history.processes and history.processes[-1].blocks)


def run_until(moment: Callable[[History], bool], how: signal.Signals, recipe: Path, log: Path) -> None:
    """A run that a signal ends as its ledger says so."""
    note = Ledger.note

    def noted(self: Ledger, **event: Any) -> None:
        note(self, **event)
        if moment(self.history):
            os.kill(os.getpid(), how)

    Ledger.note = noted
    run_recipe(recipe, ["--workers", "1", "--memory", "4GiB"], log)


def end_at(moment: Callable[[History], bool], folder: Path, how: signal.Signals = signal.SIGKILL, code: int = -signal.SIGKILL) -> str:
    """Run r.toml, and end the process at a moment, to that exit code; what it has printed."""
    log = folder / "ended.log"
    process = PROCESSES.Process(target=run_until, args=(moment, how, folder / "r.toml", log))
    process.start()
    process.join()
    text = log.read_text()
    log.unlink()
    assert process.exitcode == code, text
    return text


def kill_after(folder: Path, blocks: int) -> None:
    """Run, and kill the process as so many blocks are noted."""
    end_at(partial(has_done, blocks), folder)
