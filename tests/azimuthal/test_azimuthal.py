"""Frames in rings against slow statistics, closed forms, and pyFAI where it is right."""

import logging
import pickle
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pyFAI
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

import detcal
from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
    integrate,
    kernels,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)
from detcal.azimuthal.kernels import BATCH
from detcal.errors import InputError
from tests.reference import azimuthal as reference

MODELS = ("poisson", "azimuthal", "hybrid")
VALUES = st.integers(0, 20) | st.just(10**6)
SEEDS = range(4)
BESIDE = st.sampled_from([0, 1e-15, -1e-15, 1e-9, -1e-9, 1e-6, -1e-6, 1e-4, -1e-4])


def image_of(values, dims=("y", "x")):
    return xr.DataArray(np.asarray(values, np.float32), dims=dims)


def make_bins(rings, norm=None, dark=None, shares=None):
    """Bins from a ring number a pixel; −1 is in none."""
    rings = np.asarray(rings)
    order = np.argsort(rings.ravel(), kind="stable")
    order = order[rings.ravel()[order] >= 0]
    starts = np.searchsorted(rings.ravel()[order], np.arange(rings.max() + 2))
    return AzimuthalBins(
        indptr=xr.DataArray(starts.astype(np.int64), dims="edge"), indices=xr.DataArray(order.astype(np.int32), dims="entry"),
        data=xr.DataArray(np.ones(len(order), np.float32) if shares is None else shares.ravel()[order].astype(np.float32), dims="entry"),
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


def random_variance(rng, shape):
    """Of each reading; of some there is none."""
    variance = rng.uniform(1, 200, shape).astype(np.float32)
    variance[rng.random(shape) < 0.05] = -1
    variance[rng.random(shape) < 0.05] = np.nan
    return variance


def trial(seed, split):
    """Random rings with frames and their variance; one ring is constant, of one nothing is measured. Others are of single pixels, or
    empty, and many pixels are masked."""
    rng = np.random.default_rng(seed)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    constant, lost = (bins.indices.values[slice(*bins.indptr.values[ring : ring + 2])] for ring in (0, 1))
    bins.norm.values.flat[constant], bins.dark.values.flat[constant] = 0.5, 0  # I is then without rounding
    frames.reshape(len(frames), -1)[:, constant] = 77
    frames.reshape(len(frames), -1)[:, lost] = np.nan
    return bins, frames, random_variance(rng, frames.shape)


def agree_in_ring(found, frame, ring, wanted):
    """To 1e-6 of the ring's own intensity. Errors are roots of sums of squares, so to 5e-6; and as small as they may be, to the rounding
    of the intensities they are the spread of."""
    intensity, sem, std, count = (found[name].values[frame, ring] for name in ("intensity", "sem", "std", "count"))
    own = abs(wanted[0]) if wanted[3] else 0
    np.testing.assert_allclose(intensity, wanted[0], rtol=1e-6)
    np.testing.assert_allclose((sem, std), wanted[1:3], rtol=5e-6, atol=2e-7 * own)
    np.testing.assert_allclose(count, wanted[3], rtol=1e-6)


def same(found, wanted, tolerance=1e-6, scale=100.0):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


# --------------------------------------------------------------------------------------------------- slow statistics


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("model", ["no", "poisson", "azimuthal", "given"])
def test_integration_is_that_of_the_formulas(model, split):
    for seed in SEEDS:
        bins, frames, variance = trial(seed, split)
        variance = variance if model == "given" else None
        found = integrate(frames, bins, error_model="poisson" if model == "given" else model, variance=variance).compute()
        for frame, ring in np.ndindex(found.intensity.shape):
            entries = reference.entries_of(frames[frame], bins, ring, None if variance is None else variance[frame])
            agree_in_ring(found, frame, ring, reference.statistics(*entries, model))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("threshold", [2.0, 5.0])
@pytest.mark.parametrize("model", [*MODELS, "given"])
def test_clipping_is_that_of_the_formulas(model, threshold, split):
    for seed in SEEDS:
        bins, frames, variance = trial(seed, split)
        variance = variance if model == "given" else None
        options = {"error_model": "poisson" if model == "given" else model, "variance": variance}
        found = sigma_clip(frames, bins, threshold=threshold, max_iterations=5, **options).compute()
        marked = np.zeros(frames.shape, bool)
        for frame, ring in np.ndindex(found.intensity.shape):
            noise = None if variance is None else variance[frame]
            entries, measured = reference.entries_of(frames[frame], bins, ring, noise), reference.measured(frames[frame], bins, ring, noise)
            kept = reference.clip(*entries, "azimuthal" if model == "hybrid" else model, threshold, 5)
            wanted = reference.statistics(*(values[kept] for values in entries), "poisson" if model == "hybrid" else model)
            agree_in_ring(found, frame, ring, wanted)
            marked[frame].flat[bins.indices.values[slice(*bins.indptr.values[ring : ring + 2])][measured][~kept]] = True
        np.testing.assert_array_equal(outlier_mask(frames, bins, threshold=threshold, max_iterations=5, **options), marked)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "quantiles", [(0.5, 0.5), (0.4, 0.6), (0.0, 1.0), (0.25, 0.25), (0.49999, 0.50001), (0.0, 0.0), (1.0, 1.0), (0.9, 1.0)]
)
def test_quantiles_are_those_of_the_sorted_ring(quantiles, split):
    rng = np.random.default_rng(3)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    found = quantile_filter(frames, bins, quantiles=quantiles).compute()
    for frame, ring in np.ndindex(found.intensity.shape):
        intensity, share, norm, _ = reference.entries_of(frames[frame], bins, ring)
        largest = intensity.max(initial=100) if quantiles[1] == 1 else 100  # a hot pixel, whose part is then in the mean
        same(found.intensity[frame, ring], reference.quantile_mean(intensity, share, norm, *quantiles), scale=largest)
        same(found["count"][frame, ring], share.sum())


