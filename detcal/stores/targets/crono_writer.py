"""Scans written in the layout of a Crono file."""

from os import PathLike
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.stores.sources.crono import CRONO_LINES
from detcal.stores.targets.replacing import check_free, replacing

CHUNK_BYTES = 2**18  # of spectra


def write_crono(scan: xr.Dataset, path: str | PathLike[str], *, overwrite: bool = False, compression: str | None = "gzip") -> Path:
    """Write a scan in the layout of a Crono file, a block of spectra at a time.

    Parameters
    ----------
    scan
        As from `open_crono`; positions must be whole numbers of µm, as motor steps are, and not negative.
    path
        The file, which appears when it is whole.
    overwrite
        Replace one that exists.
    compression
        Of the spectra: "gzip", "lzf" or None.

    Raises
    ------
    InputError
        Positions that are no motor steps.
    OutputError
        It exists, or cannot be written.
    """
    target = Path(path)
    check_free(target, overwrite)
    steps = scan.positions.values
    if not ((steps >= 0) & (steps < 2**32) & (steps % 1 == 0)).all():
        raise InputError("expected positions that are whole numbers of µm from 0 to 4294967295, as motor steps are: round or shift them")
    with replacing(target.absolute(), overwrite) as output, h5py.File(output, "w") as file:
        members = file.create_group("XRF")
        members["MotorsPositions"] = steps.astype(np.uint32)
        members["EnergyVector"] = scan.energy.values.astype(np.float32)
        channels = np.array([len(scan.energy) // 5, len(scan.energy) // 2])
        members["CalibrationPoints"] = np.stack([channels, scan.energy.values[channels]], axis=1).astype(np.float32)
        for line, stored in (("live_time_s", "LiveTimes"), ("real_time_s", "RealTimes")):
            if line in scan:
                members[stored] = np.round(scan[line].values * 1e6).astype(np.uint64)
        if "selected" in scan:
            members["SpectraSelectedIndex"] = scan.selected.values[..., None].astype(np.uint64)
        write_maps(members, scan)
        settings = file.create_group("Configuration/Settings")
        for name, value in scan.attrs.items():
            settings.attrs[name] = np.array(list(str(value)), "S1") if isinstance(value, str) else np.atleast_1d(value)
        write_lines(members, scan, compression)
    return target


def write_maps(members: h5py.Group, scan: xr.Dataset) -> None:
    """The instrument's own maps, where their points lie, and what they are of: names are rows of letters, objects are opaque."""
    if "computed_maps" in scan:
        members["Maps/ComputedMaps"] = scan.computed_maps.values
    for axis in "xy":
        if f"computed_maps_{axis}" in scan:
            members[f"{axis.upper()}ComputedMapsCoordinate"] = scan[f"computed_maps_{axis}"].values[..., None]
    if "roi_energies_kev" in scan:
        members["ROIs/ROIsEnergies"] = scan.roi_energies_kev.values
    if "roi" in scan.coords:
        names = scan.roi.values.astype("S")
        members["ROIs/ROIsNames"] = names.view("S1").reshape(len(names), -1)
        members["ROIs/ROIsObjects"] = names.view(f"V{names.dtype.itemsize}")


def write_lines(members: h5py.Group, scan: xr.Dataset, compression: str | None) -> None:
    """Spectra, and what is told of each: what is not in memory is computed block by block, all of a block at once."""
    spectra = scan.spectra.chunk().data if scan.spectra.chunks is None else scan.spectra.data
    rows = max(1, min(len(spectra), CHUNK_BYTES // (spectra.shape[1] * spectra.dtype.itemsize)))
    lazy: dict[Any, da.Array] = {
        members.create_dataset("Spectra", spectra.shape, spectra.dtype, chunks=(rows, spectra.shape[1]), compression=compression): spectra
    }
    for stored, (line, _) in CRONO_LINES.items():
        if line in scan and scan[line].chunks is None:
            members[stored] = scan[line].values
        elif line in scan:
            lazy[members.create_dataset(stored, scan[line].shape, scan[line].dtype)] = scan[line].data
    stop = 0
    for size in spectra.chunks[0]:
        start, stop = stop, stop + size
        parts = dask.compute(*(array[start:stop] for array in lazy.values()))
        for dataset, part in zip(lazy, parts, strict=True):
            dataset[start:stop] = part
