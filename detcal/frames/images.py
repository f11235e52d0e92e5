"""One image where one is expected: what stands for a pixel's gain, or says that it is bad, is never one of many frames."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.stack import as_stack

MOST_GAIN = 100.0  # gains lie about 1; those of other programs may be in other units, but are no counts
FIT = "; of a beam sweep fit_response makes a response"  # for errors
MOST_VALUES = 256  # different ones in a mask: 0 and 1, 0 and 255, or combinations of a few bits


def one_image(data: Any, name: str, choose: str = "choose one, as frames[0] or open_frames(..., frames=0)") -> xr.DataArray:
    """The only image (y, x) of what is expected to be one; a stack of one frame is an image.

    Parameters
    ----------
    data
        Array (y, x) or (frame, y, x), of numbers or bool.
    name
        What to call it in an error.
    choose
        How the caller can choose a frame, for the error.

    Raises
    ------
    InputError
        A stack of several frames, other dimensions, no numbers.
    """
    given = data if isinstance(data, xr.DataArray) else np.asarray(data)
    stack = as_stack(given.astype(np.uint8) if given.dtype == np.bool_ else given, name)
    if len(stack) > 1:
        raise InputError(f"expected {name}, one image, got a stack of {len(stack)} frames{of_source(stack)}: {choose}")
    return stack[0].astype(given.dtype, copy=False)


def of_source(image: xr.DataArray) -> str:
    """Where an image comes from, for an error."""
    return f" ({image.attrs['source']})" if "source" in image.attrs else ""


def check_gains(gains: xr.DataArray) -> None:
    """Refuse counts where gains are expected.

    Raises
    ------
    InputError
        Integers other than 0 and 1, or a median above 100.
    """
    values = np.asarray(gains)
    found = values[np.isfinite(values)]
    median = float(np.median(found)) if found.size else 1.0
    if (values.dtype.kind in "iu" and ((found != 0) & (found != 1)).any()) or median > MOST_GAIN:
        raise InputError(f"expected gains, reals about 1, got counts{of_source(gains)}: {values.dtype} with a median of {median:.6g}{FIT}")


def mask_of_image(image: xr.DataArray) -> NDArray[np.bool_]:
    """The bad pixels (True) of an image that is not 0 there, NaN included.

    Raises
    ------
    InputError
        Values that are no mask's but counts: fractions, more than 256 different ones, or none that is 0.
    """
    values = np.asarray(image)
    found = values[np.isfinite(values)]
    wrong = "fractions" if values.dtype.kind == "f" and (found != np.floor(found)).any() else ""
    if not wrong and values.dtype.itemsize > 1 and (count := len(np.unique(found))) > MOST_VALUES:
        wrong = f"{count} different values"
    if not wrong and (values != 0).all():
        wrong = "no 0, so that no pixel is left"
    if wrong:
        raise InputError(f"expected a mask, 0 in good pixels and another whole number in bad ones, got {wrong}{of_source(image)}")
    return values != 0
