"""Running a plan: on threads of this process or on a cluster, with progress, and what was measured."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import dask.array as da
from rich.console import Console

from detcal.errors import PlanError
from detcal.stores import save
from detcal_pipelines.chain import build, check_result, check_target
from detcal_pipelines.compiling import with_kernels
from detcal_pipelines.graph import count_tasks, in_stages, in_turn, optimise_together
from detcal_pipelines.interrupts import noticed_interrupts
from detcal_pipelines.plan import WORKER_BYTES, Place, Plan, plan, plan_in
from detcal_pipelines.progress import block_bar
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps.registry import package_of
from detcal_pipelines.threads import MemoryWatch, compute_on_threads, give_back_large_blocks


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    plan: Plan
    output: Path
    seconds: float
    stored_bytes: int
    peak_bytes: int | None  # of anonymous memory of this process; None if the tasks ran elsewhere

    @property
    def rate(self) -> float:
        """Frames, or rows of a matrix's detector, read, worked on and written a second."""
        return self.plan.cut.length / self.seconds


def run(recipe: Recipe, limits: tuple[int, int], console: Console) -> Outcome:
    """Plan within `limits` (bytes, tasks at once), run, and measure.

    Raises
    ------
    DetcalError
        An output that exists, a plan that does not fit, or input that cannot be used: then nothing was written.
    KeyboardInterrupt
        At Ctrl-C; it says if the output was written before.
    """
    check_target(recipe)
    if recipe.compute.scheduler is None:
        return run_here(recipe, limits, console)
    return run_on_cluster(recipe, recipe.compute.scheduler, console)


def run_here(recipe: Recipe, limits: tuple[int, int], console: Console) -> Outcome:
    """Run on threads of this process."""
    give_back_large_blocks()

    def prepare() -> Plan:
        check_result(recipe, build(recipe), overwrite=recipe.output.overwrite)
        return plan(recipe, *limits)

    planned = with_kernels(recipe, prepare, console)
    with MemoryWatch() as watch:

        def compute(writes: list[da.Array]) -> None:
            graph, keys = optimise_together(writes)
            graph = in_turn(in_stages(graph, keys), planned.begun)
            with noticed_interrupts() as stop_if_interrupted, bar(recipe, planned, count_tasks(graph), console) as advance:

                def finished() -> None:
                    stop_if_interrupted()
                    advance()

                def waiting() -> None:
                    console.print("stopping after the tasks that have begun; Ctrl-C again stops at once", soft_wrap=True)

                compute_on_threads(graph, keys, planned.tasks, planned.budget, watch, finished, waiting)

        seconds = write(recipe, planned, compute)
    return Outcome(planned, Path(recipe.output.path), seconds, stored_bytes(Path(recipe.output.path)), watch.peak)


def run_on_cluster(recipe: Recipe, address: str, console: Console) -> Outcome:
    """Run on a cluster as it stands."""
    from detcal_pipelines.cluster import (
        compute_on_cluster,
        loaded_kernels,
        remote_cluster,
    )  # here, because a run on one machine needs none of it

    check_result(recipe, build(recipe), overwrite=recipe.output.overwrite)
    with remote_cluster(address) as client:
        with console.status("loading kernels on the workers"):
            held = loaded_kernels(client, recipe)
        planned = plan_for_cluster(recipe, client.scheduler_info(n_workers=-1)["workers"], held)

        def compute(writes: list[da.Array]) -> None:
            graph, keys = optimise_together(writes)
            with noticed_interrupts() as stop_if_interrupted, bar(recipe, planned, count_tasks(graph), console) as advance:
                compute_on_cluster(client, in_stages(graph, keys), planned.begun, advance, stop_if_interrupted)

        seconds = write(recipe, planned, compute)
    return Outcome(planned, Path(recipe.output.path), seconds, stored_bytes(Path(recipe.output.path)), None)


def bar(recipe: Recipe, planned: Plan, tasks: int, console: Console) -> AbstractContextManager[Any]:
    """The progress of a run."""
    return block_bar(" → ".join(step.operation for step in recipe.steps), planned.blocks, tasks, console)


def write(recipe: Recipe, planned: Plan, compute: Any) -> float:
    """Compute and write the output as it was planned; the seconds that this took."""
    target, shards = Path(recipe.output.path), recipe.output.shard_frames
    result = build(recipe, planned.depth, begun=planned.begun)
    before, start = identity(target), perf_counter()
    try:
        save(
            result, target, overwrite=recipe.output.overwrite, shards=None if shards is None else {"frame": shards},
            attrs=provenance(recipe), compute=compute,
        )  # fmt: skip
    except KeyboardInterrupt:
        if identity(target) not in (None, before):
            raise KeyboardInterrupt(f"{target} was written") from None
        raise
    return perf_counter() - start


def provenance(recipe: Recipe) -> dict[str, str]:
    """What made the output, beside the version of detcal: the recipe, and whose steps are in it that are not detcal's."""
    others = {step.operation: str(package) for step in recipe.steps if (package := package_of(step.operation))}
    return {"detcal_recipe": recipe.model_dump_json()} | ({"detcal_steps_of": json.dumps(others)} if others else {})


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one of its name."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


def plan_for_cluster(recipe: Recipe, workers: dict[str, dict[str, Any]], held: dict[str, int]) -> Plan:
    """The plan for workers that hold so many bytes already: every thread of them may run a task, within its worker's memory limit."""
    workers = {address: worker for address, worker in workers.items() if address in held}
    if not workers:
        raise PlanError("the cluster has no workers: start some, then run again")
    if not all(worker["memory_limit"] for worker in workers.values()):
        raise PlanError("some of the cluster's workers have no memory limit, so nothing can be planned: start them with --memory-limit")
    places = [Place(worker["memory_limit"], worker["nthreads"], held[address] + WORKER_BYTES) for address, worker in workers.items()]
    return plan_in(recipe, places)


def stored_bytes(path: Path) -> int:
    """Size on disk of a file or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
