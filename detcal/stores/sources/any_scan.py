"""X-ray fluorescence scans in files of any layout."""

from collections.abc import Mapping
from os import fspath
from os.path import abspath
from typing import Any

import h5py
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.stores.sources.crono import open_crono
from detcal.stores.sources.fly_scans import open_maps
from detcal.stores.sources.hdf5_files import find_dataset, follow
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.scans import PathOrName, channel_axis, lazy_spectra, left_out_of_file, read_all
from detcal.xrf.calibration import check_energy, check_live_times, check_positions


def open_scan(
    path: PathOrName, *, spectra: str | None = None, positions: str | None = None, chunks: Mapping[str, int] | None = None
) -> xr.Dataset:
    """Open an X-ray fluorescence scan lazily, whatever of the known layouts its file has.

    Each layout has an opener of its own with more options: `open_crono`, `open_maps`, `open_spectra`.

    Parameters
    ----------
    path
        The HDF5 file: of a Crono scanner, of a fly scan of the APS, or with spectra and positions under names of its own.
    spectra, positions
        The names of its datasets, as for `open_spectra`; without them the layout is found from what the file holds.
    chunks
        As for the opener of that layout: {"spectrum": 2048}, or {"row": 4} for a fly scan.

    Returns
    -------
    Dataset
        As from `open_crono`.

    Raises
    ------
    InputError
        No such file, no layout that is known, one of the two names alone, and whatever the opener of its layout raises.

    Examples
    --------
    >>> import detcal
    >>> from detcal import simulate
    >>> from detcal.stores.targets.crono_writer import write_crono
    >>> path = write_crono(simulate.maxrf_scan(4, 6, channels=64), "scan.h5")
    >>> detcal.open_scan(path).spectra.dims
    ('spectrum', 'energy')
    """
    if (spectra is None) != (positions is None):
        raise InputError(f"expected both spectra= and positions=, or neither, got spectra={spectra!r} and positions={positions!r}")
    if spectra is not None and positions is not None:
        return open_spectra(path, spectra, positions, chunks=chunks)
    return (open_crono if is_crono(fspath(path)) else open_maps)(path, chunks=chunks)


def is_crono(name: str) -> bool:
    """Whether a file has the layout of a Crono scanner; else that of a fly scan.

    Raises
    ------
    InputError
        It has neither.
    """
    check_readable(name)
    with clear_errors(name), h5py.File(abspath(name), "r") as file:
        crono, maps = (follow(file, member) is not None for member in ("XRF", "MAPS_RAW"))
    if not (crono or maps):
        raise InputError(
            f"expected a scan in {name}, with /XRF (Crono) or /MAPS_RAW (APS), got neither: give spectra= and positions=, "
            f"the names of its datasets, which `detcal tree {name}` lists"
        )
    return crono


def open_spectra(
    path: PathOrName,
    spectra: str,
    positions: str,
    *,
    live_time_s: str | None = None,
    energy_kev: str | None = None,
    units: str = "um",
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open spectra and positions from any HDF5 file lazily.

    Parameters
    ----------
    path
        The file.
    spectra, positions
        Its datasets (spectrum, energy), and (spectrum, axis) or (axis, spectrum), with x and y first.
    live_time_s, energy_kev : optional
        Its datasets (spectrum,) in seconds, and (energy,) in keV.
    units
        Of the positions.
    chunks
        As for `open_crono`.

    Returns
    -------
    Dataset
        As from `open_crono`.

    Raises
    ------
    InputError
        No such file or dataset, and whatever `open_crono` refuses.

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("counts.h5", "w") as file:
    ...     file["counts"] = np.ones((6, 64), np.uint16)
    ...     file["xy"] = np.indices((2, 3)).reshape(2, 6)
    >>> detcal.open_spectra("counts.h5", "counts", "xy").spectra.shape
    (6, 64)
    """
    name, file_path = fspath(path), abspath(fspath(path))
    check_readable(name)
    with clear_errors(name), h5py.File(file_path, "r") as file:
        lazy = lazy_spectra(file_path, find_dataset(name, file, spectra), chunks)
        number, channels = lazy.shape
        places = np.asarray(read_all(find_dataset(name, file, positions)), np.float64)
        places = places.T if places.ndim == 2 and len(places) != number and places.shape[1] == number else places
        check_positions(places, number)
        variables: dict[str, Any] = {
            "spectra": (("spectrum", "energy"), lazy, {"units": "counts"}),
            "positions": (("spectrum", "axis"), places, {"units": units}),
        }
        if live_time_s is not None:
            times = np.asarray(read_all(find_dataset(name, file, live_time_s)), np.float64)
            check_live_times(times, number)
            variables["live_time_s"] = ("spectrum", times, {"units": "s"})
        axis = channel_axis(channels)
        if energy_kev is not None:
            axis = ("energy", read_all(find_dataset(name, file, energy_kev)), {"units": "keV"})
            check_energy(axis[1], channels, "leave energy_kev= out")
    variables |= left_out_of_file(name, variables)
    coords = {"energy": axis, "axis": list("xyz"[: places.shape[1]]) if places.shape[1] <= 3 else np.arange(places.shape[1])}
    coords["spectrum"] = np.arange(number)
    return xr.Dataset(variables, coords, {"source": f"{name}::{spectra}"})
