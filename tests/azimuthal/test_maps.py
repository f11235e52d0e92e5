"""Maps (row, column, y, x), and stacks of more dimensions, give what their frames give one by one."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal import load, save
from detcal.azimuthal import (
    build_bins,
    find_hot_pixels,
    integrate,
    integrate_azimuthal,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)
from detcal.errors import InputError
from tests.azimuthal.rings import random_frames, random_rings, random_variance
from tests.azimuthal.test_azimuthal_ranges import geometry

SIZES = (3, 4)
JOBS = {
    "integrate": integrate, "sigma_clip": sigma_clip, "median": median_filter, "quantiles": quantile_filter, "outliers": outlier_mask,
    "sums": lambda frames, bins: integrate(frames, bins, sums=True),
}  # fmt: skip


def made(sizes=SIZES):
    rng = np.random.default_rng(0)
    bins = random_rings(rng)
    stack = random_frames(rng, bins.shape, int(np.prod(sizes)))
    return bins, stack, stack.reshape(*sizes, *bins.shape)


def same_values(found, wanted, sizes, dims=("row", "column")):
    """A result of a map, and that of its frames in a stack."""
    pairs = [(found[name], wanted[name]) for name in wanted] if isinstance(wanted, xr.Dataset) else [(found, wanted)]
    for one, other in pairs:
        assert one.dims == (*dims, *other.dims[1:])
        assert one.attrs == other.attrs
        np.testing.assert_array_equal(one.values.reshape(other.shape), other.values)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("chunks", [None, (1, 4, -1, -1), (3, 1, -1, -1), (2, 3, 5, -1), (3, 4, -1, -1)])
def test_a_map_gives_what_its_frames_give(job, chunks):
    bins, stack, whole = made()
    given = whole if chunks is None else da.from_array(whole, chunks=chunks)
    found, wanted = JOBS[job](frames=given, bins=bins), JOBS[job](stack, bins)
    same_values(found.compute(), wanted.compute(), SIZES)


def test_dimensions_and_places_are_kept():
    """By name, wherever they stand; coordinates of rows, of points and of all."""
    bins, stack, whole = made()
    lines = {"sy": ("row", [0.0, 0.5, 1.0], {"units": "mm"}), "lit": (("row", "column"), np.arange(12).reshape(SIZES) + 1.0), "run": 7}
    given = xr.DataArray(whole, lines, ("row", "column", "y", "x")).transpose("y", "column", "x", "row")
    found = integrate(given, bins, normalization="lit").compute()
    series = xr.DataArray(stack, {"lit": ("frame", np.arange(12) + 1.0)}, ("frame", "y", "x"))
    wanted = integrate(series, bins, normalization="lit")
    same_values(found.transpose("row", "column", "radial"), wanted.compute(), SIZES)
    assert found.intensity.dims == ("column", "row", "radial")
    drawn = radial_background(found.intensity, bins).transpose("row", "column", "y", "x")
    same_values(drawn.compute(), radial_background(wanted.intensity, bins).compute(), SIZES)
    xr.testing.assert_equal(found.sy, given.sy)
    xr.testing.assert_equal(found.lit, given.lit)
    assert found.run == 7
    assert found.intensity.attrs["normalized_by"] == "lit"


def test_a_variance_and_a_normalization_are_those_of_the_points(tmp_path):
    bins, stack, whole = made()
    noise, monitor = random_variance(np.random.default_rng(1), stack.shape), np.linspace(1, 2, 12)
    wanted = sigma_clip(stack, bins, variance=noise, normalization=monitor).compute()
    found = sigma_clip(whole, bins, variance=noise.reshape(whole.shape), normalization=monitor.reshape(SIZES))
    same_values(found.compute(), wanted, SIZES)
    np.testing.assert_array_equal(found.normalization, monitor.reshape(SIZES))
    for name in ("map.zarr", "map.h5"):
        save(found, tmp_path / name)
        xr.testing.assert_equal(load(tmp_path / name).intensity.compute(), found.intensity.compute())
    for options, message in (
        ({"variance": noise}, r"expected variance of the map's shape \(3, 4\), as the frames, got \(12, 17, 23\)"),
        ({"normalization": monitor}, r"expected normalization of the map's shape \(3, 4\), as the frames, got \(12,\)"),
        ({"normalization": np.zeros(SIZES)}, "expected positive numbers as normalization, got 0 for frame 0"),
    ):
        with pytest.raises(InputError, match=message):
            sigma_clip(whole, bins, **options)


def test_maps_of_more_dimensions():
    bins, stack, whole = made((2, 3, 2))
    found = median_filter(whole, bins).compute()
    same_values(found, median_filter(stack, bins).compute(), (2, 3, 2), ("scan_0", "scan_1", "scan_2"))


def test_backgrounds_cakes_and_hot_pixels_of_a_map():
    bins, stack, whole = made()
    profiles = median_filter(whole, bins).intensity
    found, wanted = radial_background(profiles, bins), radial_background(median_filter(stack, bins).intensity, bins)
    same_values(found.compute(), wanted.compute(), SIZES)
    np.testing.assert_array_equal(find_hot_pixels(whole, bins, share=0.1), find_hot_pixels(stack, bins, share=0.1))
    place = geometry()
    frames = np.random.default_rng(0).poisson(100, (*SIZES, *place.detector.shape))
    cakes = build_bins(place, npt=5, npt_azimuth=6)
    found = sigma_clip(frames, cakes).compute()
    assert found.intensity.dims == ("row", "column", "azimuthal", "radial")
    same_values(found, sigma_clip(frames.reshape(-1, *place.detector.shape), cakes).compute(), SIZES)
    ring = build_bins(place, npt=1, npt_azimuth=6)
    assert integrate_azimuthal(frames, ring).intensity.dims == ("row", "column", "azimuthal")


def test_maps_that_cannot_be():
    bins, _, whole = made()
    with pytest.raises(InputError, match=r"expected frames of shape \(17, 23\) \(y, x\), as the bins, got \(17, 22\)"):
        integrate(whole[..., 1:], bins)
    with pytest.raises(InputError, match=r"expected a map of frames, got .*'row': 0"):
        integrate(whole[:0], bins)


def test_blocks_do_not_grow():
    """Neither those that are read, nor those of masks."""
    bins, _, whole = made()
    given = da.from_array(np.broadcast_to(whole[:, :1], (3, 40, *bins.shape)).copy(), chunks=(1, 8, -1, -1))
    found = outlier_mask(given, bins)
    assert max(found.data.chunks[1]) == 8
    assert max(found.data.chunks[0]) == 1
