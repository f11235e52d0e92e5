"""Dots in an image: how large they are, where they are to a fraction of a pixel, and how far apart."""

from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed, is_dask_collection
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree
from scipy.special import erf

from detcal.distortion import kernels
from detcal.distortion.blobs import (
    LEAST_SIDE,
    SIGNS,
    Blobs,
    Picture,
    Places,
    find_blobs,
    grid_strength,
    has_even_neighbours,
    spacing_of,
    without_lone_pixels,
)
from detcal.distortion.calibration import GridPoints
from detcal.distortion.indexing import fit_even_grid, index_grid
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.once import on_first_use
from detcal.frames.stack import as_image, as_stack
from detcal.frames.valid import as_mask

FEWEST = 16  # dots: a grid of 4 × 4
MOST_UNKNOWN = 0.15  # of a dot's disc
PROFILE_DOTS = 100
BLURS = (0.3, 4.0)  # pixels: widths of the dots' edges, of a sharp disc in square pixels and of one that is all edge
LEAST_QUALITY = 0.5  # of the usual one
HEIGHTS = (0.3, 3.0)  # of a dot, relative to those of its neighbours
NEIGHBOURS = 12  # dots that a dot is compared with
TOUCHING = 0.9  # diameter over spacing
MOST_BETWEEN = 0.25  # of a dot's height, by which the image halfway between dots may differ from the background
SOME_BLOBS = 49  # that tell whether bright or dark ones are dots
STRONG = 0.5  # of the strongest of these, below which a blob is none of theirs: light is even in the small
LEAST_CELLS = 9  # dots of these, that a grid has
SAME_AREA = 1.1  # of cells, whose areas differ by less
HARDLY_ROUND = 0.5  # of the other quality


class Cells(NamedTuple):
    """Of the grid that some blobs make: the area of a cell in pixels, and the quality of the dots; both 0 if there is no grid."""

    area: float
    quality: float


@dataclass(frozen=True)
class Shape:
    """Of the dots: radius, and standard deviation of the blur of its edge, pixels."""

    radius: float
    blur: float


def find_grid_points(
    image: ArrayLike,
    *,
    dots: Literal["auto", "bright", "dark"] = "auto",
    dot_diameter_px: float | None = None,
    spacing_px: float | None = None,
    mask: ArrayLike | None = None,
) -> GridPoints:
    """Centres of the dots of a grid, to a fraction of a pixel.

    Blobs are found at the size at which most of them lie evenly among their neighbours. To each a round dot with a blurred edge is then
    fitted, on a plane background, of the size and blur that the dots have in the mean. Light that grows across a large dot would
    move its centre: how it does is taken from the neighbours' heights. Pixels may be up to about 1.6 times as high as wide, or as wide as
    high; those of images binned more along one axis are to be brought nearer to squares before.

    Parameters
    ----------
    image : (y, x), or a stack (frame, y, x), which is averaged
    dots
        "bright", "dark", or "auto".
    dot_diameter_px, spacing_px : pixels, optional
        By default found from the image.
    mask : (y, x) bool, optional
        True: not looked at, as pixels that are NaN.

    Returns
    -------
    GridPoints
        Of an image in memory at once; of one over dask, which is not read here, when one of its attributes is first asked for.
        Of whole dots: those that the edge of the image or the mask cuts are left out, and so is what is not alike its neighbours.
        A dot may miss some pixels, up to about a seventh.

    Raises
    ------
    InputError
        An image of another shape, blank, saturated or all NaN; no dots, too few, or dots that touch.

    Examples
    --------
    >>> from detcal.distortion import find_grid_points
    >>> from detcal.simulate import hole_grid
    >>> points = find_grid_points(hole_grid((160, 160), pitch_px=20, missing=0, unevenness=0).image)
    >>> round(points.spacing_px)
    20
    """
    if dots not in ("auto", "bright", "dark"):
        raise InputError(f'expected dots to be "auto", "bright" or "dark", got {dots!r}')
    for name, value in (("dot_diameter_px", dot_diameter_px), ("spacing_px", spacing_px)):
        if value is not None and not (isinstance(value, Real) and 1 < value < np.inf):
            raise InputError(f"expected {name} as a number above 1 pixel, got {value!r}")
    picture, masked = as_lazy_picture(image, mask)
    find = partial(points_in, dots=dots, dot_diameter_px=dot_diameter_px, spacing_px=spacing_px)
    if is_dask_collection(image) or isinstance(masked, da.Array):
        height, width = picture.shape
        return on_first_use(GridPoints, delayed(find, pure=False)(picture, masked).compute, shape=(height, width))
    return find(np.asarray(picture), masked)