LONG_RINGS = {
    "few counts": lambda rng: rng.poisson(0.3, 5000),
    "clusters": lambda rng: rng.poisson(100, 5000),
    "spread": lambda rng: rng.normal(0, 1, 5000) ** 7,
    "two heaps": lambda rng: np.where(rng.random(5000) < 0.45, rng.normal(1, 0.01, 5000), rng.normal(1e6, 1, 5000)),
    "hardly measured": lambda rng: np.where(rng.random(5000) < 0.99, np.nan, rng.uniform(0, 1, 5000)),
    "rising": lambda rng: np.arange(5000.0),
    "the same": lambda rng: np.full(5000, 7.0),
}


@pytest.mark.parametrize("equal_norms", [True, False])
@pytest.mark.parametrize("kind", LONG_RINGS)
def test_quantiles_of_long_rings(kind, equal_norms):
    """In all lanes, whatever a sample says of a ring."""
    rng = np.random.default_rng(8)
    frames = np.stack([rng.permutation(LONG_RINGS[kind](rng)) for _ in range(20)]).reshape(20, 1, -1).astype(np.float32)
    bins = make_bins(np.zeros((1, 5000), int), None if equal_norms else rng.uniform(0.99, 1.01, (1, 5000)))
    for low, high in ((0, 0), (0, 0.03), (0.1, 0.1), (0.4, 0.6), (0.5, 0.5), (0.97, 1), (1, 1)):
        found = quantile_filter(frames, bins, quantiles=(low, high)).compute()
        for frame, values in enumerate(frames):
            intensity, share, norm, _ = reference.entries_of(values, bins, 0)
            wanted = reference.quantile_mean(intensity, share, norm, low, high)
            np.testing.assert_allclose(found.intensity[frame, 0], wanted, rtol=2e-6, atol=2e-7 * np.abs(intensity).max() * (high - low))
            assert found["count"][frame, 0] == len(intensity)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), pixels=st.lists(st.tuples(VALUES, st.sampled_from([0.25, 0.5, 0.75, 1, 3])), min_size=1, max_size=60))
def test_ranges_whose_edges_are_on_borders_of_pixels_or_beside_them(data, pixels):
    """Also of repeated values, and of a hot pixel that lies just beside the range. The norms' sums are exact in either way of adding."""
    values, norm = np.array(pixels, np.float32).T
    bins = make_bins(np.zeros((1, len(norm)), int), norm[None])
    frames = (values * norm).reshape(1, 1, -1)
    borders = np.append(0, np.cumsum(norm[np.argsort(values, kind="stable")], dtype=float)) / norm.sum(dtype=float)
    edge = st.builds(lambda border, beside: min(1.0, max(0.0, border + beside)), st.sampled_from(list(borders)) | st.floats(0, 1), BESIDE)
    low, high = sorted((data.draw(edge), data.draw(edge)))
    wanted = reference.quantile_mean(values.astype(float), np.ones(len(norm)), norm.astype(float), low, high)
    inner = values[(borders[1:] > low) & (borders[:-1] < high)] if high > low else values
    found = quantile_filter(frames, bins, quantiles=(low, high)).compute().intensity.item()
    same(found, wanted, scale=np.abs(inner).max(initial=1))


