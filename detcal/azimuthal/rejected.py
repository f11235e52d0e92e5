"""How many pixels of each ring clipping leaves out. ndarrays in, ndarrays out."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.azimuthal.blocks import clip_block
from detcal.frames.jit import kernel
from detcal.frames.lanes import in_order, reading
from detcal.frames.readings import Floats, Frames, Valid


class Entries(NamedTuple):
    """The entries of all rings in CSR: where each begins, and pixel and share of each."""

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    shares: Floats


def clip_and_count(
    frames: Frames, noise: Frames | None = None, *, entries: Entries, valid: Valid, noise_valid: Valid, **options: Any
) -> Floats:
    """As `clip_block`, and behind its quantities one more: how many of the pixels with a reading are not counted there."""
    clipped = clip_block(frames, noise, valid=valid, noise_valid=noise_valid, **options)
    found = np.concatenate([clipped, np.empty_like(clipped[:, :1])], axis=1)
    beside, rule = (frames, valid) if noise is None else (noise, noise_valid)
    flat, spread = in_order(frames), in_order(beside)
    for number in range(len(frames)):
        count, left_out = clipped[number, 3], found[number, -1]
        count_left_out(flat[number], valid, spread[number], rule, entries.starts, entries.pixels, entries.shares, count, left_out)
    return found


@kernel
def count_left_out(frame, valid, noise, noise_valid, starts, pixels, shares, count, left_out):  # type: ignore[no-untyped-def]
    """left_out (ring,): the shares of pixels of a frame (pixel,) with a reading, and a variance, less those that are counted; rounding
    goes to 0."""
    known = np.empty(len(frame), np.bool_)  # first in order: rings jump through it, and it is a quarter as large
    for pixel in range(len(frame)):
        known[pixel] = not (np.isnan(reading(frame[pixel], valid)) | np.isnan(reading(noise[pixel], noise_valid)))
    for ring in range(len(starts) - 1):
        total = 0.0
        for k in range(starts[ring], starts[ring + 1]):
            total += shares[k] if known[pixels[k]] else 0.0
        rest = total - count[ring]
        left_out[ring] = rest if rest > 1e-6 * total else 0
