"""One array out of a file, by its name."""

from os import PathLike, fspath
from os.path import abspath
from typing import Any

import dask.array as da
import h5py
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.absence import warn_of
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import as_it_is_written, find_dataset
from detcal.stores.sources.nexus import over_dask
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.urls import is_url
from detcal.stores.sources.zarr_data import ZarrArray
from detcal.stores.sources.zarr_zip import is_store
from detcal.stores.targets.zarr_store import NUMBERS


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

    Returns
    -------
    array
        In the file's own type. Parts of numbers that are missing (chunks that were never written or are lost, parts of a virtual dataset
        without a source) are NaN, with one warning: integers then become float32, those of more than 16 bits float64.

    Raises
    ------
    InputError
        No such file or array, a damaged file.

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("scan.h5", "w") as file:
    ...     file["entry/data"] = np.ones((2, 3), np.uint16)
    >>> detcal.get_array("scan.h5", "entry/data").sum()
    np.uint64(6)
    """
    shown = fspath(path)
    place = shown if is_url(shown) else abspath(shown)
    check_readable(shown)
    with clear_errors(shown):
        array = zarr_array(place, name) if is_store(place) else hdf5_array(shown, place, name)
        if isinstance(array, ZarrArray | Hdf5Array) and (lacks := array.lacks):
            warn_of(f"{shown}::{name}", {"": lacks}, "rows", stacklevel=2)
        if compute:  # in this thread: whoever calls may hold the lock of HDF5, for which others would wait for ever
            return np.asarray(array[...])
        return lazy(array)


def lazy(array: ZarrArray | Hdf5Array | NDArray[Any]) -> da.Array:
    """An array over dask."""
    if isinstance(array, Hdf5Array):
        return over_dask(array)
    if isinstance(array, ZarrArray):
        meta = np.empty((0,) * array.ndim, array.dtype)
        stored: da.Array = da.from_array(array, chunks=array.chunks, name=f"zarr-{tokenize(array)}", meta=meta)
        return stored
    held: da.Array = da.from_array(array, chunks=-1)
    return held


def hdf5_array(shown: str, place: str, name: str) -> Hdf5Array | NDArray[Any]:
    """A dataset of an HDF5 file."""
    with as_it_is_written(place) as file:
        found = find_dataset(shown, file, name)
        if found.shape is None:
            raise InputError(f"dataset {name} in {shown} is empty: it has neither shape nor values")
        if found.dtype.kind in NUMBERS:
            return Hdf5Array.of(found)
        texts = found.dtype.kind == "O" and h5py.check_string_dtype(found.dtype)
        return np.asarray(found.asstr() if texts else found)


def zarr_array(place: str, name: str) -> ZarrArray:
    """An array of a zarr store."""
    return ZarrArray.open(place, name.strip("/"))
