"""Pixels that were not measured are no part of the problem."""

import numpy as np
import pytest

from tests.reference import sensor as reference
from tests.sensor.blurs import EXACT, METHODS, SOLVERS, WANTED, assert_near, dense, frames_of, psf_of, solved, undone, with_gaps


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI outside", "75°, many pixels crossed"])
@pytest.mark.parametrize("method", SOLVERS)
def test_pixels_that_were_not_measured_are_out_of_the_problem(method, name):
    psf = psf_of(name)
    frames = with_gaps(frames_of(psf))
    share = 2e-4 if method == "mlem" else 1e-5  # plain iterations are not quite at their end
    assert_near(solved(frames, psf, method, **EXACT[method]).values, undone(psf, frames, WANTED[method]), share)


@pytest.mark.parametrize("options", [{"method": "direct"}, {"method": "lsmr", "max_iterations": 3}])
def test_pixels_that_were_not_measured_are_as_dead_ones(options):
    """Long before the iterations are at their end, too."""
    alive, holed = (psf_of("75°", dead) for dead in (False, True))
    frames = frames_of(holed)
    found = solved(np.where(holed.mask, np.nan, frames), alive, **options).values
    assert_near(found, solved(frames, holed, **options).values, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_not_measured_in_one_frame_leaves_the_others_alone(method):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 5)
    wanted = solved(frames, psf, method).values
    frames[1, 3:6, 4:9], frames[4, 2] = np.nan, np.inf
    found = solved(frames, psf, method).values
    np.testing.assert_array_equal(found[[0, 2, 3]], wanted[[0, 2, 3]])
    assert np.isnan(found[1, 3:6, 4:9]).all()
    assert np.isnan(found[4, 2]).all()


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_what_was_not_measured_moves_the_direct_solution_outwards_only(hole):
    psf = psf_of("PONI on a corner")
    frames = frames_of(psf, 1)
    wanted = solved(frames, psf).values
    frames[0, 2, 3] = hole
    found = solved(frames, psf).values
    reached = reference.influence(dense(psf))[:, 2 * 16 + 3].reshape(psf.shape) > 0
    np.testing.assert_array_equal(found[0][~reached], wanted[0][~reached])
    assert np.isnan(found[0, 2, 3])
    changed = (found[0] != wanted[0]) & np.isfinite(wanted[0])
    assert 1 < changed.sum() <= reached.sum()


@pytest.mark.filterwarnings("ignore:counts below 0")  # which are told to be
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_integers_are_readings_as_negative_reals_are(method, dtype):
    """A dark was taken off."""
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50)
    below = np.random.default_rng(2).random(frames.shape) < 0.1
    given = np.where(below, np.random.default_rng(3).integers(-128, 0, frames.shape), frames)
    np.testing.assert_array_equal(solved(given.astype(dtype), psf, method), solved(given.astype(np.float32), psf, method))


def test_negative_reals_are_values_but_none_to_mlem():
    psf = psf_of("PONI inside a pixel")
    frames = frames_of(psf, mean=30) - np.float32(20)
    assert (frames < 0).any()
    assert_near(solved(frames, psf).values, undone(psf, frames), 1e-5)
    assert_near(solved(frames, psf, "lsmr", tolerance=1e-10).values, undone(psf, frames), 1e-5)
    whole = psf_of("PONI inside a pixel", dead=False)  # beside dead pixels they tell of the light there
    np.testing.assert_array_equal(solved(frames, whole, "mlem"), solved(frames.clip(0), whole, "mlem"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("dtype", "dummy"), [("i4", -1), ("u4", 4294967295), ("u2", 65535), ("u1", 255), ("f4", 0), ("f4", -1.5), ("f8", 1e-3), ("f4", np.nan)]
)
def test_dummy_marks_what_was_not_measured_in_and_out(method, dtype, dummy):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50) + np.float32(1)  # nowhere 0
    gaps = np.random.default_rng(2).random(frames.shape) < 0.1
    found = solved(np.where(gaps, dummy, frames.astype(float)).astype(dtype), psf, method, dummy=dummy).values
    wanted = solved(np.where(gaps, np.nan, frames), psf, method).values
    np.testing.assert_array_equal(found, np.where(np.isnan(wanted), np.float32(dummy), wanted))
    np.testing.assert_array_equal(found[:, psf.mask.values], np.float32(dummy))


@pytest.mark.parametrize(("dtype", "mark"), [("u2", 65535), ("u4", 4294967295)])
def test_marks_of_detectors_were_not_measured(dtype, mark):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50)
    gaps = np.random.default_rng(2).random(frames.shape) < 0.1
    found = solved(np.where(gaps, mark, frames.astype(float)).astype(dtype), psf)
    np.testing.assert_array_equal(found, solved(np.where(gaps, np.nan, frames), psf))


def test_dummy_marks_the_variance_too():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2)
    frames[1, 4, 5] = -1
    given, marked = (solved(np.where(frames < 0, dummy, frames), psf, variance=frames, dummy=dummy).variance for dummy in (np.nan, -1))
    np.testing.assert_array_equal(marked, given.fillna(-1))
    assert marked[1, 4, 5] == -1


def test_a_number_beyond_float32_was_not_measured():
    psf = psf_of("PONI outside")
    frames = frames_of(psf).astype(float)
    frames[1, 4, 5] = 1e39
    np.testing.assert_array_equal(solved(frames, psf), solved(np.where(frames > 1e38, np.nan, frames), psf))


@pytest.mark.parametrize("method", METHODS)
def test_frames_without_counts_or_without_readings_have_none(method):
    psf = psf_of("PONI outside")
    frames = np.zeros((2, *psf.shape), np.float32)
    frames[1] = np.nan
    found = solved(frames, psf, method).values
    np.testing.assert_array_equal(found[0], np.where(psf.mask, np.nan, 0))
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("method", SOLVERS)
def test_a_single_lit_pixel_is_one_among_zeros(method):
    psf = psf_of("PONI outside")
    frames = np.zeros((1, *psf.shape), np.float32)
    frames[0, 3, 4] = 100
    found = solved(frames, psf, method, **EXACT[method]).values
    assert_near(found, undone(psf, frames, WANTED[method]), 1e-4)
    assert found[0, 3, 4] > 100