@pytest.mark.parametrize(
    ("quantiles", "wanted"), [((0.4999, 0.5001), 500.5), ((0.5001, 0.51), 1000), ((0.49, 0.4999), 1), ((0.4, 0.6), 500.5)]
)
def test_narrow_ranges_beside_a_border(quantiles, wanted):
    assert quantile_filter([[[1.0, 1000]]], make_bins([[0, 0]]), quantiles=quantiles).compute().intensity.item() == pytest.approx(
        wanted, rel=1e-6
    )


@pytest.mark.parametrize("norms", [(1.0, 1.0005), (1.0005, 1.0)])
def test_the_median_is_the_heavier_pixel(norms):
    """However little it is heavier, beyond rounding: of 1 and 1000 the middle of the weight lies in one of them."""
    bins = make_bins([[0, 0]], [norms])
    found = median_filter(np.array([[norms]]) * [1, 1000], bins).compute().intensity.item()
    assert found == pytest.approx([1, 1000][np.argmax(norms)])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_median_is_numpys(count):
    frames = np.random.default_rng(count).integers(0, 9, (30, 1, count)).astype(np.uint16)
    found = median_filter(frames, make_bins(np.zeros((1, count), int))).compute().intensity[:, 0]
    np.testing.assert_array_equal(found, np.median(frames[:, 0], axis=1))


