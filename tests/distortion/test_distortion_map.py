"""From images of hole grids to maps, against simulated truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import ndtr
from threadpoolctl import threadpool_info, threadpool_limits

import detcal
from detcal.distortion import find_grid_points, fit_distortion, geometry, kernels, points
from detcal.distortion.smooth import fit_polynomial
from detcal.simulate import distort, hole_grid, undistort
from tests.distortion.grids import CASES, PITCH_M, SMALL, map_error, matched


@pytest.mark.parametrize("barrel", [-0.15, 0, 0.03, 0.15])
def test_the_lens_of_the_simulation_is_undone(barrel):
    places = np.random.default_rng(0).uniform(0, 100, (50, 2))
    there = undistort(places, np.array([40.0, 60.0]), barrel, 70.0)
    np.testing.assert_allclose(distort(there, np.array([40.0, 60.0]), barrel, 70.0), places, atol=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        ((200, 0.99), (100, 0.99), True),
        ((100, 0.99), (200, 0.9), False),
        ((100, 0.99), (105, 0.9), True),
        ((100, 0.99), (200, 0.13), True),  # dark patches between bright dots, which some processors' rounding has made a grid of
        ((100, 0.99), (0, 0), True),
    ],
)
def test_the_grid_of_larger_cells_has_the_dots_if_they_look_like_dots(one, other, better):
    one, other = points.Cells(*one), points.Cells(*other)
    assert (points.is_better(one, other), points.is_better(other, one)) == (better, not better)


@pytest.mark.parametrize("name", CASES)
def test_grids_are_found_and_mapped(name):
    grid = hole_grid(**CASES[name])
    points = find_grid_points(grid.image)
    errors, which, near = matched(points.y.values, points.x.values, grid)
    assert len(set(which)) == len(grid.y), "every whole dot is found"
    assert np.sqrt((errors**2).sum(axis=1).mean()) < 0.05
    assert points.quality.values[near].min() > 0.9
    warp = fit_distortion(grid.image, PITCH_M, points=points)
    error = map_error(grid, warp)
    assert np.sqrt((error**2).mean()) < 0.05
    assert error.max() < 0.2
    assert warp.cross_validated_rms_px < 0.05
    _, which, near = matched(warp.point_y.values, warp.point_x.values, grid)
    nodes, index = np.column_stack([grid.row, grid.column])[which], np.column_stack([warp.row, warp.column])
    offset = (index[near] - nodes)[0]
    np.testing.assert_array_equal(index[near] - nodes, np.broadcast_to(offset, nodes.shape), "rows and columns are those of the grid")
    # an even grid through the true places of all its dots, also of those that the simulation leaves out of its list near the edge
    true = grid.to_pixels((index - offset).astype(float))
    steps = np.linalg.lstsq(np.column_stack([np.ones(len(index)), index]), true, rcond=None)[0][1:].T
    np.testing.assert_allclose(warp.pixel_size_m, np.hypot(*(PITCH_M * np.linalg.inv(steps))), rtol=1e-4)


def test_pixel_size_is_that_of_an_even_camera():
    grid = hole_grid(**SMALL, barrel=0.0, stretch=1.1, rotation_deg=3)
    warp = fit_distortion(grid.image, PITCH_M)
    np.testing.assert_allclose(warp.pixel_size_m, (PITCH_M / 44, PITCH_M / 40), rtol=1e-4)
    assert np.abs(warp.displacement_px[~np.pad(warp.mask.values, ((0, 1), (0, 1)), constant_values=True)]).max() < 0.05


@pytest.mark.parametrize("name", ["the issue's", "all at once"])
def test_the_corrected_image_calibrated_again_is_even(name):
    grid = hole_grid(**CASES[name])
    warp = fit_distortion(grid.image, PITCH_M)
    straight = detcal.distortion.correct_distortion(grid.image, warp)
    again = fit_distortion(straight, PITCH_M)
    inside = ~again.mask.values
    displacement = np.linalg.norm(again.displacement_px[:-1, :-1][inside], axis=-1)
    assert displacement.max() < 0.2
    steps = np.column_stack([np.ones(len(again.row)), again.row, again.column])
    places = np.column_stack([again.point_y, again.point_x])
    misplaced = np.linalg.norm(places - steps @ np.linalg.lstsq(steps, places, rcond=None)[0], axis=1) / CASES[name].get("pitch_px", 97)
    assert misplaced.max() < 0.003
    assert misplaced.mean() < 0.0006


@pytest.mark.parametrize("method", ["polynomial", "cubic"])
def test_models_predict_left_out_dots(method):
    grid = hole_grid(shape=(1024, 1024), pitch_px=30.0, barrel=0.05)
    warp = fit_distortion(grid.image, PITCH_M, method=method)
    assert warp.method == method
    assert np.sqrt((map_error(grid, warp) ** 2).mean()) < 0.05
    assert warp.cross_validated_rms_px < 0.1


def test_a_fit_keeps_to_one_thread(monkeypatch):
    """Threads of BLAS wait in loops, which beside other work takes many times as long as the fit."""
    counts = []

    def counted(*arguments):
        counts.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return fit_polynomial(*arguments)

    monkeypatch.setattr(geometry, "fit_polynomial", counted)
    with threadpool_limits(2, "blas"):
        fit_distortion(hole_grid((160, 160), pitch_px=20).image, 5e-3)
    assert set(counts) == {1}


def test_a_fault_of_the_taper_is_followed_by_local_cubics():
    """A step of three pixels, which polynomials round off: cross-validation tells."""
    grid = hole_grid(shape=(700, 700), pitch_px=20.0, barrel=0.02, missing=0)
    points = find_grid_points(grid.image)
    moved = points.x + 1.5 * np.tanh((points.y - 350) / 5)
    warp = fit_distortion(grid.image, PITCH_M, points=replace(points, x=moved))
    polynomial = fit_distortion(grid.image, PITCH_M, method="polynomial", points=replace(points, x=moved))
    assert warp.method == "cubic"
    assert warp.cross_validated_rms_px < 0.7 * polynomial.cross_validated_rms_px


def test_dust_and_hot_pixels_are_left_out():
    grid = hole_grid(**SMALL, missing=0.05)
    image = grid.image.copy()
    rng = np.random.default_rng(3)
    for y, x in rng.integers(10, 380, (12, 2)):
        image[y : y + 2, x : x + 3] += 20000
    image.flat[rng.choice(image.size, 30)] = 60000
    warp = fit_distortion(image, PITCH_M)
    clean = fit_distortion(grid.image, PITCH_M)
    assert len(warp.point_y) > 0.7 * len(clean.point_y)
    assert np.sqrt((map_error(grid, warp) ** 2).mean()) < 0.05


@pytest.mark.parametrize("dark_dots", [False, True], ids=["bright", "dark"])
@pytest.mark.parametrize("diameter", [5.0, 15.0])
@pytest.mark.parametrize("share", [3e-4, 1e-3, 3e-3])
def test_hot_and_dead_pixels_cost_no_dots(share, diameter, dark_dots):
    """From twice as high as the dots to a hundred times; nothing is given, and nothing is masked."""
    grid = hole_grid(shape=(600, 700), pitch_px=50.0, dot_diameter_px=diameter, dark_dots=dark_dots)
    rng = np.random.default_rng(2)
    hot, dead = rng.random((2, *grid.image.shape)) < [[[share]], [[share / 3]]]
    image = np.where(hot, 3200 * np.exp(rng.uniform(np.log(2), np.log(100), grid.image.shape)), np.where(dead, 0, grid.image))
    warp, clean = fit_distortion(image, PITCH_M), fit_distortion(grid.image, PITCH_M)
    dots = cKDTree(np.column_stack([clean.point_y, clean.point_x]))
    away, which = dots.query(np.column_stack([warp.point_y, warp.point_x]))
    assert away.max() < 1, "no hot pixel is a dot"
    assert len(set(which)) >= 0.97 * dots.n
    assert np.sqrt((map_error(grid, warp) ** 2).mean()) < 1.2 * np.sqrt((map_error(grid, clean) ** 2).mean())


@pytest.mark.parametrize("blur", [0.3, 0.8])
@pytest.mark.parametrize("place", [0.0, 0.5])
def test_the_smallest_dots_are_no_hot_pixels(place, blur):
    """Dots of 2.5 pixels, in the middle of a pixel or on its corner."""
    y, x = np.indices((200, 200)) + 4  # none is cut
    image = ndtr((1.25 - np.hypot((y + place + 8) % 16 - 8, (x + place + 8) % 16 - 8)) / blur) * 1000 + 50
    assert not kernels.lone_pixels(image.astype(np.float32), np.float32(5)).any()


def test_masked_and_nan_pixels_are_not_looked_at():
    grid = hole_grid(**SMALL)
    image, mask = grid.image.copy(), np.zeros(grid.image.shape, bool)
    image[100:160, 100:160], mask[200:260, 300:380] = np.nan, True
    image[mask] = 1e6
    points = find_grid_points(image, mask=mask)
    assert not ((points.y > 98) & (points.y < 162) & (points.x > 98) & (points.x < 162)).any()
    assert np.sqrt((matched(points.y.values, points.x.values, grid)[0] ** 2).sum(axis=1).mean()) < 0.05


@pytest.mark.parametrize("share", [0.001, 0.005, 0.01, "lines"])
def test_dead_pixels_cost_no_dots(share):
    grid = hole_grid(shape=(600, 700), pitch_px=60.0)
    dead = np.arange(600)[:, None] % 60 == 4 if share == "lines" else np.random.default_rng(1).random(grid.image.shape) < share
    image = np.where(dead, np.nan, grid.image)
    warp = fit_distortion(image, PITCH_M)
    _, which, _ = matched(warp.point_y.values, warp.point_x.values, grid)
    assert len(set(which)) == len(grid.y), "every whole dot is found"
    assert np.sqrt((map_error(grid, warp) ** 2).mean()) < 0.05


def test_size_and_spacing_may_be_given():
    grid = hole_grid(**SMALL)
    points = find_grid_points(grid.image, dots="bright", dot_diameter_px=10.0, spacing_px=40.0)
    assert points.dot_diameter_px == pytest.approx(10, abs=0.3)
    assert points.spacing_px == 40
    assert len(points) >= len(grid.y)


def test_spots_of_which_neither_kind_makes_a_grid_in_the_middle(monkeypatch):
    """The kind that looks most like one is taken: the other may have no spot from which to take a size."""
    monkeypatch.setattr(points, "cells_of", lambda *_: points.Cells(0.0, 0.0))
    grid = hole_grid(**SMALL)
    assert len(find_grid_points(grid.image)) >= len(grid.y)
