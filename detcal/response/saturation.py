"""What readings at the end of the detector's range spoil: a sweep that runs into it would bend all gains. ndarrays in, ndarrays out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.response.smoothing import Image, smooth

MOST_SHARE = 2e-3  # of saturated readings in what a pixel is expected to read: these are missing from it, and were its largest
NEAR = 0.75  # of the limit: a reading at the limit amid ones that are darker than this is a mark, or a hot pixel


class Saturation:
    """What saturated readings of a frame spoil, with the smoothing that is used for it."""

    def __init__(self, limit: float | None, sigma: float, boundary: str, truncate: float) -> None:
        self.limit = limit
        self.options = (sigma, boundary, truncate)

    def spoilt(self, frame: NDArray[Any], dark: Image, expected: Image) -> NDArray[np.bool_] | None:
        """Where more than a few of the readings that count for a pixel's expected one are saturated; None: nowhere."""
        if self.limit is None:
            return None
        full = frame >= self.limit
        if not full.any():
            return None
        full &= ~(expected < NEAR * (np.float32(self.limit) - dark))  # where all are saturated, nothing is expected: NaN
        full &= np.isfinite(dark)
        return smooth(full.astype(np.float32), *self.options) > MOST_SHARE if full.any() else None
