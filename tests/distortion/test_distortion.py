"""Resampling of frames against slow overlaps of polygons, and what must hold for any map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detcal
from detcal import open_frames
from detcal.distortion import DistortionMap, build_overlaps, correct_distortion, fit_distortion, plot_distortion, uncorrect
from detcal.errors import InputError
from detcal.frames.stack import as_stack
from detcal.simulate import hole_grid
from tests.reference import distortion as reference


def random_warp(seed=0, shape=(11, 13), move=0.3, size=(1e-4, 1.2e-4), masked=0.0):
    """Corners that are moved at random, less than makes pixels turn over."""
    rng = np.random.default_rng(seed)
    even = np.stack(np.meshgrid(*(np.arange(n + 1.0) for n in shape), indexing="ij"), axis=-1)
    corners = (even + rng.uniform(-move, move, even.shape)) * size
    return DistortionMap.of_corners(corners, size, rng.random(shape) < masked)


def random_frames(shape, count=3, seed=1):
    rng = np.random.default_rng(seed)
    frames = rng.poisson(100, (count, *shape)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.05] = np.nan
    return frames


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.4, 2.7]), tile_rows=st.integers(1, 20))
def test_overlaps_are_those_of_clipped_polygons(seed, scale, tile_rows):
    warp = random_warp(seed, masked=0.1)
    size = tuple(scale * pixel for pixel in warp.pixel_size_m)
    matrix = build_overlaps(warp, pixel_size_m=size, shape=(9, 14), tile_rows=tile_rows)
    shares, areas = reference.overlap_matrix(warp.corners_m.values / size, warp.mask.values, (9, 14))
    np.testing.assert_allclose(matrix.to_scipy().toarray(), shares, atol=1e-6)
    np.testing.assert_allclose(matrix.areas.values.ravel(), areas, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.3, 3.1]))
def test_shares_of_a_pixel_on_the_grid_sum_to_one(seed, scale):
    warp = random_warp(seed)
    size = tuple(scale * pixel for pixel in warp.pixel_size_m)
    matrix = build_overlaps(warp, shape="cover", pixel_size_m=size).to_scipy()
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("conserve", ["counts", "mean"])
def test_frames_are_resampled_by_the_formulas(conserve):
    warp = random_warp(masked=0.1)
    frames, variance = random_frames(warp.shape, 19), random_frames(warp.shape, 19, seed=2)
    found = correct_distortion(frames, warp, conserve=conserve, variance=variance, coverage=True).compute()
    scaled = warp.corners_m.values / warp.pixel_size_m
    shares, areas = reference.overlap_matrix(scaled, warp.mask.values, warp.shape)
    for frame, noise, values in zip(frames, variance, found.to_array().transpose("frame", ...).values, strict=True):
        wanted = reference.resample(frame.ravel(), noise.ravel(), shares, areas, conserve)
        for image, line in zip(values[:3], wanted, strict=True):
            np.testing.assert_allclose(image.ravel(), line, rtol=2e-5, atol=1e-4)
    np.testing.assert_array_equal(found.mask, np.isnan(found.corrected))


@pytest.mark.parametrize("mirror", [(slice(None, None, -1),), (slice(None), slice(None, None, -1))])
def test_a_mirrored_map_gives_mirrored_frames(mirror):
    warp, frames = random_warp(12), random_frames((11, 13))
    mirrored = DistortionMap.of_corners(warp.corners_m.values[mirror], warp.pixel_size_m, np.zeros(warp.shape, bool))
    wanted, found = correct_distortion(frames, warp).values, correct_distortion(frames[(slice(None), *mirror)], mirrored).values
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("corner", [(1.2, 2.6), (2.6, 1.6)])
def test_single_pixels_that_are_turned_over_or_cross_themselves_are_masked(corner):
    """As polygons, the others are whole: what they and only they cover has a value."""
    even = np.stack(np.meshgrid(*(np.arange(5.0),) * 2, indexing="ij"), axis=-1)
    even[1, 1] = corner
    matrix = build_overlaps(DistortionMap.of_corners(even, (1.0, 1.0), np.zeros((4, 4), bool)))
    lost = matrix.areas.values == 0
    assert 1 <= lost.sum() <= 3
    assert not lost[2:].any()
    assert not lost[:, 2:].any() or corner == (1.2, 2.6)
    shares, _ = reference.overlap_matrix(even, lost, (4, 4))
    np.testing.assert_allclose(matrix.to_scipy().toarray(), shares, atol=1e-6)


@pytest.mark.parametrize(
    ("corners", "options", "message"),
    [
        (np.zeros((12, 14, 2)), {}, "corners lie on lines or points"),
        (random_warp().corners_m.values, {"origin_m": (1.0, 1.0)}, "pixels of the map reach"),
    ],
)
def test_maps_that_reach_no_pixel_are_refused(corners, options, message):
    warp = DistortionMap.of_corners(corners, (1e-4, 1.2e-4), np.zeros((11, 13), bool))
    with pytest.raises(InputError, match=message):
        correct_distortion(np.zeros((1, 11, 13)), warp, **options).compute()


def test_counts_are_conserved():
    warp = random_warp(3, (60, 70))
    frames = np.random.default_rng(0).poisson(1000, (4, *warp.shape)).astype(np.uint16)
    straight = correct_distortion(frames, warp, shape="cover").compute()
    np.testing.assert_allclose(straight.sum(("y", "x")), frames.sum(axis=(1, 2)), rtol=1e-6)


def test_a_flat_field_stays_flat():
    warp = random_warp(4, (60, 70), masked=0.05)
    straight = correct_distortion(np.full((1, 60, 70), 7.0), warp, conserve="mean").values
    np.testing.assert_allclose(straight[np.isfinite(straight)], 7, rtol=1e-6)
    assert np.isfinite(straight).mean() > 0.9


@pytest.mark.parametrize("how", ["mask", "map", "nan", "dummy"])
def test_a_masked_hot_pixel_leaks_nothing(how):
    warp = random_warp(5, (20, 20))
    cold, hot = np.full((1, 20, 20), 3.0), np.full((1, 20, 20), 3.0)
    mask = np.zeros((20, 20), bool)
    mask[10, 10], cold[0, 10, 10], hot[0, 10, 10] = True, np.nan, np.nan if how == "nan" else 1e9
    options = {"mask": {"mask": mask}, "dummy": {"dummy": 1e9}}.get(how, {})
    if how == "map":
        warp = DistortionMap.of_corners(warp.corners_m.values, warp.pixel_size_m, mask)
    wanted = correct_distortion(cold, warp).values
    found = correct_distortion(hot, warp, **options).values
    np.testing.assert_array_equal(np.where(found == 1e9, np.nan, found), wanted)


def test_poisson_variance_is_that_of_the_counts():
    warp, counts = random_warp(6), np.random.default_rng(0).poisson(50, (2, 11, 13))
    found = correct_distortion(counts, warp, variance="poisson").compute()
    given_ = correct_distortion(counts, warp, variance=counts).compute()
    np.testing.assert_array_equal(found.variance, given_.variance)


def test_results_do_not_depend_on_blocks():
    warp, frames = random_warp(7, (40, 50)), random_frames((40, 50), 37)
    whole = correct_distortion(as_stack(frames).chunk({"frame": 37}), warp).compute()
    for size, rows in ((1, 3), (5, 40), (17, 7)):
        matrix = build_overlaps(warp, tile_rows=rows)
        parts = correct_distortion(as_stack(frames).chunk({"frame": size, "x": 9}), matrix).compute()
        np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("conserve", ["counts", "mean"])
def test_frames_of_many_tiles_are_the_matrix_times_the_frame(conserve):
    """And a frame's result is the same, bit by bit, beside one that misses pixels: what is covered is then summed anew."""
    warp, frames = random_warp(11, (75, 301), masked=0.02), np.random.default_rng(2).poisson(100, (18, 75, 301)).astype(np.float32)
    frames[3, 40:60, 100:200] = np.nan
    matrix = build_overlaps(warp).compute()
    found = correct_distortion(frames, matrix, conserve=conserve, coverage=True).compute()
    shares, areas = matrix.to_scipy().astype(float), matrix.areas.values.ravel().astype(float)
    for frame, image, cover in zip(frames.reshape(18, -1), found.corrected.values, found.coverage.values, strict=True):
        known = np.isfinite(frame)
        covered = shares @ (areas * known)
        values = (
            shares
            @ np.where(known, frame * (areas if conserve == "mean" else 1), 0)
            / (np.maximum(covered, 1e-9) if conserve == "mean" else 1)
        )
        np.testing.assert_allclose(cover.ravel(), covered, atol=1e-6)
        np.testing.assert_allclose(image.ravel(), np.where(covered > 1e-4, values, np.nan), rtol=1e-5)
    alone = correct_distortion(np.delete(frames, 3, axis=0), matrix, conserve=conserve, coverage=True).compute()
    np.testing.assert_array_equal(alone.to_array(), found.isel(frame=np.arange(18) != 3).to_array())


