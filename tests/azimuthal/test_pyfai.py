"""Frames in rings against pyFAI, where it is right."""

import numpy as np
import pytest

from detcal.azimuthal import (
    build_bins,
    integrate,
    median_filter,
    sigma_clip,
)

# ------------------------------------------------------------------------------------------------------------- pyFAI
from tests.azimuthal.rings import NPT, agree


def test_clipping_is_pyfais(pilatus):
    geometry, frame = pilatus
    options = {"error_model": "azimuthal", "thres": 5.0, "max_iter": 5, "dummy": -1}
    found = sigma_clip(frame, build_bins(geometry, npt=NPT)).compute()
    agree(found, geometry.sigma_clip(frame, NPT, method=("no", "csr", "python"), **options), ("intensity", "sem", "std"))
    # Its compiled engine adds the spread up pixel by pixel, by a formula that is exact for equal norms only: 0.4 % off here.
    peer = geometry.sigma_clip(frame, NPT, method=("no", "csr", "cython"), **options)
    agree(found, peer, ("intensity",))
    agree(found, peer, ("sem", "std"), 1e-2)


@pytest.mark.parametrize("split", ["no", "full"])
def test_medians_are_pyfais(pilatus, split):
    geometry, frame = pilatus
    peer = geometry.medfilt1d_ng(frame, NPT, method=(split, "csr", "cython"), unit="q_nm^-1", percentile=50, dummy=-1)
    found = median_filter(frame, build_bins(geometry, npt=NPT, split=split)).compute().isel(frame=0)
    several = found["count"].values > 3  # pyFAI counts the pixels that it averages
    np.testing.assert_allclose(found.intensity[several], peer.intensity[several], rtol=1e-5)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("unit", ["q_nm^-1", "2th_deg", "r_mm"])
def test_integration_is_pyfais(pilatus, split, unit):
    """Without ranges: those it gives more pixels than are in them."""
    geometry, frame = pilatus
    peer = geometry.integrate1d_ng(
        frame, NPT, method=(split, "csr", "cython"), unit=unit, error_model="poisson", polarization_factor=0.9, dummy=-1
    )
    found = integrate(frame, build_bins(geometry, npt=NPT, unit=unit, split=split, polarization=0.9)).compute()
    np.testing.assert_allclose(found.radial, peer.radial, rtol=1e-6)
    agree(found, peer, ("intensity", "sem", "std"), 1e-4 if split == "full" else 1e-5)  # its areas are in float32


@pytest.mark.parametrize("solid_angle", [True, False])
def test_flat_and_dark_are_used_as_by_pyfai(pilatus, solid_angle):
    geometry, frame = pilatus
    rng = np.random.default_rng(7)
    flat, dark = rng.uniform(0.5, 1.5, frame.shape), rng.uniform(0, 50, frame.shape)
    method = ("no", "csr", "cython")
    peer = geometry.integrate1d_ng(frame, NPT, method=method, flat=flat, dark=dark, dummy=-1, correctSolidAngle=solid_angle, unit="q_nm^-1")
    found = integrate(frame, build_bins(geometry, npt=NPT, flat=flat, dark=dark, solid_angle=solid_angle), error_model="no").compute()
    agree(found, peer, ("intensity",))


def test_images_of_many_frames_are_averaged(pilatus):
    geometry, frame = pilatus
    flat = np.random.default_rng(7).uniform(0.5, 1.5, (3, *frame.shape))
    flat[0, 100, 200], flat[:, 101, 200] = np.nan, np.nan
    dark = np.full(flat.shape, 7.0)
    dark[:, 102, 200] = np.nan
    bins = build_bins(geometry, npt=NPT, flat=flat, dark=dark, solid_angle=False)
    seen = geometry.detector.mask == 0
    seen[101:103, 200] = False  # without flat, or dark: in no ring
    np.testing.assert_array_equal(np.sort(bins.indices), np.flatnonzero(seen))
    np.testing.assert_allclose(bins.norm.values[seen], np.nanmean(flat[:, seen], axis=0), rtol=1e-6)
    np.testing.assert_array_equal(bins.dark.values[seen], 7)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_integration_in_two_dimensions_is_pyfais(pilatus, split):
    """But for the parts at ±180°: pixels that cross it lie on one side of it there. Of outlines whole rings are compared: it gives pixels
    that are cut by azimuths up to a tenth too much on one side (ours are held against areas in test_azimuthal_ranges)."""
    geometry, frame = pilatus
    options = {} if split == "no" else {"azimuth_range": (-180, 180)}
    peer = geometry.integrate2d_ng(
        frame, 50, 36, method=(split, "csr", "cython"), unit="q_nm^-1", error_model="poisson", dummy=-1, **options
    )
    found = integrate(frame, build_bins(geometry, npt=50, split=split, npt_azimuth=36)).compute().isel(frame=0)
    assert found.intensity.dims == ("azimuthal", "radial")
    np.testing.assert_allclose(found.azimuthal, peer.azimuthal, atol=1e-4)
    np.testing.assert_allclose(found.radial, peer.radial, rtol=1e-6)
    several = peer.count > 3
    if split != "no":
        several[[0, -1]] = several[:, :2] = False  # nor the pixel with the beam
    assert several.mean() > 0.45
    if split == "full":
        np.testing.assert_allclose(found["count"].sum("azimuthal")[2:], peer.count.sum(axis=0)[2:], rtol=1e-4)
        return
    for name in ("intensity", "sem", "std", "count"):
        wanted = getattr(peer, name)[several]
        np.testing.assert_allclose(found[name].values[several], wanted, rtol=1e-5 if split == "no" else 1e-4, err_msg=name)
