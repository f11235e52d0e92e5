"""Sparse matrices in scipy's .npz files that detcal wrote."""

import json
import zipfile
import zlib
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.stores.calibrations import from_dataset

PARTS = ("data", "indices", "indptr")
MASK, ATTRS = "detcal_mask", "detcal_attrs"  # beside what scipy writes, which reads past them


def read_npz(path: str) -> Any:
    """The matrix of a sensor, in memory.

    Raises
    ------
    InputError
        A file of another program, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            absent = {*PARTS, MASK, ATTRS} - set(file)
            if absent:
                raise InputError(
                    f"expected a matrix that detcal wrote, got {path} without {', '.join(sorted(absent))}: build it with build_psf"
                )
            parts = {name: xr.DataArray(da.from_array(file[name], chunks=-1, name=False), dims=f"{name}_place") for name in PARTS}
            dataset = xr.Dataset(parts | {"mask": (("y", "x"), file[MASK])}, attrs=json.loads(str(file[ATTRS])))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"cannot read {path}: it is damaged, or no .npz file ({' '.join(str(error).split())})") from error
    return from_dataset(dataset)
