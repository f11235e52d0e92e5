"""A progress bar in blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def block_bar(label: str, blocks: int, console: Console) -> Iterator[Callable[[float], None]]:
    """A bar of blocks, and what is to be told the share of them that is done."""
    counts = BarColumn(), MofNCompleteColumn(), TextColumn("blocks")
    with Progress(TextColumn("{task.description}"), *counts, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(label, total=blocks)
        yield lambda share: progress.update(bar, completed=int(blocks * share))
