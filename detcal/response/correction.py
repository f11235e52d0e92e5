"""What frames are multiplied and divided by, and the correction of a block of them. ndarrays in, ndarrays out."""

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.jit import kernel
from detcal.frames.lanes import reading
from detcal.frames.readings import ALL_NUMBERS, Valid
from detcal.response.kernels import Array, writable
from detcal.response.smoothing import Image, ValidSmoother


def flat_divisor(
    flat: Image,
    flat_dark: Image | None,
    terms: list[Image],
    mask: NDArray[np.bool_] | None,
    *,
    smoothing: tuple[float, str, float] | None,
    residual_sigma: float | None,
    light: float | None = None,
) -> Image:
    """What frames are divided by: the flat less its dark, smoothed where there are gains for its pixels; NaN where that is not above 0.

    Relative to the light that the flat got, where that is known.

    Raises
    ------
    InputError
        A flat that is nowhere brighter than its dark, or has no reading.
    """
    signal = flat if flat_dark is None else flat - flat_dark
    if mask is not None:
        signal = np.where(mask, np.float32(np.nan), signal)
    if np.isnan(signal).all():
        raise InputError("expected a flat with readings, found none: all are saturated, missing, or masked")
    divisor = signal if smoothing is None else ValidSmoother(*smoothing)(signal)
    if not np.any(divisor > 0):
        raise InputError(
            "expected a flat that is brighter than its dark, found no such pixel: the flat is zero or already dark-subtracted (then say "
            "flat_is_dark_subtracted = true)"
        )
    if residual_sigma is not None:
        divisor = divisor - large_residuals(divisor, polynomial(signal, terms), residual_sigma)
    return np.where(divisor > 0, divisor / np.float32(1 if light is None else light), np.float32(np.nan))


def divided(terms: list[Image], mask: NDArray[np.bool_] | None, divisor: Image | None) -> list[Image]:
    """Terms as they multiply a frame: divided by the flat, if there is one, NaN where masked."""
    below = np.float32(1) if divisor is None else divisor
    if mask is not None:
        below = np.where(mask, np.float32(np.nan), below)
    return [np.divide(term, below, dtype=np.float32) for term in terms]


def polynomial(signal: Image, terms: list[Image]) -> Image:
    """offset + gain·signal + curvature·signal², as far as there are terms."""
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * signal + term
    return total


def large_residuals(smoothed: Image, corrected: Image, residual_sigma: float) -> Image:
    """R = smoothed − corrected flat where |R| ≥ residual_sigma·std(R) over the valid pixels, else 0 (Croton et al. 2019)."""
    residual = smoothed - corrected
    limit = residual_sigma * np.nanstd(residual, dtype=np.float64)
    return np.where(np.abs(residual) >= limit, residual, np.float32(0))


@kernel
def less_dark(value, valid, dark):  # type: ignore[no-untyped-def]
    """A reading less its dark; NaN if it is none. Integers of 32 bits and reals of 64 are not rounded before: above 2²⁴ counts the
    difference may be a float32 where the reading is none."""
    return value - dark if reading(value, valid) == reading(value, valid) else np.nan


@kernel
def scale_frames(frames, valid, dark, offset, gain, out):  # type: ignore[no-untyped-def]
    """out = offset + gain·(frame − dark); NaN where there is no reading, or the result is not finite."""
    for frame in range(frames.shape[0]):
        for row in range(frames.shape[1]):
            for column in range(frames.shape[2]):
                signal = less_dark(frames[frame, row, column], valid, dark[row, column])
                value = offset[row, column] + gain[row, column] * signal
                out[frame, row, column] = value if abs(value) < np.inf else np.nan


@kernel
def scale_frames_curved(frames, valid, dark, offset, gain, curvature, out):  # type: ignore[no-untyped-def]
    """out = offset + gain·(frame − dark) + curvature·(frame − dark)²; NaN as in `scale_frames`."""
    for frame in range(frames.shape[0]):
        for row in range(frames.shape[1]):
            for column in range(frames.shape[2]):
                signal = less_dark(frames[frame, row, column], valid, dark[row, column])
                bent = gain[row, column] + curvature[row, column] * signal
                value = offset[row, column] + bent * signal
                out[frame, row, column] = value if abs(value) < np.inf else np.nan


def correct(frames: Array, dark: Image, offset: Image, gain: Image, curvature: Image | None = None, *, valid: Valid = ALL_NUMBERS) -> Image:
    """A block of frames of any type, corrected to float32."""
    out = np.empty(frames.shape, np.float32)
    dark, offset, gain = writable(dark), writable(offset), writable(gain)
    if curvature is None:
        scale_frames(frames, valid, dark, offset, gain, out)
    else:
        scale_frames_curved(frames, valid, dark, offset, gain, writable(curvature), out)
    return out


@kernel
def divide_between(frame, first, second, share):  # type: ignore[no-untyped-def]
    """Divide a frame in place by what lies between two flats, a share of the way from the first; NaN where one of them is."""
    rest = np.float32(1) - share
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            value = frame[row, column] / (rest * first[row, column] + share * second[row, column])
            frame[row, column] = value if abs(value) < np.inf else np.nan


def correct_in_time(
    frames: Array, places: NDArray[np.float64], dark: Image, *images: Image, flats: int, valid: Valid = ALL_NUMBERS
) -> Image:
    """As `correct`, with so many flats, the last of the images, each frame divided by what its place (frame, 1, 1) between them says."""
    out = correct(frames, dark, *images[:-flats], valid=valid)
    divisors = [writable(image) for image in images[-flats:]]
    for frame, place in zip(out, places.ravel(), strict=True):
        first = min(int(place), flats - 2)
        divide_between(frame, divisors[first], divisors[first + 1], np.float32(place - first))
    return out
