"""Scans of a Crono scanner."""

from collections.abc import Mapping
from os import fspath
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.stores.sources.hdf5_files import find_dataset, follow, open_hdf5
from detcal.stores.sources.readers import check_readable
from detcal.stores.sources.scans import (
    Numbers,
    PathOrName,
    StoredSpectra,
    as_many,
    channel_axis,
    fits,
    left_out_of_file,
    read,
    read_all,
    warn_of_surplus,
)
from detcal.stores.sources.settings import setting_of, text_of
from detcal.xrf.calibration import check_energy, check_live_times, check_positions, check_selected

# What a Crono file may say of each spectrum, beside what every scan has; all in /XRF.
CRONO_LINES = {
    "MotorsPositionsStats": ("positions_status", ("spectrum",)),
    "MotorsTimestamps": ("motor_timestamps", ("spectrum", "axis")),
    "Timestamps": ("timestamps", ("spectrum",)),
    "DPPStartTimestamp": ("start_timestamps", ("spectrum",)),
    "SpectraIDs": ("spectrum_id", ("spectrum",)),
    "OutputCountRates": ("output_count_rate", ("spectrum",)),
    "Detected": ("detected", ("spectrum",)),
    "ResetCounterValue": ("reset_counter", ("spectrum",)),
}


def open_crono(
    path: PathOrName,
    *,
    motor_step_um: float = 1.0,
    live_time_s: Numbers | None = None,
    energy_kev: Numbers | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open the HDF5 file of a Crono scanner lazily: no spectra are read.

    Parameters
    ----------
    path
        The file; of its datasets only /XRF/Spectra and /XRF/MotorsPositions must be there.
    motor_step_um
        Length of a motor step, in µm.
    live_time_s : (spectrum,), energy_kev : (energy,), optional
        In place of the file's own.
    chunks
        Spectra a block: {"spectrum": 2048}. By default about 4 MiB.

    Returns
    -------
    Dataset
        spectra (spectrum, energy), lazy, counts in time order; positions (spectrum, axis) as x, y, z in µm; where the file has them
        live_time_s and real_time_s (spectrum,), selected (row, column), the spectrum that the instrument chose for each point of its grid,
        computed_maps (map_row, map_column, roi) and what they are of, and timestamps, counters and status, left out with a warning where
        there is another number of them; coords energy in keV (or channels, if there is none), and
        spectrum, the number that selected means, also where some are left out; what /Configuration/Settings says as attributes.

    Raises
    ------
    InputError
        No such file, one cut short; no spectra or positions; positions that are all equal; no live time that is positive;
        selected spectra that there are not; energies that do not rise.

    Examples
    --------
    >>> import detcal
    >>> from detcal import simulate
    >>> from detcal.stores.targets.crono_writer import write_crono
    >>> path = write_crono(simulate.maxrf_scan(4, 6, channels=64), "scan.h5")
    >>> detcal.open_crono(path).selected.shape
    (4, 6)
    """
    name = fspath(path)
    check_readable(name)
    with open_hdf5(name) as file:
        spectra = StoredSpectra.of(find_dataset(name, file, "XRF/Spectra"), ("spectrum", "energy")).lazy(chunks)
        number, channels = spectra.shape
        members = file["XRF"]
        steps = np.asarray(read_all(find_dataset(name, file, "XRF/MotorsPositions")), np.float64)
        positions = of_each("positions", steps, number, name) * motor_step_um
        check_positions(positions, number)
        variables: dict[str, Any] = {
            "spectra": (("spectrum", "energy"), spectra, {"units": "counts"}),
            "positions": (("spectrum", "axis"), positions, {"units": "um"}),
        }
        variables |= times_of(name, members, number, live_time_s)
        if (selected := read(members, "SpectraSelectedIndex")) is not None:
            variables["selected"] = (("row", "column"), selected_of(selected, number))
        for stored_name, (line, dims) in CRONO_LINES.items():
            if (values := read(members, stored_name)) is not None and fits(stored_name, values, positions.shape[: len(dims)]):
                variables[line] = (dims, values)
        variables |= maps_of(members)
        coords: dict[str, Any] = {
            "energy": energy_of(members, channels, energy_kev),
            "axis": list("xyz"[: positions.shape[1]]),
            "spectrum": np.arange(number),
        }
        attrs = {"source": f"{name}::/XRF/Spectra", **settings_of(file)}
    variables |= left_out_of_file(name, variables)
    return xr.Dataset(variables, coords, attrs)


def maps_of(members: h5py.Group) -> dict[str, Any]:
    """The instrument's own maps (map_row, map_column, roi), where their points lie, and the energies of what they are of."""
    maps, names = read(members, "Maps/ComputedMaps"), read(members, "ROIs/ROIsNames")
    found: dict[str, Any] = {}
    if maps is None or maps.ndim != 3:
        return found
    found["computed_maps"] = (("map_row", "map_column", "roi"), maps)
    for axis in "xy":
        stored = f"{axis.upper()}ComputedMapsCoordinate"
        if (places := read(members, stored)) is not None and fits(stored, places, (*maps.shape[:2], 1)):
            found[f"computed_maps_{axis}"] = (("map_row", "map_column"), places[..., 0])
    if (energies := read(members, "ROIs/ROIsEnergies")) is not None and fits("ROIs/ROIsEnergies", energies, (maps.shape[2], 2)):
        found["roi_energies_kev"] = (("roi", "edge"), energies)
    if names is not None and fits("ROIs/ROIsNames", names[..., None].reshape(len(names), -1)[:, 0], maps.shape[2:]):
        found["roi"] = ("roi", [text_of(name) for name in names])
    return found


def of_each(kind: str, values: NDArray[Any], number: int, source: str) -> NDArray[np.float64]:
    """Positions or live times of so many spectra, of a scan that may have ended between them."""
    if not values.ndim:
        return values
    warn_of_surplus(kind, values.shape, (number, *values.shape[1:]), source)
    return as_many(values, number)


def times_of(name: str, members: h5py.Group, number: int, given: Numbers | None) -> dict[str, Any]:
    """Live and real times in seconds; the file's are µs, of a type without a sign behind which negative ones are huge."""
    found = {}
    for stored, line in (("LiveTimes", "live_time_s"), ("RealTimes", "real_time_s")):
        if (values := read(members, stored)) is not None:
            found[line] = (values.astype(np.int64) if values.dtype == np.uint64 else values) * 1e-6
    if "live_time_s" in found:
        found["live_time_s"] = of_each("live times", found["live_time_s"], number, name)
    if given is not None:
        found["live_time_s"] = np.asarray(given, np.float64)
    if "live_time_s" in found:
        check_live_times(found["live_time_s"], number)
    if "real_time_s" in found and not fits("RealTimes", found["real_time_s"], (number,)):
        del found["real_time_s"]
    return {line: ("spectrum", values, {"units": "s"}) for line, values in found.items()}


def selected_of(stored: NDArray[Any], number: int) -> NDArray[np.int64]:
    """The instrument's index as (row, column) of a type that numpy takes as an index."""
    selected = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    check_selected(selected, number)
    return selected.astype(np.int64)


def energy_of(members: h5py.Group, channels: int, given: Numbers | None) -> Any:
    """The energy axis: as given, or written, or the line through the calibration points, or channels."""
    vector, points = read(members, "EnergyVector") if given is None else np.asarray(given, np.float64), read(members, "CalibrationPoints")
    if vector is None and points is not None and points.shape == (2, 2) and points[0, 0] != points[1, 0]:
        gain = (points[1, 1] - points[0, 1]) / (points[1, 0] - points[0, 0])
        vector = points[0, 1] + gain * (np.arange(channels) - points[0, 0])
    if vector is None:
        return channel_axis(channels)
    check_energy(vector, channels, "give energy_kev= in place of the file's own")
    return ("energy", vector, {"units": "keV"})


def settings_of(file: h5py.File) -> dict[str, Any]:
    """What the instrument was set to; each value is in an array of one element, texts are arrays of letters."""
    settings = follow(file, "Configuration/Settings")
    return {} if settings is None else {name: setting_of(value) for name, value in settings.attrs.items()}
