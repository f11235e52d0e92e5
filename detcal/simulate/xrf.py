"""Macro X-ray fluorescence scans of a painted target whose paints are known."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

BLOCK_BYTES = 2**24  # of spectra

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
    from detcal.xrf.lines import lines_of, pattern_of  # whose kernels a simulation of frames need not load

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
    """A macro X-ray fluorescence scan to and fro over a target, as `detcal.open_crono` gives it, lazily.

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
