"""Figures of the response fit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.frames.arrays import ArrayLike
from detcal.response.operations import Boundary
from detcal.response.samples import fit_samples, sample_pixels

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
    options: dict[str, Any] = {"sigma": sigma, "boundary": boundary, "truncate": truncate}
    samples = sample_pixels(sweep, dark, mask=mask, n_pixels=n_pixels, pixels=pixels, seed=seed, order=order, **options)
    return draw_pixels(samples.compute(), cutoff, order, intercept)


def draw_pixels(samples: xr.Dataset, cutoff: float, order: int, intercept: bool) -> "Figure":
    """The panels of `plot_pixel_calibrations`."""
    from matplotlib import pyplot  # here, because workers that only fit need not carry it

    fitted = fit_samples(samples, cutoff, order, intercept)
    count = samples.sizes["pixel"]
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    figure, axes = pyplot.subplots(rows, columns, figsize=(3 * columns, 2.8 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for pixel, axis in enumerate(axes.flat[:count]):
        sample = samples.isel(pixel=pixel)
        draw_pixel(axis, sample.measured.values, sample.expected.values, cutoff, [image[pixel] for image in fitted])
        axis.set_title(f"row {sample.row.item()}, column {sample.column.item()}", fontsize="medium")
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
