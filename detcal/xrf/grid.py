"""Building the grid: which fraction of which spectrum belongs to which pixel."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import xarray as xr
from dask import is_dask_collection
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.once import on_first_use
from detcal.xrf.calibration import ScanGrid, check_places, check_positions, check_selected, left_out_of, live_times_of
from detcal.xrf.lag import find_lag
from detcal.xrf.path import Places, along_the_path, lines_run_along, own_step
from detcal.xrf.weights import Frame, drizzle, gaussian, linear, nearest

MOST_PIXELS = 10**9  # so that int32 numbers them
MOST_SPECTRA = 2**31  # so that it numbers these


def build_scan_grid(
    scan: xr.Dataset,
    *,
    step: float | tuple[float, float] | None = None,
    method: Literal["drizzle", "linear", "nearest", "gaussian", "selected"] = "drizzle",
    line_lag: float | Literal["auto"] | None = None,
) -> ScanGrid:
    """How the spectra of a scan make up the pixels of a regular grid.

    Parameters
    ----------
    scan
        From `open_crono` or another reader: positions (spectrum, axis) as x, y, and live_time_s (spectrum,), where it has them; spectra
        are read for `line_lag="auto"` alone, selected (row, column) for "selected" alone. Spectra whose position is no number, whose live
        time is not positive, or that its left_out (spectrum,) names, have no share in any pixel: one warning counts those that are not
        in left_out. They keep their numbers.
    step
        Size of a pixel, or its height and width, in the unit of the positions. By default the distance of the lines, and of the spectra
        along them.
    method
        "drizzle" (Fruchter and Hook, PASP 114, 2002): the box that was swept during an exposure, from halfway to the spectrum before to
        halfway to the next and as high as the lines are apart, is laid over the grid; each pixel gets the share of the counts that its
        share of the area is. Every spectrum that is not left out is used, and every count of it kept.
        "linear": between the corners of Delaunay's triangles; "nearest"; "gaussian": mean with weights of sigma half a pixel. These three
        interpolate at the pixels' centres, and keep no counts.
        "selected": the spectra that the instrument chose for its own grid.
    line_lag
        By how many columns the recorded positions lag behind the true ones, along the path. "auto": from the shift between lines of
        opposite directions, for which all spectra are summed: those over dask are not read here, but when the grid is first asked
        for. None: 0.

    Returns
    -------
    ScanGrid

    Raises
    ------
    InputError
        Positions that are missing, not as many as the spectra, or all equal; no spectrum that is not left out; a grid of more than 10⁹
        pixels; an unknown method; a lag that cannot be found.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import build_scan_grid
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> grid = build_scan_grid(scan, method="selected")
    >>> grid.to_scipy().shape
    (24, 32)
    """
    if method not in {*METHODS, "selected"}:
        raise InputError(f"expected method to be one of {', '.join(METHODS)}, selected, got {method!r}")
    spectra = scan.sizes["spectrum"]
    positions = scan_positions(scan, spectra)
    left_out = left_out_of(scan, positions)
    unit = str(scan.positions.attrs.get("units", "1"))
    positions = known_places(positions, left_out)
    check_places(positions[~left_out])
    if method == "selected":
        return selected_grid(scan, positions, left_out, unit)
    frame = place_grid(positions, step)
    places = frame.pixels(positions[:, ::-1][:, list(frame.order)])
    lay = partial(lay_scan, places, left_out, frame, method=method, unit=unit)
    if line_lag is None or isinstance(line_lag, Real):
        return lay(0.0 if line_lag is None else given_lag(line_lag))
    lag = partial(find_lag_of, lazy_rates(scan, line_lag), places, left_out)
    if is_dask_collection(scan.spectra):
        return on_first_use(ScanGrid, partial(lay_later, lay, lag), spectra=spectra, method=method, unit=unit)
    return lay(lag())


def lay_later(lay: Callable[[float], ScanGrid], lag: Callable[[], float]) -> ScanGrid:
    """The grid of a scan whose lag is found before."""
    return lay(lag())


def lay_scan(places: Places, left_out: NDArray[np.bool_], frame: Frame, columns: float, *, method: str, unit: str) -> ScanGrid:
    """The grid of spectra at some places, which lag so many columns behind."""
    own = own_step(places)
    if columns:
        places = along_the_path(places, columns / float(own[1]), own)
    matrix = METHODS[method](places, np.flatnonzero(~left_out), own, frame)
    return as_grid(matrix, frame, method=method, line_lag=columns, unit=unit)


def scan_positions(scan: xr.Dataset, spectra: int) -> Places:
    """Positions (spectrum, (x, y)) as float64."""
    if "positions" not in scan:
        raise InputError("expected a scan with positions (spectrum, axis), got one without")
    positions = np.asarray(scan.positions.transpose("spectrum", ...).values, np.float64)
    check_positions(positions, spectra)
    return positions[:, :2]


def known_places(positions: Places, left_out: NDArray[np.bool_]) -> Places:
    """Positions (spectrum, (x, y)) of which something is known, else NaN: where several that are left out share one, nobody wrote it."""
    places = np.where(np.isfinite(positions).all(axis=1, keepdims=True), positions, np.nan)
    _, belongs, visits = np.unique(places[left_out], axis=0, return_inverse=True, return_counts=True)
    places[np.flatnonzero(left_out)[visits[belongs.ravel()] > 1]] = np.nan
    return places


def selected_grid(scan: xr.Dataset, positions: Places, left_out: NDArray[np.bool_], unit: str) -> ScanGrid:
    """A pixel is the spectrum that the instrument chose for it."""
    if "selected" not in scan:
        raise InputError('expected a scan with selected (row, column), got one without: take another method than "selected"')
    numbers, there = selected_numbers(scan)
    placed = there & np.isfinite(positions[numbers]).all(axis=-1)
    x, y = (mean_places(positions[numbers, axis], placed, axis) for axis in (0, 1))
    step = tuple(float(np.median(np.abs(np.diff(line)))) if len(line) > 1 else 0.0 for line in (y, x))
    there &= ~left_out[numbers]
    kept = sp.csr_matrix(
        (np.ones(there.sum(), np.float32), numbers[there], np.concatenate([[0], np.cumsum(there)])), shape=(there.size, len(positions))
    )
    return store_grid(kept, y, x, method="selected", step=step, line_lag=0.0, unit=unit)


def mean_places(positions: Places, placed: NDArray[np.bool_], axis: int) -> Places:
    """Mean positions along an axis of a map (row, column) of those that are `placed`; where none is, on the line of the others."""
    counts = placed.sum(axis=axis)
    if not counts.any():
        return np.full(len(counts), np.nan)
    means = np.where(placed, positions, 0).sum(axis=axis) / np.maximum(counts, 1)
    known, rest = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    if rest.size:
        slope = (means[known[-1]] - means[known[0]]) / max(known[-1] - known[0], 1)
        means[rest] = means[known[0]] + slope * (rest - known[0])
    return np.asarray(means)


def selected_numbers(scan: xr.Dataset) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places in the scan of the spectra that the instrument chose (row, column), and which of these are still there.

    It chose them by their numbers in the whole scan, which coord spectrum tells where others have been left out since.
    """
    selected = np.asarray(scan.selected.values)
    own = scan.spectrum.to_index()  # 0, 1, 2 … where it has no coord
    if not own.is_unique:
        raise InputError(
            'expected the spectra of one scan, with numbers that are each there once, for method="selected", got several scans put '
            "together: what their instruments selected is not of one grid; take another method, or make a map of each"
        )
    check_selected(selected, len(own) if np.array_equal(own, np.arange(len(own))) else MOST_SPECTRA)
    numbers = own.get_indexer(selected.ravel().astype(np.int64)).reshape(selected.shape)
    there = numbers >= 0
    if not (there.any(axis=0).all() and there.any(axis=1).all()):
        raise InputError(
            "the selection has rows or columns without a spectrum in this part of the scan: cut them off with .isel(row=…, column=…)"
        )
    return numbers, there


