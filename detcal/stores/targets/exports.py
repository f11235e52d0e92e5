"""HDF5 and TIFF outputs: streamed, block by block, from a finished zarr store by one task."""

import json
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import xarray as xr
from fabio.edfimage import EdfFrame
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.detector_files import add_detector
from detcal.stores.sources.hdf5 import DIMS_MARK, JSON_MARK, TYPE_MARK
from detcal.stores.targets.tomography import add_tomography
from detcal.stores.targets.zarr_store import NUMBERS

Exporter = Callable[[xr.Dataset, Path], None]


def blocks(variable: xr.DataArray) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """The chunks in which a variable is stored, one in memory at a time."""
    sizes = [variable.encoding["preferred_chunks"][dim] for dim in variable.dims]
    for corner in product(*(range(0, length, size) for length, size in zip(variable.shape, sizes, strict=True))):
        place = tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True))
        yield place, variable[place].values


def export_hdf5(dataset: xr.Dataset, path: Path) -> None:
    """NeXus: an NXdata group for each variable, the first one the default plot; a distortion map also as an NXdetector,
    frames with rotation angles also as NXtomo."""
    with open(path, "w+b", buffering=0) as raw, h5py.File(FileToClose(raw), "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": str(next(iter(dataset))), **plain_attributes(dataset.attrs)})
        for name, variable in dataset.items():
            group = entry.create_group(str(name))
            axes = [axis_of(variable, str(dim)) for dim in variable.dims]
            group.attrs.update({"NX_class": "NXdata", "signal": str(name), "axes": axes})
            for member in (variable, *variable.coords.values()):
                add_dataset(group, member)
        if dataset.attrs.get("detcal_type") == "DistortionMap":
            add_detector(entry, dataset)
        add_tomography(entry, dataset)
        file.flush()  # what cannot be written is to fail here, while the file can still be closed


def axis_of(variable: xr.DataArray, dim: str) -> str:
    """The coord of a dimension: that of its name, or else the first along it; "." if there is none."""
    along = [str(name) for name, line in variable.coords.items() if line.dims == (dim,)]
    return dim if dim in along else next(iter(along), ".")


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


def add_dataset(group: h5py.Group, variable: xr.DataArray) -> None:
    """A variable and its attributes; times as text too."""
    number = variable.dtype.kind in NUMBERS
    stored = group.create_dataset(str(variable.name), variable.shape, variable.dtype if number else h5py.string_dtype())
    stored.attrs.update({**plain_attributes(variable.attrs), DIMS_MARK: [str(dim) for dim in variable.dims]})
    if variable.dtype.kind == "M":
        stored.attrs[TYPE_MARK] = str(variable.dtype)
    for place, block in blocks(variable):
        stored[place] = block if number else np.array([str(value) for value in block.flat], object).reshape(block.shape)


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that HDF5 can hold: all but texts and numbers as JSON, and which of them are."""
    values = {str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in attributes.items()}
    as_json = [name for name, value in values.items() if not isinstance(value, str | int | float)]
    return values | {name: json.dumps(values[name]) for name in as_json} | ({JSON_MARK: as_json} if as_json else {})


def check_pages(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what does not fit into an image file."""
    if len(dataset) != 1:
        raise InputError(
            f"a {suffix} holds one stack or image, not {', '.join(map(str, dataset))}: save one of them, or save to .zarr or .h5"
        )
    variable = next(iter(dataset.values()))
    if variable.ndim not in (2, 3) or 0 in variable.shape or variable.dtype.kind not in "iuf":
        raise InputError(f"a {suffix} holds (frame, y, x) or (y, x) numbers, not {variable.dims} {variable.shape} of {variable.dtype}")


def export_tiff(dataset: xr.Dataset, path: Path) -> None:
    """A page for each frame of the only variable."""
    variable = next(iter(dataset.values()))
    with tifffile.TiffWriter(path, bigtiff=variable.nbytes > 2**31) as file:
        for frame in frames(variable):
            file.write(frame, contiguous=True)


def export_edf(dataset: xr.Dataset, path: Path) -> None:
    """A block of ESRF's data format for each frame of the only variable."""
    with open(path, "wb") as file:
        for number, frame in enumerate(frames(next(iter(dataset.values())))):
            block = EdfFrame(data=frame, header={})
            block._index = number  # as fabio numbers the frames of a file itself
            file.write(block.get_edf_block())


def frames(variable: xr.DataArray) -> Iterator[NDArray[Any]]:
    """The images of a stack, or the only one, read in the chunks that they are stored in."""
    if variable.ndim == 2:
        yield variable.values
        return
    size = variable.encoding["preferred_chunks"][variable.dims[0]]
    for start in range(0, len(variable), size):
        yield from variable[start : start + size].values


EXPORTERS: dict[str, Exporter] = {
    ".h5": export_hdf5, ".hdf5": export_hdf5, ".nxs": export_hdf5, ".tif": export_tiff, ".tiff": export_tiff,
    ".edf": export_edf,
}  # fmt: skip
