"""Frames in rings against slow statistics, closed forms, and pyFAI where it is right."""

import logging

import numpy as np
import pyFAI
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

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
from detcal.errors import InputError
from tests.reference import azimuthal as reference

MODELS = ("poisson", "azimuthal", "hybrid")


def image_of(values, dims=("y", "x")):
    return xr.DataArray(np.asarray(values, np.float32), dims=dims)


def make_bins(rings, norm=None, dark=None, shares=None):
    """Bins from a ring number a pixel; −1 is in none."""
    rings = np.asarray(rings)
    order = np.argsort(rings.ravel(), kind="stable")
    order = order[rings.ravel()[order] >= 0]
    starts = np.searchsorted(rings.ravel()[order], np.arange(rings.max() + 2))
    return AzimuthalBins(
        starts=xr.DataArray(starts.astype(np.int64), dims="edge"), pixels=xr.DataArray(order.astype(np.int32), dims="entry"),
        shares=xr.DataArray(np.ones(len(order), np.float32) if shares is None else shares.ravel()[order].astype(np.float32), dims="entry"),
        norm=image_of(np.ones(rings.shape) if norm is None else norm), dark=image_of(np.zeros(rings.shape) if dark is None else dark),
        radius=image_of(rings), centres=xr.DataArray(np.arange(rings.max() + 1.0), dims="radial"), unit="r_mm", split="no",
    )  # fmt: skip


def random_rings(rng, shape=(17, 23), count=7, split=False):
    """Rings of all sizes, one of a single pixel, one of two, one empty."""
    rings = rng.integers(-1, count, shape)
    rings[rings == count - 1] = count
    rings.flat[:3] = count + 1, count + 2, count + 2
    shares = rng.uniform(0.1, 1, shape) if split else None
    return make_bins(rings, rng.uniform(0.5, 1.5, shape), rng.uniform(0, 5, shape), shares)


def random_frames(rng, shape, count=3):
    """Counts with some hot pixels, and some that are not measured."""
    frames = rng.poisson(100, (count, *shape)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.01] = 1e5
    frames[rng.random(frames.shape) < 0.05] = np.nan
    return frames


def same(found, wanted, tolerance=1e-6, scale=100.0):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


# --------------------------------------------------------------------------------------------------- slow statistics


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("model", ["no", "poisson", "azimuthal", "given"])
def test_integration_is_that_of_the_formulas(model, split):
    rng = np.random.default_rng(1)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    variance = rng.uniform(1, 50, frames.shape).astype(np.float32) if model == "given" else None
    if variance is not None:
        variance[rng.random(frames.shape) < 0.05] = -1
    found = integrate(frames, bins, "poisson" if model == "given" else model, variance=variance).compute()
    for frame in range(len(frames)):
        noise = None if variance is None else variance[frame]
        wanted = [reference.statistics(*reference.entries_of(frames[frame], bins, ring, noise), model) for ring in range(len(bins.centres))]
        for name, values in zip(("intensity", "sem", "std", "count"), np.transpose(wanted), strict=True):
            same(found[name][frame], values, scale=np.nanmax(np.append(values, 0)))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("threshold", [2.0, 5.0])
