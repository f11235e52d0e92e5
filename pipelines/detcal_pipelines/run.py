"""Running a plan: on threads of this process or on a cluster, with progress, a ledger of what is done, and what was measured."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname
from time import perf_counter
from typing import Any, TypeVar

import dask.array as da
from dask.highlevelgraph import HighLevelGraph
from rich.console import Console

from detcal.errors import DetcalError, PlanError, RunError
from detcal.stores.damage import DamageFound
from detcal.stores.targets.replacing import clear_write_errors, put_in_place, remove, sync
from detcal.stores.targets.save import finished, stored_form
from detcal.stores.targets.zarr_store import prepare_zarr
from detcal_pipelines.chain import build, check_result, check_target
from detcal_pipelines.clean import remains_in
from detcal_pipelines.compiling import with_kernels
from detcal_pipelines.disk import DiskWatch, check_room
from detcal_pipelines.fingerprint import check_kept, fingerprint, provenance, versions
from detcal_pipelines.graph import Turns, Window, windows
from detcal_pipelines.interrupts import noticed_interrupts
from detcal_pipelines.ledger import Block, History, Ledger, now
from detcal_pipelines.lock import only_run
from detcal_pipelines.logs import LOG
from detcal_pipelines.plan import Place, Plan, here, plan_in
from detcal_pipelines.progress import block_bar, doing
from detcal_pipelines.quarantine import DeadlyBlocks, Quarantine, types_differ
from detcal_pipelines.raw import copy_frames, sources_of, with_length
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.recording import Recorder
from detcal_pipelines.reports.writing import write_report_if_possible
from detcal_pipelines.stopwatch import Stopwatch
from detcal_pipelines.sums import largest_fold, read_sums, share_saved, with_saved, with_saving
from detcal_pipelines.threads import MemoryWatch, ThreadsRun, give_back_large_blocks
from detcal_pipelines.unfinished import Places, check_ledger_is_ours, commit_of, go_on, header_of, percent, settle, stored_bytes, to_go_on

Compute = Callable[[Recorder, Window], None]
Done = TypeVar("Done")


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    plan: Plan
    output: Path
    seconds: float
    stored_bytes: int
    peak_bytes: int | None  # of anonymous memory of this process; None if the tasks ran elsewhere
    report: Path | None  # None if it could not be written
    quarantine: Quarantine

    @property
    def rate(self) -> float:
        """Frames, or rows of a matrix's detector, read, worked on and written a second."""
        return self.plan.cut.length / self.seconds


def run(recipe: Recipe, limits: tuple[int, int], console: Console, *, restart: bool = False, most_bad: int | None = None) -> Outcome:
    """Plan within `limits` (bytes, tasks at once), run, and measure; what an earlier run that broke off has done is kept.

    Parameters
    ----------
    restart
        Begin anew, whatever an earlier run has done.
    most_bad
        Frames or spectra of the input that may be unreadable, and become NaN; None: any number, but not all.

    Raises
    ------
    DetcalError
        An output that exists, a plan that does not fit, or input that cannot be used: then nothing was written; a run that cannot go on
        from where another one broke off, or next to another one.
    KeyboardInterrupt
        At Ctrl-C and SIGTERM; it says what is there now.
    """
    with job_of(recipe, console, restart=restart, most_bad=most_bad) as job:
        return job.run(limits)


@contextmanager
def job_of(recipe: Recipe, console: Console, *, restart: bool = False, most_bad: int | None = None) -> Iterator["Job"]:
    """A run that has its output to itself; whether it does anything, or plans or tries it only, is for who asks."""
    check_target(recipe)
    places = Places.of(recipe.output.path)
    check_ledger_is_ours(places)
    with only_run(places.lock, places.output), noticed_interrupts() as stop_if_interrupted:
        settle(places)
        recipe = with_length(recipe, places, console, restart=restart)
        quarantine = Quarantine.of_run(recipe, places, most_bad, restart=restart)
        yield Job(recipe, places, console, stop_if_interrupted, restart, quarantine)


