"""The input of a run, before its first block: which files it comes from, how many frames are taken, and a copy of whole frames."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from detcal.stores import find_paths
from detcal.stores.apart import origins
from detcal.stores.targets.save import as_dataset
from detcal_pipelines.chain import open_first
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.plan import Plan
from detcal_pipelines.progress import block_bar
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.threads import MemoryWatch, compute_on_threads
from detcal_pipelines.unfinished import Places


def sources_of(recipe: Recipe, result: Any) -> list[str]:
    """All files that a run reads: those that the recipe names, and those that they take data from; not those that may grow meanwhile."""
    found = [*(file for path in recipe.inputs() for file in find_paths(path)), *origins(as_dataset(result))]
    if recipe.input is None or not recipe.input.newest:
        return found
    paths = recipe.input.path if isinstance(recipe.input.path, list) else [recipe.input.path]
    growing = {file for path in paths for file in find_paths(path)} | set(origins(as_dataset(open_first(recipe, None))))
    return [file for file in found if file not in growing]


def with_length(recipe: Recipe, places: Places, console: Console, *, restart: bool) -> Recipe:
    """The recipe with the number of frames that a file holds which is still written; a run that goes on keeps to what was noted."""
    if recipe.input is None or recipe.input.newest is not True:
        return recipe
    noted = None if restart or not places.ledger.is_file() else read_ledger(places.ledger).header["fingerprint"]["recipe"]
    before = noted["input"].get("newest") if noted and noted.get("input") else None
    number = before or int(open_first(recipe, None).attrs["newest"])
    console.print(f"of a file that is still written, the first {number} frames are taken", soft_wrap=True)
    return recipe.of_frames(number)


def copy_frames(planned: Plan, console: Console, pause_or_stop: Callable[[], None]) -> None:
    """Copy the input to whole frames, if it was planned so: in this process, for a cluster too."""
    if planned.copy is None:
        return
    left = blocks = planned.copy.blocks
    with MemoryWatch() as watch, block_bar("copying the frames", blocks, console) as show:

        def compute(graph: Any, ends: list[Any]) -> None:
            def finished(key: Any) -> None:
                nonlocal left
                pause_or_stop()
                left -= key in ends
                show(1 - left / blocks)

            compute_on_threads(graph, ends, planned.tasks, planned.budget, watch, ignore, finished, ignore)

        planned.copy.make(planned.depth, planned.begun, compute)


def ignore(*_: Any) -> None:
    """Nothing is to be done."""
