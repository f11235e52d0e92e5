"""From a recipe to the lazy objects that it describes: step by step, each with what it has prepared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import DetcalError, InputError
from detcal.frames.maps import as_they_lie
from detcal.frames.once import is_found
from detcal.frames.precision import round_block, with_precision
from detcal.frames.stack import DIMS
from detcal.frames.valid import FLAGS, with_detector
from detcal.stores import check_apart, check_not_taken, check_output, check_path, find_paths
from detcal.stores.damage import Guard, guarding
from detcal.stores.sources.frames import WHOLE
from detcal_pipelines.copying import Copy
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps.registry import package_of
from detcal_pipelines.steps.sources import NO_FRAMES, DarkSource, FlatSource, FramesOfRecipe, modified_times, taken_with
from detcal_pipelines.steps.step import Step

KEPT = 8  # things that steps have prepared: matrices of a few steps


@dataclass(frozen=True)
class Stage:
    """A step, what goes into it, what it has prepared, and what it gives, lazily."""

    step: Step[Any]
    data: Any
    ready: Any
    result: Any


def build(recipe: Recipe, depth: int | None = None, begun: int = 1, copy: Copy | None = None) -> Any:
    """What is to be written, lazily, in tasks of so many frames, rows or lines, of which so many are begun at once; of a map as a map,
    unless frames were chosen, if only all (":")."""
    found = with_precision(trace(recipe, depth, begun, copy)[-1].result, recipe.output.precision)
    return as_they_lie(found) if recipe.input is None or recipe.input.frames is None else found


def trace(recipe: Recipe, depth: int | None = None, begun: int = 1, copy: Copy | None = None) -> list[Stage]:
    """The stages of a recipe, lazily; of frames from a copy of its input, if there is one.

    What the detector flags that a later step knows is no reading for the first one either, whose result would take it for one.
    """
    data = cut_for(recipe, depth) if copy is None else copy.whole(depth)
    stages = stages_of(recipe, data, depth, begun)
    detector = next((found for stage in stages[1:] if (found := getattr(stage.ready, "detector_dummy", None)) is not None), None)
    known = data if recipe.input is None else with_detector(data, detector)
    return stages if known is data else stages_of(recipe, known, depth, begun)


def stages_of(recipe: Recipe, data: Any, depth: int | None, begun: int) -> list[Stage]:
    """The stages of a recipe for these frames."""
    stages: list[Stage] = []
    raw = None if recipe.input is None else data
    flags = {} if raw is None else {name: raw.attrs[name] for name in FLAGS if name in raw.attrs}
    of_recipe = NO_FRAMES if recipe.input is None else FramesOfRecipe(raw, recipe.input.path, recipe.input.numbers)
    for step in recipe.steps:
        with named(step), taken_with(of_recipe):
            suited = step.for_data(data)
            ready = prepared(suited, str(flags) if takes_flags(suited) else "")
            placed = suited.in_blocks(depth, begun)
            result = found_once(recipe, str(flags), [*(stage.step for stage in stages), placed], placed.build(data, ready))
            check_frames(suited, result)
        stages.append(Stage(suited, data, ready, result))
        data = result
    return stages


def cut_for(recipe: Recipe, depth: int | None) -> Any:
    """What the first step takes, in blocks of so many: of whole frames, or of rows where the file has them so and that serves as well."""
    found = open_first(recipe, depth)
    if recipe.input is None or not by_rows(found):
        return found
    frames = {} if depth is None else {"frame": depth}
    with guarding(recipe.guard):
        if not recipe.takes_rows:
            return recipe.input.open({**frames, "y": WHOLE})
        return found if depth is None else recipe.input.open({"y": depth})


def copy_of(recipe: Recipe, store: Path, budget: int) -> Copy | None:
    """How the input is copied to have whole frames, by as many rows as a task has room for; None if its file has whole frames."""
    found = open_first(recipe, None)
    if recipe.input is None or not by_rows(found):
        return None
    with guarding(recipe.guard):
        smallest = recipe.input.open({"y": 1})
        if Copy(store, found).task_bytes > budget:
            tile = Copy(store, smallest).task_bytes
            found = recipe.input.open({"y": max(1, budget // tile) * smallest.data.chunksize[1]})
    return Copy(store, found)


def by_rows(frames: xr.DataArray) -> bool:
    """Whether blocks hold some rows alone."""
    return len(frames.chunks[1]) > 1 if frames.chunks else False


def open_first(recipe: Recipe, depth: int | None) -> Any:
    """What the first step takes: frames in blocks of so many, or of rows, a scan, or nothing. Of a run it is guarded against damage."""
    with guarding(recipe.guard):
        if recipe.input is not None:
            return recipe.input.open(None if depth is None else {"frame": depth})
        first = recipe.steps[0]
        with named(first):
            return first.in_blocks(depth, 1).open_input()


@contextmanager
def named(step: Step[Any]) -> Iterator[None]:
    """Errors of a step of another package in one line that names it.

    Raises
    ------
    InputError
        In place of what is no error of ours.
    """
    package = package_of(step.operation)
    try:
        yield
    except DetcalError:
        raise
    except Exception as error:
        if package is None:
            raise
        raise InputError(f"{step.operation} of {package} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error


def check_frames(step: Step[Any], result: Any) -> None:
    """Refuse what a step calls frames, and is none."""
    if step.gives == "frames" and not (isinstance(result, xr.DataArray) and result.dims == DIMS):
        came = f"a DataArray {result.dims}" if isinstance(result, xr.DataArray) else type(result).__name__
        raise InputError(f"expected frames, a DataArray {DIMS}, from {step.operation}, got {came}: its `gives` says what comes out")


@dataclass(frozen=True)
class Preparation:
    """What a step prepares; equal to others of the same options and files, as they were when they were modified, and flags of frames."""

    kind: type[Step[Any]]
    options: str
    modified: tuple[int, ...]
    flags: str
    step: Step[Any] = field(compare=False)


def prepared(step: Step[Any], flags: str = "") -> Any:
    """What a step has prepared: the same object each time, since a run checks its steps, plans, and builds them."""
    return prepare_once(Preparation(type(step), step.model_dump_json(), modified_times(step), flags, step))


def takes_flags(step: Step[Any]) -> bool:
    """Whether a step names darks or flats, which have the flags of the frames."""
    return any(isinstance(source, DarkSource | FlatSource) for _, source in step)


@lru_cache(maxsize=KEPT)
def prepare_once(preparation: Preparation) -> Any:
    """What a step prepares."""
    return preparation.step.prepare()


@dataclass(frozen=True)
class Origin:
    """What a result is made of; equal to others of the same steps and files, in whatever blocks these are read, with the same damage."""

    frames: str
    guard: Guard | None
    steps: tuple[str, ...]
    modified: tuple[int, ...]
    result: Any = field(compare=False)


def found_once(recipe: Recipe, flags: str, steps: list[Step[Any]], result: Any) -> Any:
    """The result itself, or, if it is found on its first use, the one that was built first for frames with these flags: a run builds its
    steps to check them, to plan, and to run, and what decides the shape of a result is found once for all of these."""
    if is_found(result):
        return result
    frames = "" if recipe.input is None else recipe.input.model_dump_json()
    return first_of(Origin(frames + flags, recipe.guard, tuple(step.model_dump_json() for step in steps), modified_times(recipe), result))


@lru_cache(maxsize=1)
def first_of(origin: Origin) -> Any:
    """The first result of several of one origin."""
    return origin.result


def check_target(recipe: Recipe) -> None:
    """Refuse, before anything is opened, an output that nobody could write there; whether one exists is looked at later.

    Raises
    ------
    OutputError
        The output is, holds, or lies inside, the recipe or one of its inputs, or would be one, or has no known suffix, or no folder.
    """
    check_apart(recipe.output.path, [file for path in recipe.inputs() for file in find_paths(path)])
    check_not_taken(recipe.output.path, recipe.inputs())
    if recipe.file is not None:
        check_apart(recipe.output.path, [recipe.file], "recipe")
    check_path(recipe.output.path, overwrite=True)


def check_result(recipe: Recipe, result: Any, *, overwrite: bool) -> None:
    """Refuse, before anything runs, an output that could not be written, or that would take the place of an input."""
    check_target(recipe)
    shards = None if recipe.output.shard_frames is None else {"frame": recipe.output.shard_frames}
    check_output(result, recipe.output.path, overwrite=overwrite, shards=shards, precision=recipe.output.precision)


def try_kernels(recipe: Recipe) -> None:
    """Run the steps on a few pixels of the frames' type, so that every kernel that a run needs is loaded, or compiled."""
    first = open_first(recipe, None)
    result: Any = first if isinstance(first, xr.Dataset | None) else np.ones((2, 4, 4), first.dtype)
    for step in recipe.steps:
        with named(step):
            found = step.try_out(result)
            result = found.compute(scheduler="synchronous") if hasattr(found, "compute") else found
    if recipe.output.precision is not None:
        round_block(np.ones((2, 4, 4), np.float32), recipe.output.precision)
