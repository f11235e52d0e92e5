"""Spectra of scans on a regular grid, as lazy graphs."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.xrf.calibration import NO_LIVE_TIME, ScanGrid, leave_out, live_times_of
from detcal.xrf.spectra import as_spectra, smooth_spectra
from detcal.xrf.tiles import Missing, tiles


def regrid(spectra: ArrayLike, grid: ScanGrid, *, sigma_channels: float | None = None, tile_rows: int | None = None) -> xr.DataArray:
    """Counts on the grid, W·C, lazily.

    Each block of the map reads the blocks of spectra that it has a share of: a few lines of the scan, and what else passed there.

    Parameters
    ----------
    spectra : (spectrum, energy)
        In the order of the scan.
    grid
        From `build_scan_grid`. It says which blocks of spectra belong together, so that one over dask is computed here.
    sigma_channels
        Also smooth along the energy, by a gaussian of this standard deviation, in channels: before or after, whichever has fewer spectra
        to smooth; both are the same.
    tile_rows
        Lines of the map a task; by default about 32 MiB of them.

    Returns
    -------
    DataArray (row, column, energy) float32
        NaN where no spectrum has a share in a pixel, or none that was measured in that channel. What spectra have that are not finite there
        takes no part: drizzled counts are the sums of what was measured, interpolated ones are means of it.

    Raises
    ------
    InputError
        Another number of spectra than the grid was built for.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import build_scan_grid, regrid
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> cube = regrid(scan.spectra, build_scan_grid(scan))
    >>> cube.dims
    ('row', 'column', 'energy')
    """
    check_shape(data := as_spectra(spectra), grid)
    made_up = None if grid.method == "drizzle" else Missing(np.ones(grid.spectra))
    return spread(data, grid, grid.to_scipy(), sigma_channels, made_up, tile_rows=tile_rows)


def spread(
    spectra: Any,
    grid: ScanGrid,
    matrix: sp.csr_matrix,
    sigma_channels: float | None = None,
    missing: Missing | None = None,
    *,
    tile_rows: int | None = None,
    once: bool = False,
) -> xr.DataArray:
    """As `regrid`, with other entries in place of W's; `once` as in `tiles`; without `missing`, sums of what was measured."""
    data = as_spectra(spectra)
    check_shape(data, grid)
    if sigma_channels is not None:
        if grid.spectra <= grid.coverage.size:
            return spread(smooth_spectra(data, sigma_channels=sigma_channels), grid, matrix, missing=missing, tile_rows=tile_rows)
        return smooth_spectra(spread(data, grid, matrix, missing=missing, tile_rows=tile_rows), sigma_channels=sigma_channels)
    coords = {name: values for name, values in data.coords.items() if values.dims == ("energy",)}
    coords |= {"y": grid.y, "x": grid.x}
    cube = tiles(data.data, matrix, grid.shape, tile_rows, missing, once=once)
    return xr.DataArray(cube, coords, ("row", "column", "energy"), "counts", data.attrs)


