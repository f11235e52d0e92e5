"""Maps of elements: windows around lines, or fits of whole patterns, as lazy graphs."""

from collections.abc import Iterable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.xrf import kernels
from detcal.xrf.calibration import ScanGrid, check_energy
from detcal.xrf.lines import background_patterns, lines_of, pattern_of, window_of
from detcal.xrf.operations import as_spectra, live_times, on_grid, regrid, spread

EMPTY = 1e-6  # of a pattern's highest channel


def element_maps(
    scan: xr.Dataset,
    grid: ScanGrid,
    elements: Sequence[str],
    *,
    method: str = "fit",
    fwhm_kev: float = 0.14,
    energy_range_kev: tuple[float, float] | None = None,
    background_kev: float = 2.0,
    tile_lines: int | None = None,
) -> xr.Dataset:
    """How much of each element's radiation comes from each pixel, lazily.

    Parameters
    ----------
    scan
        spectra (spectrum, energy) with their energies in keV, and live_time_s (spectrum,).
    grid
        From `build_scan_grid`.
    elements
        Symbols. The lines of the K shell are taken, or those of L or M where K's lie beyond the energies; or of a named shell: "Pb-M".
    method
        "fit": patterns of all lines of each element, and a background of triangles, none negative, are fitted to each pixel's spectrum with
        the variances of Poisson's counts.
        "window": counts about the strongest line, less those that the channels beside it predict. It is summed in each spectrum, and only
        the sums are put on the grid. A neighbour's line in a window counts as its own.
    fwhm_kev
        Resolution of the detector at 5.9 keV.
    energy_range_kev
        Which energies to fit; by default from half a keV, or the strongest lines less 0.7 keV, to the strongest lines and 1.5 keV more.
    background_kev
        Distance of the background's triangles.
    tile_lines
        As for `regrid`.

    Returns
    -------
    Dataset (element, row, column)
        rate, counts of the element's shell per live second, and error, its standard error, in which n counts have the variance n + 1: of
        amounts of about a count it is too large rather than too small. NaN in pixels without a spectrum. Coord line_kev.

    Raises
    ------
    InputError
        Unknown elements, or those without a line in the energies; energies that are channels, or do not rise; no live times; another
        number of spectra than the grid was built for.
    """
    if method not in ("fit", "window"):
        raise InputError(f'expected method to be "fit" or "window", got {method!r}')
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
    seconds = on_grid(grid, grid.W @ live_times(scan, grid))
    patterns = np.stack([pattern_of(line, energy, fwhm_kev) for line in lines])
    strongest = np.array([line.strongest_kev for line in lines])
    if method == "window":
        weights = np.stack([window_of(line, energy, fwhm_kev) for line in lines])
        amounts, errors = (values / seconds.values for values in window_maps(scan, grid, weights, patterns, tile_lines))
    else:
        wanted = energy_range_kev or (max(low, strongest.min() - 0.7), min(high, strongest.max() + 1.5))
        inside = (energy >= wanted[0]) & (energy <= wanted[1])
        if inside.sum() < 2 * len(names):
            raise InputError(f"expected more channels than elements from {wanted[0]:g} to {wanted[1]:g} keV, got {inside.sum()}")
        background = background_patterns(energy[inside], background_kev).T
        every = np.concatenate([patterns[:, inside], background])
        amounts, errors = fitted_maps(scan, grid, inside, every, seconds, len(names), tile_lines)
    coords: dict[str, Any] = {
        "element": np.array(names, object),
        "line_kev": ("element", strongest, {"units": "keV"}),
        "y": grid.y,
        "x": grid.x,
    }
    dims = ("element", "row", "column")
    maps = {
        name: xr.DataArray(values.astype(np.float32), coords, dims, attrs={"units": "counts/s"})
        for name, values in (("rate", amounts), ("error", errors))
    }
    return xr.Dataset(maps, attrs={"method": method})


def energies_of(scan: xr.Dataset) -> NDArray[np.float64]:
    """Energies of the channels, in keV and rising."""
    if "energy" not in scan.coords or scan.energy.attrs.get("units", "keV") != "keV":
        raise InputError("expected energies in keV, got channels: calibrate_energy gives them from two or more known lines")
    energy = np.asarray(scan.energy.values, np.float64)
    check_energy(energy, scan.sizes["energy"], "turn it around with .isel(energy=slice(None, None, -1)), or calibrate it anew")
    return energy


