"""Images of which no map can be made."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

from detcal.distortion import find_grid_points, fit_distortion
from detcal.distortion.smooth import left_out_residuals
from detcal.errors import InputError
from detcal.simulate import hole_grid
from tests.distortion.grids import PITCH_M, SMALL


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