def regrid_rate(scan: xr.Dataset, grid: ScanGrid, *, sigma_channels: float | None = None, tile_rows: int | None = None) -> xr.Dataset:
    """Counts per live second on the grid, lazily: rate = (W·C)/(W·t), counts and live times regridded apart and divided last.

    Parameters
    ----------
    scan
        spectra (spectrum, energy) and live_time_s (spectrum,), from a reader. Spectra whose live time is not positive take no part, and
        neither does what is not finite in the others; one warning counts those that the grid has not left out. Where there are
        detector_spectra and detectors_live_s too, as from `open_maps`, rates are the sums of those of the elements of the detector.
    grid
        From `build_scan_grid`.
    sigma_channels
        Also smooth the rates along the energy, by a gaussian of this standard deviation, in channels.
    tile_rows
        As for `regrid`.

    Returns
    -------
    Dataset
        rate (row, column, energy) in counts per live second; variance (row, column, energy) of it for counts of Poisson's statistics,
        (W∘W·C)/(W·t)², without the smoothing; live_time_s (row, column), W·t; coverage, the sum of the shares; effective_spectra
        (ΣW)²/ΣW², how many whole spectra are as good. NaN in pixels without a spectrum; coverage 0.

    Raises
    ------
    InputError
        Another number of spectra than the grid was built for, no live times, or none that is positive.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import build_scan_grid, regrid_rate
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> rates = regrid_rate(scan, build_scan_grid(scan))
    >>> rates.rate.dims
    ('row', 'column', 'energy')
    """
    grid, live = timed(scan, grid)
    seconds = on_grid(grid, grid.to_scipy() @ live)
    counts, variances = in_mean_live_time(scan)
    rate = spread(counts, grid, over_seconds(grid, seconds), sigma_channels, Missing(live), tile_rows=tile_rows)
    variance = spread(variances, grid, over_seconds(grid, seconds, 2), None, Missing(live, 2), tile_rows=tile_rows)
    sums, squares = np.asarray(grid.coverage.values, np.float64), on_grid(grid, grid.to_scipy().power(2).sum(axis=1)).values
    effective = np.divide(sums**2, squares, out=np.full(sums.shape, np.nan), where=sums > 0)
    place = {"y": grid.y, "x": grid.x}
    maps = {
        "live_time_s": seconds.assign_attrs(units="s"),
        "coverage": grid.coverage,
        "effective_spectra": xr.DataArray(effective, dims=("row", "column"), attrs={"units": "1"}),
    }
    rates = {
        "rate": rate.rename("rate").assign_attrs(units="counts/s"),
        "variance": variance.rename("variance").assign_attrs(units="counts²/s²"),
    }
    return xr.Dataset({**rates, **{name: values.assign_coords(place) for name, values in maps.items()}})


def over_seconds(grid: ScanGrid, seconds: xr.DataArray, power: int = 1) -> sp.csr_matrix:
    """The entries of W over the live time of their pixel, to a power."""
    entries = np.diff(grid.to_scipy().indptr)
    data = (grid.to_scipy().data / np.repeat(seconds.values.ravel(), entries)) ** power
    return sp.csr_matrix((data, grid.to_scipy().indices, grid.to_scipy().indptr), shape=grid.to_scipy().shape)


def timed(scan: xr.Dataset, grid: ScanGrid) -> tuple[ScanGrid, NDArray[np.float64]]:
    """A grid without the spectra of its scan that have no live time, and the live times (spectrum,), NaN where there are none."""
    check_shape(scan.spectra, grid)
    live = live_times_of(scan)
    unused = ~grid.used
    left_out = leave_out({NO_LIVE_TIME: np.isnan(live)}, scan.spectrum.values, known=unused)
    return (grid if (left_out == unused).all() else grid.without(left_out)), live


def in_mean_live_time(scan: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Spectra of which rates are made, and their variances, for counts of Poisson's statistics.

    Elements of a detector differ in their dead time. So that a rate is the sum of theirs, Σ C/t, what each has counted is taken as it would
    be in their mean live time: to the spectra comes what is missing, which is nothing where all live times are equal.
    """
    if not {"detector_spectra", "detectors_live_s"} <= set(scan):
        return scan.spectra, scan.spectra
    live = scan.detectors_live_s.transpose("detector", "spectrum").values
    longer = live.mean(axis=0) / live
    if (longer[np.isfinite(longer)] == 1).all():
        return scan.spectra, scan.spectra
    parts = scan.detector_spectra.transpose("detector", "spectrum", "energy").data
    first, second = (
        sum((part * (factor**power - 1)[:, None] for part, factor in zip(parts, longer, strict=True)), scan.spectra.data)
        for power in (1, 2)
    )
    return tuple(scan.spectra.copy(data=values.astype(np.float32)) for values in (first, second))


def check_shape(spectra: xr.DataArray, grid: ScanGrid) -> None:
    """Refuse what is no grid, and the spectra of another scan than that of a grid."""
    if not isinstance(grid, ScanGrid):
        raise InputError(f"expected a ScanGrid, got {type(grid).__name__}: build one with build_scan_grid, or load it with detcal.load")
    if spectra.ndim != 2 or len(spectra) != grid.spectra:
        raise InputError(f"expected spectra of shape ({grid.spectra}, energy), as the grid was built for, got {spectra.shape}")


def on_grid(grid: ScanGrid, values: Any) -> xr.DataArray:
    """A value a pixel as a map (row, column); NaN where no spectrum has a share."""
    image = np.asarray(values, np.float64).reshape(grid.shape)
    return xr.DataArray(np.where(grid.coverage.values > 0, image, np.nan), dims=("row", "column"))
