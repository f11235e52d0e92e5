"""What a run will do and hold, worked out before its first task by pure functions of shapes and limits."""

import resource
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import xarray as xr

from detcal.errors import PlanError
from detcal.frames.maps import sizes_of_map
from detcal.frames.needs import Needs
from detcal.frames.simd import LANES
from detcal.stores.sources.frames import WHOLE
from detcal_pipelines.chain import Stage, by_rows, check_result, check_target, copy_of, trace
from detcal_pipelines.copying import Copy
from detcal_pipelines.recipe import Input, Recipe
from detcal_pipelines.steps.blocks import Block, Work, halvings, rounded
from detcal_pipelines.steps.step import arrays_of
from detcal_pipelines.unfinished import Places

MIB = 2**20

# Resident memory of a process that has imported and loaded what the steps and the report need, before it holds any data; and what a
# cluster's worker takes beyond what it held before the run: its messages, and what its allocator keeps of them.
PROCESS_BYTES, WORKER_BYTES = 400 * MIB, 64 * MIB
THREAD_BYTES = 24 * MIB  # that the allocator keeps for a thread once it has had them

# Files that are open at once: of the process, with chunks of zarr stores, which its 32 threads for these read; and of a task.
OWN_FILES, TASK_FILES = 48, 8

# Of each block of each array that is written, for the whole run: its name, and what the ledger knows of it. There is room for the first.
BLOCK_BYTES, OWN_BLOCKS = 600, 30_000

# Writing a block: its encoded copy, which is no smaller than the block where noise does not compress; and its rounded copy, if asked for.
ENCODED_COPIES = ROUNDED_COPIES = 1
ROWS = "rows a block"  # of frames that their file has by rows


@dataclass(frozen=True)
class Place:
    """A process that runs tasks: its memory, how many of them at once, what it holds before any, and files that it may open, if known."""

    limit: int
    threads: int
    own_bytes: int
    files: int | None = None


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan."""

    operation: str
    takes: str
    gives: str
    bytes_out: int
    arrays: int  # that come out
    needs: Needs

    def describe(self) -> tuple[str, str, str, str, str]:
        """Its name, what goes in, what comes out, how much, and the memory of a task, in words."""
        return self.operation, self.takes, self.gives, size(self.bytes_out), size(self.needs.task)


@dataclass(frozen=True)
class Plan:
    """A run that fits."""

    steps: tuple[PlannedStep, ...]
    cut: Work
    depth: int
    tasks: int  # at once, in all places together
    places: tuple[Place, ...]
    bytes_in: int
    copy: Copy | None = None  # that the run begins with

    def _repr_html_(self) -> str:
        from detcal_pipelines.display import as_html  # here, because it shows plans

        return as_html(self)

    @property
    def blocks(self) -> int:
        """How many blocks or tiles there are."""
        return self.cut.blocks(self.depth)

    @property
    def bytes_out(self) -> int:
        """Uncompressed size of the output."""
        return self.steps[-1].bytes_out

    @property
    def begun(self) -> int:
        """How many blocks may be begun and not finished: one more than tasks, so that none waits for the next to be handed out."""
        return self.tasks + 1

    @property
    def budget(self) -> int:
        """Memory of the place that has least room to spare."""
        return self.tightest.limit

    @property
    def peak_bytes(self) -> int:
        """Peak of the process that has least room to spare, whose tasks take a block through all steps."""
        return self.peak_in(self.tightest)

    @property
    def tightest(self) -> Place:
        """The process that has least room to spare."""
        return min(self.places, key=lambda place: place.limit - self.peak_in(place))

    @property
    def fits(self) -> bool:
        """Whether no process outgrows its memory."""
        return self.peak_bytes <= self.budget

    @property
    def files(self) -> int:
        """How many files may be open at once, in a process that does all tasks."""
        return OWN_FILES + self.tasks * TASK_FILES

    def describe(self) -> str:
        """In a line."""
        tasks = f"{self.tasks} task{'s' if self.tasks > 1 else ''} at once"
        return f"{self.blocks} × {self.depth} {self.cut.unit}, {tasks}, peak {size(self.peak_bytes)} of {size(self.budget)}"

    def peak_in(self, place: Place) -> int:
        """Peak of one process, whatever the order of the tasks: all blocks that are begun may lie there."""
        needs = sum((step.needs for step in self.steps), Needs())
        threads = min(place.threads, self.tasks)
        of_copy = 0 if self.copy is None else threads * self.copy.task_bytes
        names = max(0, self.blocks * self.steps[-1].arrays - OWN_BLOCKS) * BLOCK_BYTES
        return place.own_bytes + names + threads * THREAD_BYTES + max(of_copy, needs.peak(threads, min(self.begun, self.blocks)))


def plan(recipe: Recipe, budget: int, most_tasks: int) -> Plan:
    """The plan for this process that is fastest by tasks at once and SIMD lanes that blocks fill, and then with the largest blocks.

    Parameters
    ----------
    recipe
        Only the headers of its files are read.
    budget : bytes
        For the whole process.
    most_tasks
        Threads.

    Raises
    ------
    PlanError
        If nothing fits: which step is too large, and what would fit.
    """
    return plan_in(recipe, [here((budget, most_tasks))])


def here(limits: tuple[int, int]) -> Place:
    """This process, within bytes and with so many tasks at once."""
    return Place(*limits, PROCESS_BYTES, files_allowed())


def files_allowed() -> int | None:
    """How many files this process may open; None if any number."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed


