"""Darks of each frame, or of groups: as taken off each frame by itself."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render

from detcal import save
from detcal.azimuthal import build_bins, find_hot_pixels, integrate, integrate_azimuthal, outlier_mask, sigma_clip
from detcal.errors import InputError
from tests.azimuthal.rings import random_frames, random_rings
from tests.azimuthal.test_azimuthal_ranges import geometry
from tests.pipelines.commands import change, detcal
from tests.sensor.test_sensor_run import PONI, SHAPE


def made(count=6):
    rng = np.random.default_rng(0)
    bins = random_rings(rng)
    bins.dark.values[:] = 0
    darks = rng.uniform(3, 9, (count, *bins.shape)).astype(np.float32)
    return bins, random_frames(rng, bins.shape, count), darks


def of_each(job, frames, bins, darks, **options):
    """With the dark of each frame in the bins."""
    found = []
    for frame, dark in zip(frames, darks, strict=True):
        own = bins.compute()
        object.__setattr__(own, "dark", own.dark.copy(data=dark))
        found.append(job(frame[None], own, **options).compute())
    return xr.concat(found, "frame")


@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
@pytest.mark.parametrize("job", [integrate, sigma_clip])
def test_darks_of_each_frame_are_taken_off(job, model):
    bins, frames, darks = made()
    found = job(frames, bins, darks=darks, error_model=model).compute()
    wanted = of_each(job, frames, bins, darks, error_model=model)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-4, err_msg=name)
    assert found.intensity.attrs["corrections"] == ["dark"]
    assert abs(found.intensity - job(frames, bins, error_model=model).intensity).max() > 3


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_of_frames_share_a_dark(groups):
    bins, frames, darks = made()
    shared = np.repeat(darks[:groups], 6 // groups, axis=0)
    found = sigma_clip(frames, bins, darks=darks[:groups]).compute()
    xr.testing.assert_identical(found, sigma_clip(frames, bins, darks=shared).compute())
    for job in (outlier_mask, find_hot_pixels):
        np.testing.assert_array_equal(job(frames, bins, darks=darks[:groups]), job(frames - shared, bins))


def test_what_lacks_in_a_dark_is_no_reading():
    bins, frames, darks = made()
    darks[0, 4] = np.nan
    spoilt = frames.copy()
    spoilt[0, 4] = np.nan
    found, wanted = integrate(frames, bins, darks=darks), integrate(spoilt, bins, darks=np.nan_to_num(darks))
    np.testing.assert_array_equal(found["count"], wanted["count"])


def test_of_a_ring_and_of_maps():
    place = geometry()
    rng = np.random.default_rng(0)
    frames, darks = (rng.poisson(mean, (2, 3, *place.detector.shape)).astype(float) for mean in (100, 7))
    ring = build_bins(place, npt=1, npt_azimuth=6)
    found = integrate_azimuthal(frames, ring, darks=darks, error_model="azimuthal").compute()
    np.testing.assert_allclose(found.intensity, integrate_azimuthal(frames - darks, ring, error_model="azimuthal").intensity, rtol=1e-6)
    rows = integrate_azimuthal(frames, ring, darks=darks[:, 0], error_model="azimuthal").compute()  # one a row
    np.testing.assert_allclose(rows.intensity, integrate_azimuthal(frames - darks[:, :1], ring).intensity, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"darks": np.ones((4, 17, 23))}, "expected a dark for each of the 6 frames, or of groups of as many .* got 4"),
        ({"darks": np.ones((6, 3, 3))}, r"expected darks of shape \(17, 23\) \(y, x\), as the bins, got \(3, 3\)"),
        ({"darks": np.ones((6, 17, 23)), "error_model": "hybrid"}, 'error_model "azimuthal" or "poisson" where there are darks'),
    ],
)
def test_darks_that_cannot_be(options, message):
    bins, frames, _ = made()
    with pytest.raises(InputError, match=message):
        sigma_clip(frames, bins, **options)


def test_a_dark_is_not_taken_off_twice():
    place = geometry()
    frames = xr.DataArray(np.ones((2, *place.detector.shape)), dims=("frame", "y", "x"))
    with pytest.raises(InputError, match="expected either bins with a dark, or darks of the frames, got both"):
        integrate(frames, build_bins(place, npt=5, dark=frames), darks=frames)
    with pytest.raises(InputError, match=r"have had a dark taken off .* leave darks= out"):
        integrate(frames.assign_attrs(corrections=["dark"]), build_bins(place, npt=5), darks=frames)


def test_a_recipe_takes_darks(tmp_path):
    rng = np.random.default_rng(0)
    frames, darks = rng.poisson(100, (20, *SHAPE)).astype(np.int32), rng.poisson(9, (4, *SHAPE)).astype(np.int32)
    (tmp_path / "detector.poni").write_text(PONI)
    save(frames, tmp_path / "scan.h5")
    save(darks, tmp_path / "darks.h5")
    (tmp_path / "integrate.toml").write_text(render("integrate"))
    change(tmp_path, "integrate.toml", "# darks = ", "darks = ")
    detcal(tmp_path, "run", "integrate.toml", "--workers", "2")
    wanted = integrate(frames, build_bins(tmp_path / "detector.poni"), darks=darks).compute()
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "integrated.zarr").drop_attrs(), wanted.drop_attrs())
