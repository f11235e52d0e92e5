"""Frames without zingers, lazily."""

from typing import Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of
from detcal.frames.graph import map_frames, whole_frames
from detcal.frames.readings import Frames
from detcal.frames.single import images_too
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response.zingers import replace_zingers, replace_zingers_in_time

Method = Literal["spatial", "temporal"]


@images_too
def remove_zingers(frames: ArrayLike, *, method: Method = "spatial", threshold: float = 8.0, dummy: float | None = None) -> xr.DataArray:
    """Replace each reading that stands out from its neighbours, or from the pixel's own readings before and after, lazily.

    For raw frames, before they are corrected: a gamma ray that hits the detector makes a few pixels far too bright, in one frame.

    Parameters
    ----------
    frames : (frame, y, x), or an image (y, x), which gives one
        Of any integer or real type, counts.
    method : "spatial" or "temporal"
        "spatial": a reading is compared with the median of its eight neighbours, which takes the place of a zinger. "temporal": with the
        larger of what the pixel read one frame before and one frame after; that, and what pixels around have more than theirs, as when the
        beam has brightened, takes its place. For more zingers, the one after the other.
    threshold : standard deviations
        By which a zinger exceeds what it is compared with. A standard deviation is 1.4826 times the median distance of the neighbours (of
        what eight pixels have more, two pixels away) from their median, and at least 1 where the reading is a whole number, as counts are.
    dummy : number, optional
        Stands for "no reading", in place of all other flags.

    Returns
    -------
    DataArray (frame, y, x), float32
        In the units of the frames. NaN: not measured, by the rule of `detcal.frames.valid`: the largest number of 16 bits and more is none.

    Raises
    ------
    InputError
        A threshold that is not positive, frames of less than 2 × 2 pixels, or a single one that is to be compared with others.

    Notes
    -----
    Eight neighbours tell the noise to a half or so: at the default 1 in 500 readings of plain noise is replaced (1 in 2000 at 12), high
    ones by what they might have been, which lowers the mean by less than a hundredth of a standard deviation. In the outermost rows and
    columns, where the image is taken to go on mirrored, it is 1 in 60.

    A line that is one pixel wide, and a corner that is sharp to the pixel, have fewer than four neighbours like themselves: "spatial" takes
    them for zingers, but does not find a hit of many pixels side by side. "temporal" keeps what stands still, and an edge that moves, and
    finds hits of up to 4 × 4 pixels; what is bright, and no wider than it moves from frame to frame, it takes for a zinger. Hits of one
    pixel in two frames that follow each other hide each other. The first and the last frame are compared with the next two: what is bright
    there, and moves away, is taken for a zinger.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import remove_zingers
    >>> frames = np.full((3, 5, 5), 100)
    >>> frames[:, :, 1] = 300  # a bright line, one pixel wide
    >>> frames[1, 2, 3] = 5000
    >>> cleaned = remove_zingers(frames, method="temporal")
    >>> float(cleaned[1, 2, 3]), float(cleaned.max())
    (100.0, 300.0)
    """
    if method not in get_args(Method):
        raise InputError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    if isinstance(threshold, bool | str) or not 0 < threshold < np.inf:
        raise InputError(f"expected a positive threshold, got {threshold!r}")
    stack = as_stack(frames)
    if min(stack.shape[1:]) < 2:
        raise InputError(f"expected frames of at least 2 × 2 pixels, whose neighbours can be compared, got {stack.shape[1:]}")
    if method == "temporal" and len(stack) < 2:
        raise InputError('expected at least 2 frames, of which readings can be compared, got 1: say method = "spatial"')
    stack, valid = find_readings(stack, dummy=dummy)
    kernel, beside = (replace_zingers, []) if method == "spatial" else (replace_zingers_in_time, frames_beside(whole_frames(stack)))
    options = {"valid": valid, "threshold": float(threshold)}
    return map_frames(kernel, stack, options, stacks=beside, name=stack.name, attrs=attributes_of(stack, {}))


def frames_beside(blocks: da.Array) -> list[da.Array]:
    """The frame before each block and the one after it, a block each; before the first frame comes the second, and so at the end.

    They are copies: the blocks that they are of may be forgotten.
    """
    single = {"chunks": (1, *blocks.chunks[1:]), "dtype": blocks.dtype, "meta": np.empty((0, 0, 0), blocks.dtype)}
    first, last = (da.map_blocks(copy_of, blocks, place, **single) for place in (0, -1))
    return [da.concatenate([blocks[1:2], last[:-1]]), da.concatenate([first[1:], blocks[-2:][:1]])]


def copy_of(block: Frames, place: int) -> Frames:
    """One frame of a block, as a block."""
    return block[place][None].copy()
