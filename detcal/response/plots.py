"""Figures of the response fit."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import whole_frames
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response import kernels
from detcal.response.images import as_dark_image
from detcal.response.operations import Boundary
from detcal.response.options import check_order, check_smoothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_pixel_calibrations(
    sweep: ArrayLike,
    dark: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    n_pixels: int = 9,
    pixels: Sequence[tuple[int, int]] | NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
    sigma: float = 50.0,
    cutoff: float = 300.0,
    order: Literal[1, 2] = 1,
    intercept: bool = False,
    boundary: Boundary = "nearest",
    truncate: float = 4.0,
) -> "Figure":
    """Draw measured against expected signal with the fitted line, for a few pixels.

    Parameters
    ----------
    sweep, dark, mask, sigma, cutoff, order, intercept, boundary, truncate
        As for `fit_response`.
    n_pixels
        How many pixels to draw at random.
    pixels : (n, 2), optional
        Rows and columns of the pixels to draw in place of random ones.
    seed
        Of the random choice.

    Returns
    -------
    matplotlib Figure
        A panel a pixel. Hollow points were below the cutoff and not fitted.

    Raises
    ------
    InputError
        Options or shapes that cannot be used, a pixel outside the frames, fewer than two usable frames.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import plot_pixel_calibrations
    >>> sweep = np.random.default_rng(0).poisson(np.linspace(1000, 9000, 5)[:, None, None], (5, 8, 8))
    >>> figure = plot_pixel_calibrations(sweep, pixels=[(3, 4), (5, 6)], sigma=1.0)
    >>> len(figure.axes)
    2
    """
    check_smoothing(sigma, boundary, truncate)
    check_order(order)
    stack = as_stack(sweep, "a sweep")
    height, width = shape = stack.shape[1:]
    if pixels is None:
        if not 0 < n_pixels <= height * width:
            raise InputError(f"expected n_pixels of 1 to {height * width}, got {n_pixels}")
        chosen = np.random.default_rng(seed).choice(height * width, n_pixels, replace=False)
        places = np.column_stack(np.unravel_index(chosen, shape))
    else:
        places = np.atleast_2d(pixels)
    if ((places < 0) | (places >= shape)).any():
        raise InputError(f"expected pixels (row, column) inside {shape}, got {places.tolist()}")
    stack, valid = find_readings(stack)
    samples = da.blockwise(
        partial(kernels.sample_pixels, places=places, sigma=sigma, boundary=boundary, truncate=truncate, valid=valid), "fps",
        whole_frames(stack), "fyx", as_dark_image(dark, mask, shape), "yx",
        new_axes={"p": len(places), "s": 2}, concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    measured, expected = np.moveaxis(samples.compute(), -1, 0)
    sums = np.zeros((kernels.count_planes(order), 1, len(places)))
    kernels.add_powers(sums, measured[:, None], expected[:, None], cutoff)
    fitted = kernels.solve(sums, order=order, intercept=intercept, cutoff=cutoff)
    return draw_pixels(places, measured, expected, cutoff, [image[0] for image in fitted[:5]])


def draw_pixels(
    places: NDArray[Any], measured: NDArray[Any], expected: NDArray[Any], cutoff: float, fitted: list[NDArray[Any]]
) -> "Figure":
    """The panels of `plot_pixel_calibrations`."""
    from matplotlib import pyplot  # here, because workers that only fit need not carry it

    columns = int(np.ceil(np.sqrt(len(places))))
    rows = int(np.ceil(len(places) / columns))
    figure, axes = pyplot.subplots(rows, columns, figsize=(3 * columns, 2.8 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(places) :]:
        axis.set_axis_off()
    for pixel, axis in enumerate(axes.flat[: len(places)]):
        draw_pixel(axis, measured[:, pixel], expected[:, pixel], cutoff, [image[pixel] for image in fitted])
        axis.set_title(f"row {places[pixel, 0]}, column {places[pixel, 1]}", fontsize="medium")
    figure.supxlabel("measured signal (counts, dark subtracted)")
    figure.supylabel("expected signal (counts, smoothed)")
    return figure


def draw_pixel(axis: "Axes", measured: NDArray[Any], expected: NDArray[Any], cutoff: float, fitted: list[Any]) -> None:
    """One panel: points, line and the gain with its error."""
    gain, offset, curvature, gain_error, r_squared = fitted
    used = expected > cutoff
    axis.locator_params(nbins=4)
    axis.plot(measured[used], expected[used], ".", color="C0")
    axis.plot(measured[~used], expected[~used], "o", color="C0", fillstyle="none", markersize=3)
    line = np.linspace(0, np.nanmax(measured), 50)
    axis.plot(line, offset + (gain + curvature * line) * line, color="C1", linewidth=1)
    axis.text(0.05, 0.95, f"gain {gain:.4f} ± {gain_error:.4f}\nR² {r_squared:.5f}", transform=axis.transAxes, va="top", fontsize="small")
