"""Spectra of scans: smoothing, sums, and maps, as lazy graphs."""

from functools import partial
from typing import Any, Literal

import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import map_frames
from detcal.frames.stack import native
from detcal.frames.valid import spectra_readings
from detcal.sizes import check_radius
from detcal.xrf import kernels
from detcal.xrf.calibration import NO_LIVE_TIME, ScanGrid, leave_out, live_times_of
from detcal.xrf.tiles import TILE_BYTES, Missing, tiles

Boundary = Literal["reflect", "nearest", "mirror", "wrap"]


def smooth_spectra(
    spectra: ArrayLike, *, sigma_channels: float = 7.0, boundary: Boundary = "reflect", truncate: float = 4.0
) -> xr.DataArray:
    """Gaussian along the energy of spectra (…, energy), lazily: that of scipy.ndimage.gaussian_filter1d on float32.

    Parameters
    ----------
    spectra : (spectrum, energy) or (row, column, energy)
        Counts of any type: whole numbers become float32 first, since scipy would cut the result's fractions off. Channels that are not
        finite take no part: those beside them are the mean of the others, with the gaussian's weights.
    sigma_channels
        Standard deviation in channels.
    boundary
        "reflect", "nearest", "mirror" or "wrap", as scipy's mode.
    truncate
        Where the gaussian is cut, in standard deviations.

    Returns
    -------
    DataArray float32
        Of the same shape; NaN in channels that were not measured.

    Raises
    ------
    InputError
        No numbers, a sigma that is not positive, an unknown boundary.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.xrf import smooth_spectra
    >>> spectra = np.zeros((1, 9))
    >>> spectra[0, 4] = 100
    >>> smooth_spectra(spectra, sigma_channels=1.0).values.round().tolist()
    [[0.0, 0.0, 5.0, 24.0, 40.0, 24.0, 5.0, 0.0, 0.0]]
    """
    data = as_spectra(spectra)
    if boundary not in kernels.BOUNDARIES:
        raise InputError(f"expected boundary to be one of {', '.join(kernels.BOUNDARIES)}, got {boundary!r}")
    if not 0 < sigma_channels < np.inf or not 0 < truncate < np.inf:
        raise InputError(f"expected a positive sigma_channels and truncate, got {sigma_channels} and {truncate}")
    check_radius(sigma_channels, truncate)
    kernel = partial(kernels.smooth, sigma=float(sigma_channels), boundary=boundary, truncate=float(truncate))
    whole = data.copy(data=data.data.rechunk({data.ndim - 1: -1}))
    return map_frames(kernel, whole, whole=False, name=data.name, attrs=data.attrs)


def summary_spectra(spectra: ArrayLike) -> xr.Dataset:
    """Sum, mean and maximum of all spectra (…, energy), lazily and in one pass; what is not finite takes no part, channel by channel.

    Returns
    -------
    Dataset (energy,)
        sum and max, in the unit of the spectra, mean; NaN in channels that no spectrum has. float64.

    Raises
    ------
    InputError
        No numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.xrf import summary_spectra
    >>> summary = summary_spectra(np.array([[0.0, 1.0], [2.0, np.nan]]))
    >>> summary["sum"].values.tolist(), summary["mean"].values.tolist()
    ([2.0, 1.0], [1.0, 1.0])
    """
    data = as_spectra(spectra)
    whole = data.data.rechunk({data.ndim - 1: -1})
    lines = tuple((1,) * len(sizes) for sizes in whole.chunks[:-1])
    parts = da.map_blocks(
        summary_block, whole, dtype=np.float64, chunks=(*lines, (3,), whole.chunks[-1]), new_axis=whole.ndim - 1,
        meta=np.empty((0,) * (whole.ndim + 1)),
    )  # fmt: skip
    merged = da.reduction(
        parts, keep_block, merge_summaries, axis=tuple(range(whole.ndim - 1)), dtype=np.float64, concatenate=True, split_every=16,
    )  # fmt: skip
    coords = {name: values for name, values in data.coords.items() if values.dims == ("energy",)}
    total, highest, number = da.where(merged[2] > 0, merged, np.nan)
    names = {"sum": total, "mean": total / number, "max": highest}
    return xr.Dataset({name: ("energy", values, data.attrs) for name, values in names.items()}, coords)


def summary_block(block: NDArray[Any]) -> NDArray[np.float64]:
    """Sums, maxima and numbers of spectra (…, 3, energy) of a block."""
    lines = np.ascontiguousarray(block).reshape(-1, block.shape[-1])
    found = np.zeros((3, block.shape[-1]))
    found[1] = -np.inf
    kernels.add_to_summary(lines, *found)
    return found.reshape((1,) * (block.ndim - 1) + found.shape)


def keep_block(block: NDArray[Any], axis: Any, keepdims: bool) -> NDArray[Any]:
    """What is merged is what came."""
    return block


def merge_summaries(parts: NDArray[Any], axis: tuple[int, ...], keepdims: bool) -> NDArray[Any]:
    """Summaries of several blocks as one."""
    flat = parts.reshape(-1, *parts.shape[-2:])
    found = np.stack([flat[:, 0].sum(axis=0), flat[:, 1].max(axis=0), flat[:, 2].sum(axis=0)])
    return found.reshape((1,) * len(axis) + found.shape) if keepdims else found


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
        Also smooth along the energy: before or after, whichever has fewer spectra to smooth; both are the same.
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
    made_up = None if grid.method == "drizzle" else Missing(np.ones(grid.spectra))
    return spread(spectra, grid, grid.to_scipy(), sigma_channels, made_up, tile_rows=tile_rows)


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
        Also smooth the rates along the energy.
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
    """Refuse the spectra of another scan than that of a grid."""
    if spectra.ndim != 2 or len(spectra) != grid.spectra:
        raise InputError(f"expected spectra of shape ({grid.spectra}, energy), as the grid was built for, got {spectra.shape}")


def on_grid(grid: ScanGrid, values: Any) -> xr.DataArray:
    """A value a pixel as a map (row, column); NaN where no spectrum has a share."""
    image = np.asarray(values, np.float64).reshape(grid.shape)
    return xr.DataArray(np.where(grid.coverage.values > 0, image, np.nan), dims=("row", "column"))


def as_spectra(data: Any) -> xr.DataArray:
    """Spectra (…, energy) as a DataArray over dask, of a type that kernels are compiled for.

    Raises
    ------
    InputError
        Of other dimensions than (energy,), (spectrum, energy) or (row, column, energy), or no numbers.
    """
    dims = ("row", "column", "energy")
    if not isinstance(data, xr.DataArray):
        names = {1: ("energy",), 2: ("spectrum", "energy"), 3: dims}.get(np.ndim(data))
        if names is None:
            raise InputError(f"expected spectra (spectrum, energy) or (row, column, energy), got {np.shape(data)}")
        data = xr.DataArray(data, dims=names)
    if data.dtype.kind not in "iuf" or not data.sizes.get("energy"):
        raise InputError(f"expected numbers with a dimension energy, got {data.dtype} {dict(data.sizes)}")
    data = data.transpose(..., "energy").astype(native(data.dtype), copy=False)
    if isinstance(data.data, da.Array):
        return spectra_readings(data)
    size = max(1, TILE_BYTES // max(1, data[..., :1].size and data.nbytes // len(data)))
    blocks = (size, *(-1,) * (data.ndim - 1))
    return spectra_readings(data.copy(data=da.from_array(data.values, chunks=blocks, name=False)))
