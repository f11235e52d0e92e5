"""Variances of exact solutions, and how much noise they amplify."""

import re
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal.sensor import PlanarGeometry, build_psf, deconvolve
from tests.reference import sensor as reference
from tests.sensor.blurs import (
    HARSH,
    METHODS,
    MILD,
    PITCH,
    SILICON,
    SQUARE,
    Case,
    beyond,
    dense,
    frames_of,
    plane,
    propagated,
    psf_of,
    solved,
    undone,
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ variance


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", [*MILD, "75°"])
def test_variance_is_that_of_the_dense_inverse(name, dead):
    psf = psf_of(name, dead)
    frames = frames_of(psf, 1)
    variance = np.random.default_rng(6).uniform(1, 1000, frames.shape)
    found = solved(frames, psf, variance=variance)
    np.testing.assert_array_equal(found.deconvolved, solved(frames, psf))
    np.testing.assert_allclose(found.variance, propagated(psf, frames, variance), rtol=1e-5)


@pytest.mark.parametrize("name", HARSH)
def test_variance_is_near_that_where_noise_is_amplified(name):
    """Small influences are left out, and may grow further inwards."""
    psf = psf_of(name, False)
    frames = frames_of(psf, 1)
    np.testing.assert_allclose(solved(frames, psf, variance=frames).variance, propagated(psf, frames, frames), rtol=1e-3)


def test_variance_beside_pixels_that_were_not_measured_is_that_of_the_light_there_too():
    """In each frame others."""
    psf = psf_of("PONI outside")
    frames = frames_of(psf).astype(float)
    variance = frames.copy()
    frames[0, 3, 4], frames[1, 5:7, 2] = np.nan, np.inf
    found = solved(frames, psf, variance=variance).variance.values
    assert np.isnan(found[~np.isfinite(frames)]).all()
    np.testing.assert_allclose(found, propagated(psf, frames, variance), rtol=1e-5)


def test_variance_is_unknown_where_it_rests_on_a_reading_that_has_none():
    psf = psf_of("PONI outside", dead=False)
    frames = frames_of(psf, 1).astype(float)
    variance = frames.copy()
    variance[0, 4, 5] = np.nan
    found = solved(frames, psf, variance=variance).variance.values
    rests = (reference.influence(dense(psf)) * np.isnan(variance).ravel()).max(axis=1).reshape(frames.shape)
    unknown, known = rests > 2e-4, rests < 0.5e-4  # it is said to be from 1e-4 on
    assert np.isnan(found[unknown]).all()
    assert unknown.sum() > 5
    np.testing.assert_allclose(found[known], propagated(psf, frames, frames)[known], rtol=1e-5)


def test_what_is_no_variance_is_as_one_that_was_not_measured():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2)
    variance, unknown = frames.astype(np.int32), frames.astype(np.float32)
    variance[0, 3, 4], unknown[0, 3, 4] = -2, np.nan
    np.testing.assert_array_equal(*(solved(frames, psf, variance=each).variance for each in (variance, unknown)))


def test_solutions_scatter_as_their_variance_says():
    psf = psf_of("PONI inside a pixel")
    lit = np.random.default_rng(0).uniform(300, 3000, psf.shape)
    mean = psf.apply(lit).values
    frames = np.random.default_rng(1).poisson(np.nan_to_num(mean)[0], (1000, *psf.shape))
    found = solved(frames, psf, variance=np.broadcast_to(np.nan_to_num(mean), frames.shape))
    pulls = ((found.deconvolved - undone(psf, mean)[0]) / np.sqrt(found.variance)).values[:, ~psf.mask.values]
    assert abs(pulls.mean(axis=0)).max() < 4.5 / np.sqrt(1000)
    # beside dead pixels the light is taken as independent of the readings, of which it is a mean
    assert abs((pulls**2).mean(axis=0) - 1).max() < 4.5 * np.sqrt(2 / 1000) + 0.1


def test_variance_comes_in_a_dataset_with_units():
    psf = psf_of("PONI inside a pixel")
    frames = xr.DataArray(frames_of(psf, 2), dims=("frame", "y", "x"), coords={"frame": [10, 20]})
    found = deconvolve(frames, psf, variance=frames)
    assert set(found) == {"deconvolved", "variance"}
    assert (found.deconvolved.units, found.variance.units) == ("counts", "counts²")
    assert found.variance.dtype == found.variance.compute().dtype == np.float32
    assert found.frame.values.tolist() == [10, 20]


# -------------------------------------------------------------------------------------------------------- conditioning


def efficiency_of(psf):
    return -np.expm1(-psf.attenuation_per_m * psf.thickness_m / psf.geometry.incidence())


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", ["PONI inside a pixel", "40×50", "75°, many pixels crossed", *HARSH])
def test_conditioning_is_that_of_the_dense_inverse(name, dead):
    psf = psf_of(name, dead)
    matrix = dense(psf)
    found = psf.conditioning
    assert found.noise_amplification == pytest.approx(reference.noise_amplification(matrix, efficiency_of(psf)), rel=0.2)
    assert found.smallest_diagonal == pytest.approx(matrix.diagonal()[matrix.any(axis=1)].min(), rel=1e-6)