@pytest.mark.parametrize("conserve", ["counts", "mean"])
def test_uncorrect_undoes_the_correction(conserve):
    warp = random_warp(8, (30, 40), move=0.15)
    y, x = np.mgrid[:30, :40]
    frame = (100 + 50 * np.sin(x / 6) * np.cos(y / 5))[None]
    straight = correct_distortion(frame, warp, conserve=conserve, shape="cover")
    back = uncorrect(straight, warp, conserve=conserve, shape="cover").values
    np.testing.assert_allclose(back, frame, rtol=0.02)


def test_matrices_come_back_from_zarr_and_go_on(tmp_path):
    warp, frames = random_warp(9), random_frames((11, 13))
    matrix = detcal.load(detcal.save(build_overlaps(warp, tile_rows=3), tmp_path / "overlaps.zarr"))
    np.testing.assert_array_equal(correct_distortion(frames, matrix), correct_distortion(frames, warp))


def test_corrected_frames_are_saved_as_edf(tmp_path):
    straight = correct_distortion(random_frames((11, 13)), random_warp(10))
    back = open_frames(detcal.save(straight, tmp_path / "straight.edf"))
    np.testing.assert_array_equal(back, straight)
    with pytest.raises(InputError, match=r"a \.edf holds one stack"):
        detcal.save(correct_distortion(random_frames((11, 13)), random_warp(10), coverage=True), tmp_path / "two.edf")