# ------------------------------------------------------------------------------------------------------ where it lies


def place_grid(positions: Places, step: float | tuple[float, float] | None) -> Frame:
    """A grid over all positions, with rows on the lines of the scan.

    Raises
    ------
    InputError
        A step that is not positive, or of which the grid has too many pixels.
    """
    order = (0, 1) if lines_run_along(positions) == 0 else (1, 0)  # of y, x
    places = positions[:, ::-1][:, list(order)]
    sizes = own_step(places) if step is None else given_step(step)[list(order)]
    low, high = np.nanmin(places, axis=0), np.nanmax(places, axis=0)
    numbers = np.round((high - low) / sizes) + 1
    if numbers.prod() > MOST_PIXELS:
        rows, columns = numbers[list(order)]
        height, width = sizes[list(order)]
        tall, wide = (high - low)[list(order)]
        raise InputError(
            f"a grid of {height:g} × {width:g} would have {rows:.0f} × {columns:.0f} = {numbers.prod():.1e} pixels, more than "
            f"{MOST_PIXELS:.0e}: the positions span {tall:g} × {wide:g}; take a larger step"
        )
    corner = (low + high - numbers * sizes) / 2
    return Frame(corner, sizes, (int(numbers[0]), int(numbers[1])), order)


def given_step(step: float | tuple[float, float]) -> Places:
    """Height and width of a pixel."""
    numbers = np.asarray(step)
    sizes = np.broadcast_to(numbers, 2) if numbers.shape in ((), (2,)) and numbers.dtype.kind in "iuf" else np.zeros(2)
    if not ((sizes > 0) & (sizes < np.inf)).all():
        raise InputError(f"expected a positive step, or its height and width, got {step}")
    return sizes.astype(np.float64)