def test_results_do_not_depend_on_blocks_or_neighbours():
    rng = np.random.default_rng(4)
    bins = random_rings(rng)
    frames = random_frames(rng, bins.shape, 37)
    noise = xr.DataArray(rng.uniform(1, 200, frames.shape), dims=("frame", "y", "x")).chunk({"frame": 3, "y": 4})
    calls = [
        *(partial(sigma_clip, bins=bins, threshold=2.0, error_model=model) for model in MODELS),
        *(partial(job, bins=bins, threshold=2.0, variance=noise) for job in (sigma_clip, outlier_mask)),
        partial(integrate, bins=bins, variance=noise),
        partial(outlier_mask, bins=bins, threshold=2.0),
        partial(quantile_filter, bins=bins),
    ]
    for call in calls:
        whole = call(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": 37})).compute()
        for size in (1, 5, 16, 17):
            parts = call(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": size, "x": 7})).compute()
            xr.testing.assert_identical(parts, whole)


def test_profiles_know_their_frames():
    frames = xr.DataArray(np.ones((3, 1, 4)), dims=("frame", "y", "x"), coords={"frame": [4, 5, 9], "angle": ("frame", [0.1, 0.2, 0.3])})
    for job in (integrate, sigma_clip, median_filter):
        found = job(frames, make_bins([[0, 0, 1, 1]]))
        assert found.frame.values.tolist() == [4, 5, 9]
        assert found.angle.values.tolist() == [0.1, 0.2, 0.3]
        assert found.radial.attrs["units"] == "r_mm"


# ------------------------------------------------------------------------- what other tools get wrong, and what is right


def test_a_hot_pixel_does_not_wipe_a_poisson_ring():
    """pyFAI's Poisson clipping leaves nothing: its mean has gone to the hot pixel, from which all others are far."""
    frames = np.random.default_rng(5).poisson(100, (1, 1, 20)).astype(float)
    frames[0, 0, 3] = 1e6
    found = sigma_clip(frames, make_bins(np.zeros((1, 20), int)), error_model="poisson").compute()
    assert found["count"].item() == 19
    same(found.intensity.item(), np.delete(frames, 3).mean())


@pytest.mark.parametrize("given_variance", [False, True])
@pytest.mark.parametrize(
    ("counts", "left"),
    [
        ([100, 1e6], [100]),
        ([1e6, 100], [100]),
        ([100, 100, 1e6], [100, 100]),
        ([100, 100, 1e6, 1e6], [100, 100]),  # as many hot as not: the lower ones stay
        ([100, 110, 90, 1e6, 1e6, 1e6], [100, 110, 90]),
        ([0, 0, 1e6], [0, 0]),
        ([100, 1e6, 1e6], [1e6, 1e6]),
    ],
)
def test_hot_pixels_do_not_wipe_a_small_ring(counts, left, given_variance):
    """A median between the two halves of a ring is far from both: it is one of its pixels, and stays itself."""
    frames = np.array(counts, float).reshape(1, 1, -1)
    variance = np.maximum(frames, 1) if given_variance else None
    found = sigma_clip(frames, make_bins(np.zeros((1, len(counts)), int)), error_model="poisson", variance=variance).compute()
    assert found["count"].item() == len(left)
    same(found.intensity.item(), np.mean(left), scale=max(left))


@pytest.mark.parametrize("job", [sigma_clip, outlier_mask])
def test_clipping_without_an_error_model_is_refused(job):
    """pyFAI wipes every ring: all counts are 0."""
    with pytest.raises(InputError, match="sigma-clipping needs an error model"):
        job(np.ones((2, 3, 4)), make_bins(np.zeros((3, 4), int)), error_model="no")


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


@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize("job", [integrate, sigma_clip, median_filter, quantile_filter])
def test_empty_rings_behind_whole_batches_are_nan(job, parts):
    """Memory that nothing was written to is no profile."""
    rings = np.arange(BATCH).reshape(128, -1) * 4 // BATCH
    bins = make_bins(rings)
    bins = replace(
        bins, indptr=xr.DataArray(np.r_[bins.indptr, [BATCH] * 4], dims="edge"),
        centres=xr.DataArray(np.arange(8.0) if parts is None else np.arange(4.0), dims="radial"),
        azimuths=None if parts is None else xr.DataArray(np.arange(2.0), dims="azimuthal"),
    )  # fmt: skip
    found = job(np.ones((2, *rings.shape), np.float32), bins).compute()
    empty = {"radial": slice(4, None)} if parts is None else {"radial": slice(2, None)}
    assert np.isnan(found.intensity.isel(empty)).all()
    assert (found["count"].isel(empty) == 0).all()
    assert found["count"].sum() == 2 * BATCH


def test_nan_does_not_disorder_the_median():
    """pyFAI sorts NaN among the values."""
    frames = np.array([[[np.nan, 9, np.inf, 1, 5, np.nan]]])
    assert median_filter(frames, make_bins(np.zeros((1, 6), int))).compute().intensity.item() == 5


def test_a_narrow_range_never_empties_a_ring():
    """pyFAI takes whole pixels whose borders lie in the range: 0 if there is none."""
    frames = np.array([[[1.0, 2, 3]]])
    assert quantile_filter(frames, make_bins([[0, 0, 0]]), quantiles=(0.45, 0.46)).compute().intensity.item() == 2


def test_poisson_variance_has_the_dark_in_it():
    """pyFAI's compiled engines leave it out."""
    bins = make_bins([[0, 0]], dark=[[50.0, 50]])
    found = integrate(np.array([[[150.0, 150]]]), bins).compute()
    same(found["std"].item(), np.sqrt(150 + 50))


def test_spread_keeps_its_digits_when_what_was_far_off_has_gone():
    """The first pixels of a ring say about what its deviations are summed; here all of them go."""
    frames = np.random.default_rng(8).normal(100, 1, (1, 1, 5000)).astype(np.float32)
    frames[..., :40] = 1e7
    found = sigma_clip(frames, make_bins(np.zeros((1, 5000), int)), max_iterations=1).compute()
    assert found["count"].item() == 4960
    same(found["std"].item(), frames[0, 0, 40:].astype(float).std(), 1e-5, 0)
    same(found.intensity.item(), frames[0, 0, 40:].astype(float).mean())


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
    np.testing.assert_allclose(found["count"][0][several], peer.count[several], rtol=tolerance / 10)
    for name in names:
        np.testing.assert_allclose(found[name][0][several], getattr(peer, name)[several], rtol=tolerance, err_msg=name)


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


# ------------------------------------------------------------------------------------------------- drawing, and stores


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


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "q_nm"}, "unknown unit 'q_nm'; near are q_nm"),
        ({"split": "half"}, "expected split to be one of no, bbox, full"),
        ({"npt": 0}, "expected at least 1 ring, and 1 part of each, got 0 and None"),
        ({"npt": -3}, "got -3 and None"),
        ({"npt": np.nan}, "expected at least 1 ring, and 1 part of each, got nan and None"),
        ({"npt": None}, "got None and None"),
        ({"npt": "20"}, "got 20 and None"),
        ({"npt": 2.5}, "got 2.5 and None"),
        ({"npt_azimuth": 0}, "got 100 and 0"),
        ({"npt_azimuth": 2.5}, "got 100 and 2.5"),
        ({"radial_range": (None, 2)}, r"expected radial_range as two rising numbers, got \(None, 2\)"),
        ({"radial_range": ("a", 2)}, "expected radial_range as two rising numbers"),
        ({"azimuth_range": ((0, 1), 2)}, "expected azimuth_range as two rising numbers"),
        ({"polarization": "a"}, "polarisation factor between -1 and 1, got 'a'"),
        ({"unit": None}, "unknown unit 'None'"),
        ({"flat": np.ones((619, 487), np.longdouble)}, "a flat of integers or reals, got float128: give one of up to 64 bits"),
        ({"mask": np.ones((619, 487))}, "no pixel is left"),
        ({"mask": np.ones((3, 4))}, r"expected a mask of shape \(619, 487\)"),
        ({"radial_range": (2, 1)}, r"expected radial_range as two rising numbers, got \(2, 1\)"),
        ({"radial_range": (2, 2)}, r"expected radial_range as two rising numbers, got \(2, 2\)"),
        ({"radial_range": (np.nan, 2)}, "expected radial_range as two rising numbers"),
        ({"radial_range": 2}, "expected radial_range as two rising numbers, got 2"),
        ({"radial_range": (900, 901)}, "no pixel is left"),
        ({"radial_range": (35, 36), "azimuth_range": (170, 171)}, "no pixel is left .* look at mask, flat, radial_range and azimuth_range"),
        ({"flat": np.zeros((619, 487))}, "no pixel is left"),
        ({"flat": np.full((619, 487), np.nan)}, "no pixel is left"),
        ({"dark": np.full((619, 487), np.nan)}, "no pixel is left"),
        ({"flat": np.ones((3, 4))}, r"expected a flat of shape \(619, 487\)"),
        ({"dark": np.ones((3, 4))}, r"expected a dark of shape \(619, 487\)"),
        ({"polarization": 2}, "polarisation factor between -1 and 1"),
    ],
)
def test_bins_that_cannot_be(pilatus, options, message):
    with pytest.raises(InputError, match=message):
        build_bins(pilatus[0], **{"npt": 100, **options})


