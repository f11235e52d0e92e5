"""Distortion maps as Fit2D's .spline files: displacements along x and y as bicubic B-splines."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy  # of which an attribute is imported when it is asked for
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError, OutputError
from detcal.stores.sources.detector_files import DEGREE

A_LINE = 5  # numbers
MOST_CORNERS = 200  # along each axis, of those that a spline is fitted to
FITTED_PX = 1e-3  # rms, to which a spline is fitted
OFF_PX = 0.02  # that it may miss a corner by


def check_map(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what is no distortion map.

    Raises
    ------
    InputError
        As said.
    """
    if dataset.attrs.get("detcal_type") != "DistortionMap":
        raise InputError(f"a {suffix} holds a DistortionMap, not {', '.join(map(str, dataset))}")


def export_spline(dataset: xr.Dataset, path: Path) -> None:
    """A map as a spline; its mask has no place there.

    Raises
    ------
    OutputError
        The map is no smooth one: a spline would miss it.
    """
    size = np.array(dataset.attrs["pixel_size_m"], float)
    corners = np.asarray(dataset["corners_m"], np.float64) / size
    y, x = (np.arange(length, dtype=np.float64) for length in corners.shape[:2])
    known = corner_of_any(~np.asarray(dataset["mask"], np.bool_))
    splines = [fitted(path, x, y, moved, known) for moved in (corners[..., 1] - x, corners[..., 0] - y[:, None])]
    lines = [
        "SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS", "", "  VALID REGION", *in_lines(np.array([0.0, 0.0, x[-1], y[-1]])), "",
        "  GRID SPACING, X-PIXEL SIZE, Y-PIXEL SIZE", *in_lines(np.array([1.0, size[1] * 1e6, size[0] * 1e6])), "",
    ]  # fmt: skip
    for name, spline in zip(("X-DISTORTION", "Y-DISTORTION"), splines, strict=True):
        knots_x, knots_y = spline.get_knots()
        parts = (*in_lines(knots_x), *in_lines(knots_y), *in_lines(spline.get_coeffs()))
        lines += [f"  {name}", f"{len(knots_x):6d}{len(knots_y):6d}", *parts, ""]
    path.write_text("\n".join(lines))


def fitted(
    path: Path, x: NDArray[np.float64], y: NDArray[np.float64], moved: NDArray[np.float64], known: NDArray[np.bool_]
) -> "scipy.interpolate.RectBivariateSpline":
    """The spline with few knots that has the displacements (y, x) of a map."""
    some_x, some_y = (np.unique(np.linspace(0, len(line) - 1, min(len(line), MOST_CORNERS)).astype(int)) for line in (x, y))
    wanted = moved[np.ix_(some_y, some_x)].T
    spline = scipy.interpolate.RectBivariateSpline(x[some_x], y[some_y], wanted, kx=DEGREE, ky=DEGREE, s=wanted.size * FITTED_PX**2)
    off = np.abs(spline(x, y).T - moved)[known].max(initial=0)
    if off > OFF_PX:
        raise OutputError(
            f"cannot write {path.suffix or 'a spline'}: a bicubic spline misses the map by up to {off:.2g} pixels, more than {OFF_PX}; "
            "save it to .nxs, which pyFAI opens, or to .zarr"
        )
    return spline


def corner_of_any(measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Corners (y + 1, x + 1) of the pixels (y, x) that are measured."""
    found = np.zeros((measured.shape[0] + 1, measured.shape[1] + 1), np.bool_)
    for i in (0, 1):
        for j in (0, 1):
            found[i : i + measured.shape[0], j : j + measured.shape[1]] |= measured
    return found


def in_lines(numbers: NDArray[np.float64]) -> Iterator[str]:
    """Numbers of 14 characters, five a line."""
    for start in range(0, len(numbers), A_LINE):
        yield "".join(f"{number:14.7E}" for number in numbers[start : start + A_LINE])
