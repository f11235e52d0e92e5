"""What an HDF5 file says of a stack beside its numbers: read once, while the file is open for the first time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import dask.array as da
import h5py
import numpy as np
from dask.base import tokenize

from detcal.frames.stack import DIMS
from detcal.frames.valid import RECORDED
from detcal.stores.sources.attributes import DIMS_MARK, own_attributes
from detcal.stores.sources.dimensions import as_stack, has_frames
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.hdf5_files import Members, dims_of
from detcal.stores.sources.nxdata import axes_of
from detcal.stores.sources.nxdetector import Said, said_by_detector
from detcal.stores.sources.nxtomo import Tomography, tomography_in
from detcal.stores.sources.readers import recorded_as, stack_shape
from detcal.stores.sources.scanned import Coords, Line, Scanned


@dataclass(frozen=True)
class Header:
    """Attributes of the numbers, axes as coordinates, the image key and angles of tomography, and what is said of the detector."""

    attrs: dict[str, Any]
    axes: Coords
    tomography: Tomography | None
    detector: Said

    def of_first(self, frames: int) -> "Header":
        """The same of the first frames of a stack, which are as they were recorded: none of them is missing."""
        axes: Coords = {
            name: (dim, values[:frames] if dim == DIMS[0] else values, attrs) for name, (dim, values, attrs) in self.axes.items()
        }
        return replace(self, axes=axes, attrs={name: value for name, value in self.attrs.items() if name != RECORDED})

    def sharing_mask(self, other: "Header | None") -> "Header":
        """The same, with the other's mask if it is equal: of many files they would fill the memory."""
        mask = None if other is None else other.detector.mask
        if mask is None or self.detector.mask is None or not np.array_equal(mask, self.detector.mask):
            return self
        return replace(self, detector=self.detector._replace(mask=mask))


def line_along(name: str, place: int, line: h5py.Dataset, shape: tuple[int, ...]) -> tuple[str, Line]:
    """An axis as a coordinate, and its name: of a map one for each frame, not called as rows or columns of pixels are."""
    dim, values = Scanned.of(shape).line(values_of(line), place - len(shape))
    return name if name == dim or name not in DIMS else f"{name}_position", (dim, values, own_attributes(line))


def noted_beside(frames: h5py.Dataset, shape: tuple[int, ...], entry: Sequence[Members]) -> Coords:
    """What detcal wrote into the group of frames of that shape, in the order of a stack: lines along their dimensions, numbers of the
    points of a map, and images (y, x), lazily: of which pixels were filled, say. The frames may have been found in another group, as those
    of an NXtomo."""
    dims = dims_of(frames)
    if not has_frames(dims):
        return {}
    order = [dims[axis] for axis in as_stack(dims, frames.ndim)]
    found: Coords = {}
    groups = [members for members in entry if any(members.names_of(frames))]
    for name, item in chain(*(members.with_attribute(DIMS_MARK) for members in groups)):
        own = dims_of(item)
        if own == DIMS[1:] and item.shape == shape[-2:]:
            array = Hdf5Array.of(item)
            image = da.from_array(array, chunks=-1, name=f"image-{tokenize(array)}", meta=np.empty((0, 0), array.dtype))
            found[name] = DIMS[1:], image, own_attributes(item)
        elif len(own) > 1 and own == tuple(order[:-2]) and item.dtype.kind in "iuf":
            found[name] = DIMS[0], values_of(item).ravel(), own_attributes(item)
        elif len(own) == 1 and own[0] in order and item.dtype.kind in "iuf":
            found[name] = (*Scanned.of(shape).line(values_of(item), order.index(own[0]) - len(shape)), own_attributes(item))
    return found


def read_header(
    path: str, file: h5py.File, dataset: str, shape: tuple[int, ...], dtype: np.dtype[Any], names: Sequence[str], entry: Sequence[Members]
) -> Header:
    """What an open file, and the groups of an entry, say of frames of that shape, or of an image, in a dataset, or in several of which it
    is the first; its dimensions have these names."""
    found = file[dataset]
    order = as_stack(names if found.ndim == len(shape) else (), len(shape))
    ordered = tuple(shape[axis] for axis in order)
    attrs = own_attributes(found) | recorded_as(found.dtype, dtype)
    axes = axes_of(file, dataset, shape, entry) if found.ndim <= len(shape) else {}  # of several maps, which are a stack, none
    noted = noted_beside(found, ordered, entry) if found.ndim == len(shape) else {}
    lines = dict(line_along(name, order.index(place), line, ordered) for name, (place, line) in axes.items())
    tomography = tomography_in(path, file, dataset, stack_shape(ordered)[0], entry)
    return Header(attrs, noted | lines, tomography, said_by_detector(file, dataset, ordered[-2:], attrs, entry))
