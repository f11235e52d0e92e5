"""Beam sweeps, darks, flats and CT scans of a detector whose gains are known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

Image = NDArray[np.float32]
Beam = Callable[[int], Image]

FRAMES_A_BLOCK = 8
ROWS_A_STRIP = 64  # of a frame, which are made together: they stay in the second-level cache
MANY_COUNTS = 250.0  # from which on Poisson deviates are made of normal ones
STEPS_A_PIXEL = 16  # of the tables that a slice is reconstructed from


@dataclass(frozen=True)
class Detector:
    """A simulated detector: reading = Poisson(intensity / gain) + dark, as uint16.

    Attributes
    ----------
    gain : (y, x)
        True gain: what the dark-subtracted reading must be multiplied by. Infinite in dead pixels.
    dark : (y, x)
        Mean reading without beam, counts.
    stuck : (y, x) bool
        Pixels that read 60000 whatever the beam does.
    """

    gain: Image
    dark: Image
    stuck: NDArray[np.bool_]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Dead or stuck pixels."""
        return self.stuck | ~np.isfinite(self.gain)


def detector(
    shape: tuple[int, int] = (512, 512),
    *,
    gain_spread: float = 0.03,
    dark_level: float = 100.0,
    dead: int = 0,
    stuck: int = 0,
    seed: int = 0,
) -> Detector:
    """A detector with normally distributed gains (standard deviation `gain_spread`) and some bad pixels."""
    rng = np.random.default_rng(seed)
    gain = (1 / rng.normal(1, gain_spread, shape).clip(0.2)).astype(np.float32)
    dark = rng.normal(dark_level, dark_level / 30, shape).clip(0).astype(np.float32)
    bad = rng.choice(gain.size, dead + stuck, replace=False)
    gain.flat[bad[:dead]] = np.inf
    is_stuck = np.zeros(shape, np.bool_)
    is_stuck.flat[bad[dead:]] = True
    return Detector(gain, dark, is_stuck)


def beam_sweep(detector: Detector, frames: int = 64, *, peak: float = 20000.0, seed: int = 1) -> xr.DataArray:
    """A beam sweep (frame, y, x): a wide beam passes from above to below and grows from peak/30 to `peak` counts."""
    levels = np.geomspace(1 / 30, 1, frames)
    offsets = np.linspace(-1, 1, frames)
    return record(detector, partial(swept_beam, detector.gain.shape, peak, levels, offsets), frames, seed)


def swept_beam(shape: tuple[int, int], peak: float, levels: NDArray[np.float64], offsets: NDArray[np.float64], frame: int) -> Image:
    """Intensity of one frame of a sweep."""
    return beam_profile(shape, offsets[frame]) * np.float32(peak * levels[frame])


def beam_profile(shape: tuple[int, int], offset: float = 0.0) -> Image:
    """A beam three detectors wide at 1σ, centred on it or `offset` detector heights above."""
    y, x = (np.linspace(-0.5, 0.5, size, dtype=np.float32) for size in shape)
    across, along = (np.exp(-0.5 * (line / 3) ** 2).astype(np.float32) for line in (x, y - np.float32(offset)))
    return along[:, None] * across


def dark_frames(detector: Detector, frames: int = 10, *, seed: int = 2) -> xr.DataArray:
    """Frames (frame, y, x) without beam."""
    return record(detector, lambda _: np.zeros(detector.gain.shape, np.float32), frames, seed)


def flat_frames(detector: Detector, frames: int = 10, *, peak: float = 16000.0, seed: int = 3) -> xr.DataArray:
    """Frames (frame, y, x) without sample."""
    return record(detector, lambda _: beam_profile(detector.gain.shape) * np.float32(peak), frames, seed)


def ct_frames(detector: Detector, frames: int = 180, *, peak: float = 16000.0, seed: int = 4) -> xr.DataArray:
    """A parallel-beam CT scan (frame, y, x) over 180°, with the angle as coord; the sample is that of `transmission`."""
    angles = np.linspace(0, np.pi, frames, endpoint=False)
    stack = record(detector, partial(ct_beam, detector.gain.shape, peak, angles), frames, seed)
    return stack.assign_coords(angle=("frame", angles, {"units": "rad"}))


def ct_beam(shape: tuple[int, int], peak: float, angles: NDArray[np.float64], frame: int) -> Image:
    """Intensity behind the sample at one angle."""
    return beam_profile(shape) * transmission(shape, angles[frame]) * np.float32(peak)


