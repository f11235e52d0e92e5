"""A progress bar in blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def block_bar(label: str, blocks: int, tasks: int, console: Console) -> Iterator[Callable[[], None]]:
    """A bar of blocks, and what is to be called after each of the tasks that they take together."""
    counts = BarColumn(), MofNCompleteColumn(), TextColumn("blocks")
    done = 0
    with Progress(TextColumn("{task.description}"), *counts, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(label, total=blocks)

        def advance() -> None:
            nonlocal done
            done += 1
            progress.update(bar, completed=blocks * done // tasks)

        yield advance
