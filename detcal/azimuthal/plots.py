"""Figures of frames with their rings, and of profiles."""

import json
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.profiles import as_bins
from detcal.azimuthal.units import in_unit
from detcal.display import limits_of
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.images import one_image
from detcal.frames.readings import readings
from detcal.frames.stack import as_stack_of
from detcal.frames.valid import as_mask, find_readings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 8  # of a stack, evenly spaced
RINGS_SIDE = 512  # pixels: radii are thinned to so many a side before lines are drawn along them
DARKEST, BRIGHTEST = 1.0, 99.5  # percentiles that are black and white
MASK_COLOUR = "tab:red"


def plot_profiles(profiles: xr.Dataset | xr.DataArray, *, unit: str | None = None, log_scale: bool = False) -> "Figure":
    """Draw profiles as lines, and those of a stack also as an image, radius along it and frames from top to bottom.

    Parameters
    ----------
    profiles : (frame, radial), (radial,), (frame, azimuthal) or (azimuthal, radial)
        As `integrate`, or any other function of these gives them: of a Dataset the intensity, with its standard error as a band where it
        is known. Of a 2-D integration one frame, as profiles.isel(frame=0): an image, radius along it and azimuth from bottom to top.
    unit
        Of the radius in the figure: "q_nm^-1", "2th_deg", … as for `build_bins`, but not one in the detector's plane or a logarithm.
        By default that of the profiles.
    log_scale
        Intensities on a logarithmic scale.

    Returns
    -------
    matplotlib Figure
        Of a stack the lines of up to eight frames, evenly spaced. Where nothing was measured, there is a gap.

    Raises
    ------
    InputError
        What are no profiles, the cakes of several frames, a unit that theirs cannot be shown in, or no wavelength for it.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, integrate, plot_profiles
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)), wavelength=1e-10)
    >>> profiles = integrate(np.random.default_rng(0).poisson(50, (30, 20, 20)), build_bins(geometry, npt=9))
    >>> figure = plot_profiles(profiles, unit="2th_deg")
    >>> figure.savefig("profiles.png")
    """
    from matplotlib import pyplot  # here, because workers need not carry it
    from matplotlib.ticker import MaxNLocator

    intensity, error = profiles_and_errors(profiles)
    along = str(intensity.dims[-1])
    line, label = axis_of(intensity, along, unit)
    values = np.atleast_2d(np.asarray(intensity.values, float))
    several = len(values) > 1
    cake = intensity.dims == ("azimuthal", "radial")
    height = 3.5 * (1 + (several and not cake))
    figure, axes = pyplot.subplots(1 + (several and not cake), 1, figsize=(7, height), layout="constrained", squeeze=False, sharex=True)
    if not cake:
        draw_lines(axes[0, 0], line, values, error, intensity)
    if several:
        draw_image(axes[-1, 0], line, values, intensity, log_scale)
        axes[-1, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    if not cake and log_scale:
        axes[0, 0].set_yscale("log", nonpositive="mask")
    axes[-1, 0].set_xlabel(label)
    return figure


def profiles_and_errors(profiles: Any) -> tuple[xr.DataArray, NDArray[Any] | None]:
    """Intensities (line, place), or (place,), in memory, and their standard errors (line, place), if they are known."""
    found = profiles.get("intensity") if isinstance(profiles, xr.Dataset) else profiles
    if not isinstance(found, xr.DataArray) or not {"radial", "azimuthal"} & set(map(str, found.dims)):
        came = type(profiles).__name__ + (f" of {', '.join(map(str, profiles))}" if isinstance(profiles, xr.Dataset) else "")
        raise InputError(f"expected profiles, as integrate gives them, got {came}")
    order = [dim for dim in ("frame", "azimuthal", "radial") if dim in found.dims]
    if len(order) == 3 and found.sizes["frame"] == 1:
        found, order = found.isel(frame=0), order[1:]
    if len(order) != found.ndim or len(order) > 2:
        some = ", ".join(f"{dim}=0" for dim in found.dims if dim not in ("azimuthal", "radial"))
        raise InputError(f"expected the profiles of a stack, or one frame of a 2-D integration, got {dict(found.sizes)}: take isel({some})")
    error = None
    if isinstance(profiles, xr.Dataset) and "sem" in profiles and "radial" in order and "azimuthal" not in order:
        error = np.atleast_2d(profiles["sem"].transpose(*order).values)
    attrs = dict(getattr(profiles, "attrs", {})) | dict(found.attrs)
    return found.transpose(*order).compute().assign_attrs(attrs), error


def axis_of(profiles: xr.DataArray, along: str, unit: str | None) -> tuple[NDArray[np.float64], str]:
    """Where the places of a profile lie, and what to write below them."""
    if along not in profiles.coords:
        raise InputError(f"expected profiles with a coordinate {along}, got {', '.join(map(str, profiles.coords)) or 'none'}")
    line = profiles.coords[along]
    if along == "azimuthal":
        return np.asarray(line.values, float), "azimuth (°)"
    own = str(line.attrs.get("units"))
    wanted = own if unit is None else str(unit)
    return in_unit(line.values, own, wanted, wavelength_of(profiles.attrs.get("geometry"))), words_for(wanted)


def draw_lines(axis: "Axes", line: NDArray[Any], values: NDArray[Any], error: NDArray[Any] | None, profiles: xr.DataArray) -> None:
    """Up to MOST_LINES of the profiles."""
    from matplotlib import colormaps

    some = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_LINES)).round().astype(int))
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(some)))
    for number, colour in zip(some, colours, strict=True):
        axis.plot(line, values[number], color=colour, linewidth=1, label=f"frame {number}")
        if error is not None:
            low, high = values[number] - error[number], values[number] + error[number]
            axis.fill_between(line, low, high, color=colour, alpha=0.25, linewidth=0)
    if len(values) > 1:
        axis.legend(fontsize="small", ncols=2)
    axis.set_ylabel(with_unit("intensity", profiles))


