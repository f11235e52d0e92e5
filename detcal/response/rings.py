"""How much pixels differ from their neighbours in all frames alike, which makes rings in a reconstruction."""

from functools import partial
from typing import Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.averages import average_frames
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings, with_flags

Quantity = Literal["intensity", "attenuation"]
Floats = NDArray[np.float64]


def ring_amplitude(
    frames: ArrayLike, *, quantity: Quantity = "intensity", reach: int = 2, mask: ArrayLike | None = None, dummy: float | None = None
) -> xr.DataArray:
    """Estimate the standard deviation of what distinguishes pixels from their neighbours in all frames alike, lazily.

    A pixel that reads too much in all projections makes a ring. The mean over the frames of each pixel is compared with that of its
    neighbours in the row; the scatter of these differences, of pixels and of noise, is 1.4826 times the median of their absolute values, so
    that edges of the sample and bad pixels hardly count. The means of every second frame and of the others have noise of their own, and
    the pixels in common: by the scatter of their sum and of their difference the noise is taken off,
    amplitude² = (scatter²(a + b) − scatter²(a − b))/4. What is broader than the neighbourhood is not seen, and fine structure of a sample
    that stays in its place is.

    Parameters
    ----------
    frames : (frame, y, x)
        Counts or transmissions, raw or corrected, or attenuations; two frames or more. Rows are along x, across the rotation axis.
    quantity : "intensity" or "attenuation"
        Of intensities (counts, transmissions) differences are relative to the neighbours; those of attenuations are such themselves.
    reach : pixels
        On either side, of the neighbours: more see broader rings, and more of the sample.
    mask : (y, x), optional
        True, or not 0: left out.
    dummy : number, optional
        Stands for "no reading", in place of all other flags.

    Returns
    -------
    DataArray (), float64
        Relative to the beam; 0 where the noise is larger. NaN: nothing was measured. Pixels that were not measured take no part.

    Raises
    ------
    InputError
        Fewer than two frames, a quantity that there is not, a reach below 1, and as `find_readings`.

    References
    ----------
    Rings as stripes of the mean of a sinogram: Vo, Atwood and Drakopoulos, Optics Express 26 (2018) 28396. The robust scatter: Rousseeuw
    and Croux, J. Am. Stat. Assoc. 88 (1993) 1273.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import ring_amplitude
    >>> rng = np.random.default_rng(0)
    >>> pixels = rng.normal(1, 0.03, (64, 64))
    >>> frames = rng.poisson(1000 * pixels, (20, 64, 64))
    >>> round(float(ring_amplitude(frames)), 3)
    0.03
    """
    if quantity not in get_args(Quantity):
        raise InputError(f"expected quantity to be one of {', '.join(get_args(Quantity))}, got {quantity!r}")
    if isinstance(reach, bool) or not isinstance(reach, int | np.integer) or reach < 1:
        raise InputError(f"expected reach as a whole number of pixels from 1, got {reach!r}")
    stack = as_stack(frames)
    if len(stack) < 2:
        raise InputError("expected two frames or more, got one: of a single one, pixels cannot be told from noise")
    stack, valid = find_readings(with_flags(stack, mask=mask), dummy=dummy)
    halves = [average_frames(stack[first::2], valid, "mean") for first in (0, 1)]
    measure = delayed(partial(amplitude_of, reach=int(reach), relative=quantity == "intensity"), pure=True)
    found = da.from_delayed(measure(*halves), (), float)
    return xr.DataArray(found, name="ring_amplitude", attrs={"units": "1", "long_name": "ring amplitude"})


def amplitude_of(first: NDArray[np.float32], second: NDArray[np.float32], *, reach: int, relative: bool) -> Floats:
    """The amplitude (), from the means (y, x) of two halves of the frames."""
    one, other = (differences(np.asarray(half, float), reach, relative=relative) for half in (first, second))
    together, apart = scatter(one + other), scatter(one - other)
    return np.asarray(np.sqrt(np.maximum(together**2 - apart**2, 0)) / 2)


def differences(image: Floats, reach: int, *, relative: bool) -> Floats:
    """What each pixel has more than the mean of its neighbours in the row, scaled to scatter as the pixels do; NaN where there is none."""
    known = ~np.isnan(image)
    number = sums_beside(known.astype(float), reach).round()
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums_beside(np.where(known, image, 0), reach) / number
        found = image / np.where(mean > 0, mean, np.nan) - 1 if relative else image - mean
    return found * np.sqrt(number / (number + 1))  # the mean of n scatters too, by 1/n of a pixel's variance


def sums_beside(image: Floats, reach: int) -> Floats:
    """The sum of the neighbours of each pixel in its row."""
    width = 2 * reach + 1
    return uniform_filter1d(image, width, axis=1, mode="constant") * width - image


def scatter(values: Floats) -> float:
    """A standard deviation that single values do not spoil; NaN of none."""
    known = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(known - np.median(known)))) if known.size else np.nan
