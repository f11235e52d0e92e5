"""A bar of blocks, in a terminal or in a notebook, for runs and for detcal.save."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import escape
from time import monotonic
from typing import Any

import dask
import dask.array as da
from dask.base import get_scheduler
from dask.callbacks import Callback
from dask.core import flatten
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from detcal.stores.targets.save import compute_writes
from detcal_pipelines.status import as_duration

Show = Callable[[float], None]

SECONDS_BETWEEN_UPDATES = 0.2  # of a notebook


def compute_with_bar(writes: list[da.Array]) -> None:
    """Compute the writes of detcal.save with a bar, on dask's current scheduler or client: detcal.save(…, compute=compute_with_bar)."""
    keys = set(flatten([array.__dask_keys__() for array in writes]))
    client = getattr(get_scheduler(collections=writes), "__self__", None)
    done = 0

    with block_bar("save", len(keys), Console()) as show:

        def count(key: Any, *_: Any) -> None:
            nonlocal done
            done += key in keys
            show(done / len(keys))

        if client is None:
            with Callback(posttask=count):
                compute_writes(writes)
            return
        from distributed import as_completed, futures_of  # here, because threads need none of it

        for future in as_completed(futures_of(dask.persist(*writes))):
            future.result()
            count(future.key)


def block_bar(label: str, blocks: int, console: Console) -> AbstractContextManager[Show]:
    """A bar of blocks, and what is to be told the share of them that is done, by any thread."""
    return notebook_bar(label, blocks) if console.is_jupyter else terminal_bar(label, blocks, console)


@contextmanager
def terminal_bar(label: str, blocks: int, console: Console) -> Iterator[Show]:
    """In a terminal."""
    counts = BarColumn(), MofNCompleteColumn(), TextColumn("blocks")
    with Progress(TextColumn("{task.description}"), *counts, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(label, total=blocks)
        yield lambda share: progress.update(bar, completed=int(blocks * share))


@contextmanager
def notebook_bar(label: str, blocks: int) -> Iterator[Show]:
    """In a notebook; of IPython alone, since the widgets that rich takes are not there everywhere."""
    from IPython.display import display

    begun = updated = monotonic()
    first: float | None = None
    last = 0.0
    handle = display(as_bar(label, blocks, 0.0, ""), raw=True, display_id=True)

    def show(share: float) -> None:
        nonlocal first, last, updated
        first, last = share if first is None else first, share
        if monotonic() - updated > SECONDS_BETWEEN_UPDATES:
            updated = monotonic()
            rate = (share - first) / (updated - begun)
            handle.update(as_bar(label, blocks, share, f"{as_duration((1 - share) / rate)} left" if rate else ""), raw=True)

    try:
        yield show
    finally:
        handle.update(as_bar(label, blocks, last, as_duration(monotonic() - begun)), raw=True)


def as_bar(label: str, blocks: int, share: float, time: str) -> dict[str, str]:
    """A bar as a notebook shows it, and as text."""
    counted = f"{int(blocks * share)}/{blocks} blocks"
    return {
        "text/html": f"{escape(label)} <progress value='{share:.4f}' max='1' style='width:20em'></progress> {counted} {time}",
        "text/plain": f"{label} {counted} {time}",
    }


def doing(text: str, console: Console) -> AbstractContextManager[Any]:
    """Say what takes a while, as long as it does; in a notebook the line stays."""
    if console.is_jupyter:
        console.print(text)
        return nullcontext()
    return console.status(text)