def points_in(
    image: Picture, masked: NDArray[np.bool_], *, dots: str, dot_diameter_px: float | None, spacing_px: float | None
) -> GridPoints:
    """The dots in an image, NaN where nothing is known, without what is masked."""
    picture = without_lone_pixels(without_masked(image, masked))
    blobs = choose_blobs(picture, dots, dot_diameter_px)
    spacing = spacing_of(blobs) if spacing_px is None else spacing_px
    fitted, shape = fit_shape(picture, blobs, spacing, dot_diameter_px)
    slopes = slopes_of(fitted)
    refined = kernels.fit_dots(picture, fitted[:, :2].copy(), slopes, shape.radius, shape.blur, reach_of(shape, spacing))
    good = refined[whole_dots(picture, refined, shape)]
    good = good[alike(good, blobs.sign)]
    good = good[without_doubles(good, spacing)]
    if len(good) < FEWEST:
        raise InputError(f"too few dots: expected at least {FEWEST}, got {len(good)} of {2 * shape.radius:.1f} pixels in the image")
    check_apart(picture, good, shape, spacing)
    good = good[np.lexsort((good[:, 1], good[:, 0]))]

    def line(values: NDArray[np.float64], units: str) -> xr.DataArray:
        return xr.DataArray(values, dims="point", attrs={"units": units})

    return GridPoints(
        y=line(good[:, 0], "px"), x=line(good[:, 1], "px"), quality=line(good[:, 4].clip(0, 1), "1"), height=line(good[:, 2], "counts"),
        dot_diameter_px=2 * shape.radius, spacing_px=float(spacing), shape=(picture.shape[0], picture.shape[1]),
    )  # fmt: skip


def as_lazy_picture(image: ArrayLike, mask: ArrayLike | None) -> tuple[da.Array, Any]:
    """The image as float32, NaN where nothing is known, over dask, and what is masked."""
    stack = as_stack(image, "image")
    if min(stack.shape[1:]) < LEAST_SIDE:
        raise InputError(f"expected an image of at least {LEAST_SIDE} × {LEAST_SIDE} pixels, got {stack.shape[1:]}")
    shape = (stack.shape[1], stack.shape[2])
    return as_image(stack, shape, "image", largest_is_flag=False), as_mask(mask, shape, "image")


def without_masked(image: Picture, masked: NDArray[np.bool_]) -> Picture:
    """An image with NaN where it is masked, of which something must be left."""
    picture: Picture = np.array(image)
    picture[masked] = np.nan
    known = picture[np.isfinite(picture)]
    if not known.size:
        raise InputError("expected an image of a hole grid, got one that is all NaN or masked")
    if known.min() == known.max():
        raise InputError(f"expected an image of a hole grid, got one that is {known.min():g} everywhere: blank or saturated")
    return picture


# ---------------------------------------------------------------------------------------------------- bright or dark


def choose_blobs(picture: Picture, dots: str, diameter: float | None) -> Blobs:
    """The blobs that are dots: between bright dots there are dark spots, which make a grid too, but of smaller cells, or less round.

    Where dots touch it is the other way round.
    """
    both = find_blobs(picture, {sign: diameter if dots in ("auto", name) else None for name, sign in SIGNS.items()})
    found = dict(zip(SIGNS, both, strict=True))
    allowed = [blobs for name, blobs in found.items() if dots in ("auto", name)]
    if max(blobs.regular.sum() for blobs in allowed) < 4:
        raise InputError(
            f"no grid of dots: expected at least {FEWEST}, each with four neighbours about it, got "
            f"{max(len(blobs.places) for blobs in allowed)} spots without such an order; "
            "if there are dots, give dots=, dot_diameter_px= and spacing_px=, or bin pixels that are far from square"
        )
    cells = {name: cells_of(picture, blobs) for name, blobs in found.items()}
    better = "bright" if is_better(cells["bright"], cells["dark"]) else "dark"
    if not any(cell.area for cell in cells.values()):  # neither make a grid in the middle: those that look most like one
        better = max(found, key=lambda name: (grid_strength(found[name]), found[name].regular.sum()))
    if dots not in ("auto", better) and is_better(cells[better], cells[dots]):
        raise InputError(
            f"expected {dots} dots that do not touch, got an image whose {better} spots make a grid of cells of {cells[better].area:.0f} "
            f'square pixels, and {dots} ones of {cells[dots].area:.0f}: the dots touch, or are {better} (dots="{better}")'
        )
    return found[better if dots == "auto" else dots]


