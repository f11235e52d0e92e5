"""Smoothed spectra and their sums."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from detcal import xrf
from detcal.errors import InputError
from tests.reference import xrf as reference


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap"])
@pytest.mark.parametrize("sigma", [0.6, 7.0, 40.0])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_smoothing_is_scipys(mode, sigma, dtype):
    spectra = np.random.default_rng(1).poisson(0.3, (7, 90)).astype(dtype)
    found = xrf.smooth_spectra(da.from_array(spectra, chunks=(3, 40)), sigma_channels=sigma, boundary=mode).values
    np.testing.assert_allclose(found, gaussian_filter1d(spectra.astype(np.float32), sigma, axis=1, mode=mode), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[0], reference.smooth(spectra[0], sigma, mode), rtol=1e-6, atol=1e-7)
    assert found.dtype == np.float32


def test_smoothing_keeps_fractions_of_counts():
    """scipy cuts them off where the input is of whole numbers."""
    spectra = np.zeros((1, 200), np.uint16)
    spectra[0, 100] = 1
    assert float(xrf.smooth_spectra(spectra).sum()) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap"])
def test_smoothing_takes_what_was_measured(mode):
    spectra = np.random.default_rng(3).poisson(5, (4, 50)).astype(np.float32)
    spectra[0] = np.nan
    spectra[1, [0, 20, 21, 22, 49]] = np.nan, np.inf, -np.inf, np.nan, np.nan
    spectra[2, 3:40] = np.nan  # more than the gaussian reaches over
    found = xrf.smooth_spectra(spectra, sigma_channels=2.0, boundary=mode).values
    for line, wanted in zip(found, spectra, strict=True):
        np.testing.assert_allclose(line, reference.smooth_measured(wanted, 2.0, mode), rtol=1e-6)


@pytest.mark.parametrize("options", [{"sigma_channels": 0}, {"sigma_channels": np.nan}, {"boundary": "odd"}, {"truncate": -1}])
def test_smoothing_refuses_what_makes_no_gaussian(options):
    with pytest.raises(InputError, match="expected"):
        xrf.smooth_spectra(np.ones((2, 9)), **options)


def test_summary_is_one_of_all_measured_spectra():
    cube = np.random.default_rng(2).normal(5, 2, (6, 7, 11)).astype(np.float32)
    cube[2, 3] = np.nan
    cube[5] = np.nan
    found = xrf.summary_spectra(xr.DataArray(da.from_array(cube, chunks=(2, 3, 4)), dims=("row", "column", "energy"))).compute()
    values = cube.reshape(-1, 11).astype(float)
    np.testing.assert_allclose(found["sum"], np.nansum(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["mean"], np.nanmean(values, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found["max"], np.nanmax(values, axis=0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_summary_leaves_out_what_is_not_measured_in_each_channel(seed, block):
    rng = np.random.default_rng(seed)
    spectra = rng.normal(-5, 2, (8, 4))
    spectra[rng.random((8, 4)) < 0.5] = np.nan
    found = xrf.summary_spectra(da.from_array(spectra, chunks=(block, 3)))
    for channel, values in enumerate(spectra.T):
        there = values[~np.isnan(values)]
        wanted = (there.sum(), there.mean(), there.max()) if there.size else (np.nan,) * 3
        np.testing.assert_allclose([found[name].values[channel] for name in ("sum", "mean", "max")], wanted, rtol=1e-12)


def test_summary_of_nothing_is_not_a_number():
    found = xrf.summary_spectra(np.full((3, 4), np.nan, np.float32)).compute()
    assert all(np.isnan(found[name]).all() for name in ("sum", "mean", "max"))


def test_summary_of_counts_is_exact():
    spectra = np.random.default_rng(3).integers(0, 65536, (1000, 8), dtype=np.uint16)
    found = xrf.summary_spectra(da.from_array(spectra, chunks=(37, -1)))["sum"].values
    np.testing.assert_array_equal(found, spectra.astype(np.int64).sum(axis=0))
