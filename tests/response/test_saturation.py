"""Sweeps, darks and flats that run into the end of the detector's range."""

import numpy as np
import pytest
import xarray as xr

from detcal.errors import InputError
from detcal.response import Response, correct_response, fit_response

SIDE, SIGMA, DARK = 160, 15.0, 100.0


@pytest.fixture(scope="module")
def sweeps():
    """True gains, and raw counts of a sweep of which a third goes beyond 16 bits."""
    rng = np.random.default_rng(2)
    gain = rng.normal(1, 0.05, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    beam = np.exp(-(x**2 + y**2) / (2 * 300**2))
    return gain, rng.poisson(np.linspace(1000, 90000, 30)[:, None, None] * beam * gain) + DARK


def error_of(gain, sweep, **options):
    """Rms error of the gains, relative to their median, away from the edges."""
    cal = fit_response(sweep, DARK, sigma=SIGMA, **options).compute()
    ratio = (cal.gain.values * gain)[40:-40, 40:-40]
    return np.std(ratio / np.median(ratio)), cal


@pytest.mark.parametrize("said", ["by the type", "by the caller", "by the file"])
def test_gains_are_those_of_the_frames_that_are_not_saturated(sweeps, said):
    gain, raw = sweeps
    clipped = xr.DataArray(np.minimum(raw, 65535), dims=("frame", "y", "x"))
    options = {}
    if said == "by the type":
        clipped = clipped.astype(np.uint16)
    elif said == "by the caller":
        options = {"saturation": 65535}
    else:
        clipped.attrs["valid_max"] = 65534
    found, cal = error_of(gain, clipped, **options)
    best, _ = error_of(gain, raw[raw.max(axis=(1, 2)) < 65535])
    assert found < 1.1 * best
    middle = cal.frames_saturated.values[60:-60, 60:-60]
    assert middle.min() >= 8
    assert middle.max() <= 12
    assert (cal.frames_saturated + cal.frames_used <= 30).all()


def test_saturation_that_nobody_names_bends_the_gains(sweeps):
    """What the tests above would see, if nothing were left out."""
    gain, raw = sweeps
    assert error_of(gain, np.minimum(raw, 65535))[0] > 3 * error_of(gain, raw)[0]


def test_marks_amid_dark_readings_are_no_saturation(sweeps):
    """A module gap that a detector fills with its largest number leaves its neighbours their frames."""
    _, raw = sweeps
    sweep = np.minimum(raw[:8], 65534).astype(np.uint16)
    sweep[:, 70:74] = 65535
    cal = fit_response(sweep, DARK, sigma=SIGMA).compute()
    assert cal.mask.values[70:74].all()
    assert not cal.frames_saturated.values.any()
    assert (cal.frames_used.values[50:70] == 8).all()


def test_a_hot_pixel_of_the_dark_is_no_saturation(sweeps):
    _, raw = sweeps
    sweep = np.minimum(raw, 65535).astype(np.uint16)
    sweep[:, 80, 80] = 65535
    dark = np.full((3, SIDE, SIDE), DARK, np.uint16)
    dark[:, 80, 80] = 65535
    cal = fit_response(sweep, dark, sigma=SIGMA).compute()
    other = fit_response(np.minimum(raw, 65535).astype(np.uint16), dark, sigma=SIGMA).compute()
    assert cal.mask.values[80, 80]
    np.testing.assert_array_equal(cal.frames_saturated, other.frames_saturated)


def test_saturated_readings_of_a_flat_are_left_out():
    flat = np.full((4, 20, 20), 30000, np.uint16)
    flat[:2, 5, 5] = 65535
    unit = Response.from_gain(np.ones((20, 20)), sigma=1.0)
    for response in (None, unit):
        found = correct_response(np.full((1, 20, 20), 15000, np.uint16), response, flat=flat).values
        np.testing.assert_allclose(found, 0.5, rtol=1e-6)
    found = correct_response(np.full((1, 20, 20), 15000.0), unit, flat=np.where(flat == 65535, 50000.0, 30000.0), saturation=50000).values
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


@pytest.mark.parametrize("response", [None, Response.from_gain(np.ones((20, 20)), sigma=1.0)])
def test_a_flat_of_nothing_but_saturated_readings_is_refused(response):
    flat = np.full((3, 20, 20), 65535, np.uint16)
    with pytest.raises(InputError, match="flat with readings, found none: all are saturated, missing, or masked"):
        correct_response(flat[:1] // 2, response, flat=flat).compute()


@pytest.mark.parametrize("wrong", ["full", True, np.nan])
def test_a_saturation_that_is_no_number_is_refused(wrong):
    with pytest.raises(InputError, match="expected saturation as a number of counts"):
        fit_response(np.ones((3, 20, 20)), saturation=wrong)
