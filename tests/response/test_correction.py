"""Frames corrected, against the reference and the simulator's truth."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from detcal import simulate
from detcal.response import Response, correct_response, fit_response
from tests.reference import response as reference

# --------------------------------------------------------------------------------------------------------- correction


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_counts_above_24_bits_keep_what_the_dark_leaves_of_them(dtype, curved):
    frames, dark = np.full((2, 3, 4), 2**24 + 1, dtype), np.full((3, 4), 2**24, dtype)
    gains = Response.from_gain(np.ones((3, 4)))
    cal = replace(gains, order=2, curvature=gains.gain * 0) if curved else None
    np.testing.assert_array_equal(correct_response(frames, cal, dark=dark).values, np.ones(frames.shape))


@pytest.mark.parametrize("residual_sigma", [None, 2.0])
def test_correction_equals_the_reference(scene, residual_sigma):
    detector, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    found = correct_response(sweep, cal, dark=dark, flat=flat, residual_sigma=residual_sigma)
    assert found.dtype == np.float32
    gain, dark_image, flat_image = cal.gain.values, dark.values.mean(axis=0), flat.values.mean(axis=0)
    wanted = reference.correct(sweep.values, gain, dark_image, flat_image, 9.0, residual_sigma, mask=detector.bad)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_corrected_frames_are_the_true_transmission():
    detector = simulate.detector((128, 160), seed=1)
    # sigma is small beside the beam's width of 3 detectors, so that smoothing does not bend the beam
    cal = fit_response(simulate.beam_sweep(detector, 100, peak=50000), detector.dark, sigma=15.0).compute()
    frames = simulate.ct_frames(detector, 30, peak=50000)
    found = correct_response(frames, cal, dark=detector.dark, flat=simulate.flat_frames(detector, 10, peak=50000))
    truth = np.stack([simulate.transmission((128, 160), angle) for angle in frames.angle.values])
    error = (found.values / truth - 1) * np.sqrt(50000 * truth)
    # what is left is the frames' own photon noise, and the gains' and the flat's beside it
    assert abs(error.mean()) < 0.05
    assert error.std() < 1.15


def test_residuals_of_new_dust_are_removed(scene):
    detector, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    flat = np.full(detector.gain.shape, 16000.0) / detector.gain
    dusty = flat.copy()
    dusty[20:23, 30:33] *= 0.8
    frame = 0.5 * dusty
    kept, removed = (
        correct_response(frame, cal, flat=dusty, flat_is_dark_subtracted=True, residual_sigma=k).values[20:23, 30:33] for k in (None, 3)
    )
    assert (np.abs(kept / 0.5 - 1) > 0.1).all()
    np.testing.assert_allclose(removed, 0.5, rtol=0.01)


def test_order_2_and_intercept_take_part_in_the_correction(scene):
    _, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0, order=2, intercept=True).compute()
    signal = sweep.values - dark.values.mean(axis=0)
    wanted = cal.offset.values + cal.gain.values * signal + cal.curvature.values * signal**2
    found = correct_response(sweep, cal, dark=dark).values
    good = ~cal.mask.values
    np.testing.assert_allclose(found[:, good], wanted[:, good], rtol=1e-4, atol=0.05)
    assert np.isnan(found[:, ~good]).all()


def test_flat_that_is_dark_subtracted_can_be_said_to_be(scene):
    _, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    signal = flat.values.mean(axis=0) - dark.values.mean(axis=0)
    said = correct_response(sweep, cal, dark=dark, flat=signal, flat_is_dark_subtracted=True)
    np.testing.assert_allclose(said, correct_response(sweep, cal, dark=dark, flat=flat), rtol=1e-5)


# ---------------------------------------------------------------------- what was not measured, dimensions and coordinates


def test_nan_in_some_dark_frames_takes_no_part(scene):
    _, sweep, dark, _ = scene
    holed = dark.values.astype(float)
    holed[1, 5, 5], holed[:, 6, 7] = np.nan, np.nan
    mean = np.append(holed[:1], holed[2:], axis=0)[:, 5, 5].mean()
    cal = fit_response(sweep, dark, sigma=9.0)
    found = correct_response(sweep, cal, dark=holed).values
    np.testing.assert_allclose(found[:, 5, 5], (sweep.values[:, 5, 5] - mean) * cal.gain.values[5, 5], rtol=1e-5)
    assert np.isnan(found[:, 6, 7]).all()


def test_nan_in_the_flat_is_bridged_and_infinity_in_a_frame_is_nan(scene):
    _, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    flat = flat.astype(float).copy(data=np.where(np.arange(57) == 30, np.nan, flat.values))
    frames = sweep.values.astype(np.float32)
    frames[2, 3, 4] = np.inf
    found = correct_response(frames, cal, dark=dark, flat=flat, residual_sigma=3).values
    assert np.isfinite(found[5, ~cal.mask.values]).all()
    assert np.isnan(found[2, 3, 4])


def test_other_dims_and_coords_are_taken(scene):
    _, sweep, dark, _ = scene
    named = xr.DataArray(sweep.values, dims=("angle", "y", "x"), coords={"angle": np.arange(24.0), "frame": ("angle", np.arange(24))})
    np.testing.assert_array_equal(fit_response(named, dark, sigma=9.0).gain, fit_response(sweep, dark, sigma=9.0).gain)


def test_coords_attrs_and_dims_are_kept(scene):
    detector, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0)
    frames = simulate.ct_frames(detector, 5)
    found = correct_response(frames, cal, dark=dark, flat=flat)
    assert found.dims == ("frame", "y", "x")
    np.testing.assert_array_equal(found.angle, frames.angle)
    assert found.attrs["units"] == "1"
    assert correct_response(frames, cal, dark=dark).attrs["units"] == "counts"
