"""Dots in an image: how large they are, where they are to a fraction of a pixel, and how far apart."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree
from scipy.special import erf

from detcal.distortion import kernels
from detcal.distortion.calibration import GridPoints
from detcal.errors import InputError

Picture = NDArray[np.float32]
Places = NDArray[np.float64]

FEWEST = 16  # dots: a grid of 4 × 4
RATIO = 1.6  # of the widths of the two Gaussians whose difference marks blobs (Marr and Hildreth 1980)
WIDTHS = (1.0, RATIO, RATIO**2)  # of Gaussians, in pixels of a binning
NOISE = 6.0  # standard deviations, by which a blob must stand out
FAINT = 0.15  # of the strong ones: what is less is no dot
MOST_BLOBS = 40_000
LEAST_WEIGHT = 1e-3  # of the known pixels about one that is not
MOST_UNKNOWN = 0.15  # of a dot's disc
PROFILE_DOTS = 100
BLURS = (0.3, 4.0)  # pixels: widths of the dots' edges, of a sharp disc in square pixels and of one that is all edge
LEAST_QUALITY = 0.5  # of the usual one
HEIGHTS = (0.3, 3.0)  # of a dot, relative to those of its neighbours
NEIGHBOURS = 12  # dots that a dot is compared with
ALIKE = 0.15  # of their distance, by which a dot's four neighbours may lie unevenly about it
TOUCHING = 0.9  # diameter over spacing
MOST_BETWEEN = 0.25  # of a dot's height, halfway between dots


class Blobs(NamedTuple):
    """Local maxima of a picture smoothed to a size, and which of them have four even neighbours."""

    places: Places
    strengths: NDArray[np.float64]
    regular: NDArray[np.bool_]
    radius: float
    sign: int


@dataclass(frozen=True)
class Shape:
    """Of the dots: radius, and standard deviation of the blur of its edge, pixels."""

    radius: float
    blur: float


def find_grid_points(
    image: Any,
    *,
    dots: str = "auto",
    dot_diameter_px: float | None = None,
    spacing_px: float | None = None,
    mask: Any = None,
) -> GridPoints:
    """Centres of the dots of a grid, to a fraction of a pixel.

    Blobs are found at the size at which most of them lie evenly among their neighbours. To each a round dot with a blurred edge is then
    fitted, on a plane background, of the size and blur that the dots have in the mean. Light that grows across a large dot would
    move its centre: how it does is taken from the neighbours' heights.

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
        Of whole dots: those that the edge of the image or the mask cuts are left out, and so is what is not alike its neighbours.
        A dot may miss some pixels, up to about a seventh.

    Raises
    ------
    InputError
        An image of another shape, blank, saturated or all NaN; no dots, too few, or dots that touch.
    """
    if dots not in ("auto", "bright", "dark"):
        raise InputError(f'expected dots to be "auto", "bright" or "dark", got {dots!r}')
    for name, value in (("dot_diameter_px", dot_diameter_px), ("spacing_px", spacing_px)):
        if value is not None and not 1 < value < np.inf:
            raise InputError(f"expected {name} above 1 pixel, got {value}")
    picture = as_picture(image, mask)
    blobs = find_blobs(picture, dots, dot_diameter_px)
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


def as_picture(image: Any, mask: Any) -> Picture:
    """The image as float32, NaN where nothing is known."""
    values = np.asarray(image)
    if values.ndim == 3 and len(values):
        values = values[0] if len(values) == 1 else values.mean(axis=0)
    if values.ndim != 2 or min(values.shape) < 16 or values.dtype.kind not in "iufb":
        raise InputError(f"expected an image (y, x) of numbers, of at least 16 × 16 pixels, got {values.shape} of {values.dtype}")
    picture = values.astype(np.float32)
    picture[~np.isfinite(picture)] = np.nan
    if mask is not None:
        masked = np.asarray(mask).astype(bool)
        if masked.shape != picture.shape:
            raise InputError(f"expected a mask of shape {picture.shape} (y, x), as the image, got {masked.shape}")
        picture[masked] = np.nan
    known = picture[np.isfinite(picture)]
    if not known.size:
        raise InputError("expected an image of a hole grid, got one that is all NaN or masked")
    if known.min() == known.max():
        raise InputError(f"expected an image of a hole grid, got one that is {known.min():g} everywhere: blank or saturated")
    return picture


# ------------------------------------------------------------------------------------------------------------ blobs


def find_blobs(picture: Picture, dots: str, diameter: float | None) -> Blobs:
    """The blobs of the size and sign that make the strongest grid."""
    found: list[Blobs] = []
    filled = fill_unknown(picture)
    noise = pixel_noise(filled)
    signs = {"auto": (1, -1), "bright": (1,), "dark": (-1,)}[dots]
    binning = 1
    while min(filled.shape) >= 16:
        smooth = [gaussian_filter(filled, width) for width in WIDTHS]
        for width, fine, coarse in zip(WIDTHS, smooth, smooth[1:], strict=False):
            radius = float(np.sqrt(2 * RATIO) * width * binning)
            if diameter is None or 1 / 1.5 < 2 * radius / diameter < 1.5:
                found += [mark_blobs(sign * (fine - coarse), sign, width, binning, radius, noise) for sign in signs]
        height, length = (size // 2 * 2 for size in filled.shape)
        even = filled[:height, :length]
        filled = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
        binning *= 2
    best = max(found, key=lambda blobs: grid_strength(blobs), default=None)
    if best is None or best.regular.sum() < 4:
        most = max((len(blobs.places) for blobs in found), default=0)
        raise InputError(
            f"no grid of dots: expected at least {FEWEST}, each with four neighbours about it, got {most} spots without such an order; "
            "if there are dots, give dots=, dot_diameter_px= and spacing_px="
        )
    return best


def fill_unknown(picture: Picture) -> Picture:
    """The picture with the mean of the pixels about them in place of those that are NaN, or far from others its median."""
    known = np.isfinite(picture)
    if known.all():
        return picture
    weights = gaussian_filter(known.astype(np.float32), 1.0)
    around = gaussian_filter(np.where(known, picture, 0), 1.0)
    far = np.full_like(picture, np.median(picture[known]))
    return np.asarray(np.where(known, picture, np.divide(around, weights, out=far, where=weights > LEAST_WEIGHT)), np.float32)


def pixel_noise(filled: Picture) -> float:
    """Standard deviation of the noise of a pixel, of what neighbours have not in common (Immerkær 1996), in the median."""
    rows = filled[:-2] - 2 * filled[1:-1] + filled[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(1.4826 * np.median(np.abs(both[::2, ::2])) / 6)


def mark_blobs(signed: Picture, sign: int, width: float, binning: int, radius: float, noise: float) -> Blobs:
    """The maxima of a difference of Gaussians, of a picture binned to so many pixels, that stand out of the noise of a pixel."""
    least = NOISE * noise * np.sqrt((1 + 1 / RATIO**2 - 4 / (1 + RATIO**2)) / (4 * np.pi)) / (width * binning)
    rows, columns = kernels.local_maxima(signed, np.float32(least)).T
    strengths = signed[rows, columns].astype(float)
    if len(strengths):
        least = max(
            FAINT * np.quantile(strengths, 0.98), np.partition(strengths, -MOST_BLOBS)[-MOST_BLOBS] if len(strengths) > MOST_BLOBS else 0
        )
    strong = strengths >= least
    rows, columns, strengths = rows[strong], columns[strong], strengths[strong]
    places = (np.column_stack([rows, columns]) + 0.5) * binning - 0.5
    return Blobs(places, strengths, has_even_neighbours(places), radius, sign)


def has_even_neighbours(places: Places) -> NDArray[np.bool_]:
    """Which places lie in the middle of their four nearest ones, that lie crosswise."""
    if len(places) < 5:
        return np.zeros(len(places), np.bool_)
    distances, others = cKDTree(places).query(places, 5)
    steps = places[others[:, 1:]] - places[:, None]
    opposite = np.linalg.norm(steps[:, :1] + steps[:, 1:], axis=-1).min(axis=1)  # of the nearest one
    middle = np.linalg.norm(steps.sum(axis=1), axis=-1)
    length = distances[:, 1:].mean(axis=1)
    return np.asarray((middle < 2 * ALIKE * length) & (opposite < 2 * ALIKE * length) & (distances[:, 4] < 1.7 * distances[:, 1]))


def grid_strength(blobs: Blobs) -> float:
    """How much of a grid the blobs are: how many lie evenly, and how strongly these stand out."""
    if blobs.regular.sum() < max(4, 0.1 * len(blobs.places)):
        return 0.0
    return float(blobs.regular.sum() * np.median(blobs.strengths[blobs.regular]) ** 2)


def spacing_of(blobs: Blobs) -> float:
    """Mean distance of blobs in the grid from their four neighbours."""
    distances, _ = cKDTree(blobs.places).query(blobs.places[blobs.regular], 5)
    return float(np.median(distances[:, 1:].mean(axis=1)))


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
    """Refuse dots that touch, or between which there is no background: halfway to a neighbour the image is as at a dot."""
    pairs = cKDTree(dots[:, :2]).query_pairs(1.25 * spacing, output_type="ndarray")
    one, other = dots[pairs[:, 0]], dots[pairs[:, 1]]
    rows, columns = np.round((one[:, :2] + other[:, :2]) / 2).astype(int).T
    between = (picture[rows, columns] - (one[:, 3] + other[:, 3]) / 2) / ((one[:, 2] + other[:, 2]) / 2)
    if 2 * shape.radius > TOUCHING * spacing or (len(pairs) and np.nanmedian(between) > MOST_BETWEEN):
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
