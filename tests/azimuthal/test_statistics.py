"""Frames in rings against slow statistics and closed forms."""

import threading
import time
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import pyFAI
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import (
    build_bins,
    integrate,
    kernels,
    median_filter,
    outlier_mask,
    quantile_filter,
    sigma_clip,
)
from detcal.azimuthal import profiles as profiles_module
from detcal.azimuthal.kernels import BATCH
from detcal.errors import InputError
from tests.azimuthal.rings import (
    BESIDE,
    MODELS,
    SEEDS,
    VALUES,
    agree_in_ring,
    make_bins,
    random_frames,
    random_rings,
    random_variance,
    same,
    trial,
)
from tests.reference import azimuthal as reference

FRAMES_SIDE_BY_SIDE, RINGS_SIDE_BY_SIDE = {"MOST_ROOM": 0}, {"MOST_ROOM": 100, "ONE_BY_ONE": 1e-9}

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


@pytest.mark.parametrize("split", [False, True])
def test_results_do_not_depend_on_blocks_or_neighbours(split):
    """Whether SIMD lanes hold frames, or rings of one frame: bit by bit."""
    rng = np.random.default_rng(4)
    bins = random_rings(rng, split=split)
    assert [bins.rows_for(size) > 0 for size in (1, 5, 16, 17, 37)] == [True, True, False, False, False]
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


def test_of_a_frame_without_readings_all_is_left_out():
    """Of the others pixels without a reading, and those in no ring, are no outliers."""
    frames = np.full((20, 1, 40), 100.0)
    frames[:, 0, 5], frames[:, 0, 6], frames[[3, 17]] = np.nan, 900, np.nan
    found = outlier_mask(frames, make_bins(np.where(np.arange(40) < 38, 0, -1).reshape(1, 40)), threshold=3.0).values[:, 0]
    assert found[[3, 17]].all()
    assert np.argwhere(np.delete(found, [3, 17], axis=0))[:, 1].tolist() == [6] * 18


@pytest.mark.parametrize("norm", [0.1, 0.3, 0.7])
def test_medians_between_pixels_whose_weights_are_rounded(norm):
    for count in range(2, 200, 14):
        frames = np.random.default_rng(count).permutation(count).astype(np.float32).reshape(1, 1, count)
        bins = make_bins(np.zeros((1, count), int), np.full((1, count), norm))
        same(median_filter(frames, bins).compute().intensity.item(), (count - 1) / 2 / norm, 1e-6, count)


@pytest.mark.filterwarnings("ignore:outliers among pixels that are split")
@pytest.mark.parametrize("split", ["no", "bbox"])
def test_results_do_not_depend_on_which_rings_are_loaded_together_nor_by_which_thread(split, monkeypatch):
    rng = np.random.default_rng(2)
    frames = random_frames(rng, (60, 77))
    noise = random_variance(rng, frames.shape)
    detector = pyFAI.detectors.Detector(172e-6, 172e-6, max_shape=frames.shape[1:])
    geometry = AzimuthalIntegrator(dist=0.1, poni1=0.005, poni2=0.007, detector=detector, wavelength=1e-10)
    found, by_rows = [], RINGS_SIDE_BY_SIDE | {"ROWS": 30}
    by_frames = FRAMES_SIDE_BY_SIDE | {"BATCH": 100}
    for threads, ways in (1, FRAMES_SIDE_BY_SIDE), (1, by_frames), (1, RINGS_SIDE_BY_SIDE), (1, by_rows), (3, by_rows):
        monkeypatch.setattr(profiles_module, "threads_a_block", mock.Mock(return_value=threads))
        for name, value in ways.items():
            monkeypatch.setattr(kernels, name, value)
        bins = build_bins(geometry, npt=40, split=split)
        rings = bins.rings_for(len(frames)).compute()
        assert isinstance(rings, kernels.RingLanes) == (ways["MOST_ROOM"] > 0)
        assert (len(rings.batches) > 2) == (not {"BATCH", "ROWS"}.isdisjoint(ways))
        profiles = [integrate(frames, bins), sigma_clip(frames, bins, threshold=2.0, variance=noise), quantile_filter(frames, bins)]
        found.append([each.compute() for each in (*profiles, outlier_mask(frames, bins, threshold=2.0, variance=noise))])
    assert found[0][3].any()
    for each in zip(*found, strict=True):
        for other in each[1:]:
            xr.testing.assert_identical(each[0], other)


