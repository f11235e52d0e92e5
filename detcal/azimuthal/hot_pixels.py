"""Pixels that are outliers in most frames of a stack: hot, or dead, whatever is on the detector."""

from functools import partial
from numbers import Real
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from detcal.azimuthal.blocks import outlier_block
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.darks import take_off
from detcal.azimuthal.operations import ErrorModel
from detcal.azimuthal.profiles import as_bins, check_clipping, clipping_task, warn_of_split_pixels
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import fold_blocks, map_frames
from detcal.frames.maps import over_maps
from detcal.frames.readings import Valid, values_and_known

NO_READING, KEPT, OUTLIER = range(3)
HOT = {"long_name": "an outlier in its ring in most frames"}


@over_maps()
def find_hot_pixels(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    share: float = 0.5,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    darks: ArrayLike | None = None,
    dummy: float | None = None,
    partial_sums: int | None = None,
) -> xr.DataArray:
    """The pixels that `sigma_clip` leaves out of most frames (y, x) bool, lazily: hot ones, and dead ones that read too little.

    A spot of the sample that stays where it is in most frames is such a pixel too: take frames between which the sample moves.

    Parameters
    ----------
    frames, bins, threshold, max_iterations, error_model, variance, darks, dummy
        As for `outlier_mask`.
    share
        Of the frames in which a pixel has a reading: in more of them it is an outlier. From 0, in any frame, to below 1.
    partial_sums : int, optional
        How many partial sums may exist at once; each holds two images of counts. The result does not depend on it.
        Default: one more than there are threads, or threads of workers on a cluster.

    Returns
    -------
    DataArray (y, x) bool
        hot_pixels, as a mask that any operation takes. False in pixels that never have a reading, or are in no ring.

    Raises
    ------
    InputError
        As `sigma_clip`; a share that is none, or partial_sums below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, find_hot_pixels
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frames = np.random.default_rng(0).normal(50, 1, (5, 20, 20))
    >>> frames[:, 3, 4] = 9999
    >>> frames[2, 8, 9] = 9999
    >>> np.argwhere(find_hot_pixels(frames, bins).values).tolist()
    [[3, 4]]
    """
    check_clipping(threshold, max_iterations, error_model, variance)
    warn_of_split_pixels(as_bins(bins))
    if not isinstance(share, Real) or not 0 <= share < 1:
        raise InputError(f"expected a share of the frames from 0 to below 1, got {share!r}")
    if partial_sums is not None and partial_sums < 1:
        raise InputError(f"expected partial_sums of at least 1, got {partial_sums}")
    stack, noise, options = clipping_task(frames, bins, error_model, variance, dummy)
    kernel, stack, noise, options = take_off(look_at_block, stack, bins, noise, options, darks)
    calibration = {"threshold": threshold, "most": max_iterations, **options}
    looked_at = map_frames(kernel, stack, calibration, stacks=noise, dtype=np.uint8)
    counts = fold_blocks(looked_at.data, add_counts, np.add, partial_sums=partial_sums)
    found = delayed(partial(above_share, share=float(share)), pure=True)(counts, bins.indices.data)
    return xr.DataArray(da.from_delayed(found, bins.shape, np.bool_), dims=("y", "x"), name="hot_pixels", attrs=HOT)


def look_at_block(
    frames: NDArray[Any], noise: NDArray[Any] | None = None, *, valid: Valid, noise_valid: Valid, **options: Any
) -> NDArray[np.uint8]:
    """What each pixel of a block is: without a reading, kept, or an outlier."""
    found = np.where(outlier_block(frames, noise, valid=valid, noise_valid=noise_valid, **options), np.uint8(OUTLIER), np.uint8(KEPT))
    for number, frame in enumerate(frames):
        found[number][~values_and_known(frame, valid)[1]] = NO_READING
        if noise is not None:
            found[number][~values_and_known(noise[number], noise_valid)[1]] = NO_READING
    return found


def add_counts(so_far: NDArray[np.uint32] | None, block: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """In how many frames each pixel had a reading, and in how many it was an outlier (2, y, x)."""
    counts = np.zeros((2, *block.shape[1:]), np.uint32) if so_far is None else so_far.copy()
    for frame in block:
        counts[0] += frame != NO_READING
        counts[1] += frame == OUTLIER
    return counts


def above_share(counts: NDArray[np.uint32], pixels: NDArray[np.int32], share: float) -> NDArray[np.bool_]:
    """The pixels of rings that are outliers in more than a share of their readings."""
    read, outliers = counts
    in_ring = np.zeros(read.size, np.bool_)
    in_ring[pixels] = True
    found: NDArray[np.bool_] = (outliers > share * read) & in_ring.reshape(read.shape)
    return found
