"""The blur undone by LSMR and MLEM, against dense algebra and plain iterations."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse.linalg import lsmr

from detcal.sensor import inversion
from detcal.sensor.groups import MOST_ALONE
from tests.reference import sensor as reference
from tests.sensor.blurs import WANTED, assert_near, dense, frames_of, furthest, psf_of, solved, undone, with_gaps

# ---------------------------------------------------------------------------------------------------------------- lsmr


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI outside", "pixels 172×50 µm", "75°, many pixels crossed"])
def test_lsmr_is_the_least_squares_solution(name):
    psf = psf_of(name)
    frames = frames_of(psf)
    wanted = undone(psf, frames, reference.least_squares)
    assert_near(solved(frames, psf, "lsmr", tolerance=1e-10).values, wanted, 1e-6)
    assert_near(solved(frames, psf, "lsmr").values, wanted, 1e-4)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_lsmr_stops_after_so_many_iterations(iterations):
    psf = psf_of("75°")
    frames = with_gaps(frames_of(psf))
    wanted = undone(psf, frames, lambda matrix, recorded, background, _: lsmr(matrix, recorded - background, maxiter=iterations)[0])
    assert_near(solved(frames, psf, "lsmr", iterations).values, wanted, 1e-6)


# ---------------------------------------------------------------------------------------------------------------- mlem


@pytest.fixture
def steps(monkeypatch):
    """How many iterations of MLEM have been done, one entry each, of a frame alone or of several at once; too many are an error."""
    done = []
    step = inversion.em_step

    def counted(*arguments):
        done.append(1)
        assert len(done) <= 20_000, "MLEM goes on and on"
        step(*arguments)

    monkeypatch.setattr(inversion, "em_step", counted)
    return done


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI on a corner", "pixels 172×50 µm", "60°, pixels 172×75 µm", "one row"])
def test_mlem_without_a_tolerance_is_so_many_plain_iterations(steps, name, iterations):
    psf = psf_of(name)
    frames = frames_of(psf, MOST_ALONE + 1)
    found = solved(frames, psf, "mlem", iterations).values
    assert_near(found, undone(psf, frames, partial(reference.likeliest, iterations=iterations)), 2e-6)
    assert len(steps) == iterations


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI on a border", "75°, many pixels crossed"])
def test_mlem_comes_to_the_solution_where_that_is_positive(name):
    psf = psf_of(name)
    lit = np.random.default_rng(0).uniform(100, 1000, (3, *psf.shape))
    found = solved(psf.apply(lit), psf, "mlem", tolerance=1e-6).values
    assert_near(found, np.where(psf.mask, np.nan, undone(psf, psf.apply(lit).values)), 1e-5)


@pytest.mark.parametrize("name", ["PONI on a corner", "PONI outside", "PONI outside, other quadrant"])
def test_mlem_of_few_counts_comes_to_where_plain_iterations_do(name):
    """The direct solution is negative there in many pixels."""
    psf = psf_of(name)
    frames = frames_of(psf, mean=4)
    assert (undone(psf, frames) < -0.5).mean() > 0.01
    found = solved(frames, psf, "mlem", tolerance=1e-6).values
    assert (found >= 0)[:, ~psf.mask.values].all()
    assert_near(found, undone(psf, frames, WANTED["mlem"]), 1e-3)


@pytest.mark.parametrize("name", ["60°, pixels 172×75 µm", "75°"])
def test_mlem_finds_a_higher_likelihood_than_many_plain_iterations(name):
    """Where noise is amplified these are still far from the end after thousands."""
    psf = psf_of(name)
    frames = frames_of(psf, 1, mean=20)
    records, matrix = ~psf.mask.values.ravel(), dense(psf)

    def likelihood(entered):
        expected = (matrix @ np.nan_to_num(entered.ravel()))[records]
        return (frames.ravel()[records] * np.log(expected) - expected).sum()

    plain = undone(psf, frames, partial(reference.likeliest, iterations=300))
    assert likelihood(solved(frames, psf, "mlem").values) > likelihood(plain)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_mlem_ends_where_an_iteration_changes_little_and_soon(steps, tolerance):
    psf = psf_of("75°")
    frames = frames_of(psf, 1)
    recorded, matrix = frames[0].ravel().astype(float), dense(psf)
    records = matrix.any(axis=1)
    background = matrix[records] @ reference.light_of(matrix, recorded, psf.shape, furthest(psf))
    found = solved(frames, psf, "mlem", tolerance=tolerance).values.ravel()[records].astype(float)
    even = recorded[records].sum() / matrix[records].sum()
    matrix, recorded = matrix[np.ix_(records, records)], recorded[records]

    def relative_change(now):
        new = now * (matrix.T @ (recorded / (matrix @ now + background))) / matrix.sum(axis=0)
        return (abs(new - now) / (new + recorded.mean())).max(), new

    assert relative_change(found)[0] < 1.01 * tolerance
    # plain iterations take many more, and looser ones fewer
    plain, count = np.full(len(recorded), even), 0
    while True:
        change, plain = relative_change(plain)
        count += 1
        if change < tolerance:
            break
    assert len(steps) < max(10, count)
    assert len(steps) > 1


def test_mlem_is_taken_no_further_than_its_iterations_and_its_tolerance_say(steps):
    psf = psf_of("45°")
    frames = frames_of(psf, MOST_ALONE + 1)
    for most in (1, 2):  # before iterations are drawn out they are plain ones
        np.testing.assert_array_equal(solved(frames, psf, "mlem", most, 1e-6), solved(frames, psf, "mlem", most))
    for most in (3, 7, 11):
        steps.clear()
        solved(frames, psf, "mlem", most, 1e-6)
        assert len(steps) == most
    steps.clear()
    loose = solved(frames, psf, "mlem", tolerance=0.02)
    free = len(steps)
    steps.clear()
    np.testing.assert_array_equal(solved(frames, psf, "mlem", 10_000, 0.02), loose)
    assert len(steps) == free < 10_000


def test_mlem_has_by_default_a_tolerance_of_1e_4():
    psf = psf_of("45°")
    frames = frames_of(psf)
    np.testing.assert_array_equal(solved(frames, psf, "mlem"), solved(frames, psf, "mlem", tolerance=1e-4))


def test_mlem_ends_even_if_float32_does_not_reach_the_tolerance(steps):
    psf = psf_of("PONI inside a pixel")
    solved(frames_of(psf, 1), psf, "mlem", tolerance=1e-9)
