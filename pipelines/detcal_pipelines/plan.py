"""What a run will do and hold, worked out before its first task by pure functions of shapes and limits."""

from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import PlanError
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps import apply, open_input, task_bytes

MIB = 2**20

# Resident memory of a worker process that has imported and compiled what the steps need, before it holds any data.
WORKER_BYTES = 340 * MIB

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
    frames = open_input(recipe.input, None)
    smallest = open_input(recipe.input, 1).data.chunksize[0]
    largest = frames.data.chunksize[0]
    depths = [recipe.input.chunk_frames] if recipe.input.chunk_frames else halvings(largest, smallest)
    fewest = most_workers if fixed_workers else 1
    for workers, depth in product(range(most_workers, fewest - 1, -1), depths):
        found = plan_for(recipe, frames, rounded(depth, smallest, len(frames)), workers, budget)
        if found.peak_bytes <= budget:
            return found
    raise PlanError(refusal(found, plan_for(recipe, frames, smallest, fewest, budget)))


def halvings(largest: int, smallest: int) -> list[int]:
    """largest, a half, a quarter … smallest."""
    sizes = [largest]
    while sizes[-1] > smallest:
        sizes.append(max(smallest, sizes[-1] // 2))
    return sizes


def rounded(depth: int, unit: int, frames: int) -> int:
    """Frames a block: whole chunks of the file, and no more than there are."""
    return min(frames, ceil(depth / unit) * unit)


def plan_for(recipe: Recipe, frames: xr.DataArray, depth: int, workers: int, budget: int) -> Plan:
    """The plan for given blocks and workers, whether it fits or not."""
    steps = []
    current: Any = frames
    for step in recipe.steps:
        held = task_bytes(step, current, depth)
        result = apply(step, current, lanes=workers)
        if isinstance(result, xr.DataArray):
            bytes_out = result.nbytes
            gives = f"{result.shape} {result.dtype}"
            held += ENCODED_COPIES * bytes_out * depth // len(frames)
        else:
            images = [image for image in vars(result).values() if isinstance(image, xr.DataArray)]
            bytes_out = sum(image.nbytes for image in images)
            gives = f"{type(result).__name__} of {len(images)} images {result.shape}"
        steps.append(PlannedStep(step.operation, current.shape, current.dtype, gives, bytes_out, held))
        current = result
    blocks = ceil(len(frames) / depth)
    return Plan(tuple(steps), blocks, depth, min(workers, blocks), frames.nbytes, budget)


def refusal(found: Plan, least: Plan) -> str:
    """Why no plan fits, and what would."""
    worst = max(found.steps, key=lambda step: step.task_bytes)
    text = f"{worst.operation} needs {size(found.peak_bytes)} with {arrangement(found)}, but the budget is {size(found.budget)}"
    if least.peak_bytes > found.budget:
        return f"{text}: the least is {size(least.peak_bytes)}, with {arrangement(least)}; give --memory that or more"
    more = found.chunk_frames - least.chunk_frames
    a_frame = (found.worker_bytes - least.worker_bytes) / more
    unit = least.chunk_frames
    fits = unit + int((found.budget - least.peak_bytes) / least.workers / a_frame) // unit * unit
    return f"{text}: chunk_frames = {fits} would fit"


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
