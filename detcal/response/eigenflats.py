"""How the flats of a beam that moves differ: their principal components, and how many of them there are. ndarrays in, ndarrays out."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from threadpoolctl import threadpool_limits

from detcal.frames.readings import Floats, Frames, Valid, readings
from detcal.response.binning import bin_block
from detcal.response.smoothing import Image

Numbers = NDArray[np.float64]

MOST = 12  # components that are looked for: beams have fewer ways to move, and each is an image that is kept
STRIP_BYTES = 2**26  # of all flats, that are held at once: more where a block of frames is more
PIECE_BYTES = 2**22  # of these, that are worked on at once
CHANCE = 1e-5  # that noise alone has a reading left out
FEWEST_TO_CLIP = 4  # readings
LEAST_MEASURED = 0.5  # of an eigenflat in a pixel; of less it has none there
DRAWS = 20  # of white noise, and the seed of the first
SEED = 2015
ROUNDS = 4  # in which the number of independent pixels is found
ABOVE_NOISE = 4.0  # standard deviations of the largest eigenvalue of noise
FEWEST_TO_FIT = 4  # eigenvalues whose spread says how wide that of noise is
ROUNDING = 1e-7  # of a mean in float32
COARSE_PIXELS = 2**18  # groups of pixels, at most, in which weights are found
SIZES = (1, 2, 4, 8, 16, 32, 64)  # rows and columns of such groups
FEWEST_GROUPS = 16  # along each side
NOISE = 5.0  # times that of a pixel is in the differences to two neighbours: 4, and what these vary by
TINY = 1e-30  # where noise is all there is


class Products(NamedTuple):
    """Sums over the pixels of flats, each less their average, in units of photon noise.

    Attributes
    ----------
    gram : (flat, flat)
        Products of each two.
    brighter : (flat,)
        How much brighter than the average each is, in counts.
    light, pixels
        The counts of the average, and how many pixels have any.
    """

    gram: Numbers
    brighter: Numbers
    light: float
    pixels: int


class Basis(NamedTuple):
    """Eigenflats as sums over flats.

    Attributes
    ----------
    vectors : (component, flat)
        Of length 1.
    rms : (component,)
        Root mean square of each eigenflat over the pixels, weighted by their light.
    brightness : (flat,)
        By what part each flat is brighter than the average.
    """

    vectors: Numbers
    rms: Numbers
    brightness: Numbers


class Eigenflats(NamedTuple):
    """By what parts the light of a frame may differ from that of the average flat.

    Attributes
    ----------
    images : (component, y, x)
        Relative to the average flat; a flat's weights have standard deviation 1. 0 where the average has no light, or few flats.
    largest : (component,)
        Weight of a flat, regardless of its sign.
    rms : (component,)
        As in `Basis`.
    coarse : (component, y, x)
        The same images in groups of pixels.
    size
        Rows and columns of a group.
    """

    images: Image
    largest: Numbers
    rms: Numbers
    coarse: Image
    size: int


def strip_rows(flats: tuple[int, ...], itemsize: int, most: int) -> int:
    """Rows of flats (flat, y, x) that fill so many bytes, in whole pieces where there are several, so that sums have one order."""
    rows, piece = max(1, min(flats[1], most // (itemsize * flats[0] * flats[2]))), piece_rows(flats)
    return rows if rows < piece else rows // piece * piece


def piece_rows(flats: tuple[int, ...]) -> int:
    """Rows of flats (flat, y, x) whose readings, in float32, are worked on at once."""
    return max(1, min(flats[1], PIECE_BYTES // (4 * flats[0] * flats[2])))


def hold(so_far: Frames | None, block: Frames, *before: Any) -> Frames:
    """Some rows of flats as they are in the file, which takes less room than readings; what comes before says that its turn has come."""
    return block.copy() if so_far is None else np.concatenate([so_far, block])


def in_pieces(so_far: Any, flats: Frames, *shared: Any, add: Callable[..., Any], valid: Valid, top: int) -> Any:
    """add(so_far, readings, *shared, top=…) over a few rows of flats after the other, the first of which is row `top` of a frame."""
    rows = piece_rows(flats.shape)
    for first in range(0, flats.shape[1], rows):
        so_far = add(so_far, readings(flats[:, first : first + rows], valid), *shared, top=top + first)
    return so_far


def light_of(average: Image, dark: Image | None, bad: NDArray[np.bool_] | None) -> Image:
    """The average flat less its dark; 0 where it has no light, or is bad."""
    light = average if dark is None else average - dark
    known = light > 0
    return np.where(known if bad is None else known & ~bad, light, np.float32(0))


def deviations(readings: Floats, average: Image) -> Floats:
    """Flats (flat, y, x) less their average, in which the dark cancels; NaN where there is no reading, 0 where it stands out."""
    found = readings - average
    flats = len(found)
    if flats >= FEWEST_TO_CLIP:  # by an externally studentised residual, as in averages
        limit = np.float32(stdtrit(flats - 2, 1 - CHANCE / 2) ** 2 / (flats - 2))
        squares = np.nansum(found * found, axis=0)
        found[found * found * (1 + limit) > limit * squares] = 0
    return found


def add_products(so_far: Products | None, readings: Floats, average: Image, light: Image, *, top: int) -> Products:
    """The sums with those of some rows of all flats added, from the row `top` on: over pixels that all flats have measured.

    A hole in one flat would be a way in which flats differ.
    """
    rows = slice(top, top + readings.shape[1])
    differ = deviations(readings, average[rows])
    known = (light[rows] > 0) & ~np.isnan(differ).any(axis=0)
    part, signal = differ[:, known].astype(float), light[rows][known]
    brighter, total = part.sum(axis=1), float(signal.sum(dtype=float))
    part /= np.sqrt(signal)
    with threadpool_limits(1, "blas"):
        gram = part @ part.T
    if so_far is None:
        return Products(gram, brighter, total, len(signal))
    return Products(so_far.gram + gram, so_far.brighter + brighter, so_far.light + total, so_far.pixels + len(signal))


def find_basis(products: Products, image: Image, components: int | None) -> Basis:
    """The principal components of flats of the same brightness, the largest first: so many, or by `count_components`.

    None with a warning where `image`, the light of the average, has no pixel that all flats measured; without light, the divisor says so.
    """
    gram, brighter, light, pixels = products
    flats = len(gram)
    if pixels == 0:
        if image.any():
            warnings.warn("no pixel was measured by all flats: their average serves for all frames", UserWarning, stacklevel=2)
        return Basis(np.zeros((0, flats)), np.zeros(0), np.zeros(flats))
    centre = np.eye(flats) - 1 / flats
    with threadpool_limits(1, "blas"):
        values, vectors = np.linalg.eigh(centre @ (gram - np.outer(brighter, brighter) / light) @ centre)
        values, vectors = values[:0:-1], vectors[:, :0:-1].T  # the smallest is that of the average
        found = count_components(values, pixels, ROUNDING**2 * light * flats) if components is None else components
    chosen = vectors[:found]
    signs = np.sign(chosen[np.arange(found), np.abs(chosen).argmax(axis=1)])  # which an eigenvector leaves open
    return Basis(chosen * signs[:, None], np.sqrt(values[:found].clip(0) / (flats * light)), brighter / light)


def count_components(values: Numbers, pixels: int, least: float = 0.0) -> int:
    """How many eigenvalues, which fall, are above those of noise: parallel analysis (Horn 1965).

    Noise is white noise of as many flats, whose level is that of the smaller half of the eigenvalues, which is noise; and of as many
    pixels as spread it as far: pixels that share light count as fewer. Of fewer than 8 eigenvalues, all pixels count.
    """
    half = len(values) // 2
    small = values[half:]
    independent = float(pixels)
    noise = noise_eigenvalues(len(values), independent)
    for _ in range(ROUNDS if len(small) >= FEWEST_TO_FIT else 0):
        slope, level = np.polyfit(noise.mean(axis=0)[half:] - 1, small, 1)
        if not (slope > 0 and level > 0):
            break
        independent = float(np.clip(independent * (level / slope) ** 2, len(values), pixels))
        noise = noise_eigenvalues(len(values), independent)
    largest = noise[:, 0].mean() + ABOVE_NOISE * noise[:, 0].std()
    limit = max(small.mean() / noise[:, half:].mean() * largest, least)
    return min(int((values > limit).sum()), MOST)


def noise_eigenvalues(number: int, pixels: float) -> Numbers:
    """Eigenvalues (draw, number), the largest first, of the products of so many images of white noise, a pixel of variance 1.

    No images are made: their products are Wishart-distributed, L·Lᵀ with a triangular L (Bartlett 1933).
    """
    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(SEED + draw)
        lower = np.tril(rng.standard_normal((number, number)), -1)
        lower[np.diag_indices(number)] = np.sqrt(rng.chisquare(np.maximum(pixels - np.arange(number), 1)))
        found.append(np.linalg.eigvalsh(lower @ lower.T)[::-1] / pixels)
    return np.array(found)


def add_eigenflats(so_far: list[Image] | None, readings: Floats, average: Image, light: Image, basis: Basis, *, top: int) -> list[Image]:
    """Eigenflats in strips of rows, with those of some rows of all flats added, from the row `top` on."""
    rows = slice(top, top + readings.shape[1])
    part = light[rows].ravel()
    differ = deviations(readings, average[rows]).reshape(len(readings), -1)
    differ -= basis.brightness.astype(np.float32)[:, None] * part
    vectors = basis.vectors.astype(np.float32)
    missing = np.isnan(differ)
    with threadpool_limits(1, "blas"):
        measured = 1 - vectors**2 @ missing  # of a vector's length: what is missing is as the rest
        differ[missing] = 0
        found = vectors @ differ
    known = (measured > LEAST_MEASURED) & (part > 0)
    relative = np.divide(found, measured * part * np.float32(np.sqrt(len(readings))), out=np.zeros_like(found), where=known)
    return [*(so_far or []), relative.reshape(-1, *light[rows].shape)]


def as_eigenflats(strips: list[Image], basis: Basis) -> Eigenflats:
    """Eigenflats of all rows, and in groups of pixels."""
    images = np.concatenate(strips, axis=1)
    size = group_size(images)
    largest = np.abs(basis.vectors).max(axis=1, initial=0) * np.sqrt(basis.vectors.shape[1])
    return Eigenflats(images, largest, basis.rms, bin_block(images, factors=(size, size), mean=True), size)


def group_size(images: Image) -> int:
    """Rows and columns of the groups in which weights are found: those in which neighbours differ most by the eigenflats.

    Photon noise falls as pixels are added up, just as their number: what tells weights from it is the mean square of the differences of
    eigenflats between groups. Of several eigenflats, the product.
    """
    shape = images.shape[1:]
    least = max(1, int(np.ceil(np.sqrt(np.prod(shape) / COARSE_PIXELS))))
    sizes = [size for size in reversed(SIZES) if least <= size <= min(shape) // FEWEST_GROUPS] or [least]
    noise = [noise_of(image) for image in images]

    def shown(size: int) -> float:
        clear = [differences(image, size) - NOISE * own / size**2 for image, own in zip(images, noise, strict=True)]
        return float(np.log(np.maximum(clear, TINY)).sum())

    return max(sizes, key=shown)


def noise_of(image: Image) -> float:
    """The variance of a pixel's noise, by what neither rows nor columns have in common."""
    crossed = np.diff(np.diff(image, axis=0), axis=1)
    return float(np.mean(crossed**2, dtype=float)) / 4 if crossed.size else 0.0


def differences(image: Image, size: int) -> float:
    """The mean square by which groups of pixels differ from their neighbours, summed over both directions."""
    (groups,) = bin_block(image[None], factors=(size, size), mean=True)
    squares = [np.diff(groups, axis=axis) ** 2 for axis in (0, 1)]
    return sum(float(each.mean(dtype=float)) for each in squares if each.size)
