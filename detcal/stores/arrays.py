"""One array out of a file, by its name."""

from os import PathLike, fspath
from os.path import abspath
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import zarr
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.hdf5 import find_dataset
from detcal.stores.nexus import over_dask
from detcal.stores.readers import check_readable, clear_errors, fingerprint
from detcal.stores.zarr_zip import is_zip, zarr_place


def get_array(path: str | PathLike[str], name: str, *, compute: bool = True) -> NDArray[Any] | da.Array:
    """An array of a zarr store (a zipped one too) or HDF5 file.

    Parameters
    ----------
    path
        The file, of whatever program.
    name
        Of the array, with the groups that it lies in: `tree` lists them.
    compute
        False: as a dask array in the blocks that it is stored in, of which nothing is read.

    Raises
    ------
    InputError
        No such file or array, a damaged file.
    """
    shown, place = fspath(path), abspath(fspath(path))
    check_readable(shown)
    with clear_errors(shown):
        array = zarr_array(shown, place, name) if Path(place).is_dir() or is_zip(Path(place)) else hdf5_array(shown, place, name)
        return np.asarray(array.compute()) if compute else array


def hdf5_array(shown: str, place: str, name: str) -> da.Array:
    """A dataset of an HDF5 file."""
    with h5py.File(place, "r") as file:
        found = find_dataset(shown, file, name)
        if found.shape is None:
            raise InputError(f"dataset {name} in {shown} is empty: it has neither shape nor values")
        if found.dtype.kind in "biufc" and found.ndim:
            return over_dask(place, found)
        texts = found.dtype.kind == "O" and h5py.check_string_dtype(found.dtype)
        return da.from_array(np.asarray(found.asstr() if texts else found), chunks=-1)


def zarr_array(shown: str, place: str, name: str) -> da.Array:
    """An array of a zarr store."""
    try:
        array = zarr.open(zarr_place(place), path=name.strip("/"), mode="r")
    except FileNotFoundError:
        array = None
    if not isinstance(array, zarr.Array):
        raise InputError(f"no array {name} in {shown}: `detcal tree {shown}` lists what it holds")
    files = [place] if Path(place).is_file() else [str(file) for file in Path(place, name.strip("/")).glob("zarr.json")]
    label = f"zarr-{tokenize(place, name, fingerprint(files))}"
    return da.from_array(array, chunks=array.chunks, name=label, meta=np.empty((0,) * array.ndim, array.dtype))