def draw_image(axis: "Axes", line: NDArray[Any], values: NDArray[Any], profiles: xr.DataArray, log_scale: bool) -> None:
    """All profiles below each other; of a 2-D integration the azimuth upwards."""
    cake = profiles.dims[0] == "azimuthal"
    beside = np.asarray(profiles["azimuthal"].values, float) if cake else np.arange(len(values), dtype=float)
    known = np.isfinite(line)  # angles that there are not
    rows = edges_of(beside)
    drawn = axis.pcolormesh(edges_of(line[known]), rows, values[:, known], norm=scale_of(values, log_scale), rasterized=True)
    axis.set_ylabel("azimuth (°)" if cake else "frame")
    if not cake:
        axis.set_ylim(rows[-1], rows[0])
    axis.figure.colorbar(drawn, ax=axis, label=with_unit("intensity", profiles), extend="both")


def edges_of(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bins around some places end: half way to the next ones."""
    if len(centres) < 2:
        return np.concatenate([centres - 0.5, centres + 0.5])
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def plot_frame(
    frame: ArrayLike,
    bins: AzimuthalBins,
    *,
    mask: ArrayLike | None = None,
    unit: str | None = None,
    rings: int | Sequence[float] = 8,
    log_scale: bool = True,
    dummy: float | None = None,
) -> "Figure":
    """Draw a frame with rings of equal radius, and what is masked in red: it shows whether the beam's centre is right.

    Parameters
    ----------
    frame : (y, x)
        Counts, or a stack of one frame. Flagged numbers (see `detcal.frames.valid`) are white, and those that have no logarithm.
    bins
        From `build_bins`. Pixels that are in none of them are red.
    mask : (y, x) bool, optional
        More pixels that are red: those of `find_hot_pixels`, or of `outlier_mask`, say.
    unit
        Of the rings: as for `plot_profiles`. By default that of the bins.
    rings
        About how many, at round numbers; or at which radii, those of a calibrant's lines, say.
    log_scale
        Counts on a logarithmic scale.
    dummy
        As for `integrate`.

    Returns
    -------
    matplotlib Figure
        The first row at the top.

    Raises
    ------
    InputError
        A frame or mask of another shape, several frames, a unit that the bins' cannot be shown in, no wavelength for it, or no ring.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, plot_frame
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)), wavelength=1e-10)
    >>> figure = plot_frame(np.random.default_rng(0).poisson(50, (20, 20)), build_bins(geometry, npt=9), unit="2th_deg")
    >>> figure.savefig("frame.png")
    """
    from matplotlib import pyplot  # here, because workers need not carry it
    from matplotlib.colors import ListedColormap

    stack = as_stack_of(as_bins(bins).shape, "bins", one_image(frame, "a frame"), "a frame")
    stack, valid = find_readings(stack, dummy=dummy, detector=bins.detector_dummy)
    values = readings(np.asarray(stack.values[0]), valid)
    red = np.asarray(as_mask(mask, bins.shape, "bins")) | in_no_ring(bins)
    wanted = bins.unit if unit is None else str(unit)
    radius = in_unit(bins.radius.values, bins.unit, wanted, wavelength_of(bins.geometry))

    height, width = bins.shape
    figure, axis = pyplot.subplots(figsize=(7, 1 + 5.2 * min(2.0, max(0.4, height / width))), layout="constrained")
    drawn = axis.imshow(values, cmap="gray", norm=scale_of(values[~red], log_scale), origin="upper")
    axis.imshow(np.where(red, 1.0, np.nan), cmap=ListedColormap([MASK_COLOUR]), alpha=0.6, origin="upper", interpolation="nearest")
    draw_rings(axis, radius, rings, wanted)
    axis.set(xlabel="x (px)", ylabel="y (px)", title=f"rings of {words_for(wanted)}; {int(red.sum())} of {red.size} pixels masked")
    figure.colorbar(drawn, ax=axis, label=with_unit("signal", stack), extend="both")
    return figure


def in_no_ring(bins: AzimuthalBins) -> NDArray[np.bool_]:
    """The pixels that are in none of the bins."""
    alone = np.ones(bins.norm.size, np.bool_)
    alone[bins.indices.values] = False
    return alone.reshape(bins.shape)


def draw_rings(axis: "Axes", radius: NDArray[np.float64], rings: int | Sequence[float], unit: str) -> None:
    """Lines of equal radius, each with its number."""
    levels = levels_of(radius, rings)
    step = -(-max(radius.shape) // RINGS_SIDE)
    y, x = (np.arange(0, size, step) for size in radius.shape)
    lines = axis.contour(x, y, radius[::step, ::step], levels=levels, colors="tab:cyan", linewidths=0.7)
    axis.clabel(lines, fontsize="small", fmt=lambda level: f"{level:.4g}{'°' if unit == '2th_deg' else ''}")


def levels_of(radius: NDArray[np.float64], rings: int | Sequence[float]) -> NDArray[np.float64]:
    """The radii to draw, rising.

    Raises
    ------
    InputError
        None, or none that is on the detector.
    """
    from matplotlib.ticker import MaxNLocator

    least, most = float(np.nanmin(radius)), float(np.nanmax(radius[np.isfinite(radius)], initial=0))
    try:
        given: Any = np.unique(np.asarray(rings, float).ravel())
    except (TypeError, ValueError):
        given = np.empty(0)
    if isinstance(rings, Integral):
        given = MaxNLocator(int(rings), steps=[1, 2, 2.5, 5, 10]).tick_values(least, most) if int(rings) > 0 else np.empty(0)
    inside: NDArray[np.float64] = given[(given > least) & (given < most)]
    if not inside.size:
        raise InputError(f"expected a number of rings, or radii from {least:.4g} to {most:.4g}, got {rings!r}")
    return inside.astype(np.float64)


def scale_of(values: NDArray[Any], log_scale: bool) -> Any:
    """How numbers become colours, from one percentile to another."""
    from matplotlib.colors import LogNorm, Normalize

    if log_scale and (values > 0).any():
        low, high = limits_of(values[values > 0], DARKEST, BRIGHTEST)
        return LogNorm(max(low, high * 1e-6), high, clip=False)
    return Normalize(*limits_of(values, DARKEST, BRIGHTEST))


def wavelength_of(geometry: Any) -> float | None:
    """What a geometry says of it, as bins and profiles keep it."""
    return json.loads(geometry).get("Wavelength") if isinstance(geometry, str) else None


NAMES = {"2th": "2θ", "q": "q", "s": "s", "d": "d", "r": "r", "d*2": "1/d²"}
SIGNS = {"deg": "°", "A": "Å", "A^-1": "Å⁻¹", "nm^-1": "nm⁻¹", "nm^-2": "nm⁻²", "A^-2": "Å⁻²", "None": ""}


def words_for(unit: str) -> str:
    """A unit as it is written below an axis."""
    name, _, of = unit.rpartition("_")
    sign = SIGNS.get(of, of)
    return f"{NAMES.get(name, name)} ({sign})" if sign else NAMES.get(name, name)


def with_unit(name: str, data: xr.DataArray) -> str:
    """A name with the unit of what it is."""
    unit = data.attrs.get("units")
    return f"{name} ({unit})" if unit else name
