"""Simulated frames: counts are distributed as Poisson says, independently, whatever is computed together."""

import numpy as np
import pytest
from scipy import stats

from detcal import simulate

SHAPE = (256, 512)


@pytest.mark.parametrize("mean", [0.5, 100, 249, 251, 1000, 16000, 50000])
def test_counts_have_a_poisson_distribution(mean):
    found = simulate.poisson_deviates(np.full((1000, 1000), mean, np.float32), np.random.default_rng(1))
    assert (found == np.rint(found)).all()
    assert found.min() >= 0
    expected = stats.poisson(mean)
    edges = np.unique(expected.ppf(np.linspace(0.001, 0.999, 60)))  # bins of whole numbers, (edge, next edge]
    observed = np.histogram(found, [-np.inf, *(edges + 0.5), np.inf])[0]
    shares = np.diff([0, *expected.cdf(edges), 1])
    assert stats.chisquare(observed, found.size * shares).pvalue > 1e-3


def test_counts_are_independent_of_their_neighbours_and_of_other_frames():
    detector = simulate.detector(SHAPE, gain_spread=0)
    frames = simulate.flat_frames(detector, 3).values.astype(float)
    noise = (frames - frames.mean(axis=0)) / frames.std()
    noise -= noise.mean()
    pairs = {
        "rows": (noise[:, 1:], noise[:, :-1]),
        "columns": (noise[..., 1:], noise[..., :-1]),
        "strips": (noise[:, simulate.ROWS_A_STRIP :], noise[:, : -simulate.ROWS_A_STRIP]),
    }
    for name, (one, other) in pairs.items():
        correlation = (one * other).mean() / noise.var()
        assert abs(correlation) < 5 / np.sqrt(one.size), name
    difference = frames[1] - frames[0], frames[2] - frames[0]
    assert np.corrcoef(difference[0].ravel(), difference[1].ravel())[0, 1] == pytest.approx(0.5, abs=5 / np.sqrt(frames[0].size))


def test_frames_do_not_depend_on_their_blocks():
    detector = simulate.detector((100, 64), dead=2, stuck=2)
    whole = simulate.ct_frames(detector, 20)
    assert np.array_equal(whole[13].values, whole.values[13])
    assert (whole.values[:, detector.stuck] == 60000).all()


def test_some_rows_of_a_transmission_are_those_of_the_whole():
    whole = simulate.transmission((96, 128), 0.7)
    assert np.array_equal(simulate.transmission((96, 128), 0.7, slice(40, 50)), whole[40:50])


def test_a_slice_is_the_sample_and_its_middle_the_middle_of_it():
    angles = np.linspace(0, np.pi, 360, endpoint=False)
    rows = -np.log(np.stack([simulate.transmission((2, 256), angle)[1] for angle in angles]))
    whole, middle = simulate.reconstruct_slice(rows, angles, 256), simulate.reconstruct_slice(rows, angles, 128, side=1.0)
    np.testing.assert_allclose(middle, whole[64:192, 64:192], atol=1e-3)
    # a disc of attenuation 1.6, radius 0.12 and centre (-0.15, -0.42) in half-widths, in what has 0.6
    disc = (whole > 1.4)[54:94, 90:126]
    row, column = (places.mean() for places in np.nonzero(disc))
    assert (row + 54.5, column + 90.5) == pytest.approx((128 * (1 - 0.42), 128 * (1 - 0.15)), abs=0.2)
    assert disc.sum() == pytest.approx(np.pi * (0.12 * 128) ** 2 * (1 - 0.24**2), rel=0.02)  # the ellipsoid, 0.24 of its half-height off
    assert whole[70:79, 105:113].mean() - whole[70:79, 75:83].mean() == pytest.approx(1.6, rel=0.02)
