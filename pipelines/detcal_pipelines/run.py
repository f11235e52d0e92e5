"""Running a plan: cluster, progress, and what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import dask.array as da
from rich.console import Console

from detcal.errors import PlanError
from detcal.stores import save
from detcal_pipelines.cluster import MemorySampler, ended_on_failure, local_cluster, remote_cluster, worker_processes
from detcal_pipelines.plan import Plan, plan
from detcal_pipelines.progress import compute_with_progress
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps import build, check_result, check_target, compile_kernels


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    plan: Plan
    output: Path
    seconds: float
    stored_bytes: int
    peak_bytes: int | None  # of the worker processes; None if they run elsewhere

    @property
    def rate(self) -> float:
        """Frames, or rows of a matrix's detector, read, worked on and written a second."""
        return self.plan.cut.length / self.seconds


def run(recipe: Recipe, limits: tuple[int, int], console: Console) -> Outcome:
    """Plan within `limits` (bytes, workers), run, and measure.

    Raises
    ------
    DetcalError
        An output that exists, a plan that does not fit, or input that cannot be used: then nothing was written.
    """
    target = Path(recipe.output.path)
    check_target(recipe)
    check_result(recipe, build(recipe), overwrite=recipe.output.overwrite)
    if recipe.compute.scheduler is None:
        planned = plan(recipe, *limits)
        compile_kernels(recipe)
        cluster = local_cluster(planned.workers, planned.budget // planned.workers)
    else:
        cluster = remote_cluster(recipe.compute.scheduler)
    local = recipe.compute.scheduler is None
    with cluster as client:
        if not local:
            planned = plan_for_cluster(recipe, client.scheduler_info(n_workers=-1)["workers"].values())
        result = build(recipe, planned.depth, lanes=planned.workers)
        shards = recipe.output.shard_frames
        label = " → ".join(step.operation for step in recipe.steps)

        def compute(writes: list[da.Array]) -> None:
            with ended_on_failure(client):
                compute_with_progress(client, writes, label, console)

        with MemorySampler(worker_processes(client) if local else []) as sampler:
            start = perf_counter()
            save(
                result, target, overwrite=recipe.output.overwrite, shards=None if shards is None else {"frame": shards},
                attrs={"detcal_recipe": recipe.model_dump_json()}, compute=compute,
            )  # fmt: skip
            seconds = perf_counter() - start
    return Outcome(planned, target, seconds, stored_bytes(target), sampler.peak or None)


def plan_for_cluster(recipe: Recipe, workers: Iterable[dict[str, Any]]) -> Plan:
    """The plan for a cluster as it stands: every thread of it may run a task, within its worker's memory limit."""
    workers = list(workers)
    if not workers:
        raise PlanError("the cluster has no workers: start some, then run again")
    threads = sum(worker["nthreads"] for worker in workers)
    limits = [worker["memory_limit"] / worker["nthreads"] for worker in workers if worker["memory_limit"]]
    if not limits:
        raise PlanError("the cluster's workers have no memory limit, so nothing can be planned: start them with --memory-limit")
    return plan(recipe, int(min(limits) * threads), threads, fixed_workers=True)


def stored_bytes(path: Path) -> int:
    """Size on disk of a file or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