@pytest.mark.parametrize("model", MODELS)
def test_clipping_is_that_of_the_formulas(model, threshold, split):
    rng = np.random.default_rng(2)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    found = sigma_clip(frames, bins, threshold, 5, model).compute()
    outliers = outlier_mask(frames, bins, threshold, 5, model).compute()
    for frame in range(len(frames)):
        marked = np.zeros(bins.shape, bool)
        for ring in range(len(bins.centres)):
            entries = reference.entries_of(frames[frame], bins, ring)
            kept = reference.clip(*entries, "azimuthal" if model == "hybrid" else model, threshold, 5)
            wanted = reference.statistics(*(values[kept] for values in entries), "poisson" if model == "hybrid" else model)
            same([found[name][frame, ring] for name in ("intensity", "sem", "std", "count")], wanted)
            pixels = bins.pixels.values[slice(*bins.starts.values[ring : ring + 2])]
            measured = np.isfinite(frames[frame].ravel()[pixels])
            marked.flat[pixels[measured][~kept]] = True
        np.testing.assert_array_equal(outliers[frame], marked)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "quantiles", [(0.5, 0.5), (0.4, 0.6), (0.0, 1.0), (0.25, 0.25), (0.49999, 0.50001), (0.0, 0.0), (1.0, 1.0), (0.9, 1.0)]
)
def test_quantiles_are_those_of_the_sorted_ring(quantiles, split):
    rng = np.random.default_rng(3)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    found = quantile_filter(frames, bins, quantiles).compute()
    for frame, ring in np.ndindex(found.intensity.shape):
        intensity, share, norm, _ = reference.entries_of(frames[frame], bins, ring)
        largest = intensity.max(initial=100) if quantiles[1] == 1 else 100  # a hot pixel, whose part is then in the mean
        same(found.intensity[frame, ring], reference.quantile_mean(intensity, share, norm, *quantiles), scale=largest)
        same(found["count"][frame, ring], share.sum())


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(0, 20) | st.just(10**6), min_size=1, max_size=60), low=st.floats(0, 1), width=st.floats(0.01, 1),
)  # fmt: skip
def test_ranges_of_repeated_values(values, low, width):
    """Integers repeat themselves, so that many pixels have the value at an edge of the range."""
    frames = np.array(values, np.float32).reshape(1, 1, -1)
    bins = make_bins(np.zeros(frames.shape[1:], int))
    high = min(1.0, low + width)
    low = min(low, high - 0.005)
    wanted = reference.quantile_mean(*reference.entries_of(frames[0], bins, 0)[:3], max(0.0, low), high)
    same(quantile_filter(frames, bins, (max(0.0, low), high)).compute().intensity[0, 0], wanted, 1e-5, max(values) + 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_median_is_numpys(count):
    frames = np.random.default_rng(count).integers(0, 9, (30, 1, count)).astype(np.uint16)
    found = median_filter(frames, make_bins(np.zeros((1, count), int))).compute().intensity[:, 0]
    np.testing.assert_array_equal(found, np.median(frames[:, 0], axis=1))


def test_results_do_not_depend_on_blocks_or_neighbours():
    rng = np.random.default_rng(4)
    bins = random_rings(rng)
    frames = random_frames(rng, bins.shape, 37)
    calls = [lambda stack: sigma_clip(stack, bins, 2.0, 5, model) for model in MODELS] + [lambda stack: quantile_filter(stack, bins)]  # noqa: B023
    for call in calls:
        whole = call(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": 37})).compute()
        for size in (1, 5, 16, 17):
            parts = call(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": size, "x": 7})).compute()
            xr.testing.assert_identical(parts, whole)


# ------------------------------------------------------------------------- what other tools get wrong, and what is right


def test_a_hot_pixel_does_not_wipe_a_poisson_ring():
    """pyFAI's Poisson clipping leaves nothing: its mean has gone to the hot pixel, from which all others are far."""
    frames = np.random.default_rng(5).poisson(100, (1, 1, 20)).astype(float)
    frames[0, 0, 3] = 1e6
    found = sigma_clip(frames, make_bins(np.zeros((1, 20), int)), error_model="poisson").compute()
    assert found["count"].item() == 19
    same(found.intensity.item(), np.delete(frames, 3).mean())


def test_a_ring_of_one_pixel_has_one():
    """pyFAI reports three."""
    found = sigma_clip(np.array([[[7.0, 5, 5]]]), make_bins([[0, 1, 1]])).compute()
    assert found["count"].values.tolist() == [[1, 2]]
    assert found.intensity.values.tolist() == [[7, 5]]
    assert np.isnan(found["std"][0, 0])  # of a single pixel there is no spread
    assert found["std"][0, 1] == 0


def test_an_empty_ring_is_nan_and_counts_nothing():
    """pyFAI reads 0."""
    frames, bins = np.array([[[np.nan, 5, 5]]]), make_bins([[0, 2, 2]])
    for found in (integrate(frames, bins), sigma_clip(frames, bins), median_filter(frames, bins)):
        assert np.isnan(found.intensity[0, :2]).all()
        assert found["count"].values.tolist() == [[0, 0, 2]]


def test_nan_does_not_disorder_the_median():
    """pyFAI sorts NaN among the values."""
    frames = np.array([[[np.nan, 9, np.inf, 1, 5, np.nan]]])
    assert median_filter(frames, make_bins(np.zeros((1, 6), int))).compute().intensity.item() == 5


def test_a_narrow_range_never_empties_a_ring():
    """pyFAI takes whole pixels whose borders lie in the range: 0 if there is none."""
    frames = np.array([[[1.0, 2, 3]]])
    assert quantile_filter(frames, make_bins([[0, 0, 0]]), (0.45, 0.46)).compute().intensity.item() == 2


def test_poisson_variance_has_the_dark_in_it():
    """pyFAI's compiled engines leave it out."""
    bins = make_bins([[0, 0]], dark=[[50.0, 50]])
    found = integrate(np.array([[[150.0, 150]]]), bins).compute()
    same(found["std"].item(), np.sqrt(150 + 50))


def test_constant_rings_keep_all_their_pixels():
    frames = np.full((2, 5, 5), 3.7, np.float32)
    bins = make_bins(np.zeros((5, 5), int), norm=np.full((5, 5), 0.3))
    for model in MODELS:
        assert (sigma_clip(frames, bins, error_model=model).compute()["count"] == 25).all()


# ------------------------------------------------------------------------------------------------------------- pyFAI


@pytest.fixture(scope="module")
def pilatus():
    """A geometry with gaps, and a frame with spots and hot pixels."""
    logging.disable(logging.WARNING)
    geometry = pyFAI.load({"detector": "Pilatus 300k", "distance": 0.15, "poni1": 0.05, "poni2": 0.04, "rot1": 0.1, "wavelength": 1e-10})
    rng = np.random.default_rng(6)
    shape = geometry.detector.shape
    frame = rng.poisson(200, shape).astype(np.int32)
    frame[rng.random(shape) < 1e-3] += 3000
    frame[geometry.detector.mask != 0] = -1
    yield geometry, frame
    logging.disable(logging.NOTSET)


NPT = 300


def agree(found, peer, names, tolerance=1e-5):
    """In rings of more than three pixels."""
    several = peer.count > 3
    assert several.sum() > NPT / 2
    np.testing.assert_allclose(found["count"][0][several], peer.count[several], rtol=1e-6)
    for name in names:
        np.testing.assert_allclose(found[name][0][several], getattr(peer, name)[several], rtol=tolerance, err_msg=name)


def test_clipping_is_pyfais(pilatus):
    geometry, frame = pilatus
    options = {"error_model": "azimuthal", "thres": 5.0, "max_iter": 5, "dummy": -1}
    found = sigma_clip(frame, build_bins(geometry, NPT)).compute()
    agree(found, geometry.sigma_clip(frame, NPT, method=("no", "csr", "python"), **options), ("intensity", "sem", "std"))
    # Its compiled engine adds the spread up pixel by pixel, by a formula that is exact for equal norms only: 0.4 % off here.
    peer = geometry.sigma_clip(frame, NPT, method=("no", "csr", "cython"), **options)
    agree(found, peer, ("intensity",))
    agree(found, peer, ("sem", "std"), 1e-2)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("unit", ["q_nm^-1", "2th_deg", "r_mm"])
def test_integration_is_pyfais(pilatus, split, unit):
    geometry, frame = pilatus
    options = {"radial_range": {"q_nm^-1": (5, 25), "2th_deg": (5, 25), "r_mm": (20, 60)}[unit], "azimuth_range": (-120, 100)}
    peer = geometry.integrate1d_ng(
        frame, NPT, method=(split, "csr", "cython"), unit=unit, error_model="poisson", polarization_factor=0.9, dummy=-1, **options
    )
    found = integrate(frame, build_bins(geometry, NPT, unit, split, polarization=0.9, **options)).compute()
    np.testing.assert_allclose(found.radial, peer.radial, rtol=1e-6)
    agree(found, peer, ("intensity", "sem", "std"))


def test_integration_in_two_dimensions_is_pyfais(pilatus):
    geometry, frame = pilatus
    peer = geometry.integrate2d_ng(frame, 50, 36, method=("bbox", "csr", "cython"), unit="q_nm^-1", error_model="poisson", dummy=-1)
    found = integrate(frame, build_bins(geometry, 50, split="bbox", npt_azimuth=36)).compute()
    assert found.intensity.dims == ("frame", "azimuthal", "radial")
    np.testing.assert_allclose(found.azimuthal, peer.azimuthal, atol=1e-4)
    several = peer.count > 3
    np.testing.assert_allclose(found.intensity.values[0][several], peer.intensity[several], rtol=1e-5)


# ------------------------------------------------------------------------------------------------- drawing, and stores


def test_background_takes_the_rings_away_and_leaves_the_spots(pilatus):
    geometry, frame = pilatus
    radius = geometry.array_from_unit(frame.shape, "center", "q_nm^-1")
    smooth = (1000 * np.exp(-radius / 10) * geometry.solidAngleArray(frame.shape)).astype(np.float32)
    spotty = smooth.copy()
    spotty[100:103, 200:203] += 5000
    bins = build_bins(geometry, NPT)
    background = radial_background(sigma_clip(spotty, bins).intensity, bins).compute()[0]
    assert background.dims == ("y", "x")
    rest = (spotty - background).values
    seen = np.isfinite(rest)
    assert seen.mean() > 0.98  # beyond the outermost centres there is none
    np.testing.assert_allclose(rest[101, 201], 5000, rtol=0.01)
    spotless = seen.copy()
    spotless[100:103, 200:203] = False
    assert np.abs(rest[spotless]).max() < 0.05 * smooth.max()  # beside the beam a ring is a few pixels


def test_bins_come_back_from_a_store(tmp_path, pilatus):
    geometry, frame = pilatus
    for options in ({}, {"split": "full", "npt_azimuth": 12}):
        bins = build_bins(geometry, 50, **options)
        detcal.save(bins, tmp_path / "bins.zarr", overwrite=True)
        loaded = detcal.load(tmp_path / "bins.zarr")
        assert isinstance(loaded, AzimuthalBins)
        xr.testing.assert_identical(integrate(frame, loaded).compute(), integrate(frame, bins).compute())


def test_dummies_and_negative_counts_are_not_measured():
    bins = make_bins([[0, 0, 0]])
    assert integrate(np.array([[[-1, 4, 6]]], np.int32), bins).compute().intensity.item() == 5
    assert integrate(np.array([[[2**32 - 1, 4, 6]]], np.uint32), bins, dummy=2**32 - 1).compute().intensity.item() == 5
    assert integrate(np.array([[[-3.0, 4, 5]]]), bins).compute().intensity.item() == 2


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "q_nm"}, "unknown unit 'q_nm'; near are q_nm"),
        ({"split": "half"}, "expected split to be one of no, bbox, full"),
        ({"npt": 0}, "expected at least 1 ring"),
        ({"mask": np.ones((619, 487))}, "no pixel is left"),
        ({"mask": np.ones((3, 4))}, r"expected a mask of shape \(619, 487\)"),
        ({"radial_range": (2, 1)}, "expected radial_range as two rising numbers"),
        ({"radial_range": (900, 901)}, "no pixel is left"),
        ({"flat": np.zeros((619, 487))}, "no pixel is left"),
        ({"polarization": 2}, "polarisation factor between -1 and 1"),
    ],
)
def test_bins_that_cannot_be(pilatus, options, message):
    with pytest.raises(InputError, match=message):
        build_bins(pilatus[0], **{"npt": 100, **options})


