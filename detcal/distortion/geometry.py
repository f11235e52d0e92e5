"""From one image of a hole grid to the map of the camera's distortion."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from dask import delayed, is_dask_collection
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree
from threadpoolctl import threadpool_limits

from detcal.distortion import kernels
from detcal.distortion.calibration import CORNER_DIMS, DistortionMap, GridPoints
from detcal.distortion.indexing import Nodes, Places, fit_even_grid, index_grid
from detcal.distortion.points import FEWEST, find_grid_points
from detcal.distortion.smooth import HIGHEST_ORDER, Model, Polynomial, fit_local_cubic, fit_polynomial, highest_order, rms
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.once import is_found, on_first_use
from detcal.frames.stack import as_stack_of

METHODS = ("auto", "polynomial", "cubic")
LEAST_SHARE, USUAL_SHARE = 0.5, 0.75  # of the dots, that one grid holds at least; and if those that are not of it make another
HEXAGONAL_DEG, HEXAGONAL_RATIO = 8.0, 1.15  # by which steps of a hexagonal grid may differ from 60° and each other
OUTLIER = 6.0  # standard deviations, as the median tells them
LEAST_OUTLIER_PX = 0.1
MOST_SCATTER = 0.05  # of the spacing, by which left-out dots are missed in the mean
NEIGHBOURS = 9  # nearest dots, itself among them, with which a dot's residual is compared
OUTLINE_STEP_PX = 1.0  # along the outermost dots, at which displacements beyond them are taken


class Fit(NamedTuple):
    """A regular grid, the displacements from it, and which points they were fitted to: position in pixels = origin + affine · node."""

    origin: Places
    affine: Places
    model: Model
    method: str
    order: int
    residuals: Places
    kept: NDArray[np.bool_]


def fit_distortion(
    image: ArrayLike,
    pitch_m: float,
    *,
    method: Literal["auto", "polynomial", "cubic"] = "auto",
    order: int | None = None,
    points: GridPoints | None = None,
    dots: Literal["auto", "bright", "dark"] = "auto",
    dot_diameter_px: float | None = None,
    spacing_px: float | None = None,
    mask: ArrayLike | None = None,
) -> DistortionMap:
    """The distortion of a camera from one image of a hole grid.

    The dots are numbered by walking from each to its neighbours, so that no centre, angle or spacing is needed, and strong distortion is
    no obstacle. A regular grid, by least squares, gives the size of the pixels; what is left is smooth displacements. Dots that
    these miss by far, in view of the others, are left out of both.

    Parameters
    ----------
    image : (y, x), or a stack (frame, y, x), which is averaged
    pitch_m : m
        Distance between neighbouring holes.
    method
        "polynomial" of the lowest order that predicts left-out dots as well as the best, but for a standard error; "cubic", such a
        polynomial and local cubics through what it misses, which follow faults of a taper, and the dots' noise; "auto": whichever
        predicts better.
    order
        Of the polynomial, in place of the best.
    points
        From `find_grid_points`, in place of finding them.
    dots, dot_diameter_px, spacing_px, mask
        As for `find_grid_points`.

    Returns
    -------
    DistortionMap
        Of an image in memory at once; of one over dask, which is not read here, when one of its attributes is first asked for.

    Raises
    ------
    InputError
        As `find_grid_points`; a pitch that is not positive; a hexagonal grid; dots of more than one grid, too few of one, or too few for
        the order; points of an image of another shape.

    Notes
    -----
    Hammersley et al. (1994), Nucl. Instrum. Methods A 346, 312; there the displacements are splines. With strong barrel or pincushion the
    pixel size is a mean over the dots that were seen.

    Examples
    --------
    >>> from detcal.distortion import fit_distortion
    >>> from detcal.simulate import hole_grid
    >>> image = hole_grid((160, 160), pitch_px=20, barrel=0.03, missing=0, unevenness=0).image
    >>> warp = fit_distortion(image, pitch_m=5e-3)
    >>> warp.cross_validated_rms_px < 0.1
    True
    """
    if not (isinstance(pitch_m, Real) and 0 < pitch_m < np.inf):
        raise InputError(f"expected a positive pitch_m in m, the distance between neighbouring holes, got {pitch_m}")
    if method not in METHODS:
        raise InputError(f"expected method to be one of {', '.join(METHODS)}, got {method!r}")
    if order is not None and (method != "polynomial" or not isinstance(order, Integral) or not 1 <= order <= HIGHEST_ORDER):
        raise InputError(
            f'expected order as a whole number from 1 to {HIGHEST_ORDER}, with method="polynomial", got {order!r} with {method!r}'
        )
    found = points
    if found is None:
        found = find_grid_points(image, dots=dots, dot_diameter_px=dot_diameter_px, spacing_px=spacing_px, mask=mask)
    as_stack_of(found.shape, "points", image, "image")
    fit = partial(map_of_points, pitch_m=float(pitch_m), method=method, order=order)
    if is_found(found) and not is_dask_collection(image):
        return fit(found)
    return on_first_use(DistortionMap, partial(fit_later, fit, found), shape=found.shape, pitch_m=float(pitch_m))


def fit_later(fit: Callable[[GridPoints], DistortionMap], points: GridPoints) -> DistortionMap:
    """A fit to dots that are found before, both on the scheduler that is active."""
    found = replace(points)
    warp: DistortionMap = delayed(partial(fit, found), pure=False)().compute()
    return warp


def map_of_points(found: GridPoints, *, pitch_m: float, method: str, order: int | None) -> DistortionMap:
    """The map that a grid's dots tell of."""
    places = np.column_stack([found.y.values, found.x.values]).astype(float)
    numbered, nodes = index_grid(places)
    check_one_grid(places, numbered, nodes)
    # Threads of BLAS wait for each other in loops: beside other work a fit took twenty times as long by them.
    with threadpool_limits(1, "blas"):
        fit = fit_grid(places[numbered], nodes[numbered], found.shape, method, order)
        check_square(fit.affine)
        check_scatter(fit)
        chosen = np.flatnonzero(numbered)[fit.kept]
        return as_map(fit, found, chosen, nodes[chosen], pitch_m)


