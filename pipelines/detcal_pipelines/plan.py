"""What a run will do and hold, worked out before its first task by pure functions of shapes and limits."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby, product
from math import ceil
from typing import Any

import dask.array as da
import xarray as xr

from detcal.distortion import DistortionMap
from detcal.errors import PlanError
from detcal.sensor import SensorPSF
from detcal.simd import LANES
from detcal.xrf.operations import lines_a_tile
from detcal_pipelines.recipe import ConvertCrono, CorrectDistortion, Deconvolve, InRings, Recipe, RegridXRF
from detcal_pipelines.steps import apply, check_result, check_target, grid_of, open_first, open_input, open_scan, pixels_a_line, task_bytes

MIB = 2**20

# Resident memory of a worker process that has imported and compiled what the steps need, before it holds any data.
WORKER_BYTES = 320 * MIB

# Writing a block: its encoded copy, which is no smaller than the block where noise does not compress, with its checksum.
ENCODED_COPIES = 2


@dataclass(frozen=True)
class Cut:
    """What the work is cut into: blocks of frames or spectra, bands of a detector's rows, or lines of a map."""

    unit: str
    setting: str  # of the recipe: how many a task
    length: int
    smallest: int
    sizes: list[int]  # that are tried, the largest first


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan."""

    operation: str
    takes: str
    gives: str
    bytes_out: int
    task_bytes: int


@dataclass(frozen=True)
class Plan:
    """A run that fits."""

    steps: tuple[PlannedStep, ...]
    cut: Cut
    depth: int
    workers: int
    bytes_in: int
    budget: int

    @property
    def blocks(self) -> int:
        """How many blocks or bands there are."""
        return ceil(self.cut.length / self.depth)

    @property
    def bytes_out(self) -> int:
        """Uncompressed size of the output."""
        return self.steps[-1].bytes_out

    @property
    def worker_bytes(self) -> int:
        """Peak of one worker process, whose tasks take a block through all steps."""
        return WORKER_BYTES + sum(step.task_bytes for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """Peak of all worker processes together."""
        return self.workers * self.worker_bytes


def plan(recipe: Recipe, budget: int, most_workers: int, *, fixed_workers: bool = False) -> Plan:
    """The plan with the most workers, each with full lanes where they matter, and then the largest blocks, that fits the budget.

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
    OutputError
        An output that could not be written there, or would take the place of what the recipe names.
    """
    check_target(recipe)
    stages = trace(recipe)
    check_result(recipe, stages[-1].result, overwrite=True)  # one that exists is no obstacle to a plan
    cut = cut_of(recipe, stages[0])
    fewest = most_workers if fixed_workers else 1
    arrangements = product(range(most_workers, fewest - 1, -1), cut.sizes)
    for workers, depth in sorted(arrangements, key=lambda each: -each[0] * filled_lanes(recipe, each[1])):
        found = plan_for(stages, cut, depth, workers, budget)
        if found.peak_bytes <= budget:
            return found
    found = plan_for(stages, cut, cut.sizes[-1], fewest, budget)
    possible = range(cut.smallest, found.depth + 1, cut.smallest)
    fitting = bisect_right(possible, budget, key=lambda depth: plan_for(stages, cut, depth, fewest, budget).peak_bytes)
    if fitting:
        raise PlanError(f"{needs(found)}: {cut.setting} = {possible[fitting - 1]} would fit")
    every = [plan_for(stages, cut, depth, fewest, budget) for depth in (cut.smallest, *cut.sizes)]
    least = min(every, key=lambda each: each.peak_bytes)
    raise PlanError(f"{needs(found)}: the least is {size(least.peak_bytes)}, with {arrangement(least)}; give --memory that or more")


@dataclass(frozen=True)
class Stage:
    """A step, what goes into it and what it gives, lazily."""

    step: Any
    frames: Any
    result: Any


def trace(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe; blocks do not matter to it."""
    stages: list[Stage] = []
    frames = open_first(recipe, None)
    for step in recipe.steps:
        stages.append(Stage(step, frames, apply(step, frames, lanes=1)))
        frames = stages[-1].result
    return stages