def test_the_figure_has_dots_arrows_and_two_maps():
    figure = plot_distortion(fit_distortion(hole_grid((300, 300), pitch_px=30.0).image, 1e-3))
    assert [axis.get_title()[:12] for axis in figure.axes[:3]] == ["dots, displa", "displacement", "displacement"]
    from matplotlib import pyplot

    pyplot.close(figure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": np.zeros((2, 5, 5))}, "as the map"), ({"conserve": "energy"}, "conserve"),
        ({"mask": np.zeros((2, 2))}, "mask of shape"),
        ({"mask": np.ones((11, 13))}, "no pixel"), ({"shape": (0, 4)}, "a shape"), ({"shape": "all"}, "a shape"),
        ({"pixel_size_m": 0.0}, "pixel_size_m"), ({"pixel_size_m": 1e-7}, "larger pixel_size_m"), ({"origin_m": np.nan}, "origin_m"),
        ({"variance": "gauss"}, "variance"), ({"variance": np.zeros((3, 11, 13))}, "variance of shape"), ({"warp": 3}, "DistortionMap"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(options, message):
    arguments = {"frames": np.zeros((2, 11, 13)), "warp": random_warp(), **options}
    with pytest.raises(InputError, match=message) as caught:
        correct_distortion(**arguments)
    assert "\n" not in str(caught.value)


def test_a_matrix_has_its_grid_already():
    with pytest.raises(InputError, match="has its grid and mask already"):
        correct_distortion(np.zeros((1, 11, 13)), build_overlaps(random_warp()), shape=(3, 3))