def test_q_needs_a_wavelength(pilatus):
    geometry = pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1})
    with pytest.raises(InputError, match="no wavelength, which q_nm"):
        build_bins(geometry)
    assert build_bins(geometry, 10, "2th_deg").unit == "2th_deg"


def test_more_rings_than_pixels_warn(pilatus):
    with pytest.warns(UserWarning, match="bins for 301453 pixels"):
        build_bins(pilatus[0], 400_000)


@pytest.mark.parametrize("geometry", [None, 3, np.zeros((4, 4))])
def test_what_is_no_geometry(geometry):
    with pytest.raises(InputError, match=r"expected a .poni file or a pyFAI geometry"):
        build_bins(geometry)


def test_a_geometry_without_a_model_takes_a_shape(tmp_path):
    (tmp_path / "old.poni").write_text("PixelSize1: 1e-4\nPixelSize2: 1e-4\nDistance: 0.1\nPoni1: 0.002\nPoni2: 0.003\nWavelength: 1e-10\n")
    assert build_bins(tmp_path / "old.poni", 10, shape=(40, 60)).shape == (40, 60)
    with pytest.raises(InputError, match="or give shape="):
        build_bins(tmp_path / "old.poni", 10)
    with pytest.raises(InputError, match=r"expected the shape \(195, 487\)"):
        build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), 10, "2th_deg", shape=(40, 60))


