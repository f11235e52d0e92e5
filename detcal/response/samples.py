"""What a few pixels read in each frame of a sweep, and what they should have read; lazily."""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.beside import with_flags_of
from detcal.frames.graph import map_frames
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response import kernels
from detcal.response.alike import as_the_frames
from detcal.response.images import as_dark_image
from detcal.response.options import check_order, check_smoothing


def sample_pixels(
    sweep: Any, dark: Any, *, mask: Any, n_pixels: int, pixels: Any, seed: int, sigma: float, order: int, boundary: str, truncate: float
) -> xr.Dataset:
    """Measured and expected signal (frame, pixel), counts less the dark; rows and columns of the pixels are coordinates.

    Parameters
    ----------
    sweep, dark, mask, n_pixels, pixels, seed, sigma, order, boundary, truncate
        As for `plot_pixel_calibrations`.

    Raises
    ------
    InputError
        As `plot_pixel_calibrations`.
    """
    check_smoothing(sigma, boundary, truncate)
    check_order(order)
    stack = as_stack(sweep, "a sweep")
    shape = stack.shape[1:]
    beside = as_the_frames(stack, {"dark": with_flags_of(stack, dark, "a dark"), "mask": mask})
    places = choose_pixels(shape, n_pixels, pixels, seed)
    stack, valid = find_readings(stack)
    sample = partial(kernels.sample_pixels, places=places, sigma=sigma, boundary=boundary, truncate=truncate, valid=valid)
    both = map_frames(
        sample, stack, images=[as_dark_image(beside.images["dark"], beside.images["mask"], shape)], dims=("frame", "pixel", "signal"),
        sizes={"pixel": len(places), "signal": 2},
    )  # fmt: skip
    coords = {name: ("pixel", line) for name, line in zip(("row", "column"), places.T, strict=True)}
    signals = {name: both[..., number].assign_attrs(units="counts") for number, name in enumerate(("measured", "expected"))}
    return xr.Dataset(signals).assign_coords(coords)


def choose_pixels(shape: tuple[int, ...], n_pixels: int, pixels: Any, seed: int) -> NDArray[Any]:
    """Rows and columns (n, 2) of the pixels that are asked for, or of random ones."""
    height, width = shape
    if pixels is None:
        if not 0 < n_pixels <= height * width:
            raise InputError(f"expected n_pixels of 1 to {height * width}, got {n_pixels}")
        chosen = np.random.default_rng(seed).choice(height * width, n_pixels, replace=False)
        return np.column_stack(np.unravel_index(chosen, (height, width)))
    places = np.atleast_2d(pixels)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iu" or ((places < 0) | (places >= shape)).any():
        raise InputError(f"expected pixels (row, column) inside {tuple(shape)}, got {places.tolist()}")
    return places


def fit_samples(samples: xr.Dataset, cutoff: float, order: int, intercept: bool) -> list[NDArray[np.float32]]:
    """Gain, offset, curvature, gain error and R² (pixel,) of samples that are computed, as `fit_response` finds them."""
    measured, expected = samples.measured.values, samples.expected.values
    sums = np.zeros((kernels.count_planes(order), 1, measured.shape[1]))
    kernels.add_powers(sums, measured[:, None], expected[:, None], 0, cutoff)
    kernels.check_used(int(sums[kernels.N].max()), cutoff)
    return [image[0] for image in kernels.solve(sums, order=order, intercept=intercept)[:5]]
