"""A run on this machine: the tasks of a graph on threads of this process, within its memory."""

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Condition, Event, Thread
from typing import Any, Protocol

import psutil
from dask.local import get_async

from detcal.errors import RunError
from detcal_pipelines.graph import Graph, Stage, Window, in_stages, in_turn, with_results
from detcal_pipelines.interrupts import TASK
from detcal_pipelines.plan import Plan, size

MIB = 2**20
SECONDS_BETWEEN_LOOKS = 0.02
HARD_LIMIT = 1.1  # of the budget
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class OutOfMemory(RunError):
    """A process that holds far more than was planned."""


class MemoryWatch:
    """Looks at the anonymous memory of this process every few milliseconds, keeps its `peak`, and tells a listener.

    Memory that belongs to files, such as libraries, can be dropped by the system at any time, and is left out.
    """

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.held = self.peak = anonymous_bytes(self.process)
        self.listener: Callable[[int], None] = lambda held: None
        self.stopped = Event()
        self.thread = Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.stopped.wait(SECONDS_BETWEEN_LOOKS):
            self.held = anonymous_bytes(self.process)
            self.peak = max(self.peak, self.held)
            self.listener(self.held)

    def __enter__(self) -> "MemoryWatch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def anonymous_bytes(process: psutil.Process) -> int:
    """Resident memory of a process that belongs to no file."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))  # which Linux tells, and macOS does not


class TaskThreads:
    """Threads that run tasks. None is begun while the process holds more than its budget, but the only one."""

    def __init__(self, count: int, budget: int) -> None:
        self.budget = budget
        self.held = 0
        self.stopped = False
        self.running: set[Future[Any]] = set()
        self.changed = Condition()
        self.tasks: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self.threads = [Thread(target=self._work, name=f"{TASK}-{number}", daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """As of an executor of concurrent.futures."""
        future: Future[Any] = Future()
        self.tasks.put((future, function, arguments))
        return future

    def look(self, held: int) -> None:
        """Take note of what the process holds; far above the budget, the tasks that run are told to have failed."""
        with self.changed:
            self.held = held
            self.changed.notify_all()
            if held <= HARD_LIMIT * self.budget:
                return
            for future in self.running:
                if not future.done():
                    future.set_exception(OutOfMemory(outgrown(held, self.budget)))

    def stop(self) -> None:
        """Begin no other task; those that run go on."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        for _ in self.threads:
            self.tasks.put(None)

    def join(self) -> None:
        """Wait for the tasks that run; Ctrl-C ends the wait."""
        for thread in self.threads:
            while thread.is_alive():
                thread.join(0.05)

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            self._run(*task)
            del task  # or its data would be kept until the next one comes

    def _run(self, future: "Future[Any]", function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        with self.changed:
            while self.held > self.budget and self.running and not self.stopped:
                self.changed.wait()
            if self.stopped:
                return
            self.running.add(future)
        try:
            result, error = function(*arguments), None
        except BaseException as raised:
            result, error = None, raised
        with self.changed:
            self.running.discard(future)
            self.changed.notify_all()
            if future.done():  # told to have failed
                return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class Watcher(Protocol):
    """Who is told of what threads do, by the thread that drives them."""

    def enter(self, window: Window, stages: list[Stage]) -> None:
        """A window is begun."""

    def begun(self, key: Any) -> None:
        """A task is handed out."""

    def finished(self, key: Any) -> None:
        """A task has ended."""


class ThreadsRun:
    """A run on threads of this process, window by window.

    Parameters
    ----------
    planned
        Tasks at once, blocks that may be begun, and bytes.
    watch
        Looks at the memory of this process.
    pause_or_stop, say
        Called after each task; shows a line.
    """

    def __init__(self, planned: Plan, watch: MemoryWatch, pause_or_stop: Callable[[], None], say: Callable[[str], None]) -> None:
        self.planned, self.watch, self.pause_or_stop, self.say = planned, watch, pause_or_stop, say
        self.there: dict[Any, Any] = {}  # results that the next window wants

    def compute(self, watcher: Watcher, window: Window) -> None:
        """Compute a window, and keep those of its results that the next one shares."""
        keys = [*window.ends, *window.shared]
        stages = in_stages(with_results(window.graph, self.there, keys), list(window.ends))
        watcher.enter(window, stages)

        def finished(key: Any) -> None:
            self.pause_or_stop()
            watcher.finished(key)

        def waiting() -> None:
            self.say("stopping after the tasks that have begun; Ctrl-C again stops at once")

        graph = in_turn(stages, self.planned.begun)
        found = compute_on_threads(graph, keys, self.planned.tasks, self.planned.budget, self.watch, watcher.begun, finished, waiting)
        self.there = dict(zip(window.shared, found[len(window.ends) :], strict=True))


def outgrown(held: int, budget: int) -> str:
    """What is said of a run that holds far more than its budget."""
    return (
        f"the run holds {size(held)}, more than a tenth above its {size(budget)}, and was ended before the machine runs out of memory: "
        "give --memory more, or --workers fewer"
    )


def compute_on_threads(
    graph: Graph,
    keys: list[Any],
    threads: int,
    budget: int,
    watch: MemoryWatch,
    begun: Callable[[Any], None],
    finished: Callable[[Any], None],
    waiting: Callable[[], None],
) -> list[Any]:
    """Compute some keys of a graph, within a budget of bytes.

    No task runs on afterwards, whatever ended it; but for a second Ctrl-C, or memory that has grown far beyond the budget.

    Parameters
    ----------
    begun, finished, waiting
        Called with the key of each task before it begins and after it, and when Ctrl-C finds tasks at work; in this thread.

    Raises
    ------
    RunError
        If the process holds far more than the budget.
    """
    pool = TaskThreads(threads, budget)
    watch.listener = pool.look
    calls = (None, None, lambda key, *_: begun(key), lambda key, *_: finished(key), None)
    try:
        found: list[Any] = list(get_async(pool.submit, threads, graph, keys, callbacks=[calls]))
    except OutOfMemory:
        pool.stop()
        raise
    except BaseException as error:
        pool.stop()
        if isinstance(error, KeyboardInterrupt) and pool.running:
            waiting()
        pool.join()
        raise
    pool.stop()
    pool.join()
    return found


def give_back_large_blocks() -> None:
    """Let the allocator give blocks of 2 MiB and more back at once, and keep those of a few hundred kB that each transform takes.

    glibc would raise that size with the largest block that was freed, up to 32 MiB: what is free below it stays with the process.
    """
    mallopt = of_the_allocator("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2 * MIB)
        mallopt(M_TRIM_THRESHOLD, 16 * MIB)


def release_free_blocks() -> None:
    """Let the allocator give back all that it keeps."""
    malloc_trim = of_the_allocator("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def of_the_allocator(name: str) -> Any:
    """A function of glibc's allocator; None where there is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
