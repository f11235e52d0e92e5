"""Frames that a thick sensor has blurred."""

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detcal.sensor import SensorPSF

FRAMES_A_BLOCK = 8


def thick_sensor_frames(
    psf: "SensorPSF", entering: NDArray[np.floating] | xr.DataArray, frames: int = 16, *, seed: int = 5
) -> xr.DataArray:
    """What a thick sensor records, lazily, as int32 counts (frame, y, x): Poisson(M·a), and −1 in masked pixels.

    `entering` (y, x) is the mean number of photons that enter each pixel's front in a frame.
    """
    expected = psf.apply(entering)[0].data
    numbers = da.arange(frames, chunks=FRAMES_A_BLOCK)
    stack = da.blockwise(
        count_photons, "fyx", numbers, "f", expected, "yx", seed=seed, dtype=np.int32, meta=np.empty((0, 0, 0), np.int32), concatenate=True
    )
    return xr.DataArray(stack, dims=("frame", "y", "x"), name="frames", attrs={"units": "counts"})


def count_photons(numbers: NDArray[np.int64], expected: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """Some frames, each from its own random stream."""
    masked = np.isnan(expected)
    means = np.where(masked, 0, expected)
    frames = [np.random.default_rng([seed, int(number)]).poisson(means) for number in numbers]
    return np.where(masked, -1, frames).astype(np.int32)