def cut_of(recipe: Recipe, first: Stage) -> Cut:
    """What there is to cut, and the sizes to try: what is asked for, or else a default and smaller ones."""
    if isinstance(first.step, ConvertCrono):
        own = open_scan(first.step, 1).spectra.data.chunksize[0]
        length, block = first.frames.spectra.data.shape[0], first.frames.spectra.data.chunksize[0]
        sizes = [first.step.chunk_spectra] if first.step.chunk_spectra else halvings(block, own)
        return Cut("spectra", "chunk_spectra", length, own, [rounded(each, own, length) for each in sizes])
    if isinstance(first.step, RegridXRF):
        grid = grid_of(first.step)
        pixels = pixels_a_line(grid)
        lines = grid.coverage.size // pixels
        most = first.step.tile_lines or lines_a_tile(pixels, first.frames.sizes["energy"])
        return Cut("lines", "tile_lines", lines, 1, [min(most, lines)] if first.step.tile_lines else halvings(min(most, lines), 1))
    if recipe.input is None:
        rows, columns = first.result.shape
        band = first.result.indptr.chunks[0][1] // columns
        smallest = max(1, band // 8)  # what a worker keeps in mind of each task is no longer small beside a smaller one
        sizes = [min(first.step.tile_rows, rows)] if first.step.tile_rows else halvings(band, smallest)
        return Cut("rows", "tile_rows", rows, smallest, sizes)
    length, smallest = len(first.frames), open_input(recipe.input, 1).data.chunksize[0]
    default = first.frames.data.chunksize[0]
    if fills_lanes(recipe):  # by blocks of this, and by half of them too
        default = LANES << max(0, (default // LANES).bit_length() - 1)
    # a shard is written by one task
    wanted = recipe.output.shard_frames or recipe.input.chunk_frames
    sizes = [wanted] if wanted else halvings(default, smallest)
    return Cut("frames", "chunk_frames", length, smallest, [rounded(each, smallest, length) for each in sizes])


def filled_lanes(recipe: Recipe, depth: int) -> float:
    """Share of the lanes at work on a block: a single frame takes as long as LANES of them."""
    return depth / LANES / ceil(depth / LANES) if fills_lanes(recipe) else 1.0


def fills_lanes(recipe: Recipe) -> bool:
    """Whether one of the steps takes LANES frames together."""
    return any(isinstance(step, CorrectDistortion | Deconvolve | InRings) for step in recipe.steps)


def halvings(largest: int, smallest: int) -> list[int]:
    """largest, a half, a quarter … smallest."""
    sizes = [largest]
    while sizes[-1] > smallest:
        sizes.append(max(smallest, sizes[-1] // 2))
    return sizes


def rounded(depth: int, unit: int, frames: int) -> int:
    """Frames or rows a task: whole chunks of the file, and no more than there are."""
    return min(frames, ceil(depth / unit) * unit)


def plan_for(stages: list[Stage], cut: Cut, depth: int, workers: int, budget: int) -> Plan:
    """The plan for given blocks and workers, whether it fits or not."""
    steps = tuple(plan_step(stage, depth, cut.length, written=stage is stages[-1]) for stage in stages)
    bytes_in = 0 if stages[0].frames is None else stages[0].frames.nbytes
    return Plan(steps, cut, depth, min(workers, ceil(cut.length / depth)), bytes_in, budget)


def plan_step(stage: Stage, depth: int, length: int, written: bool) -> PlannedStep:
    """What goes in and comes out of one step, and its memory for blocks of `depth` of `length`, with what it takes to write them."""
    result, frames = stage.result, stage.frames
    held = task_bytes(stage.step, frames, result, depth)
    if isinstance(result, xr.DataArray):
        bytes_out = result.nbytes
        gives = f"{result.shape} {result.dtype}"
        held += written * ENCODED_COPIES * bytes_out * depth // length
    elif isinstance(result, xr.Dataset):
        bytes_out = sum(array.nbytes for array in result.values())
        gives = ", ".join(named_shapes(result))
        held += written * ENCODED_COPIES * bytes_out * depth // length
    else:
        arrays = [array for array in vars(result).values() if isinstance(array, xr.DataArray | da.Array)]
        bytes_out = sum(int(array.nbytes) for array in arrays)
        gives = f"{type(result).__name__} of {contents(result, arrays)}"
    raw = frames.spectra if isinstance(frames, xr.Dataset) else frames
    takes = f"{result.shape} pixels" if raw is None else f"{raw.shape} {raw.dtype}"
    return PlannedStep(stage.step.operation, takes, gives, bytes_out, held)


def named_shapes(result: xr.Dataset) -> list[str]:
    """Names of variables, the shape and type after those that have it in common."""
    kinds = groupby(result.items(), key=lambda each: f"{each[1].shape} {each[1].dtype}")
    return [f"{', '.join(str(name) for name, _ in members)} {kind}" for kind, members in kinds]


def contents(calibration: Any, arrays: list[Any]) -> str:
    """What a calibration is made of."""
    if isinstance(calibration, SensorPSF):
        return f"{calibration.data.size / 1e6:.4g} million coefficients"
    if isinstance(calibration, DistortionMap):
        return f"{len(calibration.point_y)} dots, {calibration.shape} pixels"
    return f"{len(arrays)} images {calibration.shape}"


def needs(found: Plan) -> str:
    """What a plan that does not fit needs, and which step of it most."""
    worst = max(found.steps, key=lambda step: step.task_bytes)
    return f"{worst.operation} needs {size(found.peak_bytes)} with {arrangement(found)}, but the budget is {size(found.budget)}"


def arrangement(planned: Plan) -> str:
    """Blocks and workers in words."""
    return f"{planned.cut.setting} = {planned.depth} and {planned.workers} worker{'s' if planned.workers > 1 else ''}"


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
