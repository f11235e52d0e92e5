"""How many pixels of each ring clipping leaves out. ndarrays in, ndarrays out."""

from typing import Any

import numpy as np

from detcal.azimuthal.blocks import clip_block
from detcal.azimuthal.quantile_errors import Entries
from detcal.frames.jit import kernel
from detcal.frames.readings import Floats, Frames, Valid, values_and_known


def clip_and_count(
    frames: Frames, noise: Frames | None = None, *, entries: Entries, valid: Valid, noise_valid: Valid, **options: Any
) -> Floats:
    """As `clip_block`, and behind its quantities one more: how many of the pixels with a reading are not counted there."""
    clipped = clip_block(frames, noise, valid=valid, noise_valid=noise_valid, **options)
    found = np.concatenate([clipped, np.empty_like(clipped[:, :1])], axis=1)
    for number, frame in enumerate(frames):
        known = values_and_known(frame, valid)[1]
        if noise is not None:
            known &= values_and_known(noise[number], noise_valid)[1]
        subtract_count(known.ravel(), entries.starts, entries.pixels, entries.shares, clipped[number, 3], found[number, -1])
    return found


@kernel
def subtract_count(known, starts, pixels, shares, count, left_out):  # type: ignore[no-untyped-def]
    """In left_out (ring,): the shares of pixels with a reading, less a count that they are the more of; rounding goes to 0."""
    for ring in range(len(starts) - 1):
        total = 0.0
        for k in range(starts[ring], starts[ring + 1]):
            if known[pixels[k]]:
                total += shares[k]
        rest = total - count[ring]
        left_out[ring] = rest if rest > 1e-6 * total else 0
