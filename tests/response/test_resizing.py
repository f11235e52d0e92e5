"""Parts of frames, and pixels in groups."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import crop, rebin
from tests.pipelines.commands import detcal

SHAPE = (5, 22, 31)


@pytest.fixture
def frames():
    """Counts with a flag, in blocks of frames and of rows, with coordinates of each kind."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, SHAPE).astype(np.uint16)
    values[rng.random(SHAPE) < 0.1] = 65535
    values[1, :4, :6] = 65535
    coords = {
        "angle": ("frame", np.arange(5.0)), "y": np.arange(22) * 0.5, "x": np.arange(31) * 2.0,
        "filled": (("y", "x"), rng.random(SHAPE[1:]) < 0.05),
    }  # fmt: skip
    return xr.DataArray(values, dims=("frame", "y", "x"), coords=coords, attrs={"units": "counts"})


@pytest.mark.parametrize("chunks", [{"frame": 2}, {"frame": 5, "y": 4}])
@pytest.mark.parametrize("region", ["3:20, :25", (slice(3, 20), slice(25)), "-19:-2, :-6", (slice(-19, 20), slice(None, -6))])
def test_a_part_of_each_frame(frames, region, chunks):
    found = crop(frames.chunk(chunks), region)
    wanted = frames[:, 3:20, :25]
    xr.testing.assert_equal(found, wanted)
    assert found.dtype == np.uint16
    assert found.attrs == {"units": "counts", "region": "3:20, 0:25", "resized": ["crop 3:20, 0:25 of 22 x 31"]}


@pytest.mark.parametrize("how", ["sum", "mean"])
@pytest.mark.parametrize("factors", [(2, 3), (4, 1), (22, 31), (1, 1)])
def test_groups_of_pixels(frames, factors, how):
    """Against numpy: the mean of what was measured, and as a sum so many times as much; the rest of rows and columns is left out."""
    down, across = factors
    found = rebin(frames.chunk({"frame": 3, "y": 5}), factors, how=how)
    height, width = SHAPE[1] // down, SHAPE[2] // across
    known = np.where(frames.values == 65535, np.nan, frames.values)[:, : height * down, : width * across]
    groups = known.reshape(5, height, down, width, across)
    with np.errstate(invalid="ignore"):
        wanted = np.nansum(groups, axis=(2, 4)) / np.isfinite(groups).sum(axis=(2, 4))
    np.testing.assert_allclose(found, wanted * (down * across if how == "sum" else 1), rtol=1e-6)
    assert np.isnan(found.values[1]).any() == (down * across <= 6)
    np.testing.assert_array_equal(found.angle, frames.angle)
    np.testing.assert_allclose(found.x, frames.x.values[: width * across].reshape(width, across).mean(axis=1))
    filled = frames.filled.values[: height * down, : width * across].reshape(height, down, width, across)
    np.testing.assert_array_equal(found.filled, filled.any(axis=(1, 3)))
    assert found.filled.dtype == np.bool_


def test_all_counts_are_kept():
    values = np.random.default_rng(1).integers(0, 2**24, (2, 64, 64)).astype(np.uint32)
    np.testing.assert_allclose(rebin(values, 4).sum(("y", "x"), dtype=float), values.sum(axis=(1, 2)), rtol=1e-7)


@pytest.mark.parametrize("wrong", [0, 2.0, (2,), (1, 2, 3), True, (23, 1)])
def test_factors_that_are_none_are_refused(frames, wrong):
    with pytest.raises(InputError, match="expected factors"):
        rebin(frames, wrong)


def test_other_options_that_are_none_are_refused(frames):
    with pytest.raises(InputError, match="expected how to be one of sum, mean, got 'median'"):
        rebin(frames, 2, how="median")
    with pytest.raises(InputError, match="expected a region \"y0:y1, x0:x1\", got 'middle'"):
        crop(frames, "middle")
    with pytest.raises(InputError, match="inside frames"):
        crop(frames, "0:23, 0:5")


def test_recipes_crop_and_bin(frames, tmp_path):
    save(frames, tmp_path / "ct.zarr")
    head, step = render("crop").replace("ct.h5", "ct.zarr").split("[output]")
    (tmp_path / "r.toml").write_text(f'{head}[[steps]]\noperation = "rebin"\nfactors = [2, 5]\n[output]{step}')
    detcal(tmp_path, "run", "r.toml", "--workers", "2")
    found = xr.open_zarr(tmp_path / "cropped.zarr")
    wanted = rebin(crop(open_frames(tmp_path / "ct.zarr"), "0:20, 0:30"), (2, 5))
    np.testing.assert_array_equal(found[wanted.name], wanted)
    np.testing.assert_array_equal(found.x, wanted.x)