@pytest.mark.parametrize("unit", ["q_nm^-1", "q_A^-1", "d*2_nm^-2", "log(1+q.A)_None", "arcsinh(q.nm)_None"])
def test_q_needs_a_wavelength(unit):
    with pytest.raises(InputError, match=re.escape(f"no wavelength, which {unit} needs: add it, or take 2th_deg or r_mm")):
        build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), unit=unit)


@pytest.mark.parametrize("unit", ["2th_deg", "2th_rad", "r_mm", "r_m"])
def test_angles_and_distances_need_none(unit):
    assert build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), npt=10, unit=unit).unit == unit


def test_more_rings_than_pixels_warn(pilatus):
    """Those that are left, that is."""
    mask = np.ones(pilatus[1].shape, bool)
    mask[100:110, 100:120] = False
    with pytest.warns(UserWarning, match="201 bins for 200 pixels that are not masked: many will be empty"):
        build_bins(pilatus[0], npt=201, mask=mask)
    with pytest.warns(UserWarning, match="300 bins for 200 pixels that are not masked: many will be empty"):
        build_bins(pilatus[0], npt=100, npt_azimuth=3, mask=mask)
    build_bins(pilatus[0], npt=200, mask=mask)  # warnings are errors here


def test_numbers_and_units_of_other_types_are_as_good(pilatus):
    bins = build_bins(pilatus[0], npt=20.0, unit=pyFAI.units.to_unit("q_A^-1"), npt_azimuth=np.int8(3), radial_range=np.array([1, 2]))
    wanted = build_bins(pilatus[0], npt=20, unit="q_A^-1", npt_azimuth=3, radial_range=(1, 2))
    assert bins.unit == "q_A^-1"
    np.testing.assert_array_equal(bins.indices, wanted.indices)


@pytest.mark.parametrize("unit", ["q_nm^-1", "2th_deg"])
@pytest.mark.parametrize("from_file", [False, True])
def test_parallax_is_pyfais(poni, tmp_path, unit, from_file):
    """A thick sensor that is far off the normal: radii change by some per cent."""
    sensor = {"orientation": 3, "sensor": {"material": "Si", "thickness": 450e-6}}
    place = {"dist": 0.05, "poni1": 0.01, "poni2": 0.0, "rot2": 0.5, "wavelength": 0.4e-10}
    geometry = AzimuthalIntegrator(**place, detector=pyFAI.detector_factory("Pilatus 100k", sensor))
    plain = build_bins(geometry, npt=100, unit=unit)
    geometry.enable_parallax(True)
    geometry.save(str(tmp_path / "parallax.poni"))
    bins = build_bins(tmp_path / "parallax.poni" if from_file else geometry, npt=100, unit=unit)
    frame = np.random.default_rng(0).poisson(100, geometry.detector.shape)
    peer = geometry.integrate1d_ng(frame, 100, unit=unit, method=("no", "csr", "cython"))
    np.testing.assert_allclose(bins.centres, peer.radial, rtol=1e-6)
    np.testing.assert_allclose(bins.radius, geometry.array_from_unit(unit=unit), rtol=1e-6)
    found = integrate(frame, bins).compute()
    np.testing.assert_array_equal(found["count"][0], peer.count)
    assert abs(bins.radius / plain.radius - 1).max() > 3e-3


