"""Pulls: what is found less the truth, over the standard deviation that photons make, is standard normal.

The pulls of corrected frames and transmissions have the variance of one quotient by first derivatives: with the frame F, the dark D, the
flats A and B, and the share s of B, t = (F − D)/((1 − s)·A + s·B − D) = N/W, and
var t = (var F + (t − 1)²·var D + t²·((1 − s)²·var A + s²·var B))/W²; a mean of n frames of mean counts m has the variance m/n.
"""

import numpy as np
import pytest

from detcal import simulate
from detcal.response import correct_response, fit_response
from detcal.simulate.response import beam_profile, record

SHAPE, FRAMES = (128, 150), 40


def check_pulls(pulls):
    """0 ± 0.05 and 1 ± 0.1, of so many pixels that chance is far within."""
    assert np.isfinite(pulls).all()
    assert abs(pulls.mean()) < 0.05
    assert abs(pulls.std() - 1) < 0.1


@pytest.fixture(scope="module")
def trial():
    """A detector, the gains that its sweep has without noise, those that are fitted, and the dark frames that they were fitted with."""
    detector = simulate.detector(SHAPE, seed=11)
    peak, levels, offsets = 50000.0, np.geomspace(1 / 30, 1, FRAMES), np.linspace(-1, 1, FRAMES)
    beams = [simulate.swept_beam(SHAPE, peak, levels, offsets, frame) for frame in range(FRAMES)]
    truth = fit_response(np.stack(beams) / detector.gain, sigma=20.0).compute()
    found = fit_response(simulate.beam_sweep(detector, FRAMES, peak=peak), detector.dark, sigma=20.0).compute()
    return detector, truth, found


def test_pulls_of_the_gain(trial):
    _, truth, found = trial
    check_pulls(((found.gain - truth.gain) / found.gain_error).values)


def test_pulls_of_corrected_frames(trial):
    """Of the mean of many frames, so that the gain's error, common to all, is as large as what photons leave."""
    detector, truth, found = trial
    darks, beam = simulate.dark_frames(detector, 10), beam_profile(SHAPE) * np.float32(30000)
    frames = record(detector, lambda _: beam, 20, seed=21)
    corrected = correct_response(frames, found, dark=darks).values.mean(axis=0, dtype=float)
    signal = beam / detector.gain
    photons = (signal + detector.dark) / len(frames) + detector.dark / len(darks)
    deviation = np.sqrt(photons * found.gain.values**2 + (signal * found.gain_error.values) ** 2)
    check_pulls((corrected - truth.gain.values * signal) / deviation)


@pytest.mark.parametrize("flats", [1, 5])
def test_pulls_of_transmissions_with_interpolated_flats(flats):
    """A beam that loses 20 %, with few flats, whose noise then counts, at both ends of the scan."""
    detector, frames, darks = simulate.detector(SHAPE, seed=12), 9, 10
    transmission, beam = simulate.transmission(SHAPE, 0.4), beam_profile(SHAPE) * np.float32(8000)
    levels = np.linspace(1, 0.8, frames, dtype=np.float32)
    stack = record(detector, lambda frame: beam * transmission * levels[frame], frames, seed=22)
    ends = np.repeat([0, frames - 1], flats)
    flat = record(detector, lambda number: beam * levels[ends[number]], len(ends), seed=23)
    found = correct_response(stack, dark=simulate.dark_frames(detector, darks), flat=flat, flat_positions=ends.tolist()).values
    first, last, dark = (beam / detector.gain, 0.8 * beam / detector.gain, detector.dark)
    for number, image in enumerate(found):
        share = number / (frames - 1)
        below = (1 - share) * first + share * last
        photons = transmission * below + dark + (transmission - 1) ** 2 * dark / darks
        photons += transmission**2 * ((1 - share) ** 2 * (first + dark) + share**2 * (last + dark)) / flats
        check_pulls((image - transmission) * below / np.sqrt(photons))
