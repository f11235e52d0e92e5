"""What the lines of an element look like in a spectrum, and what its channels' energies are."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import erf

from detcal.errors import InputError
from detcal.xrf.calibration import check_energy

FWHM_OF_SIGMA = 2 * np.sqrt(2 * np.log(2))
PAIR_KEV, FANO = 3.66e-3, 0.114  # of silicon
MN_KEV = 5.895  # the line at which resolutions are given
LEVELS = {"K": ("K",), "L": ("L1", "L2", "L3"), "M": ("M5", "M4", "M3")}  # of an atom's shells


class Lines(NamedTuple):
    """The lines of one shell of an element."""

    name: str
    energy_kev: NDArray[np.float64]
    share: NDArray[np.float64]  # of the shell's counts: they add up to 1

    @property
    def strongest_kev(self) -> float:
        """Energy of the strongest line."""
        return float(self.energy_kev[np.argmax(self.share)])


def lines_of(element: str, low_kev: float, high_kev: float) -> Lines:
    """An element's strongest shell of which the strongest line lies in a range of energies; "Pb-M" names a shell.

    Lines and yields: xraydb (Elam, Ravel and Sieber, Radiat. Phys. Chem. 63, 2002).

    Raises
    ------
    InputError
        No such element or shell, or none with a line in the range.
    """
    symbol, _, shell = element.partition("-")
    if shell and shell not in LEVELS:
        raise InputError(f"expected a shell K, L or M after the element, got {element!r}")
    import xraydb

    try:
        xraydb.atomic_number(symbol)
    except ValueError:
        raise InputError(f"no element {symbol!r}: expected symbols such as Fe, or with a shell such as Pb-M") from None
    for family in [shell] if shell else LEVELS:
        found = shell_lines(element, symbol, family)
        if found is not None and low_kev < found.strongest_kev < high_kev:
            return found
    raise InputError(f"{element} has no strong line from {low_kev:.2f} to {high_kev:.2f} keV: leave it out")


def shell_lines(element: str, symbol: str, family: str) -> Lines | None:
    """The lines of a shell, or None if the element has none.

    Those of each level weigh as much as photons far above the edges leave holes in it (by the jumps of the absorption), times its yield.
    """
    import xraydb

    energies, weights, rest = [], [], 1.0
    edges = xraydb.xray_edges(symbol)
    for level in LEVELS[family]:
        if level not in edges:
            continue
        edge = edges[level]
        holes, rest = rest * (1 - 1 / edge.jump_ratio), rest / edge.jump_ratio
        for line in xraydb.xray_lines(symbol, initial_level=level).values():
            energies.append(line.energy / 1000)
            weights.append(holes * edge.fyield * line.intensity)
    total = sum(weights)
    return Lines(element, np.array(energies), np.array(weights) / total) if total > 0 else None


def sigma_kev(energy_kev: NDArray[np.float64], fwhm_kev: float) -> NDArray[np.float64]:
    """Width of a line: electronic noise, and the spread of the number of pairs (Fano), together `fwhm_kev` at manganese's Kα."""
    noise = (fwhm_kev / FWHM_OF_SIGMA) ** 2 - PAIR_KEV * FANO * MN_KEV
    if not noise >= 0:
        least = FWHM_OF_SIGMA * np.sqrt(PAIR_KEV * FANO * MN_KEV)
        raise InputError(f"expected fwhm_kev of at least {least:.3f}, which silicon has without noise at 5.9 keV, got {fwhm_kev}")
    return np.asarray(np.sqrt(noise + PAIR_KEV * FANO * energy_kev))