def cells_of(picture: Picture, blobs: Blobs) -> Cells:
    """The grid that some blobs in the middle make."""
    none = Cells(0.0, 0.0)
    if blobs.regular.sum() < 4:
        return none
    middle = np.median(blobs.places[blobs.regular], axis=0)
    _, near = cKDTree(blobs.places).query(middle, min(4 * SOME_BLOBS, len(blobs.places)))
    some = near[blobs.strengths[near] > STRONG * np.quantile(blobs.strengths[near], 0.9)][:SOME_BLOBS]
    chosen = Blobs(blobs.places[some], blobs.strengths[some], has_even_neighbours(blobs.places[some]), blobs.radius, blobs.sign)
    if not chosen.regular.any():
        return none
    fitted, shape = fit_shape(picture, chosen, spacing_of(chosen), None)
    good = fitted[whole_dots(picture, fitted, shape)]
    good = good[alike(good, blobs.sign)]
    if len(good) < LEAST_CELLS:
        return none
    try:
        numbered, nodes = index_grid(good[:, :2])
    except InputError:
        return none
    _, affine = fit_even_grid(good[numbered, :2], nodes[numbered])
    return Cells(float(abs(np.linalg.det(affine))), float(np.median(good[numbered, 4])))


def is_better(one: Cells, other: Cells) -> bool:
    """Whether one grid rather has the dots than the other: its cells are larger, or if they are not, its dots are rounder.

    What hardly looks like round dots is no grid of them, however large its cells are.
    """
    if min(one.quality, other.quality) < HARDLY_ROUND * max(one.quality, other.quality):
        return one.quality > other.quality
    if max(one.area, other.area) > SAME_AREA * min(one.area, other.area):
        return one.area > other.area
    return one.quality > other.quality


# ------------------------------------------------------------------------------------------------------------ centres


def reach_of(shape: Shape, spacing: float) -> float:
    """How far from the centre pixels are fitted: beyond the dot's edge, and short of its neighbours."""
    return float(max(min(shape.radius + 3 * shape.blur + 2, spacing - shape.radius - 1, 0.6 * spacing), shape.radius + 1, 2.5))


