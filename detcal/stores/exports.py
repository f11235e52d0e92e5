"""HDF5 and TIFF outputs: streamed, block by block, from a finished zarr store by one task."""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import tifffile
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError

Exporter = Callable[[xr.Dataset, Path], None]


def blocks(variable: xr.DataArray) -> Iterator[tuple[slice, NDArray[np.generic]]]:
    """The variable's blocks along its first dimension, one in memory at a time."""
    start = 0
    for size in variable.chunks[0] if variable.chunks else ():
        yield slice(start, start + size), variable.data[start : start + size].compute(scheduler="synchronous")
        start += size


def export_hdf5(dataset: xr.Dataset, path: Path) -> None:
    """NeXus: an NXdata group for each variable, the first one the default plot."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": str(next(iter(dataset)))})
        entry.attrs.update({name: value for name, value in dataset.attrs.items() if isinstance(value, str | int | float)})
        for name, variable in dataset.items():
            group = entry.create_group(str(name))
            axes = [str(dim) if dim in variable.coords else "." for dim in variable.dims]
            group.attrs.update({"NX_class": "NXdata", "signal": str(name), "axes": axes})
            stored = group.create_dataset(str(name), shape=variable.shape, dtype=variable.dtype)
            stored.attrs.update(variable.attrs)
            for place, block in blocks(variable):
                stored[place] = block
            for dim, coordinate in variable.coords.items():
                group[str(dim)] = coordinate.values
                group[str(dim)].attrs.update(coordinate.attrs)


def export_tiff(dataset: xr.Dataset, path: Path) -> None:
    """A page for each frame of the only variable."""
    if len(dataset) != 1:
        raise InputError(f"a .tif holds one stack or image, not {', '.join(map(str, dataset))}: save one of them, or save to .zarr or .h5")
    variable = next(iter(dataset.values()))
    if variable.ndim not in (2, 3) or variable.dtype.kind not in "iuf":
        raise InputError(f"a .tif holds (frame, y, x) or (y, x) numbers, not {variable.dims} of {variable.dtype}")
    stack = variable if variable.ndim == 3 else variable.expand_dims("frame").chunk()
    with tifffile.TiffWriter(path, bigtiff=stack.nbytes > 2**31) as file:
        for _, block in blocks(stack):
            for frame in block:
                file.write(frame, contiguous=True)


EXPORTERS: dict[str, Exporter] = {
    ".h5": export_hdf5, ".hdf5": export_hdf5, ".nxs": export_hdf5, ".tif": export_tiff, ".tiff": export_tiff,
}  # fmt: skip
