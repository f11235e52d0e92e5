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


def error_of(gain, sweep, *, dark=DARK, **options):
    """Rms error of the gains, relative to their median, away from the edges."""
    cal = fit_response(sweep, dark, sigma=SIGMA, **options).compute()
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
    assert error_of(gain, np.minimum(raw, 65535), saturation=65536)[0] > 3 * error_of(gain, raw)[0]


@pytest.mark.parametrize(
    ("bits", "dtype", "shift"),
    [
        (12, np.uint16, 0),
        (12, np.float32, 0),
        (12, np.uint16, 4),
        (14, np.int32, 0),
        (14, np.uint16, 2),
        (16, np.float32, 0),
        (16, np.int32, 0),
    ],
)
def test_readings_that_pile_up_at_a_full_scale_are_saturated(sweeps, bits, dtype, shift):
    gain, raw = sweeps
    scaled = np.round((raw - DARK) / 2 ** (16 - bits) + DARK)  # noise that is as large beside the signal as that of 16 bits
    clipped = (np.minimum(scaled, 2**bits - 1) * 2**shift).astype(dtype)
    options = {"saturation": (2**bits - 1) * 2**shift, "cutoff": 30.0 * 2**shift}
    told, _ = error_of(gain, clipped, dark=DARK * 2**shift, **options)
    with pytest.warns(UserWarning, match=rf"pile up at {options.pop('saturation'):g}, where a converter ends"):
        found, cal = error_of(gain, clipped, dark=DARK * 2**shift, **options)
    assert found < 1.1 * told
    assert cal.frames_saturated.values[60:-60, 60:-60].min() >= 8


def test_what_does_not_pile_up_is_no_saturation(sweeps):
    """Few counts, of which many pixels have the same; a few readings at a full scale; many, which are said to be readings."""
    rng = np.random.default_rng(0)
    few = rng.poisson(np.linspace(300, 500, 12)[:, None, None], (12, SIDE, SIDE)).astype(np.int32)
    one = few.copy()
    one[:, 0, :5] = 1023
    for frames in (few, one):
        assert not fit_response(frames, sigma=SIGMA).compute().frames_saturated.values.any()
    _, raw = sweeps
    assert not fit_response(np.minimum(raw, 65535), DARK, sigma=SIGMA, saturation=65536).compute().frames_saturated.values.any()


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


@pytest.mark.parametrize("wrong", ["full", True, np.nan, 0, -1])
def test_a_saturation_that_is_no_number_is_refused(wrong):
    with pytest.raises(InputError, match="expected saturation as a number of counts"):
        fit_response(np.ones((3, 20, 20)), saturation=wrong)
