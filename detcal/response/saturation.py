"""What readings at the end of the detector's range spoil: a sweep that runs into it would bend all gains. ndarrays in, ndarrays out."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.response.smoothing import Image, smooth

MOST_SHARE = 2e-3  # of saturated readings in what a pixel is expected to read: these are missing from it, and were its largest
NEAR = 0.75  # of the limit: a reading at the limit amid ones that are darker than this is a mark, or a hot pixel

# Where converters end, of so many bits: as they are, or shifted to the upper end of 16 bits. Frames may hold them in a wider type.
BITS = range(10, 17)
FULL_SCALES = {float((2**bits - 1) << shift) for bits in BITS for shift in (0, 16 - bits)}
LEAST_PILE = 10  # readings that have to sit at a full scale
LEAST_PART = 1e-4  # of a frame's readings, that have to
BELOW = 1e-3  # of a full scale: so far below it there have to be fewer of them


def find_pile(frame: NDArray[Any], signal: Image) -> float | None:
    """The full scale of a converter at which the readings of a frame pile up, if they do: it clips them. Where the signal is NaN is none.

    A single frame says it, whatever was in those before it. Elsewhere large readings become fewer and fewer towards the largest one.
    """
    values = np.where(np.isnan(signal), frame.dtype.type(0), frame)
    largest = float(values.max())
    if largest not in FULL_SCALES:
        return None
    there = int(np.count_nonzero(values == largest))
    under = int(np.count_nonzero(values >= largest * (1 - BELOW))) - there
    return largest if there >= max(LEAST_PILE, LEAST_PART * frame.size, under) else None


class Saturation:
    """What saturated readings of a frame spoil, with the smoothing that is used for it."""

    def __init__(self, limit: float | None, sought: bool, sigma: float, boundary: str, truncate: float) -> None:
        self.limit = limit
        self.sought = sought
        self.options = (sigma, boundary, truncate)

    def limit_of(self, frame: NDArray[Any], signal: Image) -> float | None:
        """From which number on readings of the frame are saturated. Those at a pile that nobody named lose their signal."""
        pile = find_pile(frame, signal) if self.sought else None
        if pile is None:
            return self.limit
        warnings.warn(
            f"readings pile up at {pile:g}, where a converter ends: from there on they are taken as saturated. Give saturation = {pile:g}, "
            "or a larger number if they are none",
            UserWarning,
            stacklevel=2,
        )
        signal[frame >= pile] = np.nan
        return pile

    def spoilt(self, frame: NDArray[Any], dark: Image, expected: Image, limit: float | None) -> NDArray[np.bool_] | None:
        """Where more than a few of the readings that count for a pixel's expected one are saturated; None: nowhere."""
        if limit is None:
            return None
        full = frame >= limit
        if not full.any():
            return None
        full &= ~(expected < NEAR * (np.float32(limit) - dark))  # where all are saturated, nothing is expected: NaN
        full &= np.isfinite(dark)
        return smooth(full.astype(np.float32), *self.options) > MOST_SHARE if full.any() else None
