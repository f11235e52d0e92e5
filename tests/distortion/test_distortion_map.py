"""From images of hole grids to maps, against simulated truth."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyFAI
import pytest
import xarray as xr
from pyFAI.spline import Spline
from scipy.spatial import cKDTree
from scipy.special import ndtr

import detcal
from detcal.distortion import DistortionMap, find_grid_points, fit_distortion, kernels, points
from detcal.distortion.smooth import left_out_residuals
from detcal.errors import InputError
from detcal.simulate import distort, hole_grid, undistort
from detcal.stores.sources.detector_files import find_detector

PITCH_M = 5e-3
SMALL = {"shape": (400, 480), "pitch_px": 40.0}
CASES = {
    "the issue's": {},
    "barrel": {"barrel": 0.15},
    "pincushion": {"barrel": -0.15},
    "rotated": {"rotation_deg": 20.0},
    "pitch 20": {"shape": (1024, 1024), "pitch_px": 20.0},
    "pitch 60": {"shape": (1024, 1024), "pitch_px": 60.0},
    "all at once": {"shape": (1024, 1024), "pitch_px": 30.0, "rotation_deg": 20.0, "barrel": 0.15, "shear": 0.03, "stretch": 1.05},
    "dark dots": {"shape": (1024, 1024), "pitch_px": 50.0, "dark_dots": True},
    "wide dots": {"shape": (1024, 1024), "pitch_px": 60.0, "dot_diameter_px": 30.0, "unevenness": 0.9, "background": 2000.0},
}


def matched(points_y, points_x, grid):
    """Errors (point, 2) of centres, and the number of the true dot of each."""
    distance, which = cKDTree(np.column_stack([grid.y, grid.x])).query(np.column_stack([points_y, points_x]))
    near = distance < 2
    found = np.column_stack([points_y, points_x])[near] - np.column_stack([grid.y, grid.x])[which[near]]
    return found, which[near], near


def map_error(grid, warp, step=4):
    """Distances in pixels between the map's corners and the true ones within the dots, moved onto each other rigidly."""
    places = np.stack(np.meshgrid(*(np.arange(size + 1)[::step] - 0.5 for size in warp.shape), indexing="ij"), axis=-1)
    known = np.pad(~warp.mask.values, ((0, 1), (0, 1)))[::step, ::step]
    true, found = grid.to_grid(places[known]) * PITCH_M, warp.corners_m.values[::step, ::step][known]
    true, found = true - true.mean(axis=0), found - found.mean(axis=0)
    left, _, right = np.linalg.svd(true.T @ found)
    turn = left @ np.diag([1, np.linalg.det(left @ right)]) @ right  # no mirror
    return np.linalg.norm((true @ turn - found) / warp.pixel_size_m, axis=1)


@pytest.mark.parametrize("barrel", [-0.15, 0, 0.03, 0.15])
def test_the_lens_of_the_simulation_is_undone(barrel):
    places = np.random.default_rng(0).uniform(0, 100, (50, 2))
    there = undistort(places, np.array([40.0, 60.0]), barrel, 70.0)
    np.testing.assert_allclose(distort(there, np.array([40.0, 60.0]), barrel, 70.0), places, atol=1e-9)


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


# --------------------------------------------------------------------------------------------------------- bad input


def two_grids():
    one, other = hole_grid(**SMALL, missing=0).image, hole_grid(shape=(400, 480), pitch_px=27.0, rotation_deg=31, missing=0, seed=1).image
    return np.concatenate([one[:, :240], other[:, 240:]], axis=1)