def plan_in(recipe: Recipe, places: Sequence[Place], depth: int | None = None, copied: bool | None = None) -> Plan:
    """As `plan`, for the processes of a cluster: any order of tasks fits, also where one worker does nearly all of them.

    With blocks of `depth`, and of frames that were copied or not, if another run has begun with these. The input is copied only where
    nothing fits without.

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
    room = min((place.limit - place.own_bytes) // place.threads - THREAD_BYTES for place in places)
    copy = copy_of(recipe, Places.of(recipe.output.path).frames, room) if copied is not False else None
    if copy is None or not copied:
        try:
            return fitting(recipe, stages, places, depth, None)
        except PlanError:
            if copy is None or recipe.takes_rows:
                raise
    return fitting(recipe, trace(recipe, copy=copy), places, depth, copy)


def fitting(recipe: Recipe, stages: list[Stage], places: Sequence[Place], depth: int | None, copy: Copy | None) -> Plan:
    """The first arrangement that fits.

    Raises
    ------
    PlanError
        If nothing fits: which step is too large, and what would fit.
    """
    cut = work_of(recipe, stages[0], copy)
    if depth is not None:
        cut = replace(cut, sizes=[depth])
    most = min(sum(place.threads for place in places), max(map(cut.blocks, cut.sizes)))

    copies = ENCODED_COPIES + (0 if recipe.output.precision is None else ROUNDED_COPIES)

    def planned(depth: int, tasks: int) -> Plan:
        return plan_for(stages, cut, depth, tasks, places, copy, copies)

    arrangements = product(range(most, 0, -1), cut.sizes)
    for tasks, depth in sorted(arrangements, key=lambda each: (-each[0] * speed(recipe, each[1]), each[0])):
        found = planned(depth, tasks)
        if found.fits:
            check_files(found)
            return found
    found = planned(cut.sizes[-1], 1)
    possible = range(cut.smallest, found.depth + 1, cut.smallest)
    number = bisect_right(possible, 0, key=lambda depth: planned(depth, 1).peak_bytes - found.budget)
    if number:
        raise PlanError(f"{needs(found)}: {cut.setting} = {possible[number - 1]} would fit")
    least = min((planned(depth, 1) for depth in (cut.smallest, *cut.sizes)), key=lambda each: each.peak_bytes)
    more = "give --memory that or more" if len(places) == 1 else "start workers with --memory-limit of that or more"
    raise PlanError(f"{needs(found)}: the least is {size(least.peak_bytes)}, with {arrangement(least)}; {more}")


def check_files(found: Plan) -> None:
    """Refuse a run that may open more files than its process may.

    Raises
    ------
    PlanError
        How many these are.
    """
    allowed = min((place.files for place in found.places if place.files is not None), default=found.files)
    if found.files > allowed:
        raise PlanError(
            f"the run opens up to {found.files} files at once, and this process may open {allowed}: allow more by ulimit -n {found.files}, "
            "or give --workers fewer"
        )


def work_of(recipe: Recipe, first: Stage, copy: Copy | None) -> Work:
    """What there is to cut, and the sizes to try: what is asked for, or else a default and smaller ones."""
    if recipe.input is None:
        return first.step.work(first.data, first.ready, first.result)
    if recipe.takes_rows and by_rows(first.data):
        return rows_of(recipe.input, first.data)
    length = len(first.data)
    smallest = 1 if copy is not None else recipe.input.open({"frame": 1, "y": WHOLE}).data.chunksize[0]
    default = first.data.data.chunksize[0]
    if fills_lanes(recipe):  # by blocks of this, and by half of them too
        default = LANES << max(0, (default // LANES).bit_length() - 1)
    # a shard is written by one task
    shard, chunk = recipe.output.shard_frames, recipe.input.chunk_frames
    if shard and chunk and shard != chunk:
        warnings.warn(f"shard_frames = {shard} overrules chunk_frames = {chunk}: leave chunk_frames out", stacklevel=2)
    wanted = shard or chunk
    sizes = [wanted] if wanted else halvings(default, smallest)
    of_map = () if copy is not None else tuple(sizes_of_map(first.data.coords).values())  # a copy is a stack
    return Work("frames", "chunk_frames", length, smallest, [rounded(each, smallest, length) for each in sizes], map_sizes=of_map)


def rows_of(source: Input, frames: xr.DataArray) -> Work:
    """Blocks of rows, as those of a file with chunks of few rows of many frames: whole chunks."""
    blocks, (_, height, _) = frames.data, frames.shape
    smallest = source.open({"y": 1}).data.chunksize[1]
    return Work("rows", ROWS, height, smallest, halvings(blocks.chunksize[1], smallest), across=blocks.numblocks[0])


def speed(recipe: Recipe, depth: int) -> float:
    """How fast a frame is in blocks of so many, by the step that minds most."""
    return min(step.speed(depth) for step in recipe.steps)


def fills_lanes(recipe: Recipe) -> bool:
    """Whether one of the steps takes LANES frames together."""
    return any(step.fills_lanes for step in recipe.steps)


def plan_for(stages: list[Stage], cut: Work, depth: int, tasks: int, places: Sequence[Place], copy: Copy | None, copies: int) -> Plan:
    """The plan for given blocks and tasks at once, whether it fits or not."""
    steps = tuple(plan_step(stage, cut, depth, copies if stage is stages[-1] else 0) for stage in stages)
    bytes_in = 0 if stages[0].data is None else stages[0].data.nbytes
    return Plan(steps, cut, depth, min(tasks, cut.blocks(depth)), tuple(places), bytes_in, copy)


def plan_step(stage: Stage, cut: Work, depth: int, copies: int) -> PlannedStep:
    """What goes in and comes out of one step, and its memory for blocks of `depth`, with the copies that it takes to write them."""
    result, data = stage.result, stage.data
    held = needs_of(stage, cut, depth)
    if isinstance(result, xr.DataArray):
        bytes_out, arrays = result.nbytes, 1
        gives = f"{result.shape} {result.dtype}"
    elif isinstance(result, xr.Dataset):
        bytes_out, arrays = sum(array.nbytes for array in result.values()), len(result)
        gives = ", ".join(named_shapes(result))
    else:
        stored = list(arrays_of(result))
        bytes_out, arrays = sum(int(array.nbytes) for array in stored), len(stored)
        gives = f"{type(result).__name__} of {stage.step.contents(result)}"
    if isinstance(result, xr.DataArray | xr.Dataset):
        held += Needs(task=copies * bytes_out * depth // (cut.length * cut.across))
    raw = data.spectra if isinstance(data, xr.Dataset) else data
    takes = f"{result.shape} pixels" if raw is None else f"{raw.shape} {raw.dtype}"
    return PlannedStep(stage.step.operation, takes, gives, bytes_out, arrays, held)


def named_shapes(result: xr.Dataset) -> list[str]:
    """Names of variables, the shape and type after those that have it in common."""
    kinds = groupby(result.items(), key=lambda each: f"{each[1].shape} {each[1].dtype}")
    return [f"{', '.join(str(name) for name, _ in members)} {kind}" for kind, members in kinds]


def needs_of(stage: Stage, cut: Work, depth: int) -> Needs:
    """What a step holds, in blocks of so many frames, rows, spectra or lines."""
    if cut.setting == ROWS:  # each pixel takes as much as in a block of whole frames
        held = as_needs(stage.step.task_bytes(Block(stage.data.data.chunksize[0], stage.data, stage.result), stage.ready))
        return held._replace(task=held.task * depth // cut.length, begun=held.begun * depth // cut.length)
    return as_needs(stage.step.task_bytes(Block(depth, stage.data, stage.result), stage.ready))


def as_needs(held: Needs | int) -> Needs:
    """What a step says that a task holds."""
    return held if isinstance(held, Needs) else Needs(task=int(held))


def needs(found: Plan) -> str:
    """What a plan that does not fit needs, and which step of it most."""
    worst = max(found.steps, key=lambda step: step.needs.peak(1, found.begun))
    name = worst.operation
    if found.copy is not None and found.copy.task_bytes > worst.needs.peak(1, found.begun):
        name = "copying the frames"
    return f"{name} needs {size(found.peak_bytes)} with {arrangement(found)}, but the budget is {size(found.budget)}"


def arrangement(planned: Plan) -> str:
    """Blocks and tasks in words."""
    return f"{planned.cut.setting} = {planned.depth} and {planned.tasks} task{'s' if planned.tasks > 1 else ''} at once"


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
