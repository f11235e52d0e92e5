"""What the tests of outputs save, and what they look at afterwards."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.response import Response

SUFFIXES = [".zarr", ".h5", ".tif"]


def make_frames(dtype: str = "float32", blocks: Any = (2, -1, -1)) -> xr.DataArray:
    """A lazy stack with coords, units and a NaN."""
    values = np.random.default_rng(5).normal(100, 10, (7, 6, 5)).astype(dtype)
    if dtype == "float32":
        values[1, 2, 3] = np.nan
    coords = {"exposure": ("frame", np.linspace(1, 2, 7), {"units": "s"}), "x": ("x", np.arange(5) * 0.5, {"units": "mm"})}
    return xr.DataArray(da.from_array(values, chunks=blocks), coords, ("frame", "y", "x"), "frames", {"units": "counts"})


def make_failing() -> da.Array:
    """A stack whose first block fails at once, while the others are still computed; larger than the one above."""

    def fail_or_wait(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        if block_info[0]["chunk-location"][0] == 0:
            raise InputError("this block cannot be computed")
        time.sleep(0.1)
        return block

    return da.zeros((4, 60, 50), chunks=(1, 60, 50)).map_blocks(fail_or_wait, meta=np.empty((0, 0, 0)))


def content(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder."""
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def chunk_files(array: Path) -> list[Path]:
    """The files of an array's chunks or shards."""
    return [file for file in array.rglob("*") if file.is_file() and file.name != "zarr.json"]


def make_response(order: int) -> Response:
    gain = np.random.default_rng(1).uniform(0.8, 1.2, (6, 5))
    gain[2, 3] = np.nan
    response = Response.from_gain(gain, sigma=12.5, boundary="reflect")
    if order == 1:
        return response
    curvature = response.gain.copy(data=response.gain.data / 1000).assign_attrs(units="1/counts")
    return replace(response, order=2, curvature=curvature, intercept=True, cutoff=300.0, mask=response.mask.chunk())
