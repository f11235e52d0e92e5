"""Graphs over the blocks of a stack: kernels block by block, and sums whose order depends on the blocks alone."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from math import ceil
from operator import getitem
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import get_scheduler, tokenize
from dask.core import flatten, istask
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from numpy.typing import DTypeLike

# Frames that are summed one after the other, before sums of sums: enough that adding two sums takes little of the time.
FRAMES_A_PART = 16
LEAST_PARTS = 4  # of a short stack, as far as it has blocks: one chain alone keeps one thread alone at work

# How layers of sums are named, and in them the keys of sums of all parts up to one, each of a tile, and what says that these are there
FOLD, TOTAL, MERGED = "fold-", "total", "merged"


def map_frames(
    kernel: Callable[..., Any],
    frames: xr.DataArray,
    calibration: Mapping[str, Any] | None = None,
    *,
    stacks: Sequence[da.Array] = (),
    images: Sequence[da.Array] = (),
    whole: bool = True,
    dims: tuple[str, ...] | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: DTypeLike = np.float32,
    name: Hashable | None = None,
    attrs: Mapping[Any, Any] | None = None,
) -> xr.DataArray:
    """A kernel over the blocks of frames, lazily: one task a block, which reads its frames itself.

    Were reading a task of its own, it would run ahead of what computes: memory that nobody planned.

    Parameters
    ----------
    kernel
        kernel(frames, *stacks, *images, **calibration) of a block gives a block of the result.
    frames : (frame, ...)
        Over dask.
    calibration
        What the kernel needs besides, by name. What is a `Delayed` in it is made ready once, for all tasks.
    stacks : (frame, ...)
        Others with a value for each of the frames' values, as a variance; or with one a frame, (frame, 1, 1), in blocks of as many;
        or (block, y, x), with a frame for each block.
    images : (y, x)
        Of which a block gets the part that lies under it.
    whole
        Whether the kernel looks at whole frames; else blocks stay as they are.
    dims
        Of the result, by default those of the frames.
    sizes
        Of those of its dimensions that are not the frames' own, all in one block.
    dtype, name, attrs
        Of the result.

    Returns
    -------
    DataArray
        With those coords of the frames that still say where its values are: those of dimensions that are the frames' own.
    """
    own = dict(zip(map(str, frames.dims), frames.shape, strict=True))
    dims = tuple(own) if dims is None else dims
    same = [dim for dim in own if dim in dims and dim not in (sizes or {})]
    blocks = whole_frames(frames) if whole else frames.data
    lengths = {**dict(zip(own, blocks.chunks, strict=True)), **{dim: (size,) for dim, size in (sizes or {}).items()}}
    ready = [stack.shape[1:] == (1, 1) or len(stack) != len(blocks) for stack in stacks]
    beside = [stack if cut else stack.rechunk(blocks.chunks) for stack, cut in zip(stacks, ready, strict=True)]
    beside += [image.rechunk(blocks.chunks[1:]) for image in images]
    found = da.map_blocks(
        kernel, blocks, *beside, **(calibration or {}), dtype=dtype, meta=np.empty((0,) * len(dims), dtype),
        chunks=tuple(lengths[dim] for dim in dims), new_axis=added_axes(dims, tuple(own)),
    )  # fmt: skip
    return xr.DataArray(found, coords_kept(frames, same), dims, name, attrs)


def added_axes(dims: tuple[str, ...], own: tuple[str, ...]) -> list[int] | None:
    """Which axes of a result dask is to take for new ones: so many more than its frames have, before or behind these."""
    more = len(dims) - len(own)
    first = 0 if dims[0] != own[0] else len(own)
    return list(range(first, first + more)) or None


def coords_kept(frames: xr.DataArray, dims: Sequence[str]) -> dict[str, xr.DataArray]:
    """The coords that results with only these of the frames' dimensions keep."""
    return {str(name): line for name, line in frames.coords.items() if set(line.dims) <= set(dims)}


def whole_frames(stack: xr.DataArray) -> da.Array:
    """The stack's blocks with each frame in one chunk."""
    return stack.data.rechunk(dict.fromkeys(range(1, stack.ndim), -1))


