"""Forward models with known truth, seeded: what a detector would have recorded, for tests, notebooks and the demo.

Every frame has its own random stream, so that a stack does not depend on how it is cut into blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtr

if TYPE_CHECKING:
    from detcal.sensor import SensorPSF

Image = NDArray[np.float32]
Beam = Callable[[int], Image]

FRAMES_A_BLOCK = 8
ROWS_A_STRIP = 64  # of a frame, which are made together: they stay in the second-level cache
MANY_COUNTS = 250.0  # from which on Poisson deviates are made of normal ones
STEPS_A_PIXEL = 16  # of the tables that a slice is reconstructed from
BLOCK_BYTES = 2**24  # of spectra


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


def thick_sensor_frames(
    psf: "SensorPSF", entering: NDArray[np.floating] | xr.DataArray, frames: int = 16, *, seed: int = 5
) -> xr.DataArray:
    """What a thick sensor records, lazily, as int32 counts (frame, y, x): Poisson(M·a), and −1 in masked pixels.

    `entering` (y, x) is the mean number of photons that enter each pixel's front in a frame.
    """
    expected = psf.apply(entering)[0].data
    numbers = da.arange(frames, chunks=FRAMES_A_BLOCK)
    stack = da.blockwise(
        count_photons, "fyx", numbers, "f", expected, "yx", seed=seed, dtype=np.int32, meta=np.empty((0, 0, 0), np.int32), concatenate=True
    )
    return xr.DataArray(stack, dims=("frame", "y", "x"), name="frames", attrs={"units": "counts"})


def count_photons(numbers: NDArray[np.int64], expected: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """Some frames, each from its own random stream."""
    masked = np.isnan(expected)
    means = np.where(masked, 0, expected)
    frames = [np.random.default_rng([seed, int(number)]).poisson(means) for number in numbers]
    return np.where(masked, -1, frames).astype(np.int32)


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


@dataclass(frozen=True)
class HoleGrid:
    """A simulated image of a hole grid and what is true of it.

    Attributes
    ----------
    image : (y, x) float32
        Counts.
    y, x, row, column : (point,)
        Where the centres of the dots that are there lie, in pixels (pixel centres at whole numbers), and their place in the grid.
    affine : (2, 2)
        Pixels (y, x) a step of the grid along rows and columns.
    centre : (y, x)
        Pixel about which the lens is round.
    barrel, scale_px
        Strength of the lens, and the radius at which it moves by all of it: see `undistort`.
    """

    image: Image
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    barrel: float
    scale_px: float

    def to_grid(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows and columns of the grid (…, 2), as fractions, at pixels (…, 2) as (y, x)."""
        return np.asarray((undistort(place, self.centre, self.barrel, self.scale_px) - self.centre) @ np.linalg.inv(self.affine).T)

    def to_pixels(self, grid: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (…, 2) as (y, x), at rows and columns of the grid (…, 2)."""
        return distort(grid @ self.affine.T + self.centre, self.centre, self.barrel, self.scale_px)


def undistort(place: NDArray[np.float64], centre: NDArray[np.float64], barrel: float, scale: float) -> NDArray[np.float64]:
    """Where a place in the image (…, 2) would be without the lens: r from the centre is r·(1 + barrel·(r/scale)²) then."""
    away = place - centre
    return np.asarray(centre + away * (1 + barrel * ((away / scale) ** 2).sum(axis=-1, keepdims=True)))


def distort(place: NDArray[np.float64], centre: NDArray[np.float64], barrel: float, scale: float) -> NDArray[np.float64]:
    """The inverse of `undistort`, by Newton's method; NaN where a pincushion images nothing."""
    away = place - centre
    wanted = np.sqrt((away**2).sum(axis=-1, keepdims=True)) / scale
    rim = np.inf if barrel >= 0 else 1 / np.sqrt(-3 * barrel)  # of the image: further out the formula folds it over
    found = np.minimum(wanted, 0.99 * rim)
    for _ in range(40):
        found = np.minimum(found - (found * (1 + barrel * found**2) - wanted) / (1 + 3 * barrel * found**2), 0.9999 * rim)
    found[abs(found * (1 + barrel * found**2) - wanted) > 1e-9] = np.nan
    return np.asarray(centre + away * np.divide(found, wanted, out=np.ones_like(found), where=wanted > 0))


def hole_grid(
    shape: tuple[int, int] = (2048, 2048),
    *,
    pitch_px: float = 97.0,
    dot_diameter_px: float | None = None,
    rotation_deg: float = 0.5,
    shear: float = 0.0,
    stretch: float = 1.0,
    barrel: float = 0.03,
    missing: float = 0.05,
    peak: float = 3000.0,
    background: float = 200.0,
    unevenness: float = 0.5,
    blur_px: float = 0.8,
    dark_dots: bool = False,
    seed: int = 0,
) -> HoleGrid:
    """An image of a hole grid behind a lens, as counts with Poisson noise.

    Parameters
    ----------
    shape : rows, columns
    pitch_px
        Between holes in the middle of the image.
    dot_diameter_px
        By default a quarter of the pitch.
    rotation_deg
        Of the grid.
    shear, stretch
        Of the camera: columns that rows are shifted by, a row; how much lower pixels are than wide.
    barrel
        By which the corners of the image are drawn in, relative to their distance from its middle; negative: pincushion.
    missing
        Share of dots that are not there.
    peak, background
        Counts of light through holes, and all over the image, in the middle.
    unevenness
        How much of the light is lost in the corners; the middle of the light is not that of the image.
    blur_px
        Standard deviation of the blur of the dots' edges.
    dark_dots
        Dots take light away in place of adding it.
    seed
        Of the noise and of the missing dots.
    """
    rng = np.random.default_rng(seed)
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    affine = pitch_px * np.array([[stretch, 0.0], [shear, 1.0]]) @ turn
    middle = (np.array(shape) - 1) / 2
    centre, scale = middle + 0.01 * np.array(shape) * (0.7, -0.4), float(np.hypot(*middle))
    diameter = pitch_px / 4 if dot_diameter_px is None else dot_diameter_px
    none, nodeless = np.empty(0), np.empty(0, np.int64)
    model = HoleGrid(np.empty((0, 0), np.float32), none, none, nodeless, nodeless, affine, centre, barrel, scale)
    reach = int(1.6 * scale / pitch_px / min(1, stretch)) + 2
    nodes = np.stack(np.meshgrid(*(np.arange(-reach, reach + 1),) * 2, indexing="ij"), -1).reshape(-1, 2)
    places = model.to_pixels(nodes.astype(float))
    seen = (places > -diameter).all(axis=1) & (places < np.array(shape) + diameter).all(axis=1) & (rng.random(len(nodes)) >= missing)
    nodes, places = nodes[seen], places[seen]
    light = np.zeros(shape)
    for place in places:
        add_dot(light, place, model, diameter / pitch_px / 2, blur_px)
    y, x = np.ogrid[: shape[0], : shape[1]]
    lamp = 1 - unevenness * (((y - 0.6 * shape[0]) / shape[0]) ** 2 + ((x - 0.35 * shape[1]) / shape[1]) ** 2) / 0.78
    mean = lamp * (background + peak * (1 - light if dark_dots else light))
    image = rng.poisson(mean.clip(0)).astype(np.float32)
    inside = (places > diameter).all(axis=1) & (places < np.array(shape) - 1 - diameter).all(axis=1)
    (y, x), (row, column) = places[inside].T, nodes[inside].T
    return HoleGrid(image, y, x, row, column, affine, centre, barrel, scale)


def add_dot(light: NDArray[np.float64], place: NDArray[np.float64], model: HoleGrid, radius: float, blur_px: float) -> None:
    """Add the light through a hole of some radius, in pitches, whose edge is drawn by the map itself."""
    pixels_a_pitch = np.sqrt(abs(np.linalg.det(model.affine)))
    reach = int(1.6 * radius * pixels_a_pitch + 4 * blur_px) + 2
    first = np.maximum(np.round(place).astype(int) - reach, 0)
    last = np.minimum(np.round(place).astype(int) + reach + 1, light.shape)
    if (first >= last).any():
        return
    pixels = np.stack(np.meshgrid(*map(np.arange, first, last), indexing="ij"), -1).astype(float)
    away = model.to_grid(pixels) - model.to_grid(place)
    depth = (radius - np.hypot(away[..., 0], away[..., 1])) * pixels_a_pitch
    light[first[0] : last[0], first[1] : last[1]] += ndtr(depth / blur_px)


# ------------------------------------------------------------------------------------------------------ MA-XRF scans

# Elements of the painted target, and counts of each in a spectrum where there is most of it, per channel of the whole spectrum
PAINTS = {"Ca": 0.15, "Fe": 0.3, "Cu": 0.25, "Pb": 0.3}
ROI_KEV = {"Ca": (3.5, 3.9), "Fe": (6.2, 6.6), "Cu": (7.8, 8.3), "Pb": (10.3, 10.8)}  # about the strongest lines
FIRST_SPECTRUM_US = np.uint64(1_600_000_000_000_000)
CHANNEL_KEV, ZERO_KEV = 0.011953, -1.170  # of an axis of 4096 channels
PLACES_A_SWEEP = 5  # at which the target is looked at during an exposure


@dataclass(frozen=True)
class ScanPath:
    """The way of the stage, in pixels of a grid (row, column): to and fro along the rows, with turns beyond their ends.

    Attributes
    ----------
    rows, columns
        Of the grid.
    turn
        Exposures that a turn takes; the stage slows down, and comes back a row further.
    wobble
        By how many rows the lines wave, at most.
    lag
        By how many exposures the recorded positions lag behind.
    seed
    """

    rows: int
    columns: int
    turn: int
    wobble: float
    lag: float
    seed: int

    @property
    def spectra(self) -> int:
        """Exposures in the scan."""
        return self.rows * (self.columns + self.turn)

    def places(self, time: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where the stage is (…, (row, column)) at times in exposures; pixel centres at whole numbers."""
        period = self.columns + self.turn
        line, within = np.divmod(time, period)
        turning = (within - self.columns).clip(0) / max(1, self.turn)
        across = within.clip(max=self.columns) + self.turn / np.pi * np.sin(np.pi * turning) - 0.5
        column = np.where(line % 2 == 0, across, self.columns - 1 - across)
        phases = np.random.default_rng(self.seed).uniform(0, 2 * np.pi, 3)
        waves = [np.sin(2 * np.pi * time / (period * part) + phase) for part, phase in zip((0.37, 1.3, 7.1), phases, strict=True)]
        row = line + (1 - np.cos(np.pi * turning)) / 2 + self.wobble * np.mean(waves, axis=0)
        return np.stack([row, column], axis=-1)


def paint(places: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """How much of each paint there is (…, paint) at places (row, column) of a map: everywhere some, an edge, a star, a slope."""
    height, width = shape
    row, column = (places[..., 0] + 0.5) / height, (places[..., 1] + 0.5) / width
    edge = column + 0.12 * row > 0.33
    angle, radius = np.arctan2((row - 0.5) * height, (column - 0.66) * width), np.hypot((row - 0.5), (column - 0.66) * width / height)
    star = (np.sin(12 * angle) > 0) & (radius < 0.42)
    slope = 0.2 + 0.8 * row.clip(0, 1)
    return np.stack([np.full(row.shape, 0.6), np.where(edge, 1.0, 0.15), np.where(star, 1.0, 0.1), slope], axis=-1)


def paint_spectra(energy_kev: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean spectrum (paint, energy) of each paint, as counts a channel: lines on a broad background."""
    from detcal.xrf.lines import lines_of, pattern_of

    found = np.empty((len(PAINTS), len(energy_kev)))
    background = np.where((energy_kev > 1) & (energy_kev < 40), energy_kev.clip(0) * np.exp(-energy_kev.clip(0) / 8), 0)
    for spectrum, (element, counts) in zip(found, PAINTS.items(), strict=True):
        lines = pattern_of(lines_of(element, 1, 40), energy_kev, fwhm_kev=0.14)
        spectrum[:] = 0.15 * background / background.sum() + 0.85 * lines
        spectrum *= counts * len(energy_kev)
    return found


def maxrf_scan(
    rows: int = 85,
    columns: int = 37,
    *,
    channels: int = 4096,
    counts: float = 0.02,
    turn: float = 0.266,
    wobble: float = 0.1,
    lag: float = 0.0,
    step_um: tuple[int, int] = (500, 833),
    seed: int = 6,
) -> xr.Dataset:
    """A macro X-ray fluorescence scan to and fro over a target, as `xrf.open_crono` gives it, lazily.

    Parameters
    ----------
    rows, columns
        Of the grid that the instrument has in mind.
    channels
        Of a spectrum.
    counts
        Mean number in a channel.
    turn
        Share of the spectra that are recorded while the stage turns, and that the instrument does not select.
    wobble
        By how many rows the lines wave.
    lag
        By how many exposures (columns) the recorded positions lag behind the true ones.
    step_um
        Height and width of a pixel, whole µm.

    Returns
    -------
    Dataset
        spectra (spectrum, energy) uint16, positions (spectrum, axis), live_time_s, real_time_s, selected (row, column), energy, and the
        instrument's clocks, counters and empty maps. The first two positions equal the third, as in real files.
    """
    path = ScanPath(rows, columns, round(columns * turn / (1 - turn)), wobble, lag, seed)
    numbers = np.arange(path.spectra)
    recorded = path.places(numbers + 0.5 - lag)
    recorded[:2] = recorded[min(2, len(recorded) - 1)]
    steps = np.round((recorded + 100) * np.array(step_um)).astype(np.int64)
    positions = np.stack([steps[:, 1], steps[:, 0], np.full(len(steps), 12345)], axis=1)
    rng = np.random.default_rng([seed, 1])
    real = np.full(path.spectra, 0.06)
    live = np.round(real * rng.normal(0.988, 0.002, path.spectra).clip(0.9, 1), 6)
    energy = ZERO_KEV + CHANNEL_KEV * 4096 / channels * np.arange(channels)
    means = paint_spectra(energy)
    means *= counts / (means.mean(axis=1) @ paint(np.indices((rows, columns)).reshape(2, -1).T.astype(float), (rows, columns)).mean(axis=0))
    block = max(1, BLOCK_BYTES // (2 * channels))
    spectra = da.arange(path.spectra, chunks=block).map_blocks(
        partial(expose, path, means, live / real, seed), dtype=np.uint16, new_axis=1,
        chunks=(da.core.normalize_chunks(block, (path.spectra,))[0], (channels,)), meta=np.empty((0, 0), np.uint16),
    )  # fmt: skip
    line, place = np.indices((rows, columns))
    selected = line * (columns + path.turn) + np.where(line % 2 == 0, place, columns - 1 - place)
    return xr.Dataset(
        {
            "spectra": (("spectrum", "energy"), spectra, {"units": "counts"}),
            "positions": (("spectrum", "axis"), positions.astype(np.float64), {"units": "um"}),
            "live_time_s": ("spectrum", live, {"units": "s"}),
            "real_time_s": ("spectrum", real, {"units": "s"}),
            "selected": (("row", "column"), selected),
            **instruments_lines(spectra, real, (rows, columns), step_um),
        },
        {"energy": ("energy", energy, {"units": "keV"}), "axis": list("xyz"), "spectrum": numbers, "roi": list(PAINTS)},
        {"SpectraTime": 60, "ScanMode": "serpentine", "XSpeed": round(step_um[1] / 60, 2)}
        | {f"{axis}{name}": value for axis, line in (("X", positions[:, 0]), ("Y", positions[:, 1]))
           for name, value in (("Start", int(line.min())), ("Size", int(np.ptp(line))))},
    )  # fmt: skip


def instruments_lines(spectra: da.Array, real_s: NDArray[np.float64], shape: tuple[int, int], step_um: tuple[int, int]) -> dict[str, Any]:
    """What a Crono scanner writes besides: clocks in µs, numbers that wrap, counters, and maps that it has not computed."""
    numbers = np.arange(len(spectra), dtype=np.uint64)
    detected = spectra.sum(axis=1, dtype=np.uint32)
    begin = FIRST_SPECTRUM_US + np.round(1e6 * (np.cumsum(real_s) - real_s)).astype(np.uint64)
    row, column = np.indices(shape)
    return {
        "positions_status": ("spectrum", np.zeros(len(spectra), np.uint8)),
        "motor_timestamps": (("spectrum", "axis"), begin[:, None] + np.arange(3, dtype=np.uint64)),
        "timestamps": ("spectrum", begin + np.round(1e6 * real_s).astype(np.uint64)),
        "start_timestamps": ("spectrum", begin),
        "spectrum_id": ("spectrum", (numbers % 2**16).astype(np.uint16)),
        "output_count_rate": ("spectrum", detected / real_s),
        "detected": ("spectrum", detected),
        "reset_counter": ("spectrum", np.zeros(len(spectra), np.uint32)),
        "computed_maps": (("map_row", "map_column", "roi"), np.full((*shape, len(PAINTS)), np.nan)),
        "computed_maps_x": (("map_row", "map_column"), (column + 100.0) * step_um[1]),
        "computed_maps_y": (("map_row", "map_column"), (row + 100.0) * step_um[0]),
        "roi_energies_kev": (("roi", "edge"), np.array(list(ROI_KEV.values()))),
    }


def expose(
    path: ScanPath, means: NDArray[np.float64], live: NDArray[np.float64], seed: int, numbers: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Some spectra, each from its own random stream: the target's mean over the way of an exposure, times the live share of it."""
    times = numbers[:, None] + (np.arange(PLACES_A_SWEEP) + 0.5) / PLACES_A_SWEEP
    amounts = paint(path.places(times), (path.rows, path.columns)).mean(axis=1) * live[numbers, None]
    spectra = np.empty((len(numbers), means.shape[1]), np.uint16)
    for spectrum, amount, number in zip(spectra, amounts, numbers, strict=True):
        spectrum[:] = np.random.default_rng([seed, 2, number]).poisson(amount @ means)
    return spectra


def true_map(rows: int, columns: int, samples: int = 8) -> NDArray[np.float64]:
    """How much of each paint there is in each pixel (row, column, paint) of the target: a mean over its area."""
    inside = (np.arange(samples) + 0.5) / samples - 0.5
    row = np.arange(rows)[:, None, None, None] + inside[:, None]
    column = np.arange(columns)[None, :, None, None] + inside
    places = np.stack(np.broadcast_arrays(row, column), axis=-1)
    return paint(places, (rows, columns)).mean(axis=(2, 3))


def write_crono(path: str | PathLike[str], rows: int = 85, columns: int = 37, *, overwrite: bool = False, **options: Any) -> Path:
    """Write `maxrf_scan(rows, columns, **options)` as a Crono file, a block at a time, whatever its size."""
    stores = import_module("detcal.stores.targets.crono_writer")  # which alone touches files, and knows the subjects
    written: Path = stores.write_crono(maxrf_scan(rows, columns, **options), path, overwrite=overwrite)
    return written
