"""Backgrounds drawn from profiles, bins in stores, and what was not measured."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pyFAI
import pytest
import xarray as xr

import detcal
from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
    integrate,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)

# ------------------------------------------------------------------------------------------------- drawing, and stores
from tests.azimuthal.rings import (
    MODELS,
    NPT,
    agree,
    image_of,
    make_bins,
    same,
)


def test_background_takes_the_rings_away_and_leaves_the_spots(pilatus):
    geometry, frame = pilatus
    radius = geometry.array_from_unit(frame.shape, "center", "q_nm^-1")
    smooth = (1000 * np.exp(-radius / 10) * geometry.solidAngleArray(frame.shape)).astype(np.float32)
    spotty = smooth.copy()
    spotty[100:103, 200:203] += 5000
    bins = build_bins(geometry, npt=NPT)
    background = radial_background(sigma_clip(spotty, bins).intensity, bins).compute()[0]
    assert background.dims == ("y", "x")
    rest = (spotty - background).values
    seen = np.isfinite(rest)
    assert seen.mean() > 0.98  # beyond the outermost centres there is none
    np.testing.assert_allclose(rest[101, 201], 5000, rtol=0.01)
    spotless = seen.copy()
    spotless[100:103, 200:203] = False
    assert np.abs(rest[spotless]).max() < 0.05 * smooth.max()  # beside the beam a ring is a few pixels


def test_background_is_corrected_as_its_frames_are():
    bins = make_bins(np.arange(24).reshape(4, 6) // 8, np.ones((4, 6)), np.zeros((4, 6)))
    frames = xr.DataArray(np.ones((2, 4, 6), np.float32), dims=("frame", "y", "x"), attrs={"corrections": ["flat"]})
    assert radial_background(median_filter(frames, bins).intensity, bins).attrs["corrections"] == ["flat"]
    assert "corrections" not in radial_background(median_filter(frames.drop_attrs(), bins).intensity, bins).attrs


def test_background_is_the_profile_in_counts():
    """Linear between the bins' centres, with norm and dark, and nothing beyond them."""
    rng = np.random.default_rng(9)
    norm, dark = rng.uniform(0.5, 1.5, (4, 6)), rng.uniform(0, 5, (4, 6))
    bins = replace(make_bins(np.arange(24).reshape(4, 6) // 8, norm, dark), radius=image_of(np.linspace(-0.5, 2.5, 24).reshape(4, 6)))
    profiles = xr.DataArray(np.array([[10.0, 30, 20], [1, 2, 3]], np.float32), dims=("frame", "radial"))
    radius = bins.radius.values
    inside = (radius >= 0) & (radius <= 2)
    drawn = radial_background(profiles, bins).compute()
    slopes = np.where(radius < 1, 10 + 20 * radius, 40 - 10 * radius), 1 + radius
    for found, values in zip(drawn.values, slopes, strict=True):
        np.testing.assert_allclose(found[inside], (values * norm + dark)[inside], rtol=1e-5)
        assert np.isnan(found[~inside]).all()


def test_background_keeps_what_is_known_of_the_frames():
    frames = xr.DataArray(np.ones((3, 1, 4)), dims=("frame", "y", "x"), coords={"frame": [4, 5, 9], "angle": ("frame", [0.1, 0.2, 0.3])})
    bins = make_bins([[0, 0, 1, 1]])
    profile = integrate(frames, bins).intensity
    for each in (profile, profile.T):
        drawn = radial_background(each, bins)
        assert drawn.dims == ("frame", "y", "x")
        assert set(drawn.coords) == {"frame", "angle"}
        xr.testing.assert_equal((frames - drawn).compute(), xr.zeros_like(frames))


def test_backgrounds_share_the_images_they_are_drawn_with(pilatus):
    """A copy for each call would go to the workers anew."""
    bins = build_bins(pilatus[0], npt=50)
    graphs = [dict(radial_background(integrate(pilatus[1] + k, bins).intensity, bins).__dask_graph__()) for k in range(2)]
    assert bins.images_in_memory.key in graphs[0]
    assert len(pickle.dumps(graphs)) < len(pickle.dumps(graphs[0])) + pilatus[1].nbytes + 2**16


def test_bins_come_back_from_a_store(tmp_path, pilatus):
    geometry, frame = pilatus
    for options in ({}, {"split": "full", "npt_azimuth": 12}):
        bins = build_bins(geometry, npt=50, **options)
        detcal.save(bins, tmp_path / "bins.zarr", overwrite=True)
        loaded = detcal.load(tmp_path / "bins.zarr")
        assert isinstance(loaded, AzimuthalBins)
        found = integrate(frame, loaded).compute()
        xr.testing.assert_identical(found, integrate(frame, bins).compute())
        if bins.azimuths is None:
            drawn = radial_background(found.intensity, loaded).compute()
            xr.testing.assert_identical(drawn, radial_background(found.intensity, bins).compute())


def test_dummies_are_not_measured_and_negative_counts_are():
    bins = make_bins([[0, 0, 0]])
    with pytest.warns(UserWarning, match="counts below 0 are taken as readings"):
        assert integrate(np.array([[[-1, 4, 6]]], np.int32), bins).compute().intensity.item() == 3
    assert integrate(np.array([[[-1, 4, 6]]], np.int32), bins, dummy=-1).compute().intensity.item() == 5
    assert integrate(np.array([[[2**32 - 1, 4, 6]]], np.uint32), bins, dummy=2**32 - 1).compute().intensity.item() == 5
    assert integrate(np.array([[[-3.0, 4, 5]]]), bins).compute().intensity.item() == 2


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_dead_pixels_of_unsigned_frames_are_those_of_pyfai(dtype):
    """Dectris detectors mark them by the type's largest number."""
    geometry = pyFAI.load({"detector": "Eiger 500k", "distance": 0.1, "poni1": 0.02, "poni2": 0.03, "wavelength": 1e-10})
    rng = np.random.default_rng(10)
    frame = rng.poisson(50, geometry.detector.shape).astype(dtype)
    dead = (rng.random(frame.shape) < 1e-3) | (geometry.detector.mask != 0)
    frame[dead] = np.iinfo(dtype).max
    bins = build_bins(geometry, npt=NPT)
    peer = geometry.integrate1d_ng(frame, NPT, method=("no", "csr", "cython"), unit="q_nm^-1", error_model="poisson")
    agree(integrate(frame, bins).compute(), peer, ("intensity", "sem", "std"))
    for job in (sigma_clip, median_filter):
        found, wanted = job(frame, bins).compute(), job(np.where(dead, np.nan, frame), bins).compute()
        xr.testing.assert_equal(found, wanted)
    assert not (outlier_mask(frame, bins).values & dead).any()


def test_a_dummy_takes_the_place_of_the_largest_number():
    frames, bins = np.array([[[65535, 7, 5]]], np.uint16), make_bins([[0, 0, 0]])
    assert integrate(frames, bins).compute()["count"].item() == 2
    assert integrate(frames, bins, dummy=7).compute().intensity.item() == (65535 + 5) / 2
    assert integrate(frames.clip(max=255).astype(np.uint8), bins).compute()["count"].item() == 3  # a plain count
    assert integrate(np.array([[[2**31 - 1, 7, 5]]], np.int32), bins).compute()["count"].item() == 3


@pytest.mark.parametrize("marker", [3.4028235e38, -3.4028235e38, 1e30, 1.1e18])
def test_numbers_beyond_any_count_are_not_measured(marker):
    """Their squares are no float32, and nothing would be clipped."""
    rng = np.random.default_rng(11)
    frames = rng.poisson(100, (1, 1, 100)).astype(np.float32)
    frames[..., 7] = 5000
    bins, clean = make_bins(np.zeros((1, 100), int)), frames.copy()
    frames[..., 50], clean[..., 50] = marker, np.nan
    for job in (*(partial(sigma_clip, error_model=model) for model in MODELS), integrate, median_filter):
        xr.testing.assert_equal(job(frames, bins).compute(), job(clean, bins).compute())
    assert np.flatnonzero(outlier_mask(frames, bins)).tolist() == [7]


def test_a_hot_pixel_of_1e18_is_clipped():
    frames = np.random.default_rng(12).poisson(100, (1, 1, 100)).astype(np.float32)
    frames[..., 50] = 1e18
    found = sigma_clip(frames, make_bins(np.zeros((1, 100), int))).compute()
    assert found["count"].item() == 99
    same(found.intensity.item(), np.delete(frames, 50).mean(dtype=float))


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf, 1e9])
def test_what_is_not_measured_is_as_if_it_were_masked(what):
    """In whatever job; nor is it an outlier."""
    rng = np.random.default_rng(9)
    frames = rng.poisson(100, (2, 6, 7)).astype(np.float32)
    frames[:, 2, 3] = 3000
    mask = rng.random((6, 7)) < 0.2
    mask[2, 3] = False
    rings = np.arange(42).reshape(6, 7) % 2
    whole, part = make_bins(rings), make_bins(np.where(mask, -1, rings))
    spoilt = np.where(mask, np.float32(what), frames)
    dummy = what if np.isfinite(what) else None
    for job in (integrate, sigma_clip, median_filter, quantile_filter):
        found, wanted = job(spoilt, whole, dummy=dummy).compute(), job(frames, part).compute()
        for name in found:
            same(found[name], wanted[name])
    for model in MODELS:
        outliers = outlier_mask(spoilt, whole, threshold=3.0, max_iterations=5, error_model=model, dummy=dummy).values
        np.testing.assert_array_equal(outliers, outlier_mask(frames, part, threshold=3.0, max_iterations=5, error_model=model).values)
        assert outliers[:, 2, 3].all()
        assert not outliers[:, mask].any()
