"""What `save` wrote as HDF5, back as a lazy Dataset."""

from math import prod

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize

from detcal.errors import InputError
from detcal.frames.stack import frames_a_block
from detcal.stores.absence import Lacks
from detcal.stores.sources.attributes import DIMS_MARK, TYPE_MARK, own_attributes
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import follow, open_hdf5
from detcal.stores.targets.zarr_store import NUMBERS


def holds_calibration(path: str) -> bool:
    """Whether `save` wrote a calibration into an HDF5 file."""
    with open_hdf5(path) as file:
        entry = follow(file, "entry")
        return isinstance(entry, h5py.Group) and "detcal_type" in entry.attrs


def written_by_detcal(path: str) -> bool:
    """Whether `save` wrote an HDF5 file."""
    with open_hdf5(path) as file:
        entry = follow(file, "entry")
        return isinstance(entry, h5py.Group) and "detcal_version" in entry.attrs


def load_hdf5(path: str) -> tuple[xr.Dataset, dict[str, Lacks]]:
    """The Dataset of which `save` made an HDF5 file, and what is missing of its variables, by their names.

    Raises
    ------
    InputError
        Another program wrote it, or it is damaged.
    """
    with open_hdf5(path) as file:
        entry = follow(file, "entry")
        if not isinstance(entry, h5py.Group) or "detcal_version" not in entry.attrs:
            raise InputError(f"expected a zarr store or an HDF5 file that detcal wrote, got {path}: open_frames opens stacks of others")
        default = entry.attrs["default"]
        variables: dict[str, xr.Variable] = {}
        coords: dict[str, xr.Variable] = {}
        lacks: dict[str, Lacks] = {}
        data = [name for name in entry if entry[name].attrs.get("NX_class") == "NXdata" and name in entry[name]]
        data = [name for name in data if not isinstance(entry[name].get(name, getlink=True), h5py.SoftLink)]  # the same again, as NXtomo
        for name in sorted(data, key=lambda name: (name != default, name)):  # the default plot is that of the first one
            for member in entry[name]:
                if member == f"{name}_errors":  # which are a variable of their own, or follow from one
                    continue
                variable, missing = lazy_variable(entry[name][member])
                (variables if member == name else coords)[member] = variable
                lacks |= {member: missing} if missing else {}
        attrs = {name: value for name, value in own_attributes(entry).items() if name not in ("NX_class", "default")}
        return xr.Dataset(variables, coords, attrs), lacks


def lazy_variable(stored: h5py.Dataset) -> tuple[xr.Variable, Lacks | None]:
    """A dataset that `save` wrote as a variable: texts and times in memory, numbers over dask; and what is missing of it."""
    dims = [str(dim) for dim in stored.attrs[DIMS_MARK]]
    if stored.dtype.kind in NUMBERS:
        array = Hdf5Array.of(stored)
        return xr.Variable(dims, over_dask(array), own_attributes(stored)), array.lacks
    texts = np.asarray(stored.asstr()[()], object)
    return xr.Variable(dims, texts.astype(stored.attrs.get(TYPE_MARK, object)), own_attributes(stored)), None


def over_dask(array: Hdf5Array) -> da.Array:
    """The numbers of a dataset, lazily, in blocks along its first dimension."""
    rows = max(1, array.shape[0]) if array.ndim else 1
    row_bytes = prod(array.shape) * array.dtype.itemsize // rows
    blocks = (frames_a_block(row_bytes), *(-1,) * (array.ndim - 1)) if array.ndim else ()
    return da.from_array(array, chunks=blocks, name=f"hdf5-{tokenize(array)}", fancy=False, meta=np.empty((0,) * array.ndim, array.dtype))
