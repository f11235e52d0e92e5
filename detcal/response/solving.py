"""The images of a fit from its sums, lazily and tile by tile: rows of the detector, each in a task of its own."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed

from detcal.response import defects
from detcal.response.kernels import check_used

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

    Of neighbouring tiles it takes what they say of pixels at their edges, and of all the largest number of frames that were used.
    """
    options = {"order": order, "intercept": intercept, "limits": limits}
    fits = [delayed(defects.fit_alone, pure=True, nout=4)(tile, **options) for tile in sums]
    images, reasons, bends, noises = (list(each) for each in zip(*fits, strict=True))
    most = delayed(most_of, pure=True)([delayed(frames_used, pure=True)(tile) for tile in images], cutoff)
    if order == 1 and not intercept:
        beside = zip(around(reasons), around(bends), strict=True)
        reasons = [delayed(defects.with_nonlinear, pure=True)(*each, limits) for each in beside]
    judged = [
        delayed(with_reasons, pure=True, nout=len(TYPES))(tile, *beside, most, limits)
        for tile, *beside in zip(images, around(reasons), around(noises), strict=True)
    ]
    rows, (height, width) = rows_a_tile(shape), shape
    heights = [min(rows, height - top) for top in range(0, height, rows)]
    return [
        da.concatenate([da.from_delayed(tile[number], (high, width), dtype) for tile, high in zip(judged, heights, strict=True)])
        for number, dtype in enumerate(TYPES)
    ]


def around(tiles: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
    """Each tile between that above and that below it; None where there is none."""
    return list(zip([None, *tiles[:-1]], tiles, [*tiles[1:], None], strict=True))


def frames_used(images: Sequence[Any]) -> int:
    """The largest number of frames that were used in a pixel of a tile."""
    return int(images[5].max())


def most_of(used: Sequence[int], cutoff: float) -> int:
    """That of the whole detector.

    Raises
    ------
    InputError
        If it is too small for a fit.
    """
    check_used(max(used), cutoff)
    return max(used)


def with_reasons(
    images: Sequence[Any], reasons: defects.Around, noises: defects.Around, most: int, limits: defects.Limits
) -> tuple[Any, ...]:
    """The images of a tile, and the last reasons why pixels are bad."""
    return *images, defects.with_blinking(reasons, noises, most, limits)
