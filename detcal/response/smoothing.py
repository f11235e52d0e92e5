"""The Gaussian that estimates the signal expected in a pixel. ndarrays in, ndarrays out."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from detcal.frames.jit import kernel

Image = NDArray[np.float32]

# numpy.pad's names of the boundaries that scipy.ndimage calls by the keys
BOUNDARIES = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "wrap": "wrap"}

ROWS_A_STRIP = 64  # rows that are transformed at once: a strip and its spectrum stay in the second-level cache

# A pixel with less of the kernel's weight on valid pixels than this has no neighbourhood to be compared with: NaN.
LEAST_WEIGHT = 1e-3


def gaussian_taps(sigma: float, truncate: float) -> NDArray[np.float64]:
    """Normalised weights of scipy.ndimage's gaussian: cut at int(truncate·sigma + ½) pixels."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


class PaddedGaussian(NamedTuple):
    """What smoothing lines of one length needs."""

    radius: int
    length: int  # of the transform
    spectrum: Image  # the kernel's, real because it is even
    before: NDArray[np.intp]  # the pixels that pad a line's start
    after: NDArray[np.intp]  # and its end


@lru_cache(maxsize=16)
def padded_gaussian(size: int, sigma: float, boundary: str, truncate: float) -> PaddedGaussian:
    """The gaussian for lines of `size` pixels, padded so that the circular convolution is the one with the boundary."""
    taps = gaussian_taps(sigma, truncate)
    radius = len(taps) // 2
    length = fft.next_fast_len(size + 2 * radius, real=True)
    centred = np.zeros(length)
    centred[: radius + 1] = taps[radius:]
    centred[length - radius :] = taps[:radius]
    pixels = np.pad(np.arange(size), (radius, length - size - radius), mode=BOUNDARIES[boundary])  # type: ignore[call-overload]
    return PaddedGaussian(radius, length, fft.rfft(centred).real.astype(np.float32), pixels[:radius], pixels[radius + size :])


@kernel
def pad_rows(strip, before, after, out):  # type: ignore[no-untyped-def]
    """Each row of `strip` between the pixels of it that `before` and `after` point to."""
    start = before.size
    stop = start + strip.shape[1]
    for row in range(strip.shape[0]):
        for k in range(before.size):
            out[row, k] = strip[row, before[k]]
        out[row, start:stop] = strip[row]
        for k in range(after.size):
            out[row, stop + k] = strip[row, after[k]]


def smooth_rows(image: Image, sigma: float, boundary: str, truncate: float) -> Image:
    """Gaussian along the rows, transposed: padded real transforms, exact for the truncated kernel, a strip at a time."""
    rows, size = image.shape
    gaussian = padded_gaussian(size, sigma, boundary, truncate)
    middle = slice(gaussian.radius, gaussian.radius + size)
    smoothed = np.empty((size, rows), np.float32)
    padded = np.empty((ROWS_A_STRIP, gaussian.length), np.float32)
    for start in range(0, rows, ROWS_A_STRIP):
        strip = image[start : start + ROWS_A_STRIP]
        lines = padded[: len(strip)]
        pad_rows(strip, gaussian.before, gaussian.after, lines)
        transformed = fft.rfft(lines, axis=1)
        transformed *= gaussian.spectrum
        lines = fft.irfft(transformed, gaussian.length, axis=1, overwrite_x=True)
        smoothed[:, start : start + len(strip)] = lines[:, middle].T
    return smoothed


def smooth(image: Image, sigma: float, boundary: str = "nearest", truncate: float = 4.0) -> Image:
    """scipy.ndimage.gaussian_filter of a finite float32 image, to 1e-6 of its largest value.

    The mean is taken off first, so that the rounding of the transforms is relative to the variation alone.
    """
    mean = np.float32(image.mean(dtype=np.float64))
    smoothed = smooth_rows(smooth_rows(image - mean, sigma, boundary, truncate), sigma, boundary, truncate)
    smoothed += mean
    return smoothed


class ValidSmoother:
    """Normalised convolution: the gaussian mean of the valid pixels (Knutsson and Westin 1993).

    Masks seldom change from frame to frame, so that the smoothed weights of the last mask are kept.
    """

    def __init__(self, sigma: float, boundary: str, truncate: float) -> None:
        self.options = (sigma, boundary, truncate)
        self.valid: NDArray[np.bool_] | None = None
        self.weights: Image | None = None

    def __call__(self, image: Image) -> Image:
        """Smooth `image`, in which NaN marks the invalid pixels; NaN where no valid pixel is near."""
        valid = np.isfinite(image)
        if valid.all():
            return smooth(image, *self.options)
        if not valid.any():
            return np.full_like(image, np.nan)
        weights = self._weights(valid)
        mean = np.float32(image.mean(dtype=np.float64, where=valid))
        smoothed = smooth(np.where(valid, image - mean, np.float32(0)), *self.options)
        smoothed /= weights
        smoothed += mean
        return smoothed

    def _weights(self, valid: NDArray[np.bool_]) -> Image:
        if self.valid is None or self.weights is None or not np.array_equal(valid, self.valid):
            weights = smooth(valid.astype(np.float32), *self.options)
            weights[weights < LEAST_WEIGHT] = np.nan
            self.valid, self.weights = valid, weights
        return self.weights
