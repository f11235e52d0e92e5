"""Spots in an image that may be the dots of a grid: local maxima at the size at which most of them lie evenly among their neighbours."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detcal.distortion import kernels

Picture = NDArray[np.float32]
Places = NDArray[np.float64]

SIGNS = {"bright": 1, "dark": -1}
LEAST_SIDE = 16  # pixels of a picture
RATIO = 1.6  # of the widths of the two Gaussians whose difference marks blobs (Marr and Hildreth 1980)
WIDTHS = (1.0, RATIO, RATIO**2)  # of Gaussians, in pixels of a binning
NOISE = 6.0  # standard deviations, by which a blob must stand out
FAINT = 0.15  # of the strong ones: what is less is no dot
MOST_BLOBS = 40_000
LEAST_WEIGHT = 1e-3  # of the known pixels about one that is not
ALIKE = 0.15  # of their distance, by which a dot's four neighbours may lie unevenly about it


class Blobs(NamedTuple):
    """Local maxima of a picture smoothed to a size, and which of them have four even neighbours."""

    places: Places
    strengths: NDArray[np.float64]
    regular: NDArray[np.bool_]
    radius: float
    sign: int


def find_blobs(picture: Picture, diameters: dict[int, float | None]) -> list[Blobs]:
    """The blobs that make the strongest grid, of each sign in turn, of about a diameter if one is given for it."""
    found: dict[int, list[Blobs]] = {sign: [] for sign in diameters}
    filled = fill_unknown(picture)
    noise = pixel_noise(filled)
    binning = 1
    while min(filled.shape) >= LEAST_SIDE:
        smooth = [smoothed(filled, width) for width in WIDTHS]
        for width, fine, coarse in zip(WIDTHS, smooth, smooth[1:], strict=False):
            radius = float(np.sqrt(2 * RATIO) * width * binning)
            for sign, diameter in diameters.items():
                if diameter is None or 1 / 1.5 < 2 * radius / diameter < 1.5:
                    found[sign].append(mark_blobs(sign * (fine - coarse), sign, width, binning, radius, noise))
        filled = binned(filled)
        binning *= 2
    none = Blobs(np.empty((0, 2)), np.empty(0), np.empty(0, np.bool_), 1.0, 0)
    return [max(blobs, key=grid_strength, default=none) for blobs in found.values()]


def smoothed(picture: Picture, width: float) -> Picture:
    """The picture convolved with a Gaussian of a standard deviation in pixels, cut at four of these."""
    taps = np.exp(-0.5 * (np.arange(int(4 * width + 0.5) + 1) / width) ** 2)
    found = np.empty_like(picture)
    kernels.smooth(np.ascontiguousarray(picture), (taps / (2 * taps.sum() - taps[0])).astype(np.float32), found)
    return found


def binned(picture: Picture) -> Picture:
    """Means of two by two pixels."""
    height, width = (size // 2 * 2 for size in picture.shape)
    even = picture[:height, :width]
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4))


def fill_unknown(picture: Picture) -> Picture:
    """The picture with the mean of the pixels about them in place of those that are NaN, or far from others its median."""
    known = np.isfinite(picture)
    if known.all():
        return picture
    weights, around = smoothed(known.astype(np.float32), 1.0), smoothed(np.where(known, picture, np.float32(0)), 1.0)
    far = np.full_like(picture, np.median(picture[known]))
    return np.asarray(np.where(known, picture, np.divide(around, weights, out=far, where=weights > LEAST_WEIGHT)), np.float32)


def without_lone_pixels(picture: Picture) -> Picture:
    """The picture with NaN for pixels that stand alone: hot and dead ones, and hits of single photons, are no dots, and no part of one."""
    alone = kernels.lone_pixels(picture, np.float32(NOISE * pixel_noise(fill_unknown(picture))))
    return np.where(alone, np.float32(np.nan), picture)


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
