"""What the calibration of a distorted camera gives: the dots that were found, and the map that they tell of."""

from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr
from dask.delayed import Delayed
from numpy.typing import NDArray

from detcal.display import as_html, as_text
from detcal.distortion.resampling import Resampling
from detcal.errors import InputError
from detcal.frames.once import Once, in_memory

CORNER_DIMS = ("y_corner", "x_corner", "axis")


@dataclass(frozen=True, eq=False)
class GridPoints:
    """Dots of a grid in an image. From `find_grid_points`.

    Attributes
    ----------
    y, x : (point,) px
        Centres; those of pixels lie at whole numbers.
    quality : (point,)
        Share of the image's variation about the dot that a round dot explains, 0 … 1.
    height : (point,) counts
        Of the dot above the background; negative for dark dots.
    dot_diameter_px, spacing_px
        Of the dots in the mean.
    shape : rows, columns
        Of the image.
    """

    y: xr.DataArray
    x: xr.DataArray
    quality: xr.DataArray
    height: xr.DataArray
    dot_diameter_px: float
    spacing_px: float
    shape: tuple[int, int]

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class DistortionMap:
    """True positions of the pixels of a distorted camera. From `fit_distortion`, or read from a detector file by `detcal.load`.

    The plane is that of the grid, turned so that its axes are those of the image in the mean, and begins at the outer corner of the first
    pixel of the ideal camera that fits best, whose corners are at whole pixels times their size.

    Attributes
    ----------
    corners_m : (y_corner, x_corner, axis) float64, m
        Corners of the pixels, one more than pixels each way, as (y, x). Beyond the outermost dots, where nothing is known, displacements
        are those of the nearest place within.
    mask : (y, x) bool
        True: the pixel is not within the outermost dots.
    pixel_size_m : (y, x), m
        Of the ideal (undistorted) camera.
    point_y, point_x : (point,) px
        Dots that the map was fitted to; pixel centres lie at whole numbers.
    point_quality : (point,)
        As in GridPoints.
    row, column : (point,) int64
        Place of the dots in the grid.
    residual_px : (point, axis) px
        By how much a map from the other dots misses this one, as (y, x). NaN for dots outside the others, with local cubics.
    cross_validated_rms_px : px, or None
        Root mean square of the distances in `residual_px`: the scatter of the map where there is no dot, and of a dot's centre. What is
        wrong in the same way all around does not show in it: under a strong lens the middle of a dot's image is not the image of its
        middle, by r²/8 times the curvature (0.04 px rms for 15 % pincushion and dots 25 px wide). None if the map was read from a file
        that does not tell.
    pitch_m : m, or None
        Of the grid.
    method, order
        Of the fit, as in `fit_distortion`.
    left_out
        Dots that were found and are not among the points: dust and others that lie off the smooth grid.
    """

    corners_m: xr.DataArray
    mask: xr.DataArray
    pixel_size_m: tuple[float, float]
    point_y: xr.DataArray
    point_x: xr.DataArray
    point_quality: xr.DataArray
    row: xr.DataArray
    column: xr.DataArray
    residual_px: xr.DataArray
    cross_validated_rms_px: float | None = None
    pitch_m: float | None = None
    method: str | None = None
    order: int | None = None
    left_out: int | None = None

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @classmethod
    def of_corners(cls, corners_m: NDArray[np.float64], pixel_size_m: tuple[float, float], mask: NDArray[np.bool_]) -> "DistortionMap":
        """A map without dots."""

        def none(dtype: type = float) -> xr.DataArray:
            return xr.DataArray(np.empty(0, dtype), dims="point")

        return cls(
            corners_m=xr.DataArray(corners_m, dims=CORNER_DIMS), mask=xr.DataArray(mask, dims=("y", "x")), pixel_size_m=pixel_size_m,
            point_y=none(), point_x=none(), point_quality=none(), row=none(int), column=none(int),
            residual_px=xr.DataArray(np.empty((0, 2)), dims=("point", "axis")),
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the camera."""
        height, width = self.mask.shape
        return height, width

    @property
    def points(self) -> xr.Dataset:
        """The dots: y, x, quality, row, column (point,), and residual_px (point, axis)."""
        named = {"y": self.point_y, "x": self.point_x, "quality": self.point_quality, "row": self.row, "column": self.column}
        return xr.Dataset({**named, "residual_px": self.residual_px})

    @property
    def displacement_px(self) -> NDArray[np.float64]:
        """By how much the corners (y_corner, x_corner, axis) differ from those of an ideal camera, in its pixels, as (y, x)."""
        even = np.stack(np.meshgrid(*(np.arange(size + 1.0) for size in self.shape), indexing="ij"), axis=-1)
        return np.asarray(self.corners_m.values / self.pixel_size_m - even)

    def check_shapes(self, path: str) -> None:
        """Raise if what came from a file is no map, before its arrays are read.

        Raises
        ------
        InputError
            Corners and mask that do not fit each other, pixels without a size.
        """
        corners, mask = self.corners_m, self.mask
        expected = tuple(size + 1 for size in mask.shape)
        if mask.ndim != 2 or not mask.size or corners.shape != (*expected, 2):
            raise InputError(f"expected corners (y + 1, x + 1, 2) and a mask (y, x) in {path}, got {corners.shape} and {mask.shape}")
        size = np.asarray(self.pixel_size_m)
        if size.shape != (2,) or size.dtype.kind not in "iuf" or not (np.isfinite(size) & (size > 0)).all():
            raise InputError(f"expected two positive numbers (y, x) in m as the size of pixels in {path}, got {self.pixel_size_m}")

    def checked(self, path: str) -> "DistortionMap":
        """The same with its arrays in memory, if they make a map, as they came from a file.

        Raises
        ------
        InputError
            As `check_shapes`; pixels that are not masked and have no corners.
        """
        self.check_shapes(path)
        found = self.compute()
        corners, known = found.corners_m.values, ~np.asarray(found.mask.values, np.bool_)
        one, other = corners[1:, 1:] - corners[:-1, :-1], corners[1:, :-1] - corners[:-1, 1:]
        wrong = known & (~np.isfinite(one + other).all(axis=-1) | ((one == 0) & (other == 0)).all(axis=-1))
        if wrong.any():
            raise InputError(f"expected corners of every pixel that is not masked in {path}, got {wrong.sum()} without: it is damaged")
        return found

    def compute(self) -> "DistortionMap":
        """The same with its arrays in memory."""
        arrays = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), xr.DataArray)}
        return replace(self, **dict(zip(arrays, dask.compute(*arrays.values()), strict=True)))


@dataclass(frozen=True, eq=False)
class OverlapMatrix:
    """How distorted pixels overlap those of a regular grid, in CSR: rows are ideal pixels, columns distorted ones. From `build_overlaps`.

    Attributes
    ----------
    data : (coefficient,) float32
        Fraction of the distorted pixel's area that lies in the ideal one; for a pixel within the grid they sum to 1.
    indices : (coefficient,) int32
        Distorted pixel of each coefficient, row·columns + column; rising in each row of the matrix.
    indptr : (pixel + 1,) int64
        Where each ideal pixel's coefficients begin.
    areas : (y, x) float32
        Of the distorted pixels, in ideal ones; 0 for pixels that take no part.
    shape : rows, columns
        Of the regular grid.
    pixel_size_m, origin_m : (y, x), m
        Of the regular grid, and the position of its outer corner in the map's plane.
    """

    data: da.Array
    indices: da.Array
    indptr: da.Array
    areas: xr.DataArray
    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    origin_m: tuple[float, float]

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def camera_shape(self) -> tuple[int, int]:
        """Rows and columns of the camera."""
        height, width = self.areas.shape
        return height, width

    @cached_property
    def in_memory(self) -> Delayed:
        """The matrix as the kernels take it, lazily: one copy for all tasks of a process, which is built once and kept with this object.

        One from `compute` is arranged there.
        """
        return Once(partial(as_resampling, self.indptr, self.indices, self.data, self.areas.data, self.shape)).lazily()

    def to_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """data, indices and indptr in memory; each block is dropped as soon as it is in its place."""
        lazy = [self.data, self.indices, self.indptr]
        data, indices, indptr = (np.empty(array.shape, array.dtype) for array in lazy)
        da.store(lazy, [data, indices, indptr], lock=False)
        return data, indices, indptr

    def to_scipy(self) -> sp.csr_matrix:
        """The matrix in memory."""
        return sp.csr_matrix(self.to_arrays(), shape=(self.shape[0] * self.shape[1], self.areas.size))

    def compute(self) -> "OverlapMatrix":
        """The same with its arrays in memory."""
        data, indices, indptr = self.to_arrays()
        areas = self.areas.compute()
        blocks = {"data": data, "indices": indices, "indptr": indptr}
        found = replace(self, areas=areas, **{name: da.from_array(part, chunks=-1, name=False) for name, part in blocks.items()})
        vars(found)["in_memory"] = dask.delayed(Resampling.of_parts)(*Resampling.of(indptr, indices, data, areas.values, self.shape))
        return found


def as_resampling(indptr: da.Array, indices: da.Array, data: da.Array, areas: Any, shape: tuple[int, int]) -> Resampling:
    """The matrix by tiles, of its parts, which may be lazy."""
    ends, pixels, shares, sizes = in_memory(indptr, indices, data, areas)
    return Resampling.of(ends, pixels, shares, sizes, shape)