def test_an_error_in_a_thread_that_helps_is_raised(monkeypatch):
    """And is not a part of the profile that keeps what its memory held."""
    load, here = kernels.load_rows, threading.current_thread()

    def fail_elsewhere(*arguments):
        if threading.current_thread() is not here:
            raise MemoryError("no room")
        load(*arguments)
        time.sleep(0.01)  # the other one takes a batch meanwhile

    monkeypatch.setattr(kernels, "load_rows", fail_elsewhere)
    monkeypatch.setattr(kernels, "ROWS", 1)
    monkeypatch.setattr(profiles_module, "threads_a_block", mock.Mock(return_value=2))
    bins = make_bins(np.arange(256).reshape(16, 16) % 64)
    with pytest.raises(MemoryError, match="no room"):
        integrate(np.ones((1, 16, 16)), bins).compute(scheduler="synchronous")


@pytest.mark.parametrize(("rings", "lanes"), [(1, []), (64, [1, 2, 4, 8, 12, 20, 36])])
def test_lanes_hold_what_fills_them(rings, lanes):
    """By frames in a block; rings side by side of which fifteen would be empty take too much room."""
    bins = make_bins(np.arange(256).reshape(16, 16) % rings)
    assert [frames for frames in (1, 2, 4, 8, 12, 16, 20, 32, 36) if bins.rows_for(frames)] == lanes


def test_rings_of_the_same_length_lie_side_by_side():
    """Each of them once, though neighbours differ: sixteen times the longest of each sixteen would be twice the room of all."""
    lengths = np.array([1, 31] * 48)
    bins = make_bins(np.repeat(np.arange(96), lengths).reshape(1, -1))
    assert sorted(bins.neighbours[bins.neighbours >= 0]) == [*range(96)]
    assert bins.rows_for(1) * 16 == lengths.sum()


@pytest.mark.parametrize("count", [16, 31, 65])
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_single_frames_by_rings_side_by_side(count, dtype):
    """As many rings as lanes, one less, one more; of any type; with pixels of two rings."""
    rng = np.random.default_rng(3)
    frames = rng.integers(1, 200, (2, 30, count)).astype(dtype)
    bins = make_bins(np.tile(np.arange(count), (30, 1)), rng.uniform(0.5, 1.5, (30, count)))
    assert bins.rows_for(1)
    clipped, medians = sigma_clip(frames, bins, threshold=1.5).compute(), median_filter(frames, bins).compute()
    for frame, ring in np.ndindex(clipped.intensity.shape):
        entries = reference.entries_of(frames[frame], bins, ring)
        kept = reference.clip(*entries, "azimuthal", 1.5, 5)
        agree_in_ring(clipped, frame, ring, reference.statistics(*(values[kept] for values in entries), "azimuthal"))
        same(medians.intensity[frame, ring], reference.quantile_mean(*entries[:3], 0.5, 0.5))


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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_what_is_left_out_is_counted(model, split, noisy):
    """By ring: the readings that the mask says are outliers, and the count has not."""
    bins, frames, noise = trial(1, split)
    options = {"threshold": 3.0, "error_model": model, "variance": noise if noisy else None}
    found = sigma_clip(frames, bins, rejected=True, sums=True, **options).compute()
    plain = sigma_clip(frames, bins, sums=True, **options).compute()
    for name in plain:
        np.testing.assert_array_equal(found[name], plain[name])
    marked = outlier_mask(frames, bins, **options).values.reshape(len(frames), -1)
    wanted = marked.astype(float) @ bins.to_scipy().T
    np.testing.assert_allclose(found.rejected, wanted, rtol=1e-5, atol=1e-5)
    assert found.rejected.sum() > 5
    everything = sigma_clip(frames, bins, max_iterations=0, **options).compute()["count"]
    np.testing.assert_allclose(found.rejected + found["count"], everything, rtol=1e-6)
    assert found.rejected.attrs["units"] == "1"


def test_nothing_is_left_out_of_empty_rings_and_cakes_have_it_too():
    bins, frames, _ = trial(1, split=False)
    frames[:] = np.nan
    assert (sigma_clip(frames, bins, rejected=True).rejected == 0).all()
    bins = replace(bins, azimuths=xr.DataArray([0.0], dims="azimuthal"))
    assert sigma_clip(frames, bins, rejected=True).rejected.dims == ("frame", "azimuthal", "radial")
