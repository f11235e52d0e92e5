"""Frames without zingers, lazily."""

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of
from detcal.frames.graph import map_frames
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings, recorded_dtype
from detcal.response.zingers import replace_zingers


def remove_zingers(frames: ArrayLike, *, threshold: float = 8.0, dummy: float | None = None) -> xr.DataArray:
    """Put the median of its eight neighbours in place of each reading that stands out from them, lazily.

    For raw frames, before they are corrected: a gamma ray that hits the detector makes a few pixels far too bright.

    Parameters
    ----------
    frames : (frame, y, x)
        Of any integer or real type, counts.
    threshold : standard deviations
        A reading is a zinger if it exceeds the median of its neighbours by more than this many. A standard deviation is 1.4826 times the
        median distance of the neighbours from their median, and at least 1 for integers.
    dummy : number, optional
        Stands for "no reading", in place of all other flags.

    Returns
    -------
    DataArray (frame, y, x), float32
        In the units of the frames. NaN: not measured.

    Raises
    ------
    InputError
        A threshold that is not positive, or frames of less than 2 × 2 pixels.

    Notes
    -----
    Eight neighbours tell the noise to a half or so: at the default 1 in 500 readings of plain noise is replaced (1 in 2000 at 12), high
    ones by what they might have been, which lowers the mean by less than a hundredth of a standard deviation. At edges in the image the
    neighbours differ more, and less is replaced; but a corner that is sharp to the pixel has three neighbours like itself alone.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import remove_zingers
    >>> frames = np.full((1, 5, 5), 100)
    >>> frames[0, 2, 2] = 5000
    >>> float(remove_zingers(frames).max())
    100.0
    """
    if isinstance(threshold, bool | str) or not 0 < threshold < np.inf:
        raise InputError(f"expected a positive threshold, got {threshold!r}")
    stack = as_stack(frames)
    if min(stack.shape[1:]) < 2:
        raise InputError(f"expected frames of at least 2 × 2 pixels, whose neighbours can be compared, got {stack.shape[1:]}")
    rounding = 1.0 if recorded_dtype(stack).kind in "iu" else 0.0
    stack, valid = find_readings(stack, dummy=dummy)
    options = {"valid": valid, "threshold": float(threshold), "rounding": rounding}
    return map_frames(replace_zingers, stack, options, name=stack.name, attrs=attributes_of(stack, {}))