@dataclass
class Job:
    """A run that holds the lock of its output."""

    recipe: Recipe
    places: Places
    console: Console
    stop_if_interrupted: Callable[[], None]
    restart: bool
    quarantine: Quarantine
    suspects: set[Block] = field(default_factory=set)  # at one of which workers of a cluster died
    times: Callable[[], dict[str, float]] = dict  # seconds on reading, each step and writing
    written: bool = False  # the output is there

    def run(self, limits: tuple[int, int]) -> Outcome:
        """Run, here or on a cluster."""
        address = self.recipe.compute.scheduler
        return self.guarded(lambda: self.run_here(limits) if address is None else self.run_on_cluster(address))

    def guarded(self, work: Callable[[], Done]) -> Done:
        """Do something with the input; and go on, with frames of a type that has NaN, where the first damage of whole numbers is found."""
        self.recipe.guard = self.quarantine.guard
        try:
            return work()
        except DeadlyBlocks as error:
            self.look_for_deadly(error)
            return self.go_on(work)
        except DamageFound as error:
            self.quarantine.go_on(error)
        except KeyboardInterrupt as stop:
            if self.written and not str(stop):
                raise type(stop)(f"{self.places.output} was written") from None
            raise
        finally:
            if not self.places.ledger.is_file():
                remove(self.places.bad)
        self.console.print(f"{self.quarantine.describe()}; what cannot be read becomes NaN, and the run goes on", soft_wrap=True)
        return self.go_on(work)

    def look_for_deadly(self, error: DeadlyBlocks) -> None:
        """Prepare for a run that does the suspects one at a time, or without the block at which workers died once more.

        Raises
        ------
        DeadlyBlocks
            It is not known at which they did.
        """
        if self.suspects:
            self.say(f"workers died: {len(self.suspects)} blocks that were begun are done one at a time, until it is known at which")
        else:
            self.quarantine.go_on(error)
            self.say("all blocks go on")

    def go_on(self, work: Callable[[], Done]) -> Done:
        """Do what is left to do."""
        self.restart = False
        return self.guarded(work)

    @property
    def shards(self) -> dict[str, int] | None:
        """How many frames are written to one file, if several chunks are."""
        shards = self.recipe.output.shard_frames
        return None if shards is None else {"frame": shards}

    def planned_here(self, limits: tuple[int, int]) -> tuple[History | None, Plan]:
        """As `prepare`, for threads of this process, with all kernels loaded."""
        give_back_large_blocks()
        return with_kernels(self.recipe, lambda: self.prepare([here(limits)]), self.console)

    def run_here(self, limits: tuple[int, int]) -> Outcome:
        """Run on threads of this process."""
        history, planned = self.planned_here(limits)
        with MemoryWatch() as watch, Stopwatch(self.recipe.steps) as stopwatch:
            self.times = stopwatch.times
            run = ThreadsRun(planned, watch, self.pauses(planned), self.say)
            seconds = self.write(history, planned, run.compute, lambda: (watch.held, watch.peak))
        return self.outcome(planned, seconds, watch.peak)

    def run_on_cluster(self, address: str) -> Outcome:
        """Run on a cluster as it stands."""
        from detcal_pipelines.cluster import ClusterRun  # here, because a run on one machine needs none of it
        from detcal_pipelines.connecting import dashboard_of, loaded_kernels, places_for, remote_cluster

        check_result(self.recipe, build(self.recipe), overwrite=self.recipe.output.overwrite)
        with remote_cluster(address) as client:
            self.say_where_to_look(dashboard_of(client))
            with doing("loading kernels on the workers", self.console):
                held = loaded_kernels(client, self.recipe)
            history, planned = self.prepare(places_for(client.scheduler_info(n_workers=-1)["workers"], held))

            run = ClusterRun(client, planned, self.suspects, self.pauses(planned), self.say)
            seconds = self.write(history, planned, run.compute, lambda: (0, 0))
        return self.outcome(planned, seconds, None)

    def prepare(self, places: list[Place]) -> tuple[History | None, Plan]:
        """What an earlier run has noted, if it can go on, and the plan, which keeps its blocks."""
        for remains in remains_in(self.places.output.parent):
            if remains.output != self.places.output and not remains.held and remains.files != (Places.of(remains.output).lock,):
                warnings.warn(f"left by a run that broke off: {remains.describe()}; detcal clean removes it", stacklevel=2)
        check_result(self.recipe, result := build(self.recipe), overwrite=self.recipe.output.overwrite)
        self.quarantine.check_missing()
        self.basis = fingerprint(self.recipe, sources_of(self.recipe, result))
        restart = self.restart or (bool(self.quarantine.noted) and types_differ(self.places, result))
        history = to_go_on(self.places, self.basis, restart=restart)
        cut = {} if history is None else history.header["cut"]
        depth = cut.get("depth")
        try:
            planned = plan_in(self.recipe, places, depth, cut.get("copied"))
        except PlanError as error:
            if depth is None:
                raise
            raise PlanError(f"the run that broke off goes on with blocks of {depth}: {error}; or begin anew with --restart") from None
        stored = 0 if history is None else sum(done.seal[0] for done in history.done.values())
        check_room(self.places.output.parent, planned, stored, exported=self.places.output.suffix.lower() != ".zarr")
        return history, planned

    def write(self, history: History | None, planned: Plan, compute: Compute, held: Callable[[], tuple[int, int]]) -> float:
        """Compute and write the output as it was planned; the seconds that this took."""
        start = perf_counter()
        target = self.places.output
        dataset = stored_form(build(self.recipe, planned.depth, planned.begun, planned.copy), provenance(self.recipe))
        ledger = None
        try:
            with clear_write_errors(target, self.places.store):
                if history is None:
                    self.places.remove()
                writes = prepare_zarr(dataset, self.places.store, shards=self.shards)
                ledger = go_on(self.places) if history else self.begin(planned, writes)
                ledger.note(process=self.process(planned, ledger.history.share))
                with self.quarantine.judged():
                    copy_frames(planned, self.console, self.pauses(planned))
                self.compute_all(ledger, planned, writes, compute, held)
                self.check_kept()
                ledger.note(times=self.times())
                with finished(dataset, self.places.store, target) as whole:
                    ledger.note(commit=commit_of(self.places.store, whole, writes))
                    ledger.sync()
                    put_in_place(whole, target, self.recipe.output.overwrite)
                ledger.note(end={"how": "done"})
                self.places.ledger.replace(self.places.last_ledger)
                self.places.remove()
        except BaseException as error:
            self.break_off(ledger, history, error)
            raise
        finally:
            if ledger is not None:
                ledger.close()
        self.written = True
        return perf_counter() - start

    def begin(self, planned: Plan, writes: dict[str, da.Array]) -> Ledger:
        """A ledger of a store that is begun: whatever becomes of the machine, where there is a ledger, only blocks may be missing."""
        sync(self.places.store)
        return Ledger.begin(self.places.ledger, self.header(planned, writes))

    def compute_all(
        self, ledger: Ledger, planned: Plan, writes: dict[str, da.Array], compute: Compute, held: Callable[[], tuple[int, int]]
    ) -> None:
        """Compute all blocks that are not done yet, window by window."""
        graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in writes.values()))
        turns = Turns(writes, ledger.history.done)
        fold = largest_fold(graph, writes) if (count := len(turns.sizes())) == 1 else None
        if fold is not None:
            graph = with_saving(graph, fold, self.places.sums)
            graph = with_saved(graph, fold, read_sums(self.places.sums, fold))
        label = " → ".join(step.operation for step in self.recipe.steps)
        with block_bar(label, planned.blocks, self.console) as show:
            recorder = Recorder(ledger, self.places, count, held, show, self.quarantine)
            with self.quarantine.judged():
                for window in windows(graph, turns):
                    compute(recorder, window)
            recorder.sign()
            show(ledger.history.share)  # workers tell of tasks later than of blocks
        self.quarantine.look_again()
        self.quarantine.note_in(ledger)

    def check_kept(self) -> None:
        """Keep nothing that is made of files that have changed meanwhile: nobody knows which blocks are of which."""
        try:
            check_kept(self.recipe, self.basis)
        except RunError:
            self.places.remove()
            raise

    def pauses(self, planned: Plan) -> Callable[[], None]:
        """What is called after each task: it ends the run at Ctrl-C, and waits while the disk is nearly full."""
        begun = planned.begun * planned.bytes_out // planned.blocks
        disk = DiskWatch(self.places.output.parent, begun, self.say, self.stop_if_interrupted)

        def pause_or_stop() -> None:
            self.stop_if_interrupted()
            disk.look()

        return pause_or_stop

    def say(self, text: str) -> None:
        """One line above the progress."""
        self.console.print(text, soft_wrap=True)

    def header(self, planned: Plan, writes: dict[str, da.Array]) -> dict[str, Any]:
        """The first line of the ledger."""
        return header_of(self.basis, planned, writes, self.places.store, provenance(self.recipe))

    def process(self, planned: Plan, share: float) -> dict[str, Any]:
        """What this process says of itself in the ledger, with the share that was done before."""
        return {
            "host": gethostname(), "pid": os.getpid(), "time": now(), "tasks": planned.tasks, "budget": planned.budget,
            "planned": planned.peak_bytes, "workers": len(planned.places), "scheduler": self.recipe.compute.scheduler, "share": share,
            "plan": planned.describe(), "steps": [step.describe() for step in planned.steps], "versions": versions(),
        }  # fmt: skip

    def say_where_to_look(self, dashboard: str | None) -> None:
        """Tell of the cluster's dashboard, if it has one."""
        if dashboard is not None:
            LOG.info("dashboard of the cluster: %s", dashboard)
            self.console.print(f"dashboard of the cluster: {dashboard}", soft_wrap=True)

    def break_off(self, ledger: Ledger | None, history: History | None, error: BaseException) -> None:
        """Keep what is done, if anything is, here or by an earlier process, and say so.

        Raises
        ------
        KeyboardInterrupt, DetcalError
            In place of another one, with what is true of the output.
        """
        history = history if ledger is None else ledger.history
        if history is not None and (share := share_saved(self.places.sums)):
            history.sums = {"share": share}
        if self.places.ended:
            settle(self.places)
        if history is not None and history.commit is not None and not self.places.ledger.is_file():
            said = f"{self.places.output} was written"
        elif history is None or not history.share or not self.places.store.exists():
            self.places.remove()
            said = ""
        else:
            said = f"{self.places.output} is {percent(history.share)} done: the same command goes on from there"
            with suppress(OSError, KeyboardInterrupt):  # of a disk that is full or gone; a second signal changes nothing of what is true
                if ledger is not None:
                    ledger.note(end={"how": type(error).__name__, "why": " ".join(str(error).split())[:500]})
        if isinstance(error, KeyboardInterrupt):
            raise type(error)(said) from None
        if said and isinstance(error, DetcalError):
            raise type(error)(f"{error}. {said}") from error

    def outcome(self, planned: Plan, seconds: float, peak: int | None) -> Outcome:
        """What the run did."""
        report = write_report_if_possible(self.recipe, self.places.output)
        return Outcome(planned, self.places.output, seconds, stored_bytes(self.places.output), peak, report, self.quarantine)
