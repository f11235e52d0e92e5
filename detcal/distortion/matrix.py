"""The matrix that takes a camera's pixels to those of a regular grid, built in bands of rows."""

from functools import partial
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed
from numpy.typing import NDArray

from detcal.distortion import overlaps, resampling
from detcal.distortion.calibration import DistortionMap, OverlapMatrix, as_resampling
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.once import Once, in_memory, in_own_threads, is_known, on_first_use
from detcal.frames.valid import as_mask
from detcal.sizes import check_pixels

BAND_PIXELS = 2**18  # of the output a task: some ten MiB of coefficients
BAND_ROWS = 128  # of the map a task, while it is scaled


def build_overlaps(
    warp: DistortionMap,
    *,
    shape: tuple[int, int] | Literal["cover"] | None = None,
    pixel_size_m: float | tuple[float, float] | None = None,
    origin_m: tuple[float, float] | None = None,
    mask: ArrayLike | None = None,
    tile_rows: int | None = None,
) -> OverlapMatrix:
    """How a camera's pixels overlap those of a regular grid, as a CSR matrix, lazily, a task a band of the grid's rows.

    Parameters
    ----------
    warp
        From `fit_distortion`. Pixels that it masks take no part.
    shape : rows, columns, or "cover", optional
        Of the regular grid. By default that of the camera; "cover": as many as hold all pixels.
    pixel_size_m : m, or (y, x), optional
        By default the map's.
    origin_m : (y, x), m, optional
        Outer corner of the grid's first pixel. By default 0, where an ideal camera's would be, or as "cover" needs it.
    mask : (y, x) bool, optional
        True: takes no part either.
    tile_rows
        Rows of the grid a task, by default about 2¹⁸ pixels; the matrix does not depend on it.

    Returns
    -------
    OverlapMatrix
        data, indices, indptr are lazy; how large the matrix is, is found when one of its attributes is first asked for.

    Raises
    ------
    InputError
        A mask of another shape, sizes that are not positive; on first use no pixel left, or none with an area or on the grid, or pixels
        that are more than 64 of the grid's wide.

    Notes
    -----
    Areas are exact, of quadrilaterals: each edge adds what lies to the right of it, cell by cell.

    Examples
    --------
    >>> from detcal.distortion import build_overlaps, fit_distortion
    >>> from detcal.simulate import hole_grid
    >>> image = hole_grid((160, 160), pitch_px=20, barrel=0.03, missing=0, unevenness=0).image
    >>> warp = fit_distortion(image, pitch_m=5e-3)
    >>> build_overlaps(warp).shape
    (160, 160)
    """
    masked = as_mask(mask, warp.shape, "map")
    if isinstance(masked, np.ndarray):
        check_some_left(masked)
    if tile_rows is not None and tile_rows < 1:
        raise InputError(f"expected tile_rows of at least 1, got {tile_rows}")
    wanted = wanted_grid(warp, shape, pixel_size_m, origin_m)
    built = Once(partial(build_matrix, warp, masked, wanted, tile_rows))
    known = {"shape": wanted.shape, "pixel_size_m": wanted.size, "origin_m": wanted.origin}
    return on_first_use(
        OverlapMatrix, built.get, in_memory=Once(partial(resampling_of, built)).lazily(), camera_shape=warp.shape,
        **{name: value for name, value in known.items() if value is not None},
    )  # fmt: skip


def resampling_of(built: Once[OverlapMatrix]) -> resampling.Resampling:
    """The matrix in memory, by tiles."""
    matrix = built.get()
    return as_resampling(matrix.indptr, matrix.indices, matrix.data, matrix.areas.data, matrix.shape)


