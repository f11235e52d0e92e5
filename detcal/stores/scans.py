"""X-ray fluorescence scans, opened lazily from what instruments write."""

import warnings
from collections.abc import Mapping
from os import PathLike, fspath
from os.path import abspath
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.absence import warn_of
from detcal.stores.hdf5 import find_dataset, follow, own_type
from detcal.stores.hdf5_data import Hdf5Array, values_of
from detcal.stores.readers import check_readable, clear_errors
from detcal.stores.zarr_store import NUMBERS
from detcal.xrf.calibration import check_energy, check_live_times, check_positions, check_selected

PathOrName = str | PathLike[str]
BLOCK_BYTES = 2**22  # of spectra: parts of lines, since dask reads whole blocks where a tile of a map needs a few lines

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
    live_time_s: Any = None,
    energy_kev: Any = None,
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
        No such file, one cut short; no spectra or positions; positions of another number, or all equal; live times that are not positive;
        selected spectra that there are not; energies that do not rise.
    """
    name, file_path = fspath(path), abspath(fspath(path))
    check_readable(name)
    with clear_errors(name), h5py.File(file_path, "r") as file:
        stored = find_dataset(name, file, "XRF/Spectra")
        spectra = lazy_spectra(file_path, stored, chunks)
        number, channels = spectra.shape
        members = file["XRF"]
        positions = np.asarray(read_all(find_dataset(name, file, "XRF/MotorsPositions")), np.float64) * motor_step_um
        check_positions(positions, number)
        variables: dict[str, Any] = {
            "spectra": (("spectrum", "energy"), spectra, {"units": "counts"}),
            "positions": (("spectrum", "axis"), positions, {"units": "um"}),
        }
        variables |= times_of(members, number, live_time_s)
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
    return xr.Dataset(variables, coords, attrs)


def open_maps(
    path: PathOrName, *, detector: int | None = None, positions: Any = None, chunks: Mapping[str, int] | None = None
) -> xr.Dataset:
    """Open a fly scan of the APS (/MAPS_RAW: a dataset of channels × rows × columns for each detector) lazily.

    Not MDA files of step maps: no maintained library reads them without a graphical interface or on today's Python; convert them to HDF5.

    Parameters
    ----------
    path
        The HDF5 file.
    detector
        Number of a detector, from 0; by default the counts of all are added up, and their live times averaged.
    positions : (spectrum, 2), optional
        x and y of each point, row by row. By default columns and rows: the file itself has none.
    chunks
        Rows of the map a block: {"row": 4}; by default about 4 MiB.

    Returns
    -------
    Dataset
        As from `open_crono`: spectra, positions, live_time_s, real_time_s, selected (every point), detectors_live_s (spectrum, detector).

    Raises
    ------
    InputError
        No such file or group, no such detector, live times that are not positive, positions of another number or all equal.
    """
    name, file_path = fspath(path), abspath(fspath(path))
    check_readable(name)
    with clear_errors(name), h5py.File(file_path, "r") as file:
        group = follow(file, "MAPS_RAW")
        names = sorted(member for member in group if member.startswith("data_")) if isinstance(group, h5py.Group) else []
        if not names:
            raise InputError(f"no datasets /MAPS_RAW/data_a … in {name}: `detcal tree {name}` lists what it holds")
        if detector is not None and not 0 <= detector < len(names):
            raise InputError(f"expected a detector from 0 to {len(names) - 1} in {name}, got {detector}")
        wanted = range(len(names)) if detector is None else range(detector, detector + 1)
        cubes = [lazy_maps(file_path, group[names[number]], chunks) for number in wanted]
        if len({cube.shape for cube in cubes}) > 1:
            raise InputError(f"expected detectors of one shape in {name}, got {[cube.shape for cube in cubes]}")
        channels, rows, columns = cubes[0].shape
        cube = cubes[0] if len(cubes) == 1 else sum(cube.astype(np.int32) for cube in cubes)
        spectra = cube.reshape(channels, rows * columns).T
        times = {
            kind: np.asarray(read_all(group[stored]), np.float64)[list(wanted)].reshape(len(wanted), -1)
            for kind, stored in (("live_time_s", "livetime"), ("real_time_s", "realtime"))
            if stored in group
        }
    points = rows * columns
    own = np.stack([line.ravel() for line in np.indices((rows, columns))[::-1]], axis=1).astype(np.float64)
    places = own if positions is None else np.asarray(positions, np.float64)
    check_positions(places, points)
    variables: dict[str, Any] = {
        "spectra": (("spectrum", "energy"), spectra, {"units": "counts"}),
        "positions": (("spectrum", "axis"), places, {"units": "pixels" if positions is None else "1"}),
        "selected": (("row", "column"), np.arange(points).reshape(rows, columns)),
    }
    variables |= {kind: ("spectrum", values.mean(axis=0), {"units": "s"}) for kind, values in times.items()}
    if "live_time_s" in times:
        check_live_times(times["live_time_s"].min(axis=0), points, "choose a detector= that counted everywhere")
        variables["detectors_live_s"] = (("spectrum", "detector"), times["live_time_s"].T, {"units": "s"})
    coords = {"energy": channel_axis(channels), "axis": ["x", "y"], "spectrum": np.arange(points)}
    return xr.Dataset(variables, coords, {"source": f"{name}::/MAPS_RAW/{', '.join(names[number] for number in wanted)}"})


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
            check_live_times(times, number, "leave live_time_s= out")
            variables["live_time_s"] = ("spectrum", times, {"units": "s"})
        axis = channel_axis(channels)
        if energy_kev is not None:
            axis = ("energy", read_all(find_dataset(name, file, energy_kev)), {"units": "keV"})
            check_energy(axis[1], channels, "leave energy_kev= out")
    coords = {"energy": axis, "axis": list("xyz"[: places.shape[1]]) if places.shape[1] <= 3 else np.arange(places.shape[1])}
    coords["spectrum"] = np.arange(number)
    return xr.Dataset(variables, coords, {"source": f"{name}::{spectra}"})


# ------------------------------------------------------------------------------------------------------- parts of a file


def lazy_spectra(path: str, stored: h5py.Dataset, chunks: Mapping[str, int] | None) -> da.Array:
    """Spectra (spectrum, energy) in blocks of whole chunks of the file, energies whole."""
    if stored.ndim != 2 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise InputError(f"expected spectra (spectrum, energy) of numbers in {path}, got {stored.shape} of {stored.dtype}")
    block = wanted_rows(chunks, "spectrum", stored.shape[1] * stored.dtype.itemsize, stored.chunks[0] if stored.chunks else 1)
    return lazy_array(Hdf5Array.of(stored), (min(block, len(stored)), -1), "spectra")


def lazy_maps(path: str, stored: h5py.Dataset, chunks: Mapping[str, int] | None) -> da.Array:
    """Spectra (energy, row, column) in blocks of rows."""
    if stored.ndim != 3 or 0 in stored.shape:
        raise InputError(f"expected spectra (energy, row, column) in {path}::{stored.name}, got {stored.shape}")
    block = wanted_rows(chunks, "row", stored[:0].itemsize * stored.shape[0] * stored.shape[2], stored.chunks[1] if stored.chunks else 1)
    return lazy_array(Hdf5Array.of(stored), (-1, min(block, stored.shape[1]), -1), "channels")


def wanted_rows(chunks: Mapping[str, int] | None, dim: str, row_bytes: int, own: int) -> int:
    """How many spectra or rows make a block: whole chunks of the file."""
    wanted = (chunks or {}).get(dim, max(1, BLOCK_BYTES // row_bytes // own * own))
    if set(chunks or ()) - {dim} or wanted < 1:
        raise InputError(f'expected chunks such as {{"{dim}": 16}}, since energies are whole in each block, got {chunks}')
    return -(-wanted // own) * own


def lazy_array(array: Hdf5Array, blocks: tuple[int, ...], unit: str) -> da.Array:
    """A dataset over dask, behind a path rather than an open file; with a warning of what is missing, and NaN."""
    if lacks := array.lacks:
        warn_of(f"{array.path}::{array.name}", {"": lacks}, unit, stacklevel=4)
    return da.from_array(
        array, chunks=blocks, name=f"spectra-{tokenize(array, blocks)}", fancy=False, inline_array=True,
        meta=np.empty((0,) * array.ndim, array.dtype),
    )  # fmt: skip


def read(group: h5py.Group, name: str) -> NDArray[Any] | None:
    """A dataset that may be missing."""
    found = follow(group, name)
    return read_all(found) if isinstance(found, h5py.Dataset) else None


def read_all(stored: h5py.Dataset) -> NDArray[Any]:
    """A dataset, with NaN for numbers that are missing."""
    return values_of(stored) if stored.dtype.kind in NUMBERS else np.asarray(stored)


def fits(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether an optional dataset belongs to the rest of a scan; says so if it does not."""
    if values.shape != shape:
        warnings.warn(
            f"/XRF/{name} is left out: expected values of shape {shape}, as the rest of the scan, got {values.shape}", stacklevel=3
        )
    return values.shape == shape


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