def channel_edges(energy_kev: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where channels begin and end: halfway between their energies."""
    middles = (energy_kev[1:] + energy_kev[:-1]) / 2
    return np.concatenate([[2 * energy_kev[0] - middles[0]], middles, [2 * energy_kev[-1] - middles[-1]]])


def pattern_of(lines: Lines, energy_kev: NDArray[np.floating], fwhm_kev: float) -> NDArray[np.float64]:
    """Counts (energy,) that one count of an element's shell leaves on average in each channel."""
    edges = channel_edges(energy_kev)[:, None]
    below = 0.5 * (1 + erf((edges - lines.energy_kev) / (np.sqrt(2) * sigma_kev(lines.energy_kev, fwhm_kev))))
    return np.asarray(np.diff(below, axis=0) @ lines.share)


def window_of(lines: Lines, energy_kev: NDArray[np.float64], fwhm_kev: float) -> NDArray[np.float64]:
    """Weights (energy,) of the channels of which the sum is the net counts of an element's strongest line.

    1 in a window of one FWHM to either side; in one half as wide beyond half a FWHM on each side so much less than 0 that a background
    that changes linearly adds nothing.
    """
    fwhm = FWHM_OF_SIGMA * float(sigma_kev(np.array(lines.strongest_kev), fwhm_kev))
    offsets = (energy_kev - lines.strongest_kev) / fwhm
    window = np.abs(offsets) <= 1
    below, above = (offsets >= -2) & (offsets < -1.5), (offsets > 1.5) & (offsets <= 2)
    if not (window.any() and below.any() and above.any()):
        raise InputError(
            f"the window of {lines.name} at {lines.strongest_kev:.2f} keV, 4 × {fwhm:.3f} keV, lies outside the energies, or in no channels"
        )
    # a line through the two side windows' mean heights, summed over the window
    sides = [energy_kev[side].mean() for side in (below, above)]
    share = (energy_kev[window].mean() - sides[0]) / (sides[1] - sides[0])
    weights: NDArray[np.float64] = window.astype(np.float64)
    weights[below] -= (1 - share) * window.sum() / below.sum()
    weights[above] -= share * window.sum() / above.sum()
    return weights


def background_patterns(energy_kev: NDArray[np.float64], spacing_kev: float) -> NDArray[np.float64]:
    """Triangles (energy, triangle) that add up to any broken line: what a smooth background is fitted by."""
    low, high = energy_kev[0], energy_kev[-1]
    knots = np.linspace(low, high, max(2, round((high - low) / spacing_kev) + 1))
    return np.stack([np.interp(energy_kev, knots, one) for one in np.eye(len(knots))], axis=1)


# -------------------------------------------------------------------------------------------------------- calibration


def calibrate_energy(
    scan: xr.Dataset, *, channels: Sequence[float], lines_kev: Sequence[float], search_channels: int | None = None
) -> xr.Dataset:
    """A scan with an energy axis that is a straight line through two or more known lines, by least squares.

    Parameters
    ----------
    scan
        With spectra (spectrum, energy).
    channels
        Where the peaks of the lines are, from 0.
    lines_kev
        Energies of the lines.
    search_channels
        Find each peak anew, so far around its channel, in the sum of all spectra (which reads them): the centre of a gaussian, from the
        logarithm of its highest part.

    Returns
    -------
    Dataset
        The same with coord energy in keV; energy.attrs: gain_kev, zero_kev, and residual_kev, the largest distance of a line.

    Raises
    ------
    InputError
        Fewer than two lines, as many channels as lines not given, all in one channel, a peak that is none, energies that fall.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import calibrate_energy
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> found = calibrate_energy(scan, channels=[79, 122], lines_kev=[6.40, 10.55])
    >>> round(found.energy.attrs["gain_kev"], 4)
    0.0965
    """
    size = scan.sizes["energy"]
    places, energies = np.asarray(channels, np.float64), np.asarray(lines_kev, np.float64)
    if places.shape != energies.shape or places.ndim != 1 or len(np.unique(places)) < 2:
        raise InputError(f"expected two or more channels and as many energies, got {list(channels)} and {list(lines_kev)}")
    if not ((places >= 0) & (places < size)).all():
        raise InputError(f"expected channels from 0 to {size - 1}, got {list(channels)}")
    if search_channels is not None:
        total = scan.spectra.sum("spectrum", dtype=np.float64).values
        places = np.array([peak_centre(total, place, search_channels) for place in places])
    gain, zero = np.polyfit(places, energies, 1)
    axis = zero + gain * np.arange(size)
    check_energy(axis, size, "give channels and lines_kev in the same order")
    residual = float(np.abs(zero + gain * places - energies).max())
    attrs: dict[str, Any] = {"units": "keV", "gain_kev": float(gain), "zero_kev": float(zero), "residual_kev": residual}
    return scan.assign_coords(energy=("energy", axis, attrs))


def peak_centre(total: NDArray[np.float64], place: float, reach: int) -> float:
    """Centre of the highest peak within `reach` channels: of the parabola through the logarithms above half its height."""
    low = max(0, int(place) - reach)
    part = total[low : int(place) + reach + 1]
    top = int(np.argmax(part))
    left, right = top, top
    while left > 0 and part[left - 1] > part[top] / 2:
        left -= 1
    while right < len(part) - 1 and part[right + 1] > part[top] / 2:
        right += 1
    left, right = min(left, top - 1), max(right, top + 1)
    if left <= 0 or right >= len(part) - 1 or not (part[left : right + 1] > 0).all():
        raise InputError(f"no peak within {reach} channels of channel {place:g}: search further, or give its channel")
    offsets = np.arange(left, right + 1) - float(top)
    heights = part[left : right + 1]
    curve, slope, _ = np.polyfit(offsets, np.log(heights), 2, w=np.sqrt(heights))
    if not curve < 0:
        raise InputError(f"no peak within {reach} channels of channel {place:g}: search further, or give its channel")
    return float(low + top - slope / (2 * curve))
