"""Unweighted means: numpy's of I, and pyFAI's; in any unit of a flat."""

from dataclasses import replace

import numpy as np
import pytest
from pyFAI.method_registry import IntegrationMethod

from detcal.azimuthal import build_bins, integrate, integrate_azimuthal
from tests.azimuthal.rings import trial
from tests.azimuthal.test_azimuthal_ranges import SHAPE, geometry
from tests.reference import azimuthal as reference


def slow(frame, bins, ring, model, variance=None):
    """Mean, its error, standard deviation and number of pixels, in float64."""
    intensity, share, norm, noise = reference.entries_of(frame, bins, ring, variance)
    if not len(intensity):
        return np.nan, np.nan, np.nan, 0
    mean = (share * intensity).sum() / share.sum()
    spread = (share**2 * (noise / norm**2 if model != "azimuthal" else (intensity - mean) ** 2)).sum()
    if model == "azimuthal" and share.sum() <= 1:
        spread = np.nan
    return mean, np.sqrt(spread) / share.sum(), np.sqrt(spread / (share**2).sum()), share.sum()


@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_each_pixel_counts_the_same(model, split, noisy):
    bins, frames, noise = trial(2, split)
    bins = replace(bins, split="bbox" if split else "no")
    options = {"variance": noise} if noisy else {}
    found = integrate(frames, bins, weighted=False, error_model=model, sums=True, **options).compute()
    for number, frame in enumerate(frames):
        for ring in range(len(bins.centres)):
            wanted = slow(frame, bins, ring, "given" if noisy else model, noise[number] if noisy else None)
            got = [found[name].values[number, ring] for name in ("intensity", "sem", "std", "count")]
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{number}, {ring}")
    np.testing.assert_array_equal(found.sum_normalization, found["count"])
    there = found["count"].values > 0
    np.testing.assert_allclose((found.sum_signal / found["count"]).values[there], found.intensity.values[there], rtol=1e-6)
    assert abs(found.intensity - integrate(frames, bins, error_model=model, **options).intensity).max() > 1


def test_it_is_pyfais_unweighted_mean():
    place = geometry(rot1=0.3)
    frame = np.random.default_rng(0).poisson(100, SHAPE)
    method = IntegrationMethod.select_one_available(("no", "csr", "cython"), dim=1).unweighted
    peer = place.integrate1d_ng(frame, 20, unit="q_nm^-1", method=method, radial_range=None)
    found = integrate(frame, build_bins(place, npt=20), weighted=False)
    np.testing.assert_allclose(found.intensity[0], peer.intensity, rtol=1e-5)
    intensity = frame / place.solidAngleArray(SHAPE)
    q = place.array_from_unit(SHAPE, "center", "q_nm^-1").ravel()
    edges = np.linspace(q.min(), q.max() * (1 + 1e-7), 21)
    total, count = (np.histogram(q, edges, weights=weights)[0] for weights in (intensity.ravel(), None))
    np.testing.assert_allclose(found.intensity[0], total / count, rtol=1e-6)
    np.testing.assert_array_equal(found["count"][0], count)


@pytest.mark.parametrize("unit", [1e20, 1e-30])
def test_flats_in_any_unit(unit):
    place = geometry()
    rng = np.random.default_rng(0)
    frame, flat = rng.poisson(100, SHAPE), rng.uniform(0.5, 2, SHAPE)
    plain, scaled = (integrate(frame, build_bins(place, npt=9, flat=each), weighted=False).compute() for each in (flat, flat * unit))
    for name in ("intensity", "sem", "std"):
        np.testing.assert_allclose(scaled[name].values.astype(float) * unit, plain[name], rtol=1e-5)
    np.testing.assert_array_equal(scaled["count"], plain["count"])
    ring = build_bins(place, npt=1, npt_azimuth=6)
    assert integrate_azimuthal(frame, ring, weighted=False).intensity.dims == ("frame", "azimuthal")