def check_one_grid(places: Places, numbered: NDArray[np.bool_], nodes: Nodes) -> None:
    """Raise if there are too few dots, dots on a line, or dots of two grids; specks that are of no grid are left out."""
    count, total = int(numbered.sum()), len(numbered)
    if count < FEWEST or np.ptp(nodes[numbered], axis=0).min() < 2:
        raise InputError(
            f"too few dots: expected a grid of at least {FEWEST}, of three rows and columns, got one of {count} of {total} dots"
        )
    if count < LEAST_SHARE * total or (count < USUAL_SHARE * total and make_a_grid(places[~numbered])):
        raise InputError(
            f"expected one grid, got one of {count} dots and {total - count} dots that are not of it: two grids, or a part of the image "
            "that is to be masked (mask=)"
        )


def make_a_grid(places: Places) -> bool:
    """Whether most dots are of one grid."""
    if len(places) < FEWEST:
        return False
    try:
        numbered, _ = index_grid(places)
    except InputError:
        return False
    return int(numbered.sum()) >= max(FEWEST, 0.5 * len(places))


def check_square(affine: Places) -> None:
    """Refuse a hexagonal grid: its steps, of equal lengths, would be taken for those of a sheared square one."""
    lengths = np.linalg.norm(affine, axis=0)
    angle = np.degrees(np.arccos(abs(affine[:, 0] @ affine[:, 1]) / lengths.prod()))
    if abs(angle - 60) < HEXAGONAL_DEG and lengths.max() < HEXAGONAL_RATIO * lengths.min():
        raise InputError(
            f"expected a square grid, got one whose steps are {lengths[0]:.1f} and {lengths[1]:.1f} pixels at {angle:.0f}°: it is hexagonal"
        )


def check_scatter(fit: Fit) -> None:
    """Refuse a fit that misses the dots that are left out by more than dots of a grid."""
    known = np.asarray(np.isfinite(fit.residuals).all(axis=1))
    if not known.any() or rms(fit.residuals[known]) > MOST_SCATTER * np.sqrt(abs(np.linalg.det(fit.affine))):
        raise InputError(
            f"expected one grid, got {len(known)} dots that lie {rms(fit.residuals[known]):.2g} pixels off a smooth one: dots that touch, "
            "or two grids in one; dots= and dot_diameter_px= choose which are looked at"
        )


def fit_grid(places: Places, nodes: Nodes, shape: tuple[int, int], method: str, order: int | None) -> Fit:
    """The regular grid and the displacements, without the points that these miss by far."""
    kept = np.ones(len(places), np.bool_)
    while True:
        if order is not None and order > (highest := highest_order(int(kept.sum()))):
            raise InputError(f"expected order of at most {highest}, which {kept.sum()} dots carry, got {order}")
        origin, affine = fit_even_grid(places[kept], nodes[kept])
        values = origin + nodes[kept] @ affine.T - places[kept]
        polynomial, missed, left = fit_polynomial(places[kept], values, shape, order)
        astray = stand_out(places[kept], missed * np.sqrt(left)[:, None])  # all as uncertain: dots on the rim are hard to predict
        if not astray.any():
            model, residuals, name = choose_model(places[kept], values, polynomial, missed, method)
            return Fit(origin, affine, model, name, polynomial.order, residuals, kept)
        kept[np.flatnonzero(kept)[astray]] = False
        if kept.sum() < max(FEWEST, len(kept) / 2):
            raise InputError(f"expected one smooth grid, got {len(kept)} dots of which more than half do not fit each other")


