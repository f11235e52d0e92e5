"""X-ray fluorescence scans, opened lazily from what instruments write."""

import warnings
from collections.abc import Mapping, Sequence
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
from detcal.frames.arrays import ArrayLike
from detcal.stores.absence import warn_of
from detcal.stores.sources.hdf5 import find_dataset, follow, own_type
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.targets.zarr_store import NUMBERS
from detcal.xrf.calibration import (
    NO_LIVE_TIME,
    check_energy,
    check_live_times,
    check_places,
    check_positions,
    check_selected,
    leave_out,
    listed,
    unmeasured,
)

PathOrName = str | PathLike[str]
Numbers = ArrayLike | Sequence[float]
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
    variables |= left_out_of_file(name, variables)
    return xr.Dataset(variables, coords, attrs)


def open_maps(
    path: PathOrName,
    *,
    detector: int | Sequence[int] | None = None,
    positions: ArrayLike | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open a fly scan of the APS (/MAPS_RAW: a dataset of channels × rows × columns for each detector) lazily.

    Not MDA files of step maps: no maintained library reads them without a graphical interface or on today's Python; convert them to HDF5.

    Parameters
    ----------
    path
        The HDF5 file.
    detector
        Numbers of detectors, from 0, or of one. Default: all that have counted. One that has no live time where others have one, in more
        of the points than its share of the counts is worth, or has not a single count, is left out, with a warning.
    positions : (spectrum, 2), optional
        x and y of each point, row by row. Default: columns and rows, since the file itself has none.
    chunks
        Rows of the map a block: {"row": 4}. Default: about 4 MiB.

    Returns
    -------
    Dataset
        As from `open_crono`. spectra are the sums of the detectors' counts, in a type that holds them; live_time_s and real_time_s their
        mean times; selected every point. detectors_live_s (spectrum, detector) and, of several, detector_spectra (detector, spectrum,
        energy) are those of each, by which `regrid_rate` and `element_maps` add up rates; coord detector tells their numbers. Points
        without a live time of all these detectors are left out.

    Raises
    ------
    InputError
        No such file or group, no such detector, none that has counted, positions of another number or all equal.
    """
    name, file_path = fspath(path), abspath(fspath(path))
    check_readable(name)
    with clear_errors(name), h5py.File(file_path, "r") as file:
        group = follow(file, "MAPS_RAW")
        names = sorted(member for member in group if member.startswith("data_")) if isinstance(group, h5py.Group) else []
        if not names:
            raise InputError(f"no datasets /MAPS_RAW/data_a … in {name}: `detcal tree {name}` lists what it holds")
        wanted = wanted_detectors(name, detector, len(names))
        shapes = [map_shape(name, group[names[number]]) for number in wanted]
        if len(set(shapes)) > 1:
            raise InputError(f"expected detectors of one shape in {name}, got {shapes}")
        times = {
            kind: detector_times(name, group, stored, len(names), shapes[0][1:])[wanted]
            for kind, stored in (("live_time_s", "livetime"), ("real_time_s", "realtime"))
            if stored in group
        }
        counted = detectors_that_counted(name, [group[names[number]] for number in wanted], times.get("live_time_s"), wanted)
        wanted = wanted[counted]
        cubes = [lazy_maps(file_path, group[names[number]], chunks) for number in wanted]
    channels, rows, columns = cubes[0].shape
    points = rows * columns
    parts = [cube.reshape(channels, points).T for cube in cubes]
    own = np.stack([line.ravel() for line in np.indices((rows, columns))[::-1]], axis=1).astype(np.float64)
    places = own if positions is None else np.asarray(positions, np.float64)
    check_positions(places, points)
    variables: dict[str, Any] = {
        "spectra": (("spectrum", "energy"), sum_of(parts), {"units": "counts"}),
        "positions": (("spectrum", "axis"), places, {"units": "pixels" if positions is None else "1"}),
        "selected": (("row", "column"), np.arange(points).reshape(rows, columns)),
    }
    times = {kind: values[counted] for kind, values in times.items()}
    variables |= {kind: ("spectrum", values.mean(axis=0), {"units": "s"}) for kind, values in times.items()}
    partly: dict[str, NDArray[np.bool_]] = {}
    if "live_time_s" in times:
        there = (times["live_time_s"] > 0) & (times["live_time_s"] < np.inf)
        live = np.where(there, times["live_time_s"], np.nan)
        partly["without a live time of every detector"] = np.asarray(there.any(axis=0) & ~there.all(axis=0))
        variables["live_time_s"] = ("spectrum", live.mean(axis=0), {"units": "s"})
        variables["detectors_live_s"] = (("spectrum", "detector"), live.T, {"units": "s"})
    if len(parts) > 1:
        variables["detector_spectra"] = (("detector", "spectrum", "energy"), da.stack(parts), {"units": "counts"})
    variables |= left_out_of_file(name, variables, partly)
    coords = {"energy": channel_axis(channels), "axis": ["x", "y"], "spectrum": np.arange(points), "detector": wanted}
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


# ------------------------------------------------------------------------------------------------------- parts of a file


def lazy_spectra(path: str, stored: h5py.Dataset, chunks: Mapping[str, int] | None) -> da.Array:
    """Spectra (spectrum, energy) in blocks of whole chunks of the file, energies whole."""
    if stored.ndim != 2 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise InputError(f"expected spectra (spectrum, energy) of numbers in {path}, got {stored.shape} of {stored.dtype}")
    block = wanted_rows(chunks, "spectrum", stored.shape[1] * stored.dtype.itemsize, stored.chunks[0] if stored.chunks else 1)
    return lazy_array(Hdf5Array.of(stored), (min(block, len(stored)), -1), "spectra")


def wanted_detectors(name: str, detector: int | Sequence[int] | None, number: int) -> NDArray[np.int64]:
    """The numbers of the detectors that are asked for."""
    if detector is None:
        return np.arange(number)
    wanted = np.atleast_1d(np.asarray(detector))
    whole = wanted.ndim == 1 and wanted.size and wanted.dtype.kind in "iu"
    if not whole or not ((wanted >= 0) & (wanted < number)).all() or len(set(wanted.tolist())) < len(wanted):
        raise InputError(f"expected a detector from 0 to {number - 1} in {name}, or several different ones, got {detector}")
    return wanted.astype(np.int64)


def map_shape(name: str, stored: h5py.Dataset) -> tuple[int, ...]:
    """The shape of a detector's spectra (energy, row, column)."""
    if stored.ndim != 3 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise InputError(
            f"expected spectra (energy, row, column) of numbers in {name}::{stored.name}, got {stored.shape} of {stored.dtype}"
        )
    return tuple(stored.shape)


def detector_times(name: str, group: h5py.Group, stored: str, detectors: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Live or real times (detector, spectrum) of all detectors."""
    times = np.asarray(read_all(group[stored]), np.float64)
    if times.shape != (detectors, *shape):
        raise InputError(f"expected times of shape {(detectors, *shape)} in {name}::/MAPS_RAW/{stored}, got {times.shape}")
    return times.reshape(detectors, -1)


def detectors_that_counted(
    name: str, cubes: list[h5py.Dataset], live_time_s: NDArray[np.float64] | None, numbers: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which detectors are worth more than the points that they have not counted in; says of the others that they are left out.

    A detector of n is an n-th of the counts: it is left out if it has no live time in more than an n-th of the points in which any has one,
    or if it has not a single count while others have. Else those points are.
    """
    counted = np.ones(len(cubes), np.bool_)
    if len(cubes) == 1:
        return counted
    timeless = counted & False
    if live_time_s is not None:
        there = (live_time_s > 0) & (live_time_s < np.inf)
        reached = there.any(axis=0)
        timeless = (reached & ~there).sum(axis=1) > reached.sum() / len(cubes)
    silent = np.array([not gone and is_silent(cube) for cube, gone in zip(cubes, timeless, strict=True)])
    if (timeless | silent).all():  # nobody can tell from another's counts that a detector is dead
        silent[:] = False
    parts = [
        f"{listed(numbers[which])} {reason}"
        for which, reason in ((timeless, "without a live time in too many points"), (silent, "without a single count"))
        if which.any()
    ]
    if parts:
        warnings.warn(f"of {len(cubes)} detectors of {name}, {(timeless | silent).sum()} are left out: {' and '.join(parts)}", stacklevel=3)
    return ~(timeless | silent)


def is_silent(stored: h5py.Dataset) -> bool:
    """Whether spectra (energy, row, column) hold no count at all: those of a detector that counts are read to the first count only."""
    depth = stored.chunks[1] if stored.chunks else 1
    return not any((stored[:, start : start + depth] > 0).any() for start in range(0, stored.shape[1], depth))


def sum_of(spectra: list[da.Array]) -> da.Array:
    """Sums of the detectors' counts in a type that holds them: whole numbers stay whole, reals keep fractions and NaN."""
    kind = np.result_type(*(part.dtype for part in spectra))
    if len(spectra) == 1:
        return spectra[0]
    if kind.kind == "f":
        kind = np.result_type(kind, np.float32)
    elif kind != np.uint64:
        kind = np.dtype(np.int32 if kind.itemsize <= 2 else np.int64)
    total: da.Array = sum((part.astype(kind) for part in spectra[1:]), spectra[0].astype(kind))
    return total


def lazy_maps(path: str, stored: h5py.Dataset, chunks: Mapping[str, int] | None) -> da.Array:
    """Spectra (energy, row, column) in blocks of rows."""
    if stored.ndim != 3 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise InputError(
            f"expected spectra (energy, row, column) of numbers in {path}::{stored.name}, got {stored.shape} of {stored.dtype}"
        )
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


def left_out_of_file(name: str, variables: Mapping[str, Any], others: Mapping[str, NDArray[np.bool_]] | None = None) -> dict[str, Any]:
    """left_out (spectrum,), if any spectrum of a file was not measured, and live_time_s without what is no time; says so.

    `others` are more reasons than the variables tell.
    """
    positions = variables["positions"][1]
    live = variables["live_time_s"][1] if "live_time_s" in variables else None
    reasons = {**(others or {}), **unmeasured(positions, live)}
    left_out = leave_out(reasons, np.arange(len(positions)), source=f" of {name}")
    check_places(positions[~left_out])
    if not left_out.any():
        return {}
    found: dict[str, Any] = {"left_out": ("spectrum", left_out)}
    if live is not None:
        timeless = unmeasured(positions, live)[NO_LIVE_TIME]
        found["live_time_s"] = ("spectrum", np.where(timeless, np.nan, live), {"units": "s"})
    return found


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
        check_live_times(found["live_time_s"], number)
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