# Ellipsoids of the CT sample about the vertical axis: centre x, z and height y, radius and half-height, all in halves
# of the detector's width, and attenuation per half-width.
SAMPLE = (
    (0.00, 0.00, 0.00, 0.82, 1.60, 1.1),
    (0.00, 0.00, 0.00, 0.74, 1.50, -0.5),
    (0.30, 0.15, 0.05, 0.22, 0.50, 0.9),
    (-0.35, 0.20, -0.10, 0.16, 0.60, -0.5),
    (-0.15, -0.42, 0.10, 0.12, 0.40, 1.6),
    (0.42, -0.32, -0.05, 0.10, 0.70, -0.6),
    (0.05, 0.48, 0.00, 0.07, 0.50, 1.9),
    (-0.52, -0.16, 0.00, 0.05, 0.60, 1.4),
    (0.16, -0.12, 0.00, 0.035, 0.50, 2.0),
)


def transmission(shape: tuple[int, int], angle: float, rows: slice = slice(None)) -> Image:
    """True transmission (y, x) of the sample, turned by `angle` radians: exact chords through its ellipsoids; all rows, or some."""
    height, width = shape
    half = width / 2
    y = ((np.arange(height, dtype=np.float32)[rows] + 0.5) - height / 2)[:, None] / half
    x = ((np.arange(width, dtype=np.float32) + 0.5) - half)[None] / half
    depth = np.zeros((len(y), width), np.float32)
    for centre_x, centre_z, centre_y, radius, half_height, attenuation in SAMPLE:
        centre = centre_x * np.cos(angle) + centre_z * np.sin(angle)
        columns = slice(*np.searchsorted(x[0], [centre - radius, centre + radius]))
        across = (x[:, columns] - np.float32(centre)) / np.float32(radius)
        along = (y - np.float32(centre_y)) / np.float32(half_height)
        depth[:, columns] += np.float32(2 * radius * attenuation) * np.sqrt((1 - across**2 - along**2).clip(0))
    return np.exp(-depth)


def record(detector: Detector, beam: Beam, frames: int, seed: int) -> xr.DataArray:
    """What the detector reads of `beam(frame)`, lazily, as uint16 counts (frame, y, x)."""
    numbers = da.arange(frames, chunks=FRAMES_A_BLOCK)
    stack = numbers.map_blocks(
        partial(read_out, detector, beam, seed), dtype=np.uint16, new_axis=[1, 2],
        chunks=(numbers.chunks[0], *((size,) for size in detector.gain.shape)), meta=np.empty((0, 0, 0), np.uint16),
    )  # fmt: skip
    return xr.DataArray(stack, dims=("frame", "y", "x"), name="frames", attrs={"units": "counts"})


def read_out(detector: Detector, beam: Beam, seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Some frames, each from its own random stream."""
    height, width = detector.gain.shape
    frames = np.empty((len(numbers), height, width), np.uint16)
    for frame, number in zip(frames, numbers, strict=True):
        rng = np.random.default_rng([seed, number])
        intensity = beam(int(number))
        for first in range(0, height, ROWS_A_STRIP):
            strip = slice(first, first + ROWS_A_STRIP)
            reading = poisson_deviates(intensity[strip] / detector.gain[strip] + detector.dark[strip], rng)
            frame[strip] = reading.clip(0, 65535)
        frame[detector.stuck] = 60000
    return frames


def poisson_deviates(mean: Image, rng: np.random.Generator) -> Image:
    """Poisson deviates, each independent of the others.

    Where `mean` is large they are rounded from normal deviates z, seven times faster: mean + √mean·z + (z² − 1)/6 has their mean, variance
    and skewness (Cornish and Fisher 1938).
    """
    z = rng.standard_normal(mean.shape, np.float32)
    found = np.rint(mean + np.sqrt(mean) * z + (z * z - 1) / 6)
    few = mean < MANY_COUNTS
    if few.any():
        found[few] = rng.poisson(mean[few])
    return found


def reconstruct_slice(sinogram: Image, angles: NDArray[np.float64], size: int, side: float = 2.0) -> Image:
    """Filtered back-projection of one detector row's absorption (frame, x) to a slice (size, size), to look at.

    `side` is that of the square about the axis that is reconstructed, in halves of the detector's width.
    """
    width = sinogram.shape[1]
    length = 2 * width
    ramp = np.abs(np.fft.rfftfreq(length))
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length) * ramp, length)[:, :width]
    grid = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * np.float32(side / 2 * width * STEPS_A_PIXEL)
    axis = np.float32((width - 1) / 2 * STEPS_A_PIXEL + 1.5)  # its place in the table, and ½ for rounding
    steps = np.arange(width * STEPS_A_PIXEL) / STEPS_A_PIXEL
    table = np.zeros(len(steps) + 2, np.float32)  # of a filtered line; what is beyond its ends is 0
    found = np.zeros((size, size), np.float32)
    for line, angle in zip(filtered, angles, strict=True):
        table[1:-1] = np.interp(steps, np.arange(width), line)
        across, along = grid * np.float32(np.cos(angle)), grid * np.float32(np.sin(angle)) + axis
        found += table.take((across + along[:, None]).astype(np.intp), mode="clip")
    # half-widths: sample attenuation is per half of the detector's width
    return found * np.float32(np.pi / len(angles) * width / 2)
