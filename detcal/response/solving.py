"""The images of a fit from its sums, lazily and tile by tile: rows of the detector, each in a task of its own."""

from collections.abc import Sequence
from functools import partial
from operator import attrgetter, getitem
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from detcal.response import defects
from detcal.response.kernels import Used, check_changed, check_used

TYPES = (np.float32,) * 5 + (np.int32, np.int32, np.uint8)  # of what `kernels.solve` finds, and of the reasons

TILE_PIXELS = 2**20  # about so many make a tile: enough that starting a task, and handing on what it finds, takes little of its time


def rows_a_tile(shape: tuple[int, ...]) -> int:
    """Rows of the tiles of a detector, all about as large; whole squares whose pixels have the same neighbours, in all but the last one.

    Sums, and all that follows from them, depend on the detector alone: not on how many there are to work at it.
    """
    height, width = shape
    tiles = max(1, round(height * width / TILE_PIXELS))
    squares = -(-height // (tiles * defects.SQUARE))
    return squares * defects.SQUARE


def count_tiles(shape: tuple[int, ...]) -> int:
    """How many tiles a detector is cut into."""
    return -(-shape[0] // rows_a_tile(shape))


def solve_tiles(
    sums: Sequence[Delayed], shape: tuple[int, ...], *, order: int, intercept: bool, cutoff: float, limits: defects.Limits
) -> list[da.Array]:
    """What `kernels.solve` finds and the reasons why pixels are bad, as images (y, x) in chunks that are the tiles of the sums.

    Of neighbouring tiles it takes what they say of pixels at their edges, and of all the largest number of frames that were used, and
    whether the beam changed.
    """
    name = f"solved-{tokenize([tile.key for tile in sums], order, intercept, cutoff, limits)}"
    fit = partial(defects.fit_alone, order=order, intercept=intercept, limits=limits)
    tiles, line = range(len(sums)), order == 1 and not intercept
    graph: dict[Any, Any] = {}

    def around(what: str, tile: int) -> list[Any]:
        return [(name, what, each) if each in tiles else None for each in (tile - 1, tile, tile + 1)]

    for tile in tiles:
        graph[name, "fit", tile] = (fit, sums[tile].key)
        graph |= {(name, what, tile): (attrgetter(what), (name, "fit", tile)) for what in defects.Fit._fields}
        if line:
            graph[name, "known", tile] = (defects.with_nonlinear, around("reasons", tile), around("bend", tile), limits)
        beside = around("known" if line else "reasons", tile), around("noise", tile)
        graph[name, "judged", tile] = (with_reasons, (name, "images", tile), *beside, (name, "most"), limits)
    graph[name, "most"] = (most_of, [(name, "used", tile) for tile in tiles], cutoff)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=sums)  # type: ignore[arg-type]
    return [image_of(layers, name, number, shape, dtype) for number, dtype in enumerate(TYPES)]


def image_of(layers: HighLevelGraph, judged: str, number: int, shape: tuple[int, ...], dtype: Any) -> da.Array:
    """One of the images, of which each tile has one."""
    rows, (height, width) = rows_a_tile(shape), shape
    heights = tuple(min(rows, height - top) for top in range(0, height, rows))
    name = f"{judged}-{number}"
    picks = {(name, tile, 0): (getitem, (judged, "judged", tile), number) for tile in range(len(heights))}
    whole = HighLevelGraph({**layers.layers, name: MaterializedLayer(picks)}, {**layers.dependencies, name: {judged}})
    return da.Array(whole, name, (heights, (width,)), dtype)


def most_of(used: Sequence[Used], cutoff: float) -> int:
    """The largest number of frames that were used in a pixel of the whole detector.

    Raises
    ------
    InputError
        If it is too small for a fit, or the beam was the same in all of them.
    """
    most, pixels, changed = zip(*used, strict=True)
    check_used(max(most), cutoff)
    check_changed(Used(max(most), sum(pixels), sum(changed)))
    return max(most)


def with_reasons(
    images: Sequence[Any], reasons: defects.Around, noises: defects.Around, most: int, limits: defects.Limits
) -> tuple[Any, ...]:
    """The images of a tile, and the last reasons why pixels are bad."""
    return *images, defects.with_blinking(reasons, noises, most, limits)