def test_files_that_are_no_geometry(tmp_path):
    (tmp_path / "cut.poni").write_text("poni_version: 2.1\nDistance: 0.1\n")
    with pytest.raises(InputError, match="cannot read"):
        build_bins(tmp_path / "cut.poni")
    with pytest.raises(InputError, match="no such file"):
        build_bins(tmp_path / "none.poni")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda frames, bins: integrate(frames[:, :2], bins), r"expected frames of shape \(3, 4\)"),
        (lambda frames, bins: integrate(frames, bins, "gauss"), "expected error_model to be one of"),
        (lambda frames, bins: integrate(frames, bins, "hybrid"), "for sigma_clip"),
        (lambda frames, bins: integrate(frames, bins, variance=frames[:1, :, :2]), "expected variance of shape"),
        (lambda frames, bins: sigma_clip(frames, bins, error_model="no"), "needs an error model"),
        (lambda frames, bins: sigma_clip(frames, bins, -1.0), "expected a positive threshold"),
        (lambda frames, bins: sigma_clip(frames, bins, max_iterations=-1), "max_iterations of 0 or more"),
        (lambda frames, bins: quantile_filter(frames, bins, (0.6, 0.4)), "two rising quantiles"),
        (lambda frames, bins: quantile_filter(frames, bins, (0.5, 1.4)), "two rising quantiles"),
        (lambda frames, bins: radial_background(integrate(frames, bins).intensity[:, 1:], bins), r"expected a profile \(frame, radial\)"),
    ],
)
def test_requests_that_cannot_be(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((2, 3, 4)), make_bins(np.arange(12).reshape(3, 4) // 4))
