"""Which pixels lie in which ring."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import dask
import numpy as np
import scipy.sparse as sp
import xarray as xr
from dask.delayed import Delayed
from numpy.typing import NDArray

from detcal.azimuthal.kernels import RingLanes, Rings, longest_of_groups, room_for_frames, side_by_side
from detcal.azimuthal.rejected import Entries
from detcal.display import as_html, as_text
from detcal.frames.once import Once, in_memory
from detcal.frames.simd import LANES

Kind = TypeVar("Kind", Rings, RingLanes)


@dataclass(frozen=True, eq=False)
class AzimuthalBins:
    """The pixels of each ring, or of each part of one, in CSR (rows are bins, columns pixels), and what counts are divided by.

    From `build_bins`.

    Attributes
    ----------
    data : (entry,) float32
        The part of the pixel's area that lies in the bin: 1 if pixels are not split.
    indices : (entry,) int32
        Pixel of each entry, row·columns + column. Masked pixels are in no bin.
    indptr : (edge,) int64
        Where each bin's entries begin, and where the last one's end. Bins go by radius, then by azimuth.
    norm : (y, x) float32
        Flat · polarisation · solid angle · efficiency of the sensor: what counts are divided by.
    dark : (y, x) float32
        What is taken off them, counts.
    radius : (y, x) float32
        Of the pixels' centres, in the unit.
    centres : (radial,) float64
        Of the bins, in the unit.
    azimuths : (azimuthal,) float64, or None
        Of the bins, in degrees, for 2-D integration.
    unit, split
        As in `build_bins`.
    detector_dummy : dummy and delta_dummy, or None
        Of pyFAI's detector: the numbers in its frames that are no readings.
    corrections
        What frames are corrected for when they are brought into these bins: some of "dark", "flat", "parallax", "efficiency".
    geometry : text, or None
        Where the detector stood, and the wavelength, as JSON with the keys of .poni files. Profiles have it as an attribute.
    provenance : text, or None
        What counts are corrected for and how, and what built the bins, as JSON: polarisation factor, whether for the solid angle, the
        sensor whose efficiency is divided out (null: none), versions. Profiles have it as an attribute too.
    """

    data: xr.DataArray
    indices: xr.DataArray
    indptr: xr.DataArray
    norm: xr.DataArray
    dark: xr.DataArray
    radius: xr.DataArray
    centres: xr.DataArray
    unit: str
    split: str
    azimuths: xr.DataArray | None = None
    detector_dummy: tuple[float, float] | None = None
    corrections: tuple[str, ...] = ()
    geometry: str | None = None
    provenance: str | None = None

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the detector, rows and columns."""
        height, width = self.norm.shape
        return height, width

    def rings_for(self, frames: int) -> Delayed:
        """The bins as the kernels take them, lazily, as they are fastest for blocks of so many frames."""
        rings: Delayed = self.in_lanes if self.rows_for(frames) else self.in_memory
        return rings

    def rows_for(self, frames: int) -> int:
        """Of how many rows rings are that lie side by side in SIMD lanes; 0 where frames do. No result depends on it."""
        return self.neighbour_rows if self.neighbour_rows * LANES <= room_for_frames(frames) * self.lengths.sum() else 0

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """How many entries each bin has."""
        return np.diff(self.indptr.values)

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """Which rings would lie side by side (group, lane), −1 for none."""
        return side_by_side(self.lengths)

    @cached_property
    def neighbour_rows(self) -> int:
        """Of how many rows they would be."""
        return int(longest_of_groups(self.lengths, self.neighbours).sum())

    @cached_property
    def in_memory(self) -> Delayed:
        """The bins for frames side by side, lazily: one copy for all tasks of a process."""
        return Once(partial(as_rings, Rings.of, *self.arrays)).lazily()

    @cached_property
    def in_lanes(self) -> Delayed:
        """Likewise, for frames that come one at a time, or a few."""
        return Once(partial(as_rings, partial(RingLanes.of, self.neighbours), *self.arrays)).lazily()

    @property
    def arrays(self) -> list[Any]:
        """What the kernels' bins are made of: they may be lazy."""
        return [image.data for image in (self.indptr, self.indices, self.data, self.norm, self.dark)]

    @cached_property
    def images_in_memory(self) -> Delayed:
        """The bins' centres, and the images radius, norm and dark, likewise."""
        images: Delayed = dask.delayed(as_arrays)(*(image.data for image in (self.centres, self.radius, self.norm, self.dark)))
        return images

    @cached_property
    def entries_in_memory(self) -> Delayed:
        """The entries in CSR, likewise."""
        arrays = (self.indptr, self.indices, self.data)
        entries: Delayed = dask.delayed(as_entries)(*(array.data for array in arrays))
        return entries

    def to_scipy(self) -> sp.csr_matrix:
        """The matrix (bins × pixels) in memory."""
        parts = as_arrays(*dask.compute(self.data.data, self.indices.data, self.indptr.data))
        return sp.csr_matrix(parts, shape=(self.indptr.size - 1, self.norm.size))

    def compute(self) -> "AzimuthalBins":
        """The same with its arrays in memory."""
        arrays = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), xr.DataArray)}
        return replace(self, **dict(zip(arrays, dask.compute(*arrays.values()), strict=True)))


def as_arrays(*images: Any) -> tuple[NDArray[Any], ...]:
    """Images that may be lazy, computed."""
    return tuple(map(np.asarray, images))


def as_entries(*arrays: Any) -> Entries:
    """The entries with images that may be lazy, computed."""
    return Entries(*as_arrays(*arrays))


def as_rings(arrange: Callable[..., Kind], *lazy: Any) -> Kind:
    """The entries with what belongs to their pixels, as a function arranges them."""
    indptr, indices, shares, norm, dark = in_memory(*lazy)
    return arrange(indptr, indices, shares, norm.ravel()[indices], dark.ravel())
