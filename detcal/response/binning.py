"""Pixels in groups. ndarrays in, ndarrays out."""

import numpy as np

from detcal.frames.jit import kernel
from detcal.frames.lanes import reading
from detcal.frames.readings import ALL_NUMBERS, Floats, Frames, Valid


def bin_block(block: Frames, *, valid: Valid = ALL_NUMBERS, factors: tuple[int, int], mean: bool) -> Floats:
    """A block of frames in groups of pixels."""
    down, across = factors
    out = np.empty((len(block), block.shape[1] // down, block.shape[2] // across), np.float32)
    add_up(block, valid, down, across, mean, out)
    return out


@kernel
def add_up(frames, valid, down, across, mean, out):  # type: ignore[no-untyped-def]
    """The sum or mean of the readings of each group; a sum as if what was not measured were as the rest."""
    pixels = down * across
    for frame in range(out.shape[0]):
        for row in range(out.shape[1]):
            for column in range(out.shape[2]):
                total, known = 0.0, 0
                for y in range(row * down, (row + 1) * down):
                    for x in range(column * across, (column + 1) * across):
                        value = reading(frames[frame, y, x], valid)
                        if not np.isnan(value):
                            total, known = total + value, known + 1
                whole = 1.0 if mean else float(pixels)
                out[frame, row, column] = total / known * whole if known > 0 else np.nan
