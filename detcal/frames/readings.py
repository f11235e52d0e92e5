"""Which numbers of a block are readings, for the kernels of all subjects. ndarrays in, ndarrays out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.generic]
Floats = NDArray[np.float32]
MOST = float(np.finfo(np.float32).max)


class Valid(NamedTuple):
    """Which numbers are readings, all in float32: those from `least` to `most` that are none of flag, flag + 1, … flag + more.

    NaN and infinity are none. A flag of NaN: there is none. Which flags there are, `detcal.frames.valid` says.
    """

    least: float = -MOST
    most: float = MOST
    flag: float = np.nan
    more: float = 0.0

    def within(self, least: float, most: float) -> "Valid":
        """The same of numbers from `least` to `most` alone."""
        # of one type whatever comes, for which kernels are compiled once
        return self._replace(least=float(max(self.least, least)), most=float(min(self.most, most)))

    def below(self, limit: float) -> "Valid":
        """The same of numbers below a limit alone."""
        return self.within(self.least, float(np.nextafter(np.float32(limit), np.float32(-np.inf))))


ALL_NUMBERS = Valid()


def values_and_known(frames: Frames, valid: Valid) -> tuple[Floats, NDArray[np.bool_]]:
    """Frames as float32, and which of their numbers are readings: without a kernel, for what is seldom done."""
    with np.errstate(over="ignore", invalid="ignore"):  # of what float32 does not hold, which is no reading
        values = frames.astype(np.float32)
        above = values - np.float32(valid.flag)
    good = (values >= np.float32(valid.least)) & (values <= np.float32(valid.most))
    if not np.isnan(valid.flag):
        good &= ~((above >= 0) & (above <= np.float32(valid.more)) & (above == np.rint(above)))
    return values, good


def readings(frames: Frames, valid: Valid) -> Floats:
    """Frames as float32, NaN where there is no reading."""
    values, good = values_and_known(frames, valid)
    values[~good] = np.nan
    return values