def stand_out(places: Places, residuals: Places) -> NDArray[np.bool_]:
    """Which points' residuals are far from those of their neighbours: a fault of a taper has neighbours, dust has none."""
    _, others = cKDTree(places).query(places, min(NEIGHBOURS, len(places)))
    differences = np.linalg.norm(residuals[others[:, 1:]] - residuals[:, None], axis=-1)
    alone = np.partition(differences, 1, axis=1)[:, 1]  # two others along a fault move alike
    usual = float(np.median(np.linalg.norm(residuals, axis=1))) / 1.1774  # σ of Rayleigh's distribution, by its median
    return np.asarray(alone > max(LEAST_OUTLIER_PX, OUTLIER * usual))


def choose_model(places: Places, values: Places, polynomial: Polynomial, missed: Places, method: str) -> tuple[Model, Places, str]:
    """The model by name, or the one that predicts left-out points better; its left-out residuals, and its name."""
    if method != "polynomial":
        cubic, missed_too = fit_local_cubic(places, values, polynomial.shape, polynomial.order)
        both = np.isfinite(missed_too).all(axis=1)
        if method == "cubic" or (both.any() and rms(missed_too[both]) < rms(missed[both])):
            return cubic, missed_too, "cubic"
    return polynomial, missed, "polynomial"


def as_map(fit: Fit, points: GridPoints, chosen: NDArray[np.int64], nodes: Nodes, pitch_m: float) -> DistortionMap:
    """The map in metres, along the image's axes."""
    shape = points.shape
    displacements, outside = displaced_corners(fit.model, np.column_stack([points.y.values[chosen], points.x.values[chosen]]), shape)
    # metres a pixel, in the grid's frame, are a rotation times a symmetric matrix, which is what is seen without the rotation
    _, sizes, right = np.linalg.svd(pitch_m * np.linalg.inv(fit.affine))
    stretch = right.T @ np.diag(sizes) @ right
    displacements[..., 0] += np.arange(shape[0] + 1.0)[:, None]
    displacements[..., 1] += np.arange(shape[1] + 1.0)
    corners = displacements @ stretch  # symmetric
    masked = outside[:-1, :-1] | outside[1:, :-1] | outside[:-1, 1:] | outside[1:, 1:]
    known = np.isfinite(fit.residuals).all(axis=1)

    def line(values: NDArray[Any], units: str = "1") -> xr.DataArray:
        return xr.DataArray(values, dims="point", attrs={"units": units})

    return DistortionMap(
        corners_m=xr.DataArray(corners, dims=CORNER_DIMS, attrs={"units": "m"}), mask=xr.DataArray(masked, dims=("y", "x")),
        pixel_size_m=(float(np.hypot(*stretch[:, 0])), float(np.hypot(*stretch[:, 1]))),
        point_y=line(points.y.values[chosen], "px"), point_x=line(points.x.values[chosen], "px"),
        point_quality=line(points.quality.values[chosen]), row=line(nodes[:, 0] - nodes[:, 0].min()),
        column=line(nodes[:, 1] - nodes[:, 1].min()),
        residual_px=xr.DataArray(fit.residuals, dims=("point", "axis"), attrs={"units": "px"}),
        cross_validated_rms_px=rms(fit.residuals[known]), pitch_m=pitch_m, method=fit.method, order=fit.order,
        left_out=len(points) - len(chosen),
    )  # fmt: skip


def displaced_corners(model: Model, places: Places, shape: tuple[int, int]) -> tuple[Places, NDArray[np.bool_]]:
    """Displacements (y + 1, x + 1, 2) of the pixels' corners, in pixels, and which corners are not within the outermost dots."""
    try:
        vertices = places[ConvexHull(places).vertices]
    except QhullError as error:
        raise InputError("expected dots that are not all on a line") from error
    rows, columns = np.arange(shape[0] + 1) - 0.5, np.arange(shape[1] + 1) - 0.5
    first, last = np.empty(len(rows)), np.empty(len(rows))
    kernels.row_spans(vertices, rows, first, last)
    outside = (columns < first[:, None]) | (columns > last[:, None])
    displacements = model.on_corners(shape)
    i, j = np.nonzero(outside | np.isnan(displacements[..., 0]))
    displacements[i, j] = along_outline(model, vertices, np.column_stack([rows[i], columns[j]]))
    return displacements, outside


def along_outline(model: Model, vertices: Places, places: Places) -> Places:
    """Displacements at the places on the outline of a hull (vertex, 2) that are nearest to some places."""
    nearest = kernels.nearest_on_hull(vertices, places)
    ahead = np.roll(vertices, -1, axis=0)
    pieces = np.maximum(1, np.ceil(np.linalg.norm(ahead - vertices, axis=1) / OUTLINE_STEP_PX)).astype(int)
    marks = np.concatenate([edge + np.arange(count) / count for edge, count in enumerate(pieces)] + [[len(vertices)]])
    edges = np.minimum(marks.astype(int), len(vertices) - 1)
    inwards = vertices.mean(axis=0)
    outline = vertices[edges] + (marks - edges)[:, None] * (ahead - vertices)[edges]
    values = model.at(outline + 1e-6 * (inwards - outline))  # on the very outline, a triangulation may miss it
    return np.column_stack([np.interp(nearest, marks, values[:, k]) for k in (0, 1)])