LARGE = {
    "last corner furthest": Case(plane((200, 250), SQUARE, 0.08, (-60, -60)), 450e-6, 5e3),
    "first corner furthest": Case(plane((200, 250), SQUARE, 0.08, (260, 310)), 450e-6, 5e3),
    "last row's first pixel furthest": Case(plane((200, 250), SQUARE, 0.08, (-60, 310)), 450e-6, 5e3),
    "first row's last pixel furthest": Case(plane((200, 250), SQUARE, 0.08, (260, -60)), 450e-6, 5e3),
    "noise grows all the way to the edges": Case(plane((8, 1043), SQUARE, 0.08, (4, 521)), 450e-6, 2e3),
}


@pytest.mark.parametrize("name", LARGE)
def test_conditioning_of_a_large_detector_is_that_of_the_whole(name):
    case = LARGE[name]
    psf = build_psf(case.plane, thickness_m=case.thickness, attenuation_per_m=case.mu).compute()
    noise = np.random.default_rng(7).standard_normal((64, *psf.shape), np.float32)
    power = ((solved(noise, psf).values * efficiency_of(psf)) ** 2).mean(axis=0)
    whole = np.pad(power, [(0, -size % 8) for size in psf.shape], mode="edge")
    squares = whole.reshape(whole.shape[0] // 8, 8, whole.shape[1] // 8, 8).mean(axis=(1, 3))
    found = psf.conditioning
    assert found.noise_amplification == pytest.approx(np.sqrt(squares.max()), rel=0.25)
    assert found.smallest_diagonal == pytest.approx(psf.to_scipy().diagonal().min(), rel=0.01)


def test_masked_pixels_do_not_count():
    """Whatever else is seen of the detector is seen from straight ahead."""
    geometry = plane((200, 100), SQUARE, 0.02, (0, 50))
    mask = np.zeros(geometry.shape, bool)
    whole = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON).conditioning
    mask[30:] = True
    found = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON, mask=mask).conditioning
    alone = build_psf(plane((30, 100), SQUARE, 0.02, (0, 50)), thickness_m=450e-6, attenuation_per_m=SILICON).conditioning
    assert found.noise_amplification == pytest.approx(alone.noise_amplification, rel=0.1)
    assert found.smallest_diagonal == pytest.approx(alone.smallest_diagonal, rel=1e-4)
    assert whole.noise_amplification > 2 * found.noise_amplification


def test_noise_beyond_all_numbers_is_infinite():
    psf = build_psf(beyond((1, 400), SQUARE, 10.0, 0, 1.5 * PITCH / 450e-6), thickness_m=450e-6, attenuation_per_m=100.0)
    assert psf.conditioning.noise_amplification == np.inf


@pytest.mark.parametrize("name", HARSH)
def test_exact_solutions_warn_once_of_amplified_noise_and_the_smooth_methods_do_not(name):
    psf = replace(psf_of(name))
    amplification = psf.conditioning.noise_amplification
    assert amplification > 10
    with pytest.warns(UserWarning, match=rf"amplifies noise {amplification:.3g} times.*auto") as caught:
        deconvolve(da.from_array(frames_of(psf, 2), chunks=(1, -1, -1)), psf, method="direct").compute()
    assert len(caught) == 1
    deconvolve(frames_of(psf), psf, method="direct").compute()  # warnings are errors here
    for method in ("auto", "lsmr", "mlem"):
        deconvolve(frames_of(psf), psf, method=method, max_iterations=1).compute()
    with pytest.warns(UserWarning, match=rf"amplifies noise {amplification:.3g} times.*auto") as caught:
        deconvolve(frames_of(psf), replace(psf), method="lsmr", max_iterations=1).compute()
    assert len(caught) == 1
    for method in ("auto", "mlem"):
        deconvolve(frames_of(psf), replace(psf), method=method, max_iterations=1).compute()


def test_errors_by_rounding_alone_are_told_as_large_as_they_are():
    """Uniform light without noise, at 25° to 34°: the readings are exact but for their last digit as float32."""
    distance, pitch, shape = 0.2, 172e-6, (60, 240)
    oblique = PlanarGeometry(shape, (pitch, pitch), distance, (30 * pitch, -distance * np.tan(np.deg2rad(25))))
    psf = build_psf(oblique, thickness_m=1e-3, material="Si", energy_kev=20.0)
    with pytest.warns(UserWarning, match="rounding to float32 alone make errors of about") as caught:
        found = deconvolve(psf.apply(np.ones((1, *shape))), psf, method="direct").compute()
    told = float(re.search(r"about ([0-9.]+)%", str(caught[0].message)).group(1)) / 100
    assert told / 3 < float(abs(found - 1).max()) < 3 * told
    np.testing.assert_allclose(deconvolve(psf.apply(np.ones((1, *shape))), psf), 1, rtol=1e-5)


def test_direct_does_not_warn_of_noise_that_is_little_amplified():
    for name in MILD:
        assert psf_of(name).conditioning.noise_amplification < 10
        deconvolve(frames_of(psf_of(name), 1), psf_of(name), method="direct").compute()


@pytest.mark.parametrize("method", METHODS)
def test_results_say_how_they_were_found(method):
    psf = psf_of("PONI outside")
    found = deconvolve(xr.DataArray(frames_of(psf), dims=("frame", "y", "x"), attrs={"sample": "Si"}), psf, method=method)
    assert found.name == "deconvolved"
    assert np.isnan(found.attrs.pop("missing_value"))
    assert found.attrs == {
        "sample": "Si", "units": "counts", "method": method, "corrections": ["parallax", "efficiency"],
    }  # fmt: skip