def build_matrix(warp: DistortionMap, mask: Any, wanted: "WantedGrid", tile_rows: int | None) -> OverlapMatrix:
    """The matrix, whose coefficients are counted, in this process, and lazy."""
    corners, unknown, masked = in_memory(warp.corners_m.data, warp.mask.data, mask)
    corners, masked = np.ascontiguousarray(corners, float), unknown | masked
    overlaps.mask_unknown(corners, masked)
    check_some_left(masked)
    size, origin, grid = place_grid(wanted, corners, masked)
    scaled, spans, areas = scale_map(corners, masked, origin, size)
    data, indices, indptr = build_bands(scaled, spans, areas <= 0, grid, tile_rows or max(1, BAND_PIXELS // grid[1]))
    return OverlapMatrix(data, indices, indptr, xr.DataArray(areas, dims=("y", "x")), grid, size, origin)


def check_width(widest: float) -> None:
    """Raise if a pixel is so many of the grid's wide that the grid's are a slip."""
    if widest > overlaps.WIDEST:
        raise InputError(f"expected pixels of at most {overlaps.WIDEST} of the grid's each way, got {widest:g}: give a larger pixel_size_m")


def check_some_left(masked: NDArray[np.bool_]) -> None:
    """Raise if all pixels are masked."""
    if masked.all():
        raise InputError("no pixel is left: look at the mask, and at the map's")


def scale_map(
    corners: NDArray[np.float64], masked: NDArray[np.bool_], origin: tuple[float, float], size: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Corners in pixels of the grid (axis, y, x), the least and largest y of each row of them (row, 2), and areas (y, x), 0 if masked.

    A map may be mirrored as a whole. Single pixels that are turned over against the others, or whose edges cross, are masked.
    """
    scaled, spans = np.empty((2, *corners.shape[:2])), np.empty((len(corners), 2))
    areas = np.empty(masked.shape, np.float32)
    bands = [slice(start, start + BAND_ROWS) for start in range(0, len(corners), BAND_ROWS)]
    in_own_threads(
        [delayed(overlaps.scale_corners)(corners[some], origin, size, (scaled[0, some], scaled[1, some]), spans[some]) for some in bands]
    )
    over = [slice(some.start, some.stop + 1) for some in bands]
    widest = max(
        in_own_threads(
            [
                delayed(overlaps.signed_areas)((scaled[0, more], scaled[1, more]), masked[some], areas[some])
                for some, more in zip(bands, over, strict=True)
            ]
        )
    )
    if areas.sum(dtype=float) < 0:
        np.negative(areas, out=areas)
    np.maximum(areas, 0, out=areas)
    if not areas.any():
        raise InputError("expected pixels with an area, got a map whose corners lie on lines or points, or cross: it is no map of a camera")
    check_width(widest)
    return scaled, spans, areas


class WantedGrid(NamedTuple):
    """What is asked for: pixel size and origin (y, x) in m, rows and columns. None: as it takes to cover the map."""

    size: tuple[float, float]
    origin: tuple[float, float] | None
    shape: tuple[int, int] | None


def wanted_grid(warp: DistortionMap, shape: Any, pixel_size_m: Any, origin_m: Any) -> WantedGrid:
    """The ideal grid as far as options and the map's pixel size tell."""
    size = pair(warp.pixel_size_m if pixel_size_m is None else np.broadcast_to(pixel_size_m, 2), "pixel_size_m (y, x) in m")
    if not min(size) > 0:
        raise InputError(f"expected a positive pixel_size_m (y, x), got {size}")
    if is_known(warp, "pixel_size_m"):
        check_width(max(np.asarray(warp.pixel_size_m) / size))
    covers = isinstance(shape, str) and shape == "cover"
    default = None if covers else (0.0, 0.0)
    origin = default if origin_m is None else pair(origin_m, "origin_m (y, x) in m")
    if shape is None or covers:
        return WantedGrid(size, origin, None if covers else warp.shape)
    wanted = pair(shape, 'a shape (rows, columns), or "cover"')
    if not all(number >= 1 and number.is_integer() for number in wanted):
        raise InputError(f'expected a shape (rows, columns), or "cover", got {shape}')
    check_pixels(wanted, "a grid")
    return WantedGrid(size, origin, (int(wanted[0]), int(wanted[1])))


def place_grid(
    wanted: WantedGrid, corners: NDArray[np.float64], masked: NDArray[np.bool_]
) -> tuple[tuple[float, float], tuple[float, float], tuple[int, int]]:
    """Pixel size, origin and shape of the ideal grid."""
    size, origin, shape = wanted
    if origin is not None and shape is not None:
        return size, origin, shape
    low, high = extent(corners, masked)
    if origin is None:
        origin = pair(np.floor(low / size) * size, "corners (y, x) in m")
    rows, columns = np.maximum(1, np.ceil((high - origin) / size - 1e-9)).tolist()
    check_pixels((rows, columns), "a grid that covers the map")
    return size, origin, (int(rows), int(columns))


def extent(corners: NDArray[np.float64], masked: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where pixels that are not masked begin and end, (y, x) each."""
    used = np.zeros((masked.shape[0] + 1, masked.shape[1] + 1), np.bool_)
    for rows, columns in ((0, 0), (1, 0), (0, 1), (1, 1)):
        used[rows : rows + masked.shape[0], columns : columns + masked.shape[1]] |= ~masked
    return corners[used].min(axis=0), corners[used].max(axis=0)


def pair(values: Any, expected: str) -> tuple[float, float]:
    """Two finite numbers."""
    found = np.asarray(values)
    if found.shape != (2,) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise InputError(f"expected {expected}, got {values!r}")
    return float(found[0]), float(found[1])


def build_bands(
    corners: NDArray[np.float64], spans: NDArray[np.float64], masked: NDArray[np.bool_], grid: tuple[int, int], tile_rows: int
) -> tuple[da.Array, da.Array, da.Array]:
    """data, indices and indptr, a chunk a band, for corners (axis, y, x); `spans` (row, 2) are the least and largest y of these.

    How many coefficients a band has is counted here.
    """
    low, high = np.minimum(spans[:-1, 0], spans[1:, 0]), np.maximum(spans[:-1, 1], spans[1:, 1])
    indptr = np.zeros(grid[0] * grid[1] + 1, np.int64)
    bands, counts = [], []
    for start in range(0, grid[0], tile_rows):
        rows = (start, min(start + tile_rows, grid[0]))
        near = np.flatnonzero((low < rows[1]) & (high > rows[0]))
        first, last = (int(near[0]), int(near[-1]) + 1) if len(near) else (0, 0)
        ends = indptr[rows[0] * grid[1] + 1 : rows[1] * grid[1] + 1]
        bands.append(((corners[0, first : last + 1], corners[1, first : last + 1]), masked[first:last], first, rows))
        counts.append(delayed(overlaps.count_rows)(*bands[-1][:2], rows, grid[1], ends))
    in_own_threads(counts)
    parts = []
    for some, hidden, first, rows in bands:
        begins = indptr[rows[0] * grid[1] : rows[1] * grid[1] + 1]
        count = int(begins[-1])
        begins[1:] += begins[0]
        fill = partial(overlaps.fill_rows, first_row=first, rows=rows, width=grid[1])
        task = delayed(fill, nout=2)(some, hidden, begins)
        parts.append([da.from_delayed(part, (count,), dtype) for part, dtype in zip(task, (np.float32, np.int32), strict=True)])
    if not indptr[-1]:
        raise InputError("expected a grid that pixels of the map reach, got one beside them: look at origin_m and shape")
    data, indices = (da.concatenate(list(part)) for part in zip(*parts, strict=True))
    return data, indices, da.from_array(indptr, chunks=max(1, tile_rows * grid[1]), name=False)
