"""By how much the recorded positions lag behind the stage, from lines that run forth and back. ndarrays in, ndarrays out."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detcal.errors import InputError
from detcal.xrf.path import Places, along_the_path, own_step, scan_lines

MOST_LAG = 5.0  # columns
CLEAR = 5.0  # times the correlation's noise: what its highest value must be
SAMPLES_A_COLUMN = 8  # of the lines that are correlated


def find_lag(rates: Places, places: Places) -> float:
    """By how many columns the positions, in pixels, lag: from the shift between lines, and again from what that has left.

    Raises
    ------
    InputError
        No neighbouring lines of opposite directions, lines that have nothing clear in common, or a lag of more than MOST_LAG.
    """
    own = own_step(places)
    lag = 0.0
    for _ in range(3):
        moved = along_the_path(places, lag / float(own[1]), own)
        lag += line_shift(rates, moved) / 2
    if abs(lag) > MOST_LAG:
        raise InputError(f"expected a lag of at most {MOST_LAG:g} columns, found {lag:.1f}: give line_lag= as a number if it is true")
    return float(lag)


def line_shift(rates: Places, places: Places) -> float:
    """By how many pixels lines that run back are shifted against those that run forth: the highest cross-correlation.

    It is searched to half a line, since the part of a longer lag that is nearer would be believed. Noise of two lines has nothing in
    common, so that it does not pull the peak. A pattern that leans pulls a line that runs forth and the
    next one as much as that and the one after, but with another sign, so that it cancels out; the first and the last pair count half,
    since each has one such neighbour alone.
    """
    along = places[:, 1]
    lines = [line for line in scan_lines(places) if line.stop - line.start > 3]
    profiles = [profile_of(rates[line], along[line]) for line in lines]
    reach = max((len(profile.values) for profile in profiles), default=0) // 2
    last = len(profiles) - 2
    found = []
    for number, (first, second) in enumerate(pairwise(profiles)):
        if first.direction != second.direction:
            forth, back = (first, second) if first.direction > 0 else (second, first)
            found.append(correlation(forth, back, reach) * (0.5 if number in (0, last) else 1.0))
    total = np.sum(found, axis=0) if found else np.zeros(1)
    noise = np.sqrt(np.square(found).mean(axis=-1).sum())  # of products that have nothing in common
    peak = int(np.argmax(total))
    if not (0 < peak < len(total) - 1 and total[peak] > CLEAR * noise):
        raise InputError(
            "the lag cannot be estimated from this scan: lines of opposite directions have too little in common; give line_lag= a number"
        )
    left, middle, right = total[peak - 1 : peak + 2]
    return (peak + 0.5 * (left - right) / (left - 2 * middle + right) - reach) / SAMPLES_A_COLUMN


class Profile(NamedTuple):
    """How a line's rates change over a pixel, on samples that all lines share: edges have a place, slopes have none."""

    values: Places
    start: int
    direction: int


def profile_of(rates: Places, along: Places) -> Profile:
    """A line where the stage moves on evenly."""
    moves = np.diff(along)
    direction = 1 if along[-1] > along[0] else -1
    even = np.flatnonzero(direction * moves > 0.5 * np.median(np.abs(moves)))
    part = slice(even[0], even[-1] + 2)
    rates, along = rates[part][::direction], along[part][::direction]
    start, stop = int(np.ceil(along[0] * SAMPLES_A_COLUMN)), int(np.floor(along[-1] * SAMPLES_A_COLUMN))
    values = np.interp(np.arange(start, stop + 1) / SAMPLES_A_COLUMN, along, rates)
    return Profile(values[SAMPLES_A_COLUMN:] - values[:-SAMPLES_A_COLUMN], start + SAMPLES_A_COLUMN // 2, direction)


def correlation(forth: Profile, back: Profile, reach: int) -> Places:
    """Mean product of two lines at each shift of the second against the first, from −reach to reach samples."""
    low, high = min(forth.start, back.start), max(forth.start + len(forth.values), back.start + len(back.values))
    size = high - low + reach
    spectra, supports = [], []
    for line in (forth, back):
        values, there = np.zeros(size), np.zeros(size)
        part = slice(line.start - low, line.start - low + len(line.values))
        values[part], there[part] = line.values, 1
        spectra.append(np.fft.rfft(values))
        supports.append(np.fft.rfft(there))
    products, overlaps = (np.fft.irfft(first.conj() * second, size) for first, second in (spectra, supports))
    shifts = np.arange(-reach, reach + 1)
    return np.asarray(products[shifts] / np.maximum(overlaps[shifts], len(forth.values) / 2))
