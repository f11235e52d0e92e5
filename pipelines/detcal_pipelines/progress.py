"""A progress bar of the tasks that a cluster has finished."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from time import sleep
from types import FrameType
from typing import Any
from uuid import uuid4

import dask
from dask.array import Array
from dask.array.optimization import optimize
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, KilledWorker, Scheduler, SchedulerPlugin, as_completed, futures_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from detcal.errors import RunError


class FinishedTasks(SchedulerPlugin):
    """Tells the clients that listen of every task that ends, whether it did well or not."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.name = topic

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        if start == "processing" and finish in ("memory", "erred"):
            self.scheduler.log_event(self.topic, 1)


def compute_with_progress(client: Client, writes: list[Array], label: str, console: Console) -> None:
    """Compute on the cluster, with a bar; on Ctrl-C or an error what is left is cancelled."""
    writes = optimise_together(writes)
    total = len(dict(writes[0].__dask_graph__()))
    topic = f"detcal-{uuid4().hex}"
    client.register_plugin(FinishedTasks(topic))
    counts = (BarColumn(), MofNCompleteColumn(), TextColumn("tasks"))
    columns = TextColumn("{task.description}"), *counts, TimeElapsedColumn(), TimeRemainingColumn()
    with noticed_interrupts() as stop_if_interrupted, Progress(*columns, console=console) as progress:
        bar = progress.add_task(label, total=total)
        client.subscribe_topic(topic, lambda _: progress.advance(bar))
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):  # masks and images may be among the tasks
            # not `compute`, which would have each output wait for all of its blocks: the blocks of one would be kept for the next
            left = as_completed(futures_of(client.persist(writes, optimize_graph=False)))
        try:
            for future in left:  # let go of as they end: workers would keep what each was told to do until the last
                stop_if_interrupted()
                if future.status != "finished":
                    future.result()
            progress.update(bar, completed=total)
        except KilledWorker as error:
            raise RunError(f"a worker was ended during {error.task}: it outgrew its memory, or its machine went away") from None
        except BaseException:
            client.cancel(list(left.futures))
            wait_until_idle(client)
            raise
        finally:
            client.unsubscribe_topic(topic)
            client.unregister_scheduler_plugin(topic)


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C as before, and what raises it once more: Python drops one that comes while an object is deleted, as futures are that end."""
    came, before = Event(), signal.getsignal(signal.SIGINT)

    def stop_if_interrupted() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    if current_thread() is not main_thread() or not callable(before):  # it comes to another thread, or is ignored, as behind a shell's &
        yield stop_if_interrupted
        return
    handle = before

    def notice(number: int, frame: FrameType | None) -> None:
        came.set()
        handle(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield stop_if_interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def optimise_together(arrays: list[Array]) -> list[Array]:
    """The arrays over one graph: dask would optimise that of each alone, and run a task that several share once for each."""
    graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in arrays))
    graph = optimize(graph, list(flatten([array.__dask_keys__() for array in arrays])))
    rebuilds = [array.__dask_postpersist__() for array in arrays]
    return [rebuild(graph, *rest) for rebuild, rest in rebuilds]


def wait_until_idle(client: Client) -> None:
    """Wait for tasks that run still: they may write, and the output is to be cleared away after them."""
    while any((client.call_stack() or {}).values()):
        sleep(0.05)