def fold_blocks(
    stack: da.Array, add: Callable[..., Any], merge: Callable[[Any, Any], Any], *shared: Delayed, partial_sums: int | None = None
) -> Delayed:
    """Sum over all blocks of a stack: as `fold_tiles`, of a sum that is not cut into tiles."""
    (total,) = fold_tiles(stack, partial(add_whole, add), merge, *shared, tiles=1, partial_sums=partial_sums)
    return total


def fold_tiles(
    stack: da.Array,
    add: Callable[..., Any],
    merge: Callable[[Any, Any], Any],
    *shared: Delayed,
    tiles: int,
    partial_sums: int | None = None,
) -> list[Delayed]:
    """Sums over all blocks of a stack, one of each tile of its frames.

    Chains of add(so far, block, *shared), each over a few blocks, give as many sums as there are tiles; those of a tile are merged from the
    first chain to the last, whatever becomes of other tiles.

    The order of the sums depends on the blocks alone. At most `partial_sums` chains are begun and not merged yet: one that is held up
    holds back the others, in place of their sums piling up. By default as many as there are threads, and one more.

    Each task reads its block itself. Were reading a task of its own, blocks could be read ahead of their turn, or lie on another
    worker than what was summed so far. A tile is taken from a sum where this lies, so that on a cluster no more of it goes elsewhere.
    """
    most = max(1, partial_sums if partial_sums is not None else count_threads() + 1)
    graph, blocks = reading_tasks(stack)
    name = f"{FOLD}{tokenize(stack.name, add, merge, shared, most, tiles)}"
    length = min(ceil(FRAMES_A_PART / max(1, *stack.chunks[0])), ceil(len(blocks) / LEAST_PARTS))
    parts = [range(start, min(start + length, len(blocks))) for start in range(0, len(blocks), length)]
    for part, numbers in enumerate(parts):
        turn = [(name, MERGED, part - most, tile) for tile in range(tiles)] if part >= most else None
        for number in numbers:
            so_far, waits = ((name, "part", number - 1), None) if number > numbers[0] else (None, turn)
            graph[(name, "part", number)] = (add_in_turn, waits, add, so_far, blocks[number], *(each.key for each in shared))
        for tile in range(tiles):
            total, cut = (name, TOTAL, part, tile), (name, "tile", part, tile)
            graph[cut] = (getitem, (name, "part", numbers[-1]), tile)
            graph[total] = (merge, (name, TOTAL, part - 1, tile), cut) if part else (keep, cut)
            if part + most < len(parts):
                graph[(name, MERGED, part, tile)] = (nothing, total)
    whole = HighLevelGraph.from_collections(name, graph, dependencies=[stack, *shared])  # type: ignore[list-item]
    return [Delayed((name, TOTAL, len(parts) - 1, tile), whole, layer=name) for tile in range(tiles)]


def reading_tasks(part: da.Array) -> tuple[dict[Any, Any], list[Any]]:
    """What the blocks of an array are computed from, and the tasks that do it, to be put inside another task."""
    (optimised,) = dask.optimize(part)
    graph = dict(optimised.__dask_graph__())
    # what lies computed on a cluster is no task, and is referred to by its key
    blocks = [graph.pop(key) if istask(graph.get(key)) else key for key in flatten(optimised.__dask_keys__())]
    return graph, blocks


def add_whole(add: Callable[..., Any], so_far: Any, *arguments: Any) -> tuple[Any]:
    """`add`, of a single tile."""
    return (add(None if so_far is None else so_far[0], *arguments),)


def add_in_turn(turn: Any, add: Callable[..., Any], *arguments: Any) -> Any:
    """`add`, of which `turn` says no more than that it may begin."""
    return add(*arguments)


def keep(value: Any) -> Any:
    """The value itself."""
    return value


def nothing(value: Any) -> None:
    """What says that a value is there, without keeping it."""


def count_threads() -> int:
    """How many tasks run at once where the next computation does: on dask's current client, or in its pool of threads."""
    client: Any = getattr(get_scheduler(), "__self__", None)
    if hasattr(client, "nthreads"):
        return max(1, sum(client.nthreads().values()))
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