IMAGES = {
    "blank": (lambda: np.zeros((200, 200)), "blank or saturated"),
    "saturated": (lambda: np.full((200, 200), 65535, np.uint16), "blank or saturated"),
    "NaN": (lambda: np.full((200, 200), np.nan), "all NaN or masked"),
    "noise": (lambda: np.random.default_rng(0).poisson(100, (300, 300)), "no grid of dots"),
    "three dots": (lambda: hole_grid((90, 130), pitch_px=50.0).image, "no grid of dots|too few dots"),
    "two grids": (two_grids, "two grids"),
    "touching": (lambda: hole_grid(**SMALL, dot_diameter_px=39.0).image, "touch"),
    "colour": (lambda: np.zeros((200, 200, 3, 1)), "image of shape"),
    "a name": (lambda: "grid.edf", "image of shape"),
    "small": (lambda: np.eye(12), "at least 16"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_without_one_grid_are_refused(name):
    make, message = IMAGES[name]
    with pytest.raises(InputError, match=message) as caught:
        fit_distortion(make(), PITCH_M, dots="bright" if name == "touching" else "auto")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("diameter", [30.0, 34.0, 36.0, 38.0, 40.0, 42.0, 46.0, 50.0])
def test_what_is_between_large_dots_is_not_taken_for_dots(diameter):
    """The grid has a dot every 40 pixels: what is accepted has that spacing, and dots with light between them are."""
    image = hole_grid(**SMALL, barrel=0.0, missing=0, dot_diameter_px=diameter).image
    found, refused = {}, []
    for dots in ("auto", "bright", "dark"):
        try:
            found[dots] = fit_distortion(image, PITCH_M, dots=dots)
        except InputError as error:
            refused.append(str(error))
    assert all("touch" in line and "\n" not in line for line in refused)
    for warp in found.values():
        np.testing.assert_allclose(warp.pixel_size_m, PITCH_M / 40, rtol=2e-4)
    if diameter < 35:
        assert set(found) == {"auto", "bright"}


@pytest.mark.parametrize("pitch", [0, -1e-3, np.nan, np.inf, "5 mm"])
def test_a_pitch_is_positive(pitch):
    with pytest.raises(InputError, match="pitch_m"):
        fit_distortion(np.zeros((100, 100)), pitch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "spline"}, "method"), ({"order": 3}, "order"), ({"method": "polynomial", "order": 0}, "order"),
        ({"method": "polynomial", "order": 3.0}, "whole number"), ({"dot_diameter_px": "x"}, "dot_diameter_px as a number"),
        ({"method": "polynomial", "order": 9}, r"order of at most 7, which 104 dots carry, got 9"),
        ({"points": find_grid_points(hole_grid((160, 160), pitch_px=20.0).image)}, r"image of shape \(160, 160\) \(y, x\), as the points"),
        ({"dots": "red"}, "dots"), ({"dot_diameter_px": -1}, "dot_diameter_px"), ({"spacing_px": 0}, "spacing_px"),
        ({"mask": np.zeros((3, 3))}, "mask of shape"),
    ],
)  # fmt: skip
def test_options_that_there_are_not(options, message):
    with pytest.raises(InputError, match=message):
        fit_distortion(hole_grid(**SMALL).image, PITCH_M, **options)


def test_what_one_dot_alone_fixes_is_not_predicted_by_others():
    """A lone dot far off has all the weight in a plane of its own term; without it, nothing would be known there."""
    terms = np.array([[1.0, 0], [1, 0], [1, 0], [1, 1]])
    residuals, _ = left_out_residuals(np.linalg.qr(terms)[0], np.array([[1.0, 1], [2, 2], [3, 3], [9, 9]]))
    np.testing.assert_allclose(residuals[:3, 0], [-1.5, 0, 1.5], atol=1e-12)
    assert np.isinf(residuals[3]).all()


