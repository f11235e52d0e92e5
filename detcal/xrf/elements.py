"""Maps of elements: windows around lines, or fits of whole patterns, as lazy graphs."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.graph import map_frames
from detcal.xrf import kernels
from detcal.xrf.calibration import ScanGrid, check_energy
from detcal.xrf.lines import background_patterns, lines_of, pattern_of, window_of
from detcal.xrf.operations import check_shape, in_mean_live_time, on_grid, over_seconds, spread, timed
from detcal.xrf.spectra import as_spectra
from detcal.xrf.tiles import Missing

EMPTY = 1e-6  # of a pattern's highest channel


def element_maps(
    scan: xr.Dataset,
    grid: ScanGrid,
    *,
    elements: Sequence[str],
    method: Literal["fit", "window"] = "fit",
    quantity: Literal["rate", "counts"] = "rate",
    fwhm_kev: float = 0.14,
    energy_range_kev: tuple[float, float] | None = None,
    background_kev: float = 2.0,
    tile_rows: int | None = None,
) -> xr.Dataset:
    """How much of each element's radiation comes from each pixel, lazily.

    Parameters
    ----------
    scan
        spectra (spectrum, energy) with their energies in keV, and for rates live_time_s (spectrum,); what takes no part and the elements
        of a detector are as in `regrid_rate`, or for counts as in `regrid`.
    grid
        From `build_scan_grid`.
    elements
        Symbols. The lines of the K shell are taken, or those of L or M where K's lie beyond the energies; or of a named shell: "Pb-M".
    method
        "fit": patterns of all lines of each element, and a background of triangles, none negative, are fitted to each pixel's spectrum with
        the variances of Poisson's counts.
        "window": counts about the strongest line, less those that the channels beside it predict. It is summed in each spectrum, and only
        the sums are put on the grid. A neighbour's line in a window counts as its own.
    quantity
        "rate", a live second; or "counts", for scans without live times.
    fwhm_kev : keV
        Resolution of the detector (full width at half maximum) at 5.9 keV.
    energy_range_kev
        Which energies to fit; by default from half a keV, or the strongest lines less 0.7 keV, to the strongest lines and 1.5 keV more.
    background_kev : keV
        Distance between the triangles that make up the background.
    tile_rows
        As for `regrid`.

    Returns
    -------
    Dataset (element, row, column)
        rate, counts of the element's shell per live second, or counts alone; and error, its standard error, in which n counts have the
        variance n + 1: of amounts of about a count it is too large rather than too small. NaN in pixels without a spectrum, or without a
        measured channel of the element. Coord line_kev.

    Raises
    ------
    InputError
        Unknown elements, or those without a line in the energies; energies that are channels, or do not rise; no live times; another
        number of spectra than the grid was built for; none with a live time.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import build_scan_grid, element_maps
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> maps = element_maps(scan, build_scan_grid(scan), elements=["Fe", "Cu"])
    >>> maps.rate.sizes["element"]
    2
    """
    if method not in ("fit", "window"):
        raise InputError(f'expected method to be "fit" or "window", got {method!r}')
    if quantity not in ("rate", "counts"):
        raise InputError(f'expected quantity to be "rate" or "counts", got {quantity!r}')
    energy = energies_of(scan)
    names = [elements] if isinstance(elements, str) or not isinstance(elements, Iterable) else list(elements)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"expected one or more symbols of elements, got {names}")
    low, high = energy_range_kev or (max(0.5, float(energy[0])), float(energy[-1]))
    lines = [lines_of(name, low, high) for name in names]
    if len({tuple(line.energy_kev) for line in lines}) < len(lines):
        raise InputError(f"expected each shell of an element once, got {names}")
    if not 0 < background_kev < np.inf:
        raise InputError(f"expected a positive background_kev, got {background_kev}")
    measured = timed_spectra(scan, grid) if quantity == "rate" else counted_spectra(scan, grid)
    patterns = np.stack([pattern_of(line, energy, fwhm_kev) for line in lines])
    strongest = np.array([line.strongest_kev for line in lines])
    if method == "window":
        weights = np.stack([window_of(line, energy, fwhm_kev) for line in lines])
        amounts, errors = window_maps(measured, weights, patterns, tile_rows)
    else:
        wanted = energy_range_kev or (max(low, strongest.min() - 0.7), min(high, strongest.max() + 1.5))
        inside = (energy >= wanted[0]) & (energy <= wanted[1])
        if inside.sum() < 2 * len(names):
            raise InputError(f"expected more channels than elements from {wanted[0]:g} to {wanted[1]:g} keV, got {inside.sum()}")
        background = background_patterns(energy[inside], background_kev).T
        every = np.concatenate([patterns[:, inside], background])
        amounts, errors = fitted_maps(measured, inside, every, len(names), tile_rows)
    coords: dict[str, Any] = {
        "element": np.array(names, object),
        "line_kev": ("element", strongest, {"units": "keV"}),
        "y": grid.y,
        "x": grid.x,
    }
    dims = ("element", "row", "column")
    maps = {
        name: xr.DataArray(values.astype(np.float32), coords, dims, attrs={"units": "counts/s" if quantity == "rate" else "counts"})
        for name, values in ((quantity, amounts), ("error", errors))
    }
    return xr.Dataset(maps, attrs={"method": method})


class Measured(NamedTuple):
    """Spectra on a grid, and what of each pixel makes amounts of its counts."""

    spectra: xr.DataArray
    grid: ScanGrid
    live: NDArray[np.float64] | None  # by spectrum; None: nothing stands in for what was not measured
    seconds: xr.DataArray  # (row, column), by which counts are divided
    noise: NDArray[np.float64]  # (row, column), variance over mean of counts

    def missing(self, power: int = 1) -> Missing | None:
        """What stands in for what was not measured, in sums of shares to a power."""
        return None if self.live is None else Missing(self.live, power)


def timed_spectra(scan: xr.Dataset, grid: ScanGrid) -> Measured:
    """Those that rates are made of."""
    used, live = timed(scan, grid)
    seconds = on_grid(used, used.to_scipy() @ live)
    return Measured(in_mean_live_time(scan)[0], used, live, seconds, noise_of(used, noise_of_spectra(scan)))


def counted_spectra(scan: xr.Dataset, grid: ScanGrid) -> Measured:
    """Those that counts are made of, as `regrid` has them."""
    check_shape(scan.spectra, grid)
    live = None if grid.method == "drizzle" else np.ones(grid.spectra)
    return Measured(scan.spectra, grid, live, on_grid(grid, np.ones(grid.shape)), noise_of(grid))


def energies_of(scan: xr.Dataset) -> NDArray[np.float64]:
    """Energies of the channels, in keV and rising."""
    if "energy" not in scan.coords or scan.energy.attrs.get("units", "keV") != "keV":
        raise InputError("expected energies in keV, got channels: calibrate_energy gives them from two or more known lines")
    energy = np.asarray(scan.energy.values, np.float64)
    check_energy(energy, scan.sizes["energy"], "turn it around with .isel(energy=slice(None, None, -1)), or calibrate it anew")
    return energy


def window_maps(
    measured: Measured, weights: NDArray[np.float64], patterns: NDArray[np.float64], tile_rows: int | None
) -> tuple[da.Array, da.Array]:
    """Amounts (element, row, column) of windows and their errors: sums of few channels commute with the grid, and come first.

    Each block of spectra is read once for both. As in fits, the variance has one more count in it: an empty window is no exact one. A
    spectrum with a channel of a window that was not measured takes no part in this window.
    """
    grid, noise = measured.grid, measured.noise
    recovered = (weights * patterns).sum(axis=1)
    shares = weights / recovered[:, None]
    both = np.concatenate([shares, shares**2]).T
    data = as_spectra(measured.spectra)
    sizes = {"window": both.shape[1]}
    sums = map_frames(weigh, data, {"weights": both}, dims=(str(data.dims[0]), "window"), sizes=sizes, dtype=np.float64).data
    amounts, squares = (
        spread(
            sums[:, part], grid, over_seconds(grid, measured.seconds, power), None, measured.missing(power), tile_rows=tile_rows, once=True
        )
        for part, power in ((slice(len(shares)), 1), (slice(len(shares), None), 2))
    )
    # in place of the variance of each spectrum, that of all which are in the pixel
    usual = noise / noise_of(grid)
    more = kernels.ONE_MORE * (noise / measured.seconds.values) / recovered[:, None, None]
    return amounts.data.transpose(2, 0, 1), da.sqrt(usual * squares.data.transpose(2, 0, 1) + more**2)


def noise_of(grid: ScanGrid, spectra: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    """Variance over mean of the counts in each pixel (row, column): that of its spectra for whole ones, less for parts of them."""
    weights = np.broadcast_to(spectra, grid.spectra)
    shares = grid.to_scipy()
    sums, squares = (np.asarray(matrix.sum(axis=1)).reshape(grid.shape) for matrix in (shares, shares.power(2).multiply(weights)))
    noise: NDArray[np.float64] = np.divide(squares, sums, out=np.ones(grid.shape), where=sums > 0)
    return noise


def noise_of_spectra(scan: xr.Dataset) -> NDArray[np.float64] | float:
    """Variance over mean of the counts of each spectrum: 1 for Poisson's statistics, more where elements of a detector have been live for
    unequal times, if each sees about as much."""
    if "detectors_live_s" not in scan:
        return 1.0
    live = scan.detectors_live_s.transpose("spectrum", "detector").values
    return np.asarray(np.nan_to_num(live.mean(axis=1) * (1 / live).mean(axis=1), nan=1.0))


def weigh(block: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums of the channels (spectrum, window), in float64 and an order that does not go with the block's size."""
    sums = np.empty((len(block), weights.shape[1]))
    for number, vector in enumerate(weights.T):
        inside = np.flatnonzero(vector)
        with np.errstate(invalid="ignore"):  # what is infinite was not measured
            sums[:, number] = (block[:, inside[0] : inside[-1] + 1] * vector[inside[0] : inside[-1] + 1]).sum(axis=1)
    return sums