def window_maps(
    scan: xr.Dataset, grid: ScanGrid, weights: NDArray[np.float64], patterns: NDArray[np.float64], tile_lines: int | None
) -> tuple[da.Array, da.Array]:
    """Counts (element, row, column) of windows and their errors: sums of few channels commute with the grid, and come first.

    Each block of spectra is read once for both. As in fits, the variance has one more count in it: an empty window is no exact one.
    """
    recovered = (weights * patterns).sum(axis=1)
    shares = weights / recovered[:, None]
    whole = as_spectra(scan.spectra).data.rechunk({1: -1})
    both = np.concatenate([shares, shares**2]).T
    sums = da.map_blocks(weigh, whole, both, dtype=np.float64, chunks=(whole.chunks[0], (both.shape[1],)), meta=np.empty((0, 0)))
    amounts, squares = (
        spread(sums[:, part], grid, matrix, tile_lines=tile_lines, once=True).data.transpose(2, 0, 1)
        for part, matrix in ((slice(len(shares)), grid.W), (slice(len(shares), None), grid.W.power(2)))
    )
    more = kernels.ONE_MORE * noise_of(grid) / recovered[:, None, None]
    return amounts, da.sqrt(squares + more**2)


def noise_of(grid: ScanGrid) -> NDArray[np.float64]:
    """Variance over mean of the counts in each pixel (row, column): 1 for whole spectra of Poisson's counts, less for parts of them."""
    sums, squares = (np.asarray(grid.W.power(power).sum(axis=1)).reshape(grid.shape) for power in (1, 2))
    return np.divide(squares, sums, out=np.ones(grid.shape), where=sums > 0)


def weigh(block: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums of the channels (spectrum, window), in float64 and an order that does not go with the block's size."""
    sums = np.empty((len(block), weights.shape[1]))
    for number, vector in enumerate(weights.T):
        inside = np.flatnonzero(vector)
        sums[:, number] = (block[:, inside[0] : inside[-1] + 1] * vector[inside[0] : inside[-1] + 1]).sum(axis=1)
    return sums


def fitted_maps(
    scan: xr.Dataset,
    grid: ScanGrid,
    inside: NDArray[np.bool_],
    patterns: NDArray[np.float64],
    seconds: xr.DataArray,
    elements: int,
    tile_lines: int | None,
) -> tuple[da.Array, da.Array]:
    """Counts per second (element, row, column) by fits of pixel spectra, and their errors."""
    channels = np.flatnonzero(inside)
    wanted = as_spectra(scan.spectra)[:, channels[0] : channels[-1] + 1]
    cube = regrid(wanted, grid, tile_lines=tile_lines).data.rechunk({2: -1})
    # whole images, not dask arrays: what all tiles share would take them out of the order of the scan
    fitted = da.map_blocks(
        fit_block, cube, noise=noise_of(grid), seconds=seconds.values, patterns=patterns, elements=elements, dtype=np.float64,
        chunks=((2 * elements,), *cube.chunks[:2]), drop_axis=2, new_axis=0, meta=np.empty((0, 0, 0)),
    )  # fmt: skip
    return fitted[:elements], fitted[elements:]


def fit_block(
    cube: NDArray[np.float32],
    *,
    noise: NDArray[np.float64],
    seconds: NDArray[np.float64],
    patterns: NDArray[np.float64],
    elements: int,
    block_info: Any = None,
) -> NDArray[np.float64]:
    """Amounts, then errors (2·element, row, column) of a block (row, column, energy)."""
    place = tuple(slice(*ends) for ends in block_info[0]["array-location"][:2])
    pixels = cube.reshape(-1, cube.shape[2]).astype(np.float64)
    extents = np.array([extent_of(pattern) for pattern in patterns])
    amounts, errors = np.empty((len(pixels), len(patterns))), np.empty((len(pixels), elements))
    kernels.fit_pixels(pixels, patterns, extents, noise[place].ravel(), amounts, errors)
    found = np.concatenate([amounts[:, :elements], errors], axis=1)
    return found.T.reshape(-1, *cube.shape[:2]) / seconds[place]


def extent_of(pattern: NDArray[np.float64]) -> tuple[int, int]:
    """The channels that a pattern is in."""
    there = np.flatnonzero(pattern > EMPTY * pattern.max())
    return int(there[0]), int(there[-1]) + 1