def fit_shape(picture: Picture, blobs: Blobs, spacing: float, diameter: float | None) -> tuple[NDArray[np.float64], Shape]:
    """The blobs as fitted dots, and the shape that these have in the mean."""
    shape = Shape(blobs.radius if diameter is None else diameter / 2, max(0.5, 0.15 * blobs.radius))
    places, flat = blobs.places, np.zeros_like(blobs.places)
    some = np.flatnonzero(blobs.regular)
    some = some[:: -(-len(some) // PROFILE_DOTS)]
    for _ in range(2):
        fitted = kernels.fit_dots(picture, places[some], flat[some], shape.radius, shape.blur, reach_of(shape, spacing))
        shape = mean_shape(picture, fitted, shape, spacing, diameter)
    fitted = kernels.fit_dots(picture, places, flat, shape.radius, shape.blur, reach_of(shape, spacing))
    return fitted[np.isfinite(fitted).all(axis=1) & (np.sign(fitted[:, 2]) == blobs.sign)], shape


def mean_shape(picture: Picture, fitted: NDArray[np.float64], shape: Shape, spacing: float, diameter: float | None) -> Shape:
    """Radius and blur from the mean profile of fitted dots."""
    good = fitted[np.isfinite(fitted).all(axis=1)]
    good = good[good[:, 4] >= np.median(good[:, 4])] if len(good) else good
    if not len(good):
        return shape
    reach = 0.5 * spacing
    bins = max(8, int(2 * reach))
    profile = kernels.radial_profile(picture, good, reach, bins)
    at = (np.arange(bins) + 0.5) * reach / bins
    known = np.isfinite(profile)

    def disc(r: NDArray[np.float64], radius: float, blur: float, height: float, level: float) -> NDArray[np.float64]:
        return np.asarray(level + height * (0.5 - 0.5 * erf((r - radius) / (np.sqrt(2) * blur))))

    low, high = (0.5, reach) if diameter is None else (0.49 * diameter, 0.51 * diameter)
    widest = max(BLURS[1], shape.radius)
    start = (min(max(shape.radius, low), high), min(max(shape.blur, BLURS[0]), widest), 1.0, 0.0)
    limits = ((low, BLURS[0], 0.2, -2.0), (high, widest, 5.0, 2.0))
    weights = 1 / np.sqrt(at[known] + 0.5)
    (radius, blur, *_), _ = curve_fit(disc, at[known], profile[known], start, sigma=weights, bounds=limits)
    return Shape(float(radius), float(blur))


def slopes_of(dots: NDArray[np.float64]) -> Places:
    """Relative growth of the dots' heights (y, x), a pixel, from planes through those of their neighbours."""
    if len(dots) < NEIGHBOURS:
        return np.zeros((len(dots), 2))
    _, others = cKDTree(dots[:, :2]).query(dots[:, :2], NEIGHBOURS)
    away = dots[others, :2] - dots[others, :2].mean(axis=1, keepdims=True)
    heights = dots[others, 2] / np.median(dots[others, 2], axis=1, keepdims=True)
    weights = np.clip(1 - np.abs(heights - 1) / 0.5, 0, None)  # dust and covered dots have none
    moments = np.einsum("nk,nki,nkj->nij", weights, away, away) + 1e-9 * np.eye(2)
    return np.linalg.solve(moments, np.einsum("nk,nki,nk->ni", weights, away, heights - 1)[..., None])[..., 0].clip(-0.05, 0.05)


def whole_dots(picture: Picture, dots: NDArray[np.float64], shape: Shape) -> NDArray[np.bool_]:
    """Which dots neither the edge of the image nor a patch without values cuts: single pixels that are NaN do no harm."""
    margin = shape.radius + shape.blur
    fine = np.asarray(np.isfinite(dots).all(axis=1))
    places = np.where(fine[:, None], dots[:, :2], 0)
    inside = (places >= margin).all(axis=1) & (places <= np.array(picture.shape) - 1 - margin).all(axis=1)
    return np.asarray(fine & inside & (kernels.unknown_shares(picture, places, margin) <= MOST_UNKNOWN))


def alike(dots: NDArray[np.float64], sign: int) -> NDArray[np.bool_]:
    """Which dots are of the quality that dots here have, and about as high as those around them."""
    if not len(dots):
        return np.zeros(0, np.bool_)
    good = (dots[:, 4] > LEAST_QUALITY * np.quantile(dots[:, 4], 0.75)) & (np.sign(dots[:, 2]) == sign)
    chosen = np.flatnonzero(good)
    if len(chosen) > NEIGHBOURS:
        _, others = cKDTree(dots[chosen, :2]).query(dots[chosen, :2], NEIGHBOURS)
        relative = dots[chosen, 2] / np.median(dots[chosen][others, 2], axis=1)
        good[chosen] = (relative > HEIGHTS[0]) & (relative < HEIGHTS[1])
    return np.asarray(good)


def check_apart(picture: Picture, dots: NDArray[np.float64], shape: Shape, spacing: float) -> None:
    """Refuse dots that touch, or between which there is no background, but dots or the light between them."""
    pairs = cKDTree(dots[:, :2]).query_pairs(1.25 * spacing, output_type="ndarray")
    one, other = dots[pairs[:, 0]], dots[pairs[:, 1]]
    rows, columns = np.round((one[:, :2] + other[:, :2]) / 2).astype(int).T
    between = (picture[rows, columns] - (one[:, 3] + other[:, 3]) / 2) / ((one[:, 2] + other[:, 2]) / 2)
    if 2 * shape.radius > TOUCHING * spacing or (len(pairs) and abs(np.nanmedian(between)) > MOST_BETWEEN):
        raise InputError(
            f"the dots touch: they are {2 * shape.radius:.1f} pixels wide and {spacing:.1f} apart, without background between them; "
            "dots= chooses bright or dark ones"
        )


def without_doubles(dots: NDArray[np.float64], spacing: float) -> NDArray[np.bool_]:
    """Which dots stay if of those that lie within a quarter of the spacing only the best does."""
    keep = np.ones(len(dots), np.bool_)
    for one, other in sorted(cKDTree(dots[:, :2]).query_pairs(spacing / 4)):
        keep[one if dots[one, 4] < dots[other, 4] else other] = False
    return keep