@pytest.mark.parametrize("geometry", [None, 3, np.zeros((4, 4))])
def test_what_is_no_geometry(geometry):
    with pytest.raises(InputError, match=r"expected a .poni file or a pyFAI geometry"):
        build_bins(geometry)


def test_a_geometry_without_a_model_takes_a_shape(tmp_path):
    (tmp_path / "old.poni").write_text(
        "PixelSize1: 1e-4\nPixelSize2: 1e-4\nDistance: 0.1\nPoni1: 0.002\nPoni2: 0.003\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
    )
    geometry = pyFAI.load(str(tmp_path / "old.poni"))
    for source in (tmp_path / "old.poni", geometry):
        assert build_bins(source, npt=10, shape=(40, 60)).shape == (40, 60)
        for images in ({"mask": np.zeros((40, 60), bool)}, {"flat": np.ones((2, 40, 60))}, {"dark": np.zeros((40, 60))}):
            assert build_bins(source, npt=10, **images).shape == (40, 60)
    assert geometry.detector.shape is None  # it is left as it was
    with pytest.raises(InputError, match="or give shape="):
        build_bins(tmp_path / "old.poni", npt=10)
    with pytest.raises(InputError, match=r"expected the shape \(195, 487\)"):
        build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), npt=10, unit="2th_deg", shape=(40, 60))