def given_lag(line_lag: float) -> float:
    """A lag, in columns, that was given as a number."""
    if not abs(line_lag) < np.inf:
        raise InputError(f'expected line_lag as a number of columns, or "auto", got {line_lag!r}')
    return float(line_lag)


def lazy_rates(scan: xr.Dataset, line_lag: Any) -> xr.DataArray:
    """Sums of spectra, per second where there are live times, from which a lag is found that is "auto"."""
    if line_lag != "auto":
        raise InputError(f'expected line_lag as a number of columns, or "auto", got {line_lag!r}')
    if "spectra" not in scan:
        raise InputError('expected a scan with spectra for line_lag="auto", got one without: give line_lag= as a number')
    sums: xr.DataArray = scan.spectra.astype(np.float64).sum("energy", min_count=1)
    return sums / live_times_of(scan) if "live_time_s" in scan else sums


def find_lag_of(lazy: xr.DataArray, places: Places, left_out: NDArray[np.bool_]) -> float:
    """The lag, in columns, that rates tell, which are computed on the scheduler that is active."""
    rates = lazy.values
    known = np.isfinite(rates) & ~left_out
    if not known.any():
        raise InputError("the lag cannot be estimated from this scan: no spectrum of it was measured; give line_lag= as a number")
    return find_lag(filled(rates, known), np.stack([filled(axis, np.isfinite(axis)) for axis in places.T], axis=1))


def filled(values: Places, known: NDArray[np.bool_]) -> Places:
    """Values (spectrum,), those that are not known on the lines between those that are: they have nothing of their own to say."""
    numbers = np.arange(len(values))
    return np.interp(numbers, numbers[known], values[known])


# ------------------------------------------------------------------------------------------------------------- methods


# of all places, the numbers of those that have a share, their own steps, and the frame
METHODS: dict[str, Callable[[Places, NDArray[np.int64], Places, Frame], sp.csr_matrix]] = {
    "drizzle": drizzle,
    "linear": linear,
    "nearest": nearest,
    "gaussian": gaussian,
}


def as_grid(matrix: sp.csr_matrix, frame: Frame, **options: Any) -> ScanGrid:
    """The grid with its place."""
    order = list(frame.order)
    corner, step, shape = frame.corner[order], frame.step[order], np.array(frame.shape)[order]
    y, x = (low + size * (np.arange(number) + 0.5) for low, size, number in zip(corner, step, shape, strict=True))
    return store_grid(matrix, y, x, step=tuple(step.tolist()), **options)


def store_grid(matrix: sp.csr_matrix, y: Places, x: Places, **options: Any) -> ScanGrid:
    """The grid as what is stored of it."""
    coverage = np.asarray(matrix.sum(axis=1)).reshape(len(y), len(x))
    unit = {"units": options["unit"]}
    return ScanGrid(
        data=xr.DataArray(matrix.data.astype(np.float32), dims="entry"),
        indices=xr.DataArray(matrix.indices.astype(np.int32), dims="entry"),
        indptr=xr.DataArray(matrix.indptr.astype(np.int64), dims="edge"),
        coverage=xr.DataArray(coverage.astype(np.float32), dims=("row", "column"), attrs={"units": "spectra"}),
        y=xr.DataArray(np.asarray(y, np.float64), dims="row", attrs=unit),
        x=xr.DataArray(np.asarray(x, np.float64), dims="column", attrs=unit),
        spectra=int(matrix.shape[1]),
        **options,
    )
