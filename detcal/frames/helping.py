"""Threads that help another one with what it has to do, and wait for the next that they can help: to start a thread takes longer than much
of that."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from dask.system import CPU_COUNT


def together(take: Callable[[], None], threads: int) -> None:
    """Call a function in this thread and in up to so many others less one, at once: each call takes from what all share until nothing is
    left. Others that are busy till then are not waited for.

    Raises
    ------
    Exception
        Of any of the calls.
    """
    others = [helpers(os.getpid()).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        begun = [other for other in others if not other.cancel()]
        for other in begun:
            other.exception()  # waits for it: it writes to what is ours
    for other in begun:
        other.result()


@lru_cache(maxsize=1)
def helpers(process: int) -> ThreadPoolExecutor:
    """The threads of a process: one that was forked has none of those of its parent."""
    return ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="helper")
