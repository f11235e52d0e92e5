"""What `save` wrote as HDF5, back as a lazy Dataset."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.stack import frames_a_block
from detcal.stores.hdf5 import DIMS_MARK, TYPE_MARK, follow, own_attributes
from detcal.stores.readers import clear_errors, fingerprint
from detcal.stores.zarr_store import NUMBERS


@dataclass(frozen=True)
class Hdf5Array:
    """A dataset of an HDF5 file as dask takes it; it holds a path and no open file, so that it can be sent to any worker."""

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        with clear_errors(self.path), h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][key])


def holds_calibration(path: str) -> bool:
    """Whether `save` wrote a calibration into an HDF5 file."""
    with clear_errors(path), h5py.File(path, "r") as file:
        entry = follow(file, "entry")
        return isinstance(entry, h5py.Group) and "detcal_type" in entry.attrs


def written_by_detcal(path: str) -> bool:
    """Whether `save` wrote an HDF5 file."""
    with clear_errors(path), h5py.File(path, "r") as file:
        entry = follow(file, "entry")
        return isinstance(entry, h5py.Group) and "detcal_version" in entry.attrs


def load_hdf5(path: str) -> xr.Dataset:
    """The Dataset of which `save` made an HDF5 file.

    Raises
    ------
    InputError
        Another program wrote it, or it is damaged.
    """
    with clear_errors(path), h5py.File(path, "r") as file:
        entry = follow(file, "entry")
        if not isinstance(entry, h5py.Group) or "detcal_version" not in entry.attrs:
            raise InputError(f"expected a zarr store or an HDF5 file that detcal wrote, got {path}: open_frames opens stacks of others")
        default = entry.attrs["default"]
        variables, coords = {}, {}
        data = [name for name in entry if entry[name].attrs.get("NX_class") == "NXdata"]
        for name in sorted(data, key=lambda name: (name != default, name)):  # the default plot is that of the first one
            members = {member: lazy_variable(path, entry[name][member]) for member in entry[name]}
            variables[name] = members.pop(name)
            coords.update(members)
        attrs = {name: value for name, value in own_attributes(entry).items() if name not in ("NX_class", "default")}
        return xr.Dataset(variables, coords, attrs)


def lazy_variable(path: str, stored: h5py.Dataset) -> xr.Variable:
    """A dataset that `save` wrote as a variable: texts and times in memory, numbers over dask."""
    dims = [str(dim) for dim in stored.attrs[DIMS_MARK]]
    if stored.dtype.kind in NUMBERS:
        return xr.Variable(dims, over_dask(path, stored), own_attributes(stored))
    texts = np.asarray(stored.asstr()[()], object)
    return xr.Variable(dims, texts.astype(stored.attrs.get(TYPE_MARK, object)), own_attributes(stored))


def over_dask(path: str, stored: h5py.Dataset) -> da.Array:
    """The numbers of a dataset, lazily, in blocks along its first dimension."""
    array = Hdf5Array(path, stored.name, stored.shape, stored.dtype)
    rows = max(1, len(stored)) if stored.ndim else 1
    blocks = (frames_a_block(stored.nbytes // rows), *(-1,) * (stored.ndim - 1)) if stored.ndim else ()
    return da.from_array(
        array, chunks=blocks, name=f"hdf5-{tokenize(array, fingerprint([path]))}", fancy=False,
        meta=np.empty((0,) * stored.ndim, stored.dtype),
    )  # fmt: skip
