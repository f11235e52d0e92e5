"""Scans that `save` wrote, into an HDF5 file or a zarr store: opened with all that they had, as from the file that they were read from."""

from collections.abc import Mapping
from os.path import abspath

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.absence import warn_of
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import dims_of, follow, open_hdf5
from detcal.stores.sources.nexus import load_hdf5, written_by_detcal
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.scans import Numbers, PathOrName, Stored, StoredSpectra, channel_axis, left_out_of_file
from detcal.stores.sources.zarr_data import ZarrArray
from detcal.stores.sources.zarr_reader import load_zarr, zarr_arrays
from detcal.stores.sources.zarr_zip import is_store
from detcal.xrf.calibration import check_energy, check_live_times, check_positions

SPECTRA, POSITIONS, OF_ELEMENTS = "spectra", "positions", "detector_spectra"
DIMS = {"spectrum", "energy"}
NOTES = "detcal_"  # at the beginning of attributes that say how a file was written


def is_own_scan(path: str) -> bool:
    """Whether a file or store is one of a scan that `save` wrote."""
    check_readable(path)
    if is_store(path):
        arrays = zarr_arrays(path)
        return POSITIONS in arrays and SPECTRA in arrays and set(arrays[SPECTRA].dims) == DIMS
    if not written_by_detcal(path):
        return False
    with open_hdf5(path) as file:
        stored = follow(file, place_in_file(SPECTRA))
        return stored is not None and set(dims_of(stored)) == DIMS and follow(file, place_in_file(POSITIONS)) is not None


def place_in_file(name: str) -> str:
    """Where `save` puts a variable of this name in an HDF5 file."""
    return f"entry/{name}/{name}"


def open_own_scan(
    path: PathOrName, *, live_time_s: str | Numbers | None, energy_kev: str | Numbers | None, chunks: Mapping[str, int] | None
) -> xr.Dataset:
    """A scan that `save` wrote, lazily.

    Parameters
    ----------
    path, live_time_s, energy_kev, chunks
        As for `open_scan`.

    Raises
    ------
    InputError
        It is damaged; or what is given does not fit.
    """
    name = abspath(path)
    check_readable(name)
    with clear_errors(name):
        stored, lacks = load_zarr(name) if is_store(name) else load_hdf5(name)
    spectra = {str(each): variable for each, variable in stored.items() if each in (SPECTRA, OF_ELEMENTS)}
    small = stored.drop_vars(list(spectra))
    warn_of(name, {each: missing for each, missing in lacks.items() if each in small.variables}, "values", stacklevel=4)
    lazy = {each: lazy_spectra(name, each, chunks).assign_attrs(variable.attrs) for each, variable in spectra.items()}
    known = small.compute(scheduler="synchronous")
    texts = {each: as_texts(variable) for each, variable in known.variables.items() if variable.dtype.kind in "OT"}
    known = known.transpose("spectrum", "row", ..., "axis", "energy", missing_dims="ignore")  # in whatever order they were saved
    found = xr.Dataset(lazy).merge(known.assign(texts), combine_attrs="override")  # the spectra first, as they were
    found.attrs = {each: value for each, value in stored.attrs.items() if not str(each).startswith(NOTES)}
    number, channels = found[SPECTRA].shape
    check_positions(found[POSITIONS].values, number)
    if "energy" not in found.coords:
        found = found.assign_coords(energy=channel_axis(channels))
    found = with_given(name, found, live_time_s, energy_kev)
    return with_left_out(name, found).assign_attrs(source=f"{name}::{SPECTRA}")


def as_texts(variable: xr.Variable) -> xr.Variable:
    """Texts as readers give them, of the length of the longest."""
    return variable.copy(data=np.array(variable.values.tolist(), str))


def lazy_spectra(name: str, variable: str, chunks: Mapping[str, int] | None) -> xr.DataArray:
    """Spectra (spectrum, energy), or those of each element (detector, spectrum, energy), in blocks of some spectra."""
    dims, array, blocks = stored_spectra(name, variable)
    elements = dict(zip(dims, array.shape, strict=True)).get("detector")
    parts = [StoredSpectra(array, dims, blocks, number).lazy(chunks) for number in range(elements or 1)]
    if elements is None:
        return xr.DataArray(parts[0], dims=("spectrum", "energy"))
    return xr.DataArray(da.stack(parts), dims=("detector", "spectrum", "energy"))


def stored_spectra(name: str, variable: str) -> tuple[tuple[str, ...], Stored, tuple[int, ...] | None]:
    """The names of the dimensions of an array, the array, and its chunks."""
    if is_store(name):
        array = ZarrArray.open(name, variable)
        return zarr_arrays(name)[variable].dims, array, array.chunks
    with open_hdf5(name) as file:
        dataset = file[place_in_file(variable)]
        return dims_of(dataset), Hdf5Array.of(dataset), dataset.chunks


def with_given(name: str, scan: xr.Dataset, live_time_s: str | Numbers | None, energy_kev: str | Numbers | None) -> xr.Dataset:
    """A scan with times and energies in place of its own: numbers, or the name of a line that it has too.

    Raises
    ------
    InputError
        They do not fit, or there is no such line.
    """
    number, channels = scan[SPECTRA].shape
    if live_time_s is not None:
        times = line_of(name, scan, live_time_s, "spectrum")
        check_live_times(times, number)
        scan = scan.assign(live_time_s=("spectrum", times, {"units": "s"})).drop_vars("detectors_live_s", errors="ignore")
    if energy_kev is not None:
        energies = line_of(name, scan, energy_kev, "energy")
        check_energy(energies, channels, "give other energies by energy_kev")
        scan = scan.assign_coords(energy=("energy", energies, {"units": "keV"}))
    return scan


def line_of(name: str, scan: xr.Dataset, given: str | Numbers, dim: str) -> NDArray[np.float64]:
    """Numbers that are given, or those of a line of a scan."""
    if not isinstance(given, str):
        return np.asarray(given, np.float64)
    own = given.rsplit("/", 1)[-1]
    if own not in scan.variables or scan[own].dims != (dim,):
        lines = [str(each) for each, variable in scan.variables.items() if variable.dims == (dim,)]
        raise InputError(f"expected the name of a line of numbers along {dim} in {name}, got {given!r}: it has {', '.join(lines)}")
    return np.asarray(scan[own], np.float64)


def with_left_out(name: str, scan: xr.Dataset) -> xr.Dataset:
    """A scan that says which spectra are left out, as one that a reader opened does; its own word comes first."""
    if "left_out" in scan:
        return scan
    lines = {line: (scan[line].dims, scan[line].values) for line in (POSITIONS, "live_time_s") if line in scan}
    return scan.assign(left_out_of_file(name, lines))