def fitted_maps(
    measured: Measured, inside: NDArray[np.bool_], patterns: NDArray[np.float64], elements: int, tile_rows: int | None
) -> tuple[da.Array, da.Array]:
    """Amounts (element, row, column) by fits of pixel spectra, and their errors."""
    channels = np.flatnonzero(inside)
    wanted = as_spectra(measured.spectra)[:, channels[0] : channels[-1] + 1]
    grid = measured.grid
    cube = spread(wanted, grid, grid.to_scipy(), missing=measured.missing(), tile_rows=tile_rows).chunk(energy=-1)
    # whole images, not dask arrays: what all tiles share would take them out of the order of the scan
    known = {"noise": measured.noise, "seconds": measured.seconds.values, "patterns": patterns, "elements": elements}
    sizes = {"quantity": 2 * elements}
    fitted = map_frames(fit_block, cube, known, whole=False, dims=("row", "column", *sizes), sizes=sizes, dtype=np.float64)
    amounts_and_errors = fitted.data.transpose(2, 0, 1)
    return amounts_and_errors[:elements], amounts_and_errors[elements:]


def fit_block(
    cube: NDArray[np.float32],
    *,
    noise: NDArray[np.float64],
    seconds: NDArray[np.float64],
    patterns: NDArray[np.float64],
    elements: int,
    block_info: Any = None,
) -> NDArray[np.float64]:
    """Amounts, then errors (row, column, 2·element) of a block (row, column, energy)."""
    place = tuple(slice(*ends) for ends in block_info[0]["array-location"][:2])
    pixels = cube.reshape(-1, cube.shape[2]).astype(np.float64)
    extents = np.array([extent_of(pattern) for pattern in patterns])
    amounts, errors = np.empty((len(pixels), len(patterns))), np.empty((len(pixels), elements))
    kernels.fit_pixels(pixels, patterns, extents, noise[place].ravel(), amounts, errors)
    found = np.concatenate([amounts[:, :elements], errors], axis=1)
    return found.reshape(*cube.shape[:2], -1) / seconds[place][..., None]


def extent_of(pattern: NDArray[np.float64]) -> tuple[int, int]:
    """The channels that a pattern is in."""
    there = np.flatnonzero(pattern > EMPTY * pattern.max())
    return int(there[0]), int(there[-1]) + 1