def times_of(members: h5py.Group, number: int, given: Any) -> dict[str, Any]:
    """Live and real times in seconds; the file's are µs, of a type without a sign behind which negative ones are huge."""
    found = {}
    for stored, line in (("LiveTimes", "live_time_s"), ("RealTimes", "real_time_s")):
        if (values := read(members, stored)) is not None:
            found[line] = (values.astype(np.int64) if values.dtype == np.uint64 else values) * 1e-6
    if given is not None:
        found["live_time_s"] = np.asarray(given, np.float64)
    if "live_time_s" in found:
        check_live_times(found["live_time_s"], number, "give live_time_s= in place of the file's own")
    if "real_time_s" in found and not fits("RealTimes", found["real_time_s"], (number,)):
        del found["real_time_s"]
    return {line: ("spectrum", values, {"units": "s"}) for line, values in found.items()}


def selected_of(stored: NDArray[Any], number: int) -> NDArray[np.int64]:
    """The instrument's index as (row, column) of a type that numpy takes as an index."""
    selected = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    check_selected(selected, number)
    return selected.astype(np.int64)


def energy_of(members: h5py.Group, channels: int, given: Any) -> Any:
    """The energy axis: as given, or written, or the line through the calibration points, or channels."""
    vector, points = read(members, "EnergyVector") if given is None else np.asarray(given, np.float64), read(members, "CalibrationPoints")
    if vector is None and points is not None and points.shape == (2, 2) and points[0, 0] != points[1, 0]:
        gain = (points[1, 1] - points[0, 1]) / (points[1, 0] - points[0, 0])
        vector = points[0, 1] + gain * (np.arange(channels) - points[0, 0])
    if vector is None:
        return channel_axis(channels)
    check_energy(vector, channels, "give energy_kev= in place of the file's own")
    return ("energy", vector, {"units": "keV"})


def channel_axis(channels: int) -> tuple[str, NDArray[np.float64], dict[str, str]]:
    """The axis of spectra without a calibration."""
    return ("energy", np.arange(channels, dtype=np.float64), {"units": "channels"})


def settings_of(file: h5py.File) -> dict[str, Any]:
    """What the instrument was set to; each value is in an array of one element, texts are arrays of letters."""
    settings = follow(file, "Configuration/Settings")
    return {} if settings is None else {name: setting_of(value) for name, value in settings.attrs.items()}


def setting_of(value: Any) -> Any:
    """A setting as a number or text."""
    if isinstance(value, np.ndarray) and value.dtype == "S1":
        return text_of(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufS":
        return own_type(value.ravel()[0]) if value.size == 1 else value.tolist()
    return own_type(value) if isinstance(value, np.generic | bytes) else str(value)


def text_of(letters: Any) -> str:
    """A text from an array of letters."""
    return b"".join(np.ravel(letters).astype("S").tolist()).decode(errors="replace").strip("\0")
