"""What a run will do and hold, worked out before its first task by pure functions of shapes and limits."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import PlanError
from detcal_pipelines.recipe import Recipe, Step
from detcal_pipelines.steps import apply, open_input, task_bytes

MIB = 2**20

# Resident memory of a worker process that has imported and compiled what the steps need, before it holds any data.
WORKER_BYTES = 320 * MIB

# Writing a block: its encoded copy, which is no smaller than the block where noise does not compress, with its checksum.
ENCODED_COPIES = 2


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan."""

    operation: str
    shape_in: tuple[int, ...]
    dtype_in: np.dtype[Any]
    gives: str
    bytes_out: int
    task_bytes: int


@dataclass(frozen=True)
class Plan:
    """A run that fits."""

    steps: tuple[PlannedStep, ...]
    blocks: int
    chunk_frames: int
    workers: int
    bytes_in: int
    budget: int

    @property
    def bytes_out(self) -> int:
        """Uncompressed size of the output."""
        return self.steps[-1].bytes_out

    @property
    def worker_bytes(self) -> int:
        """Peak of one worker process."""
        return WORKER_BYTES + max(step.task_bytes for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """Peak of all worker processes together."""
        return self.workers * self.worker_bytes


def plan(recipe: Recipe, budget: int, most_workers: int, *, fixed_workers: bool = False) -> Plan:
    """The plan with the most workers, and then the largest blocks, that fits the budget.

    Parameters
    ----------
    recipe
        Only the headers of its files are read.
    budget : bytes
        For all worker processes together.
    most_workers
        Processes of one thread each.
    fixed_workers
        They run already, and each will take tasks: use all of them.

    Raises
    ------
    PlanError
        If nothing fits: which step is too large, and what would fit.
    """
    stages = trace(recipe)
    frames = stages[0].frames
    smallest = open_input(recipe.input, 1).data.chunksize[0]
    fewest = most_workers if fixed_workers else 1
    # a shard is written by one task
    wanted = recipe.output.shard_frames or recipe.input.chunk_frames
    depths = [rounded(wanted, smallest, len(frames))] if wanted else halvings(frames.data.chunksize[0], smallest)
    for workers, depth in product(range(most_workers, fewest - 1, -1), depths):
        found = plan_for(stages, depth, workers, budget)
        if found.peak_bytes <= budget:
            return found
    possible = range(smallest, found.chunk_frames + 1, smallest)
    fitting = bisect_right(possible, budget, key=lambda depth: plan_for(stages, depth, fewest, budget).peak_bytes)
    if fitting:
        raise PlanError(f"{needs(found)}: chunk_frames = {possible[fitting - 1]} would fit")
    least = plan_for(stages, smallest, fewest, budget)
    raise PlanError(f"{needs(found)}: the least is {size(least.peak_bytes)}, with {arrangement(least)}; give --memory that or more")


@dataclass(frozen=True)
class Stage:
    """A step, what goes into it and what it gives, lazily."""

    step: Step
    frames: xr.DataArray
    result: Any


def trace(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe; blocks do not matter to it."""
    stages: list[Stage] = []
    frames = open_input(recipe.input, None)
    for step in recipe.steps:
        stages.append(Stage(step, frames, apply(step, frames, lanes=1)))
        frames = stages[-1].result
    return stages


def halvings(largest: int, smallest: int) -> list[int]:
    """largest, a half, a quarter … smallest."""
    sizes = [largest]
    while sizes[-1] > smallest:
        sizes.append(max(smallest, sizes[-1] // 2))
    return sizes


def rounded(depth: int, unit: int, frames: int) -> int:
    """Frames a block: whole chunks of the file, and no more than there are."""
    return min(frames, ceil(depth / unit) * unit)


def plan_for(stages: list[Stage], depth: int, workers: int, budget: int) -> Plan:
    """The plan for given blocks and workers, whether it fits or not."""
    length = len(stages[0].frames)
    steps = tuple(plan_step(stage, depth, length) for stage in stages)
    blocks = ceil(length / depth)
    return Plan(steps, blocks, depth, min(workers, blocks), stages[0].frames.nbytes, budget)


def plan_step(stage: Stage, depth: int, length: int) -> PlannedStep:
    """Shapes, bytes and memory of one step, for blocks of `depth` of `length` frames."""
    held = task_bytes(stage.step, stage.frames, depth)
    if isinstance(stage.result, xr.DataArray):
        bytes_out = stage.result.nbytes
        gives = f"{stage.result.shape} {stage.result.dtype}"
        held += ENCODED_COPIES * bytes_out * depth // length
    else:
        images = [image for image in vars(stage.result).values() if isinstance(image, xr.DataArray)]
        bytes_out = sum(image.nbytes for image in images)
        gives = f"{type(stage.result).__name__} of {len(images)} images {stage.result.shape}"
    return PlannedStep(stage.step.operation, stage.frames.shape, stage.frames.dtype, gives, bytes_out, held)


def needs(found: Plan) -> str:
    """What a plan that does not fit needs, and which step of it most."""
    worst = max(found.steps, key=lambda step: step.task_bytes)
    return f"{worst.operation} needs {size(found.peak_bytes)} with {arrangement(found)}, but the budget is {size(found.budget)}"


def arrangement(planned: Plan) -> str:
    """Blocks and workers in words."""
    return f"chunk_frames = {planned.chunk_frames} and {planned.workers} worker{'s' if planned.workers > 1 else ''}"


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
