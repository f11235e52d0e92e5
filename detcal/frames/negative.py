"""Numbers below 0 that are taken as readings though they may be none: where a detector flags them that does not come first, and where
nobody says anything of whole ones. It is said while frames are computed, if there are some.

Frames are not read when a graph is built, and all may have some of their flags elsewhere: in a geometry, say. So each block's first frame
is looked at when the block is there: a detector writes its gaps into every frame.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.frames.flags import Flags
from detcal.frames.graph import map_frames

ADVICE = "dummy = -1, or [-1, -2], say, where frames are opened ([input] of a recipe); or dummy = nan, if all are readings"


def watched(frames: xr.DataArray, numbers: Sequence[int] = ()) -> xr.DataArray:
    """The same frames, lazily, with one warning as they are computed if there are these numbers, or else any, below 0."""
    return map_frames(partial(look, numbers=numbers), frames, whole=False, dtype=frames.dtype, name=frames.name, attrs=frames.attrs)


def look(block: NDArray[Any], *, numbers: Sequence[int]) -> NDArray[Any]:
    """The block as it is."""
    found = [number for number in numbers if len(block) and np.equal(block[0], number).any()]
    if found:
        warnings.warn(
            f"the detector of the geometry flags {found} too, which the frames have: here these are readings, since the frames, or dummy=, "
            f"say that other numbers stand for none. Give all of them, where frames are opened ([input] of a recipe): "
            f"dummy = [..., {', '.join(map(str, found))}]; or dummy = nan, if none does",
            stacklevel=2,
        )
    elif not numbers and len(block) and np.less(block[0], 0).any():
        warnings.warn(f"counts below 0 are taken as readings, since nothing says that they stand for none: give {ADVICE}", stacklevel=2)
    return block


def left_out(flags: Flags, detector: Flags | None) -> list[int]:
    """The numbers below 0 that a detector flags, and the source which comes first does not, as if they were readings."""
    if detector is None or flags == Flags():  # which says that all numbers are readings
        return []
    # of -3 to -1, which pyFAI has of Dectris' -2 and -1, not the first: what lies beyond the dummy is its delta_dummy alone
    numbers = [number for first, last in detector.runs if last < 0 for number in range(round((first + last) / 2), int(last) + 1)]
    return [number for number in numbers if number >= flags.low and not any(first <= number <= last for first, last in flags.runs)]
