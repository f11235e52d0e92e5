"""Scans whose positions are known."""

import warnings

import numpy as np
import xarray as xr

METHODS = ("drizzle", "linear", "nearest", "gaussian", "selected")


def made_up(positions, channels=5, seed=0, **variables):
    """A scan with positions of our own."""
    positions = np.asarray(positions, float)
    spectra = np.random.default_rng(seed).poisson(3, (len(positions), channels)).astype(np.uint16)
    live = np.random.default_rng(seed + 1).uniform(0.5, 2, len(positions))
    return xr.Dataset(
        {"spectra": (("spectrum", "energy"), spectra), "positions": (("spectrum", "axis"), positions),
         "live_time_s": ("spectrum", live), **variables},
        {"energy": ("energy", np.linspace(1, 20, channels), {"units": "keV"})},
    )  # fmt: skip


def raster(rows, columns, serpentine=True):
    """x, y of a perfect scan."""
    places = []
    for row in range(rows):
        line = range(columns) if row % 2 == 0 or not serpentine else range(columns - 1, -1, -1)
        places += [(column, row) for column in line]
    return np.array(places, float)


def unrolled(rows, columns):
    """Which spectrum of a serpentine lies where."""
    numbers = np.arange(rows * columns).reshape(rows, columns)
    numbers[1::2] = numbers[1::2, ::-1]
    return numbers


def serpentine(rows, columns, **options):
    return made_up(raster(rows, columns), selected=(("row", "column"), unrolled(rows, columns)), **options)


def warned(do):
    """What a call gives, and the texts that it warns with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = do()
    return found, [str(each.message) for each in caught]
