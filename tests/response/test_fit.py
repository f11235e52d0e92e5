"""Smoothing, and the fit of gains, against the reference and the simulator's truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from detcal import simulate
from detcal.response import correct_response, fit_response, kernels, smoothing
from tests.reference import response as reference

BOUNDARIES = ("nearest", "reflect", "mirror", "wrap")


# ---------------------------------------------------------------------------------------------------------- smoothing


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    sigma=st.floats(0.3, 60),
    boundary=st.sampled_from(BOUNDARIES),
    truncate=st.floats(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_smoothing_is_scipys_gaussian(shape, sigma, boundary, truncate, seed):
    image = np.random.default_rng(seed).normal(1000, 100, shape).astype(np.float32)
    wanted = gaussian_filter(image.astype(np.float64), sigma, mode=boundary, truncate=truncate)
    np.testing.assert_allclose(smoothing.smooth(image, sigma, boundary, truncate), wanted, rtol=2e-6)


@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
@pytest.mark.parametrize("shape", [(301, 517), (199, 64)])
def test_smoothing_at_sigma_50(boundary, shape):
    image = np.random.default_rng(1).gamma(4, 500, shape).astype(np.float32)
    wanted = gaussian_filter(image.astype(np.float64), 50, mode=boundary)
    np.testing.assert_allclose(smoothing.smooth(image, 50.0, boundary), wanted, rtol=1e-6)


def test_invalid_pixels_take_no_part_in_smoothing():
    rng = np.random.default_rng(2)
    image = rng.normal(1000, 100, (60, 70)).astype(np.float32)
    image[rng.random(image.shape) < 0.2] = np.nan
    found = smoothing.ValidSmoother(6.0, "nearest", 4.0)(image)
    np.testing.assert_allclose(found, reference.smooth(image, 6.0), rtol=2e-6)


def test_smoothing_is_nan_where_no_valid_pixel_is_near():
    image = np.full((80, 80), np.nan, np.float32)
    image[:5] = 7
    found = smoothing.ValidSmoother(3.0, "nearest", 4.0)(image)
    np.testing.assert_allclose(found[:5], 7, rtol=1e-6)
    assert np.isnan(found[30:]).all()


# ---------------------------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize(("order", "intercept"), [(1, False), (1, True), (2, False), (2, True)])
@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
def test_fit_equals_least_squares_in_each_pixel(scene, order, intercept, boundary):
    _, sweep, dark, _ = scene
    options = {"sigma": 9.0, "cutoff": 300.0, "order": order, "intercept": intercept, "boundary": boundary}
    found = fit_response(sweep, dark, **options).compute()
    (offset, gain, curvature), error, r_squared, used = reference.fit(sweep.values, dark.values.mean(axis=0), **options)
    good = ~found.mask.values
    assert good.sum() > 0.95 * good.size
    np.testing.assert_allclose(found.gain.values[good], gain[good], rtol=1e-5)
    np.testing.assert_allclose(found.gain_error.values[good], error[good], rtol=1e-3)
    np.testing.assert_allclose(found.r_squared.values[good], r_squared[good], atol=1e-6)
    np.testing.assert_array_equal(found.frames_used, used)
    if intercept:
        np.testing.assert_allclose(found.offset.values[good], offset[good], rtol=1e-3, atol=2e-2)
    else:
        assert (found.offset.values[good] == 0).all()
    if order == 2:
        np.testing.assert_allclose(found.curvature.values[good], curvature[good], rtol=1e-3, atol=1e-10)
    else:
        assert found.curvature is None


@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
@pytest.mark.parametrize("shape", [(75, 131), (260, 301)])
def test_gain_is_detectorcals_closed_form_on_scipys_smoothing(shape, boundary):
    """c = ΣVS/ΣV² over the frames with S > 300: images smaller and larger than the kernel's radius of 200, odd sizes."""
    rng = np.random.default_rng(3)
    response = rng.normal(1, 0.03, shape)
    sweep = rng.poisson(response * np.geomspace(200, 20000, 12)[:, None, None]).astype(np.uint16)
    smoothed = np.stack([gaussian_filter(frame.astype(np.float64), 50, mode=boundary) for frame in sweep])
    measured = np.where(smoothed > 300, sweep, 0).astype(np.float64)
    wanted = (measured * smoothed).sum(axis=0) / (measured**2).sum(axis=0)
    found = fit_response(sweep, boundary=boundary).compute()
    np.testing.assert_allclose(found.gain, wanted, rtol=1e-5)


