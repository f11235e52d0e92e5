"""HDF5 outputs as NeXus NXdata, which viewers plot with axes, units and error bars."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from detcal.stores.sources.attributes import DIMS_MARK, JSON_MARK, TYPE_MARK, UNITS_MARK
from detcal.stores.sources.detector_files import add_detector
from detcal.stores.sources.nxtomo import ANGLE
from detcal.stores.targets.cansas import add_cansas
from detcal.stores.targets.streaming import blocks
from detcal.stores.targets.tomography import add_tomography
from detcal.stores.targets.zarr_store import NUMBERS

# What is the standard error of which variable, or by which power of it.
ERRORS = (
    ("intensity", "sem", 1.0), ("rate", "error", 1.0), ("counts", "error", 1.0), ("element_rate", "element_error", 1.0),
    ("element_counts", "element_error", 1.0), ("rate", "variance", 0.5),
)  # fmt: skip
# Names of units, among them pyFAI's, as UDUNITS has them.
UNITS = {
    "q_nm^-1": "1/nm", "q_A^-1": "1/angstrom", "2th_deg": "degree", "2th_rad": "rad", "r_mm": "mm", "r_m": "m", "d*2_nm^-2": "1/nm^2",
    "d*2_A^-2": "1/angstrom^2", "s_nm^-1": "1/nm", "s_A^-1": "1/angstrom",
    "d_nm": "nm", "d_A": "angstrom", "r_px": "1", "deg": "degree", "pixels": "1", "px": "1", "channels": "1", "counts²/s²": "counts^2/s^2",
}  # fmt: skip


def export_hdf5(dataset: xr.Dataset, path: Path) -> None:
    """NeXus: an NXdata group for each variable, the first one the default plot; a distortion map also as an NXdetector,
    frames with rotation angles also as NXtomo, one profile over q also as NXcanSAS."""
    calibration = "detcal_type" in dataset.attrs
    with open_new(path) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": str(next(iter(dataset))), **plain_attributes(dataset.attrs)})
        for name, variable in dataset.items():
            group = entry.create_group(str(name))
            axes = [axis_of(variable, str(dim)) for dim in variable.dims]
            group.attrs.update({"NX_class": "NXdata", "signal": str(name), "axes": axes})
            for member in (variable, *variable.coords.values()):
                add_dataset(group, member, checksums=calibration)
        for name, errors, power in ERRORS:
            if name in dataset and errors in dataset and dataset[name].dims == dataset[errors].dims:
                add_errors(entry, name, dataset[errors], power)
        if dataset.attrs.get("detcal_type") == "DistortionMap":
            add_detector(entry, dataset)
        add_tomography(entry, dataset)
        add_cansas(file, dataset)


@contextmanager
def open_new(path: Path) -> Iterator[h5py.File]:
    """A new file; what cannot be written fails before it is closed, while it can be."""
    with open(path, "w+b", buffering=0) as raw, h5py.File(FileToClose(raw), "w") as file:
        yield file
        file.flush()


def add_errors(entry: h5py.Group, name: str, errors: xr.DataArray, power: float) -> None:
    """The standard errors of a signal beside it, where NeXus has them; those that have a group of their own are not written twice."""
    place = f"{name}/{name}_errors"
    if place in entry:
        return
    if power == 1:
        entry[place] = entry[f"{errors.name}/{errors.name}"]
        return
    stored = entry.create_dataset(place, errors.shape, errors.dtype)
    stored.attrs["units"] = entry[f"{name}/{name}"].attrs.get("units", "1")
    for part, block in blocks(errors):
        stored[part] = block**power


def axis_of(variable: xr.DataArray, dim: str) -> str:
    """The coord of a dimension: that of its name, or angles, or else the first along it; "." if there is none."""
    along = [str(name) for name, line in variable.coords.items() if line.dims == (dim,)]
    return next((name for name in (dim, ANGLE, *along) if name in along), ".")


class FileToClose:
    """A file for HDF5, which crashes at the end of the program if it could not write all that it wanted to, to the last byte.

    So the first write that fails raises, and those after it, of a file that will be thrown away, pass for done.
    """

    def __init__(self, raw: FileIO) -> None:
        self.raw, self.failed = raw, False
        self.read, self.readinto, self.seek, self.tell = raw.read, raw.readinto, raw.seek, raw.tell

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left and not self.failed:
            left = left[self.attempt(self.raw.write, left) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int | None:
        return None if self.failed else self.attempt(self.raw.truncate, size)

    def flush(self) -> None:
        """Nothing to do: the raw file holds nothing back."""

    def attempt(self, action: Callable[..., int], *arguments: Any) -> int:
        try:
            return action(*arguments)
        except OSError:
            self.failed = True
            raise


def add_dataset(group: h5py.Group, variable: xr.DataArray, *, checksums: bool) -> None:
    """A variable and its attributes; times as text too.

    Checksums need chunks, and writing takes more than twice the time: they are for calibrations, on which all results rest.
    """
    number = variable.dtype.kind in NUMBERS
    checked = {"fletcher32": True} if checksums and number and variable.ndim and variable.size else {}
    stored = group.create_dataset(str(variable.name), variable.shape, variable.dtype if number else h5py.string_dtype(), **checked)
    stored.attrs.update({**plain_attributes(variable.attrs | known_units(variable)), DIMS_MARK: [str(dim) for dim in variable.dims]})
    if variable.dtype.kind == "M":
        stored.attrs[TYPE_MARK] = str(variable.dtype)
    for place, block in blocks(variable):
        stored[place] = block if number else np.array([str(value) for value in block.flat], object).reshape(block.shape)


def known_units(variable: xr.DataArray) -> dict[str, str]:
    """Units as UDUNITS knows them, and a note of what they were, if these are others; logarithms have none."""
    own = str(variable.attrs.get("units", ""))
    units = "1" if own.endswith("_None") else UNITS.get(own, own)
    return {} if units == own else {"units": units, UNITS_MARK: own}


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that HDF5 can hold: all but texts and numbers as JSON, and which of them are."""
    values = {str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in attributes.items()}
    as_json = [name for name, value in values.items() if not isinstance(value, str | int | float)]
    return values | {name: json.dumps(values[name]) for name in as_json} | ({JSON_MARK: as_json} if as_json else {})