def test_a_hexagonal_grid_is_refused():
    """As a square one, its pixels would come out 221 and 158 µm large in place of 167."""
    nodes = np.stack(np.meshgrid(*(np.arange(-20, 20),) * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    turn = np.array([[np.cos(0.35), np.sin(0.35)], [-np.sin(0.35), np.cos(0.35)]])
    places = nodes @ np.array([[30 * np.sqrt(3) / 2, 15.0], [0, 30.0]]) @ turn + 200
    y, x = np.indices((400, 480))
    distance, _ = cKDTree(places).query(np.column_stack([y.ravel(), x.ravel()]))
    image = np.random.default_rng(0).poisson(200 + 3000 / (1 + np.exp((distance.reshape(y.shape) - 5) / 0.5)))
    with pytest.raises(InputError, match=r"steps are 30\.0 and 30\.0 pixels at 60°: it is hexagonal"):
        fit_distortion(image, PITCH_M)


def test_stacks_are_averaged_whatever_their_dimensions_order():
    """Over the frames that have a value; as an average image of the same counts."""
    image = hole_grid(**SMALL).image
    stack = np.stack([image] * 3)
    stack[1, :, 100:200] = np.nan
    wanted = fit_distortion(image, PITCH_M)
    for given in (stack, xr.DataArray(np.moveaxis(stack, 0, -1), dims=("y", "x", "frame"))):
        np.testing.assert_allclose(fit_distortion(given, PITCH_M).corners_m, wanted.corners_m, atol=1e-9)


# -------------------------------------------------------------------------------------------------------- interchange


@pytest.fixture(scope="module")
def warp():
    return fit_distortion(hole_grid(**SMALL).image, PITCH_M)


@pytest.mark.parametrize("name", ["warp.zarr", "warp.h5"])
def test_maps_come_back_as_they_were(warp, tmp_path, name):
    back = detcal.load(detcal.save(warp, tmp_path / name)).compute()
    assert isinstance(back, DistortionMap)
    np.testing.assert_array_equal(back.corners_m, warp.corners_m)
    np.testing.assert_array_equal(back.points.to_array(), warp.points.to_array())
    assert (back.pixel_size_m, back.pitch_m, back.method, back.order) == (warp.pixel_size_m, warp.pitch_m, warp.method, warp.order)


def quads_of(corners):
    return np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=2)


def test_pyfai_opens_a_saved_map_and_its_own_files_open_here(warp, tmp_path):
    detector = pyFAI.detector_factory(str(detcal.save(warp, tmp_path / "warp.h5")))
    np.testing.assert_allclose(detector.get_pixel_corners()[..., 1:], quads_of(warp.corners_m.values), atol=1e-7)
    np.testing.assert_array_equal(detector.mask != 0, warp.mask)
    np.testing.assert_allclose((detector.pixel1, detector.pixel2), warp.pixel_size_m)
    detector.save(str(tmp_path / "pyfai.h5"))
    back = detcal.load(tmp_path / "pyfai.h5")
    np.testing.assert_allclose(back.corners_m, warp.corners_m, atol=1e-7)
    np.testing.assert_array_equal(back.mask, warp.mask)
    assert back.cross_validated_rms_px is None


def test_fit2d_splines_are_read_as_pyfai_reads_them(tmp_path):
    spline = Spline()
    spline.grid, spline.pixelSize = 100.0, (50.0, 48.0)
    y, x = np.mgrid[:121, :161]
    spline.xDispArray, spline.yDispArray = 3 * np.sin(x / 40) * np.cos(y / 50), 2 * np.sin(x / 50 + y / 30)
    with warnings.catch_warnings():  # of how pyFAI calls scipy
        warnings.simplefilter("ignore", DeprecationWarning)
        spline.array2spline(smoothing=1)
    spline.write(str(tmp_path / "fit2d.spline"))
    found = detcal.load(tmp_path / "fit2d.spline")
    peer = pyFAI.detectors.Detector(splinefile=str(tmp_path / "fit2d.spline"))
    assert found.shape == peer.shape
    np.testing.assert_allclose(quads_of(found.corners_m.values), peer.get_pixel_corners()[..., 1:], atol=1e-7)


def test_damaged_map_files_are_refused(warp, tmp_path):
    path = tmp_path / "cut.spline"
    path.write_text("SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS\n\n  VALID REGION\n")
    with pytest.raises(InputError, match=r"cut\.spline"):
        detcal.load(path)
    whole = detcal.save(warp, tmp_path / "warp.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.h5"):
        detcal.load(tmp_path / "cut.h5")
    with pytest.raises(InputError, match="DistortionMap"):
        detcal.distortion.correct_distortion(
            np.zeros((1, 400, 480)), detcal.load(detcal.save(np.zeros((2, 3, 3)), tmp_path / "other.zarr"))
        )


def a_chunk(store, name):
    return next(path for path in sorted((store / name).rglob("*")) if path.is_file() and path.name != "zarr.json")


def flip_a_byte(store):
    path = a_chunk(store, "corners_m")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_the_size(store):
    with open(store / "zarr.json") as file:
        described = json.load(file)
    del described["attributes"]["pixel_size_m"]
    (store / "zarr.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: shutil.rmtree(store / "mask"), "all of mask"),
        (lambda store: a_chunk(store, "corners_m").unlink(), "all of corners_m"),
        (flip_a_byte, "cannot read"), (drop_the_size, "pixel_size_m"),
    ],
)  # fmt: skip
def test_damaged_zarr_maps_are_refused(warp, tmp_path, damage, message):
    store = Path(detcal.save(warp, tmp_path / "warp.zarr"))
    damage(store)
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(store).compute()
    assert "\n" not in str(caught.value)
    assert "warp.zarr" in str(caught.value)


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory):
    """An NXdetector with corners, as pyFAI writes it."""
    detector = pyFAI.detectors.Detector(1e-4, 1e-4, max_shape=(4, 5))
    detector.uniform_pixel, detector.IS_FLAT, detector.mask = False, True, np.zeros((4, 5), np.int8)
    even = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij"), axis=-1) * 1e-4
    quads = np.zeros((4, 5, 4, 3), np.float32)
    quads[..., 1:] = quads_of(even)
    detector.set_pixel_corners(quads)
    path = tmp_path_factory.mktemp("detector") / "detector.h5"
    detector.save(str(path))
    return path