def test_bad_pixels_are_found(scene):
    detector, sweep, dark, _ = scene
    np.testing.assert_array_equal(fit_response(sweep, dark, sigma=9.0).compute().mask, detector.bad)


def test_pixels_that_are_never_lit_are_masked():
    sweep = np.full((6, 40, 40), 1000, np.uint16) * np.arange(1, 7, dtype=np.uint16)[:, None, None]
    sweep[:, :, 25:] = 0
    found = fit_response(sweep, sigma=1.0).compute()
    assert found.mask[:, 30:].all()
    assert not found.mask[:, :20].any()
    assert (found.frames_used[:, 30:] == 0).all()
    assert np.isnan(found.gain[:, 30:]).all()


def test_a_pixel_that_is_stuck_at_a_usual_level_is_hot():
    sweep = simulate.beam_sweep(simulate.detector((40, 40)), 24).compute().values
    sweep[:, 7, 9] = 5000
    (row,), (column,) = np.nonzero(fit_response(sweep, sigma=9.0).mask.values)
    assert (row, column) == (7, 9)


def test_sums_that_came_in_are_not_changed(scene):
    """A cluster may run a task again."""
    _, sweep, _, _ = scene
    options = {"tile_rows": 64, "order": 1, "sigma": 9.0, "cutoff": 300.0, "boundary": "nearest", "truncate": 4.0}
    dark = np.zeros(sweep.shape[1:], np.float32)
    (first,) = kernels.accumulate(None, sweep.values[:4], dark, **options)
    before = first.copy()
    assert (kernels.accumulate((first,), sweep.values[4:], dark, **options)[0] != before).any()
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_nan_in_a_frame_spoils_no_neighbour(scene, nothing):
    _, sweep, dark, _ = scene
    sweep = sweep.values.astype(np.float32)
    sweep[21, 10:14, 20:25] = nothing
    sweep[22, 30:33, 40:50] = nothing
    sweep[7] = nothing
    options = {"sigma": 9.0, "cutoff": 300.0}
    found = fit_response(sweep, dark, **options).compute()
    (_, gain, _), _, _, used = reference.fit(sweep, dark.values.mean(axis=0), **options)
    good = ~found.mask.values
    np.testing.assert_allclose(found.gain.values[good], gain[good], rtol=1e-5)
    np.testing.assert_array_equal(found.frames_used, used)


def test_masked_pixels_take_no_part(scene):
    detector, sweep, dark, _ = scene
    changed = np.where(detector.bad, 12345, sweep.values).astype(np.uint16)
    one, other = (fit_response(frames, dark, mask=detector.bad, sigma=9.0).compute() for frames in (sweep, changed))
    np.testing.assert_array_equal(one.gain, other.gain)
    assert one.mask.values[detector.bad].all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8", ">u2", ">i4", ">f4"])
def test_dark_is_subtracted_in_float_from_any_type(dtype):
    """uint16 minus uint16 wraps where the reading is below the dark; the fit must see the negative signal."""
    rng = np.random.default_rng(8)
    sweep = (rng.poisson(40, (10, 20, 20)) * np.linspace(0.1, 1, 10)[:, None, None]).astype(dtype)
    dark = np.full((20, 20), 20, dtype)
    found = fit_response(sweep, dark, sigma=5.0, cutoff=-100.0).compute()
    (_, gain, _), *_ = reference.fit(sweep, dark.astype(float), sigma=5.0, cutoff=-100.0)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-4)
    corrected = correct_response(sweep, found, dark=dark)
    np.testing.assert_allclose(corrected, (sweep.astype(float) - 20) * found.gain.where(~found.mask).values, rtol=1e-5, atol=1e-4)
