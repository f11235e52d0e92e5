"""Kernels are compiled before a run, in a process of their own: the compiler takes 200 MiB, and gives nothing back."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as enumerate_threads
from threading import get_ident
from typing import Any, TypeVar

import dask
import psutil
from locket import lock_file
from numba.core import event
from rich.console import Console

from detcal.errors import RunError
from detcal.response.correction import scale_frames
from detcal.stores.damage import Guard
from detcal.version import __version__
from detcal_pipelines.chain import try_kernels
from detcal_pipelines.progress import doing
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.threads import release_free_blocks

COMPILING = "numba:compile"  # numba's name for it
Prepared = TypeVar("Prepared")


class NotCompiled(BaseException):
    """A kernel that is not in the cache; no error of a file, as which readers would tell any Exception."""


class RefuseToCompile(event.Listener):
    """Raises as soon as a kernel would be compiled, but in `others`: threads that are at work for somebody else."""

    def __init__(self, others: Set[int | None]) -> None:
        self.others = others

    def on_start(self, event: Any) -> None:
        if get_ident() not in self.others:
            raise NotCompiled

    def on_end(self, event: Any) -> None:
        """There is nothing to end."""


def with_kernels(recipe: Recipe, prepare: Callable[[], Prepared], console: Console, others: Set[int | None] = frozenset()) -> Prepared:
    """Prepare a run, which calls kernels already, and load all others; if one is not in the cache, all are compiled first.

    Threads that are at work for others, on a worker of a cluster, may compile meanwhile.
    """
    found = in_cache(recipe, prepare, others)
    if found is not None:
        return found
    with doing("compiling kernels, once for all runs", console), alone():
        if in_cache(recipe, prepare, others) is None:  # another process may have compiled them meanwhile
            compile_in_a_process(recipe)
    try_kernels(recipe)
    return prepare()


def in_cache(recipe: Recipe, prepare: Callable[[], Prepared], others: Set[int | None]) -> Prepared | None:
    """What is prepared, with all kernels loaded; None if one is not in the cache."""
    try:
        with event.install_listener(COMPILING, RefuseToCompile(others)):
            found = prepare()
            try_kernels(recipe)
    except NotCompiled:
        return None
    return found


def compile_in_a_process(recipe: Recipe) -> None:
    """Compile the kernels of a recipe into the cache."""
    done = subprocess.run(
        [sys.executable, "-m", "detcal_pipelines.compiling"], input=as_text(recipe), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"kernels could not be compiled: {done.stderr.strip().splitlines()[-1:] or done.returncode}")


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other processes that compile into the same cache."""
    folder = Path(str(scale_frames.stats.cache_path))
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / "compiling.lock"):
        yield


def load_kernels(recipe_text: str) -> int:
    """Load the kernels of a recipe into this process, a worker of a cluster; the bytes that it holds then.

    Raises
    ------
    RunError
        The recipe comes from another version of detcal.
    """
    if (other := json.loads(recipe_text).get("detcal")) != __version__:
        raise RunError(f"detcal {__version__} is installed there, and {other} here: install the same version in both places")
    with dask.config.set(scheduler="synchronous"):  # a task that waits for other tasks may wait for ever
        others = {thread.ident for thread in enumerate_threads()} - {get_ident()}
        with_kernels(read_text(recipe_text), lambda: True, Console(quiet=True), others)
    release_free_blocks()
    return int(psutil.Process().memory_info().rss)  # as Dask counts it


def as_text(recipe: Recipe) -> str:
    """A recipe for another process, with whether its input is damaged: then frames are of another type."""
    damaged = recipe.guard is not None and recipe.guard.found
    return json.dumps({"detcal": __version__, "recipe": recipe.model_dump_json(), "damaged": damaged})


def read_text(text: str) -> Recipe:
    """A recipe that another process has checked."""
    told = json.loads(text)
    recipe = Recipe.model_validate_json(told["recipe"], context={"folder": "."})
    recipe.guard = Guard("", found=True) if told["damaged"] else None
    return recipe


if __name__ == "__main__":
    try_kernels(read_text(sys.stdin.read()))