def changed(path, copy, **datasets):
    """A copy of a detector file with other datasets, or without those that are None."""
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        detector = find_detector(file)
        for name, value in datasets.items():
            if name in detector:
                del detector[name]
            if value is not None:
                detector[name] = value
    return copy


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"pixel_size": 1e-4}, "two positive numbers"), ({"pixel_size": np.ones(3)}, "two positive numbers"),
        ({"pixel_size": np.array([-1e-4, 1e-4])}, "two positive numbers"), ({"pixel_size": np.zeros(2)}, "two positive numbers"),
        ({"pixel_corners": None}, "without distortion"), ({"pixel_corners": "abc"}, "numbers as pixel_corners"),
        ({"pixel_corners": np.zeros((0, 5, 4, 3))}, "of shape"), ({"pixel_corners": np.zeros((4, 5, 4, 3))}, "every pixel"),
        ({"pixel_corners": np.full((4, 5, 4, 3), np.nan)}, "all masked"), ({"mask": np.zeros((3, 3))}, "a mask of shape"),
    ],
)  # fmt: skip
def test_damaged_detector_files_are_refused(detector_file, tmp_path, datasets, message):
    path = changed(detector_file, tmp_path / "damaged.h5", **datasets)
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(path)
    assert "\n" not in str(caught.value)
    assert "damaged.h5" in str(caught.value)


def test_units_of_detector_files_are_honoured(detector_file, tmp_path):
    wanted = detcal.load(detector_file)
    with h5py.File(changed(detector_file, tmp_path / "mm.h5"), "r+") as file:
        for name in ("pixel_corners", "pixel_size"):
            stored = find_detector(file)[name]
            stored[...] = stored[()] * 1e3
            stored.attrs["units"] = "mm"
    found = detcal.load(tmp_path / "mm.h5")
    np.testing.assert_allclose(found.corners_m, wanted.corners_m, rtol=1e-6)
    np.testing.assert_allclose(found.pixel_size_m, wanted.pixel_size_m)
    with h5py.File(tmp_path / "mm.h5", "r+") as file:
        find_detector(file)["pixel_corners"].attrs["units"] = "inch"
    with pytest.raises(InputError, match="got 'inch'"):
        detcal.load(tmp_path / "mm.h5")


def spline_text(region=(0.0, 0.0, 100.0, 80.0), knots_y=(0, 0, 0, 0, 80, 80, 80, 80), coefficient=0.7):
    def rows(values):
        numbers = [f"{value:14.7E}" for value in values]
        return "\n".join("".join(numbers[start : start + 5]) for start in range(0, len(numbers), 5)) + "\n"

    spline = "     8     8\n" + rows((0, 0, 0, 0, 100, 100, 100, 100)) + rows(knots_y) + rows([0.1] * 7 + [coefficient] + [0.1] * 8) + "\n"
    return (
        f"SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS\n\n  VALID REGION\n{rows(region)}\n"
        f"  GRID SPACING, X-PIXEL SIZE, Y-PIXEL SIZE\n{rows((1000, 50, 48))}\n  X-DISTORTION\n{spline}\n  Y-DISTORTION\n{spline}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficient": np.nan}, "NaN or infinity"), ({"coefficient": 1e30}, "displacements of less than"),
        ({"knots_y": (0, 0, 0, 0, 80, -80, 80, 80)}, "rising knots"), ({"region": (0, 0, 1e7, 8e7)}, r"a camera in .* of up to \d+ pixels"),
        ({"region": (0, 0, np.nan, 80)}, "cannot read"),
    ],
)  # fmt: skip
def test_damaged_splines_are_refused(tmp_path, options, message):
    path = tmp_path / "fit2d.spline"
    path.write_text(spline_text())
    assert detcal.load(path).shape == (80, 100)
    path.write_text(spline_text(**options))
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(path)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        detcal.load(path)


def test_spots_of_which_neither_kind_makes_a_grid_in_the_middle(monkeypatch):
    """The kind that looks most like one is taken: the other may have no spot from which to take a size."""
    monkeypatch.setattr(points, "cells_of", lambda *_: points.Cells(0.0, 0.0))
    grid = hole_grid(**SMALL)
    assert len(find_grid_points(grid.image)) >= len(grid.y)
