"""Errors of medians, quantiles and means between two: by the slow formulas, and what many frames of noise scatter by."""

import numpy as np
import pytest

from detcal.azimuthal import build_bins, median_filter, quantile_filter, sigma_clip
from tests.azimuthal.rings import make_bins, trial
from tests.azimuthal.test_azimuthal_ranges import geometry
from tests.reference import azimuthal as reference
from tests.reference import quantiles as slow

PAIRS = [(0.5, 0.5), (0.4, 0.6), (0.1, 0.95), (0.25, 0.25), (0.0, 1.0), (0.0, 0.0), (1.0, 1.0)]


@pytest.mark.parametrize("quantiles", PAIRS)
@pytest.mark.parametrize("split", [False, True])
def test_errors_are_those_of_the_slow_formulas(quantiles, split):
    bins, frames, _ = trial(1, split)
    found = quantile_filter(frames, bins, quantiles=quantiles, errors=True).compute()
    assert [*found] == ["intensity", "sem", "std", "count"]
    plain = quantile_filter(frames, bins, quantiles=quantiles).compute()
    for name in plain:
        np.testing.assert_array_equal(found[name], plain[name])
    for number, frame in enumerate(frames):
        for ring in range(len(bins.centres)):
            intensity, share, norm, _ = reference.entries_of(frame, bins, ring)
            wanted = slow.errors(intensity, share, norm, *quantiles)
            scale = 1e-5 * abs(intensity).max(initial=0)
            np.testing.assert_allclose([found.sem[number, ring], found["std"][number, ring]], wanted, rtol=1e-4, atol=scale)


@pytest.mark.parametrize("quantiles", PAIRS)
def test_equal_values_share_their_weights_in_whatever_order_they_come(quantiles):
    """Few counts, of pixels that weigh differently; rings of 1, 2, 3 and many pixels."""
    rng = np.random.default_rng(2)
    norm = rng.choice([1.0, 1.5, 0.25], 120)
    bins = make_bins(np.repeat([0, 1, 2, 3], [1, 2, 3, 114]).reshape(8, 15), norm.reshape(8, 15))
    values = rng.poisson(2, (3, 120))
    frame = (values * norm).reshape(-1, 8, 15).astype(np.float32)
    found = quantile_filter(frame, bins, quantiles=quantiles, errors=True).compute()
    for number, ring in np.ndindex(3, 4):
        intensity, share, weight, _ = reference.entries_of(frame[number], bins, ring)
        wanted = slow.errors(intensity, share, weight, *quantiles)
        np.testing.assert_allclose([found.sem[number, ring], found["std"][number, ring]], wanted, rtol=1e-5, atol=1e-6)
    turned = rng.permutation(np.arange(6, 120))
    order = np.concatenate([np.arange(6), turned])
    shuffled = make_bins(np.repeat([0, 1, 2, 3], [1, 2, 3, 114]).reshape(8, 15), norm[order].reshape(8, 15))
    again = quantile_filter(frame.reshape(3, -1)[:, order].reshape(frame.shape), shuffled, quantiles=quantiles, errors=True).compute()
    for name in found:
        np.testing.assert_allclose(again[name], found[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (0.4, 0.6), (0.2, 0.8), (0.3, 0.3)])
def test_errors_are_what_frames_scatter_by(quantiles):
    """Of normal noise, with norms that differ: over 400 frames to some per cent."""
    rng = np.random.default_rng(0)
    shape = (30, 40)
    norm = rng.uniform(0.8, 1.2, shape)
    bins = make_bins(np.arange(1200).reshape(shape) // 300, norm)
    frames = (rng.normal(50, 4, (400, *shape)) * norm).astype(np.float32)
    found = quantile_filter(frames, bins, quantiles=quantiles, errors=True).compute()
    np.testing.assert_allclose(found.sem.mean("frame"), found.intensity.std("frame"), rtol=0.12)
    np.testing.assert_allclose(found["std"].mean("frame"), 4, rtol=0.02)


@pytest.mark.parametrize("mean", [1, 5, 50])
def test_errors_of_whole_counts_are_what_their_medians_between_counts_scatter_by(mean):
    """Rings of equal pixels, in which many counts are equal: what medians scatter by of the same frames, each count spread evenly over its
    unit, as numpy has it. Whole numbers as medians are have no errors of their own but steps."""
    rng = np.random.default_rng(3)
    bins = make_bins(np.arange(1200).reshape(30, 40) // 300)
    frames = rng.poisson(mean, (400, 30, 40))
    found = median_filter(frames.astype(np.float32), bins, errors=True).compute()
    medians = np.median((frames + rng.uniform(-0.5, 0.5, frames.shape)).reshape(400, 4, 300), axis=-1)
    np.testing.assert_allclose(found.sem.mean("frame"), medians.std(0).mean(), rtol=0.15)
    assert float(found.sem.std() / found.sem.mean()) < 0.3
    np.testing.assert_allclose(found["std"].mean("frame"), frames.std(), rtol=0.15)


def test_the_error_of_a_median_is_a_quarter_above_that_of_the_mean():
    """√(π/2) times, of normal noise; and outliers do not move it."""
    rng = np.random.default_rng(1)
    bins = make_bins(np.zeros((40, 50), int))
    frames = rng.normal(100, 5, (100, 40, 50)).astype(np.float32)
    means, medians = sigma_clip(frames, bins, threshold=9.0).compute(), median_filter(frames, bins, errors=True).compute()
    ratio = float(medians.sem.mean() / means.sem.mean())
    assert ratio == pytest.approx(np.sqrt(np.pi / 2), rel=0.03)
    frames[:, 3, ::5] = 1e6
    spoilt = median_filter(frames, bins, errors=True).compute()
    np.testing.assert_allclose(spoilt.sem.mean(), medians.sem.mean(), rtol=0.05)


def test_errors_are_normalized_and_known_of_cakes():
    place = geometry()
    frames = np.random.default_rng(0).poisson(100, (3, *place.detector.shape))
    cakes = build_bins(place, npt=5, npt_azimuth=6)
    plain, halved = (median_filter(frames, cakes, errors=True, normalization=by).compute() for by in (None, 2.0))
    assert plain.sem.dims == ("frame", "azimuthal", "radial")
    for name in ("intensity", "sem", "std"):
        np.testing.assert_allclose(halved[name], plain[name] / 2, rtol=1e-6)
        assert halved[name].attrs["normalized_by"] == "normalization"
