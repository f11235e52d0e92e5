"""A run of one block: through all steps and onto the disk, as the run would do it, and nothing of it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from dask.highlevelgraph import HighLevelGraph

from detcal.errors import PlanError
from detcal.stores.targets.replacing import clear_write_errors, temporary_beside
from detcal.stores.targets.save import stored_form
from detcal.stores.targets.zarr_store import prepare_zarr
from detcal_pipelines.chain import build
from detcal_pipelines.graph import Stage, Turns, in_stages, in_turn, tasks_for
from detcal_pipelines.plan import Plan
from detcal_pipelines.run import Job, provenance
from detcal_pipelines.sums import largest_fold
from detcal_pipelines.threads import MemoryWatch, compute_on_threads
from detcal_pipelines.unfinished import stored_bytes


@dataclass(frozen=True)
class Trial:
    """What one block took.

    Attributes
    ----------
    first, block
        Seconds of the first block, with what all blocks share, and of the next one; of a single one twice the same.
    blocks
        How many there are; of a sum, of its parts.
    stored_bytes
        Of these blocks, on disk; 0 of a sum, which is written at the end.
    tried
        How many blocks that were.
    peak_bytes
        Of anonymous memory of this process.
    """

    plan: Plan
    first: float
    block: float
    blocks: int
    stored_bytes: int
    tried: int
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """About what the run will take: its first block alone, since others may wait for what it makes, and the rest on all threads."""
        return self.first + (self.blocks - 1) * self.block / self.plan.tasks

    @property
    def output_bytes(self) -> int:
        """About what the output will take on disk."""
        return self.stored_bytes * self.blocks // self.tried


def try_one_block(job: Job, limits: tuple[int, int]) -> Trial:
    """As `first_blocks`; what of them cannot be read is NaN there, as in the run."""
    return job.guarded(lambda: first_blocks(job, limits))


def first_blocks(job: Job, limits: tuple[int, int]) -> Trial:
    """Run the first block, and the next one, which does not make again what all blocks share: one after the other, on one thread.

    Raises
    ------
    DetcalError
        As the run would.
    """
    planned = job.planned_here(limits)[1]
    if planned.copy is not None:
        raise PlanError(
            "expected frames of which one block can be tried, but their file has them by rows, so that all of it would be copied first: "
            "detcal plan shows what a run takes"
        )
    dataset = stored_form(build(job.recipe, planned.depth, begun=planned.begun), provenance(job.recipe))
    with temporary_beside(job.places.output) as store, clear_write_errors(job.places.output, store), MemoryWatch() as watch:
        writes = prepare_zarr(dataset, store, shards=job.shards)
        empty = stored_bytes(store)
        graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in writes.values()))
        fold = largest_fold(graph, writes)
        ends = Turns(writes, ()).window(0) if fold is None else fold.totals(2)
        stages = in_stages(tasks_for(graph, list(ends)), list(ends))[:2]
        first, block = seconds_of(stages, planned, watch, job.stop_if_interrupted)
        blocks = planned.blocks if fold is None else fold.parts
        return Trial(planned, first, block, blocks, stored_bytes(store) - empty, len(stages), watch.peak)


def seconds_of(stages: list[Stage], planned: Plan, watch: MemoryWatch, stop_if_interrupted: Callable[[], None]) -> tuple[float, float]:
    """Run one stage, or two; how long the first took, and the last."""
    graph = in_turn(stages, 1)
    needed = {each for node in graph.values() for each in node.dependencies}
    first, start = stages[0].tasks, perf_counter()
    turn: list[float] = []

    def begun(key: Any) -> None:
        if not turn and key not in first:
            turn.append(perf_counter())

    def finished(key: Any) -> None:
        stop_if_interrupted()

    compute_on_threads(graph, [key for key in graph if key not in needed], 1, planned.budget, watch, begun, finished, lambda: None)
    end = perf_counter()
    last = turn[0] if turn else start
    return (turn[0] if turn else end) - start, end - last