PONI = """poni_version: 2.1
Detector: Pilatus100k
Detector_config: {"orientation": 3}
Distance: 0.1
Poni1: 0.01
Poni2: 0.02
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""


@pytest.fixture
def poni(tmp_path):
    """Writes a .poni file."""

    def write(text):
        (tmp_path / "a.poni").write_text(text)
        return tmp_path / "a.poni"

    logging.disable(logging.CRITICAL)
    yield write
    logging.disable(logging.NOTSET)


def test_a_poni_file_is_a_geometry(poni):
    found, geometry = (build_bins(each, npt=100) for each in (poni(PONI), pyFAI.load(str(poni(PONI)))))
    np.testing.assert_array_equal(found.indices, geometry.indices)
    np.testing.assert_array_equal(found.indptr, geometry.indptr)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("poni_version", "got no Distance, Poni1, Poni2"),
        ("Detector_config", "cannot read .*a.poni as a .poni file"),
        ('"orientation"', "cannot read .*a.poni as a .poni file"),
        ("Distance", "got no Distance, Poni1, Poni2"),
        ("0.1\n", "cannot read .*a.poni as a .poni file: could not convert"),
        ("Poni1", "got no Poni1, Poni2, Rot1, Rot2, Rot3"),
        ("Poni2", "got no Poni2, Rot1, Rot2, Rot3"),
        ("Rot1", "expected Distance, Poni1, Poni2, Rot1, Rot2, Rot3, got no Rot1, Rot2, Rot3"),
        ("Rot3", "got no Rot3"),
        ("0.0\nRot3", "cannot read .*a.poni as a .poni file: could not convert"),
        ("Wavelength", "the geometry has no wavelength"),
        ("-10\n", "cannot read .*a.poni as a .poni file: could not convert"),
        ("0\n", "expected a wavelength from 1e-13 to 1e-8 m, got 0.1: is the .poni file whole"),
    ],
)
def test_truncated_poni_files(poni, end, message):
    with pytest.raises(InputError, match=message):
        build_bins(poni(PONI[: PONI.rindex(end)]))


def test_poni_files_of_a_newer_version(poni):
    with pytest.raises(InputError, match=r"cannot read .*a.poni as a .poni file: PONI file version 99.0 too recent"):
        build_bins(poni(PONI.replace("2.1", "99")))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*none.poni"):
        build_bins(tmp_path / "none.poni")


JOBS = (integrate, sigma_clip, outlier_mask, quantile_filter, median_filter)
SHAPE = r"expected frames of shape \(3, 4\) \(y, x\), as the bins, got"
THRESHOLDS = [(job, threshold) for job in (sigma_clip, outlier_mask) for threshold in (-1.0, 0, np.nan, "5", None)]
NO_BINS = r"expected AzimuthalBins, got 'bins.zarr': build them with build_bins, or load them with detcal.load"
NO_QUANTILES = ((0.6, 0.4), (-0.1, 0.5), (0.5, 1.4), (np.nan, 0.5), (0.5, np.nan), (0.5,), (0.2, 0.5, 0.7), 0.5, ("a", "b"), (None, 0.5))


def named(frames, name):
    """Frames with a coordinate."""
    return xr.DataArray(frames, dims=("frame", "y", "x"), coords={name: ("frame", np.arange(len(frames)))})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda frames, bins, job=job: job(frames[:, :2], bins), SHAPE) for job in JOBS),
        *((lambda frames, bins, job=job: job(frames.swapaxes(1, 2), bins), SHAPE) for job in JOBS),
        *((lambda frames, bins, job=job: job(frames[0, 0], bins), r"expected frames of shape \(frame, y, x\)") for job in JOBS),
        *(
            (lambda frames, bins, job=job, k=k: job(frames, bins, threshold=k), f"expected a positive threshold, got {k!r}")
            for job, k in THRESHOLDS
        ),
        *(
            (lambda frames, bins, q=q: quantile_filter(frames, bins, quantiles=q), f"from 0 to 1, got {re.escape(str(q))}")
            for q in NO_QUANTILES
        ),
        (lambda frames, bins: integrate(frames, bins, error_model="gauss"), "expected error_model to be one of"),
        (lambda frames, bins: integrate(frames, bins, error_model="hybrid"), "for sigma_clip"),
        (lambda frames, bins: integrate(frames, bins, variance=frames[:1, :, :2]), "expected variance of shape"),
        (
            lambda frames, bins: integrate(frames.astype(np.uint16), bins, dummy=-1),
            "expected a dummy that uint16 frames can hold, from 0 to 65535, got -1",
        ),
        (lambda frames, bins: median_filter(frames.astype(np.int16), bins, dummy=65535), "that int16 frames can hold"),
        (lambda frames, bins: sigma_clip(frames.astype(np.int32), bins, dummy=0.5), "that int32 frames can hold"),
        (lambda frames, bins: outlier_mask(frames, bins, dummy="a"), "expected a dummy that is a number, got 'a'"),
        (lambda frames, bins: outlier_mask(frames, bins, variance=frames[:1]), "expected a variance of shape"),
        (lambda frames, bins: sigma_clip(frames, bins, max_iterations=-1), "max_iterations of 0 or more"),
        (lambda frames, bins: sigma_clip(frames, bins, max_iterations=2.5), "max_iterations of 0 or more, got 2.5"),
        (
            lambda frames, bins: radial_background(integrate(frames, bins).intensity[:, 1:], bins),
            r"expected a DataArray \(frame, radial\) of 3 rings, .* got {'frame': 2, 'radial': 2}",
        ),
        (lambda frames, bins: radial_background(integrate(frames, bins), bins), "as intensity of a filter with these bins, got Dataset"),
        (lambda frames, bins: radial_background(np.ones((2, 3)), bins), "got ndarray"),
        (lambda frames, bins: radial_background(frames, "bins.zarr"), "expected AzimuthalBins, got 'bins.zarr'"),
        (
            lambda frames, bins: radial_background(integrate(frames, bins).intensity, replace(bins, azimuths=bins.centres)),
            "those of a 2-D integration: build them without npt_azimuth",
        ),
        *((lambda frames, bins, job=job: job(frames, "bins.zarr"), NO_BINS) for job in JOBS),
        (lambda frames, bins: integrate(named(frames, "std"), bins), "that profiles do not have, got std: rename"),
        (lambda frames, bins: sigma_clip(named(frames, "count"), bins), "got count: rename"),
        (lambda frames, bins: median_filter(named(frames, "radial"), bins), "got radial: rename"),
        (lambda frames, bins: integrate(frames.astype(np.longdouble), bins), "reals, got float128: give one of up to 64 bits"),
    ],
)
def test_requests_that_cannot_be(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((2, 3, 4)), make_bins(np.arange(12).reshape(3, 4) // 4))


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_azimuths_go_from_minus_180_or_from_0(split, poni):
    """A range that lies across 180° holds what its two halves hold; one all around holds everything."""
    geometry = poni(PONI)
    pixels = [
        set(build_bins(geometry, npt=20, split=split, azimuth_range=limits).indices.values)
        for limits in ((170, 190), (170, 180), (-180, -170), (0, 360), (-180, 180))
    ]
    assert pixels[0] == pixels[1] | pixels[2]
    assert len(pixels[0]) > 50
    assert pixels[3] == pixels[4] == set(build_bins(geometry, npt=20, split=split).indices.values)


@pytest.mark.parametrize("limits", [(-10, 190), (0, 400), (-190, 0), (10, 10), (20, 10), (np.nan, 10), (0, np.inf), 5])
def test_azimuths_that_there_are_not(limits, poni):
    with pytest.raises(InputError, match="expected azimuth_range"):
        build_bins(poni(PONI), npt=20, azimuth_range=limits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dist": 0}, "expected a distance above 0"),
        ({"dist": -1}, "expected a distance above 0"),
        ({"rot1": np.nan}, "and numbers for PONI and rotations"),
        ({"wavelength": -1e-10}, "expected a wavelength from 1e-13 to 1e-8 m, got -1e-10"),
        ({"wavelength": 1.0}, "expected a wavelength from 1e-13 to 1e-8 m, got 1.0"),
        ({"wavelength": 1e-14}, "expected a wavelength from 1e-13 to 1e-8 m"),
    ],
)
def test_geometries_that_cannot_be(change, message, poni):
    geometry = pyFAI.load(str(poni(PONI)))
    for name, value in change.items():
        setattr(geometry, name, value)
    with pytest.raises(InputError, match=message):
        build_bins(geometry, npt=20)


@pytest.mark.parametrize(("count", "value", "norm"), [(2, 3.7, 0.7), (40, 3.7, 0.3), (5, 1e6, 0.9), (30, -7.1, 0.11)])
def test_constant_rings_lose_nothing_by_rounding(count, value, norm):
    frames = np.full((1, 1, count), value, np.float32)
    found = sigma_clip(frames, make_bins(np.zeros((1, count), int), np.full((1, count), norm))).compute()
    assert found["count"].item() == count
    assert 0 <= found["std"].item() < 1e-5 * abs(value / norm)


def test_an_outlier_in_any_ring_is_one():
    frames = np.full((1, 1, 41), 100.0)
    frames[..., 20:] = 1000
    bins = replace(
        make_bins(np.arange(41).reshape(1, 41) // 21),
        indptr=xr.DataArray(np.array([0, 21, 42]), dims="edge"),
        indices=xr.DataArray(np.r_[:21, 20:41].astype(np.int32), dims="entry"),
        data=xr.DataArray(np.full(42, 0.5, np.float32), dims="entry"),
    )  # fmt: skip
    assert np.flatnonzero(outlier_mask(frames, bins, threshold=3.0).values).tolist() == [20]


@pytest.mark.parametrize("norm", [0.1, 0.3, 0.7])
def test_medians_between_pixels_whose_weights_are_rounded(norm):
    for count in range(2, 200, 14):
        frames = np.random.default_rng(count).permutation(count).astype(np.float32).reshape(1, 1, count)
        bins = make_bins(np.zeros((1, count), int), np.full((1, count), norm))
        same(median_filter(frames, bins).compute().intensity.item(), (count - 1) / 2 / norm, 1e-6, count)


@pytest.mark.parametrize("split", ["no", "bbox"])
def test_results_do_not_depend_on_which_rings_are_loaded_together(split, monkeypatch):
    rng = np.random.default_rng(2)
    frames = random_frames(rng, (60, 77))
    noise = random_variance(rng, frames.shape)
    detector = pyFAI.detectors.Detector(172e-6, 172e-6, max_shape=frames.shape[1:])
    geometry = AzimuthalIntegrator(dist=0.1, poni1=0.005, poni2=0.007, detector=detector, wavelength=1e-10)
    found = []
    for batch in (kernels.BATCH, 100):
        monkeypatch.setattr(kernels, "BATCH", batch)
        bins = build_bins(geometry, npt=40, split=split)
        assert (len(bins.in_memory.compute().batches) > 2) == (batch == 100)
        profiles = [integrate(frames, bins), sigma_clip(frames, bins, threshold=2.0, variance=noise), quantile_filter(frames, bins)]
        found.append([each.compute() for each in (*profiles, outlier_mask(frames, bins, threshold=2.0, variance=noise))])
    assert found[0][3].any()
    for whole, parts in zip(*found, strict=True):
        xr.testing.assert_identical(whole, parts)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_clipping_stops_after_so_many_iterations(most):
    rng = np.random.default_rng(1)
    frames, bins = rng.normal(0, 1, (1, 1, 500)) ** 5, make_bins(np.zeros((1, 500), int))
    kept = reference.clip(*reference.entries_of(frames[0], bins, 0), "azimuthal", 3.0, most)
    assert sigma_clip(frames, bins, threshold=3.0, max_iterations=most).compute()["count"].item() == kept.sum()
    np.testing.assert_array_equal(outlier_mask(frames, bins, threshold=3.0, max_iterations=most).values.ravel(), ~kept)


def test_a_wiped_ring_is_sought_about_the_median_of_what_was_there():
    frames = np.array([100.0] * 10 + [160] * 8 + [1e5, 1e9]).reshape(1, 1, 20)
    variance = np.array([100.0] * 19 + [1e17]).reshape(1, 1, 20)
    found = sigma_clip(frames, make_bins(np.zeros((1, 20), int)), threshold=5.0, max_iterations=2, variance=variance).compute()
    assert found["count"].item() == 10
