"""Fly scans of the APS: a dataset of channels × rows × columns for each detector."""

import warnings
from collections.abc import Mapping, Sequence
from os import fspath
from os.path import abspath
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import follow
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.scans import PathOrName, channel_axis, lazy_array, left_out_of_file, read_all, wanted_rows
from detcal.xrf.calibration import check_positions, listed


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

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("fly.h5", "w") as file:
    ...     file["MAPS_RAW/data_a"] = np.ones((64, 2, 3), np.uint16)
    >>> detcal.open_maps("fly.h5").selected.shape
    (2, 3)
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
    alive: NDArray[np.bool_] = ~(timeless | silent)
    return alive


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
