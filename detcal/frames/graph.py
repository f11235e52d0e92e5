"""Graphs over the blocks of a stack: sums whose order depends on the blocks alone."""

from collections.abc import Callable
from math import ceil
from typing import Any

import dask
import dask.array as da
from dask.base import get_scheduler, tokenize
from dask.core import flatten, istask
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

# Frames that are summed one after the other, before sums of sums: enough that adding two sums takes little of the time.
FRAMES_A_PART = 16


def fold_blocks(
    stack: da.Array, add: Callable[..., Any], merge: Callable[[Any, Any], Any], *shared: Delayed, partial_sums: int | None = None
) -> Delayed:
    """Sum over all blocks of a stack: chains of add(so far, block, *shared), each over a few blocks, merged from the first to the last.

    The order of the sums depends on the blocks alone. At most `partial_sums` chains are begun and not merged yet: one that is held up
    holds back the others, in place of their sums piling up. By default as many as there are threads, and one more.

    Each task reads its block itself. Were reading a task of its own, blocks could be read ahead of their turn, or lie on another
    worker than what was summed so far.
    """
    most = max(1, partial_sums if partial_sums is not None else count_threads() + 1)
    (optimised,) = dask.optimize(stack)
    graph = dict(optimised.__dask_graph__())
    # what lies computed on a cluster is no task, and is referred to by its key
    blocks = [graph.pop(key) if istask(graph.get(key)) else key for key in flatten(optimised.__dask_keys__())]
    name = f"fold-{tokenize(stack.name, add, merge, shared, most)}"
    length = ceil(FRAMES_A_PART / max(1, *stack.chunks[0]))
    parts = [range(start, min(start + length, len(blocks))) for start in range(0, len(blocks), length)]
    for part, numbers in enumerate(parts):
        for number in numbers:
            so_far = (name, "part", number - 1) if number > numbers[0] else None
            turn = (name, "total", part - most) if part >= most and so_far is None else None
            graph[(name, "part", number)] = (add_in_turn, turn, add, so_far, blocks[number], *(each.key for each in shared))
        last = (name, "part", numbers[-1])
        graph[(name, "total", part)] = (merge, (name, "total", part - 1), last) if part else (keep, last)
    whole = HighLevelGraph.from_collections(name, graph, dependencies=[stack, *shared])  # type: ignore[list-item]
    return Delayed((name, "total", len(parts) - 1), whole, layer=name)


def add_in_turn(turn: Any, add: Callable[..., Any], *arguments: Any) -> Any:
    """`add`, of which `turn` says no more than that it may begin."""
    return add(*arguments)


def keep(value: Any) -> Any:
    """The value itself."""
    return value


def count_threads() -> int:
    """How many tasks run at once where the next computation does: on dask's current client, or in its pool of threads."""
    client: Any = getattr(get_scheduler(), "__self__", None)
    if hasattr(client, "nthreads"):
        return max(1, sum(client.nthreads().values()))
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
