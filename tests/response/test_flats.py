"""Flats before, between and after the frames, and plain flat-field correction."""

import numpy as np
import pytest
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response, correct_response, remove_zingers
from tests.stores.test_selection import write_tomo

FRAMES, SHAPE = 20, (30, 40)
UNIT = Response.from_gain(np.ones(SHAPE), sigma=2.0)
BEAM = np.linspace(20000, 16000, FRAMES)  # fades by a fifth in the course of the scan


def images(levels):
    return np.asarray(levels, float)[:, None, None] * np.ones(SHAPE)


@pytest.mark.parametrize("response", [None, UNIT])
def test_transmission_does_not_follow_a_beam_that_fades(response):
    """Five flats before, five after; of single frames no mean level is off by 0.1 %."""
    flat = images([20000] * 5 + [16000] * 5)
    found = correct_response(images(BEAM / 2), response, flat=flat, flat_positions=[0] * 5 + [FRAMES - 1] * 5).values
    np.testing.assert_allclose(found, 0.5, rtol=1e-3)
    averaged = correct_response(images(BEAM / 2), response, flat=flat).values
    assert averaged[0].mean() > 1.1 * averaged[-1].mean()  # what positions are for


def test_frames_lie_between_the_nearest_groups_of_flats():
    """Three groups; before the first and after the last a flat stays what it was. Against numpy.interp."""
    rng = np.random.default_rng(0)
    flat, at = rng.uniform(100, 200, (5, *SHAPE)), [3.5, 3.5, 9.5, 9.5, 15.5]
    dark = rng.uniform(0, 5, SHAPE)
    frames = rng.uniform(50, 100, (FRAMES, *SHAPE))
    groups, places = [flat[:2].mean(axis=0), flat[2:4].mean(axis=0), flat[4]], [3.5, 9.5, 15.5]
    share = np.array([[np.interp(frame, places, row) for row in np.eye(3)] for frame in range(FRAMES)])
    wanted = (frames - dark) / (np.tensordot(share, groups, 1) - dark)
    for chunks in ({"frame": 1}, {"frame": 7}, {"frame": -1, "y": 8}):
        stack = xr.DataArray(frames, dims=("frame", "y", "x")).chunk(chunks)
        found = correct_response(stack, dark=dark, flat=flat, flat_positions=at)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_positions_may_be_a_coordinate_of_both():
    time = np.datetime64("2026-01-01T00:00") + np.arange(FRAMES) * np.timedelta64(60, "s")
    frames = xr.DataArray(images(BEAM / 2), dims=("frame", "y", "x"), coords={"time": ("frame", time)})
    flat = xr.DataArray(images([20000, 16000]), dims=("frame", "y", "x"), coords={"time": ("frame", time[[0, -1]])})
    np.testing.assert_allclose(correct_response(frames, flat=flat, flat_positions="time"), 0.5, rtol=1e-6)
    with pytest.raises(InputError, match="a coordinate of the flats, got 'time': they have none"):
        correct_response(frames, flat=flat.drop_vars("time"), flat_positions="time")


def test_numbers_in_the_same_file_are_positions():
    frames = xr.DataArray(images(BEAM / 2), dims=("frame", "y", "x"), coords={"frame_number": ("frame", np.arange(5, 25))})
    flat = xr.DataArray(images([20000] * 5 + [16000] * 5), dims=("frame", "y", "x"))
    flat = flat.assign_coords(frame_number=("frame", [*range(5), *range(25, 30)]))
    here = {"source": "scan.nxs::/entry/data"}
    found = correct_response(frames.assign_attrs(here), flat=flat.assign_attrs(here)).values
    between = np.interp(np.arange(5, 25), [2, 27], [20000, 16000])
    np.testing.assert_allclose(found[:, 0, 0], BEAM / 2 / between, rtol=1e-6)
    assert correct_response(frames.assign_attrs(here), flat=flat.assign_attrs(here)).attrs["flats"] == "interpolated between 2 groups"
    single = correct_response(frames[3].assign_attrs(here), flat=flat.assign_attrs(here)).values  # its number is of no dimension
    np.testing.assert_allclose(single, BEAM[3] / 2 / 18000, rtol=1e-6)
    elsewhere = correct_response(frames.assign_attrs(here), flat=flat.assign_attrs(source="other.nxs::/entry/data")).values
    np.testing.assert_allclose(elsewhere[:, 0, 0], BEAM / 2 / 18000, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*has an image_key")
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_frames_that_were_saved_since_lie_between_the_flats_of_their_file(suffix, tmp_path):
    key = np.repeat([1, 0, 1], [2, 5, 2])
    write_tomo(tmp_path / "scan.nxs", stack=images(np.linspace(2000, 1200, 9) / (2 - key)), key=key, angles=np.arange(9))
    frames, flat = (open_frames(tmp_path / "scan.nxs", frames=role) for role in ("projections", "flats"))
    again = open_frames(save(remove_zingers(frames), tmp_path / f"a.{suffix}"))
    found = correct_response(again, flat=flat, average="mean")
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)
    assert found.attrs["flats"] == "interpolated between 2 groups"


@pytest.mark.parametrize("wrong", [[0], [0, np.nan], ["first", "last"], 3])
def test_positions_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="flat_positions as 2 numbers"):
        correct_response(images(BEAM), flat=images([1, 2]), flat_positions=wrong)


def test_flats_taken_together_are_averaged_with_a_warning():
    with pytest.warns(UserWarning, match="without a frame between them"):
        found = correct_response(images([10]), flat=images([10, 30]), flat_positions=[1, 2])
    np.testing.assert_allclose(found, 0.5)


# --------------------------------------------------------------------------------------------- without a response


def test_plain_flat_field_correction():
    rng = np.random.default_rng(1)
    frames, dark, flat = rng.uniform(500, 1000, (3, *SHAPE)), rng.uniform(90, 110, SHAPE), rng.uniform(1900, 2100, (4, *SHAPE))
    flat[:, 3, 4] = dark[3, 4]
    bright = flat.mean(axis=0) - dark
    bright[3, 4] = np.nan
    wanted = (frames - dark) / bright
    found = correct_response(frames, dark=dark, flat=flat)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found.attrs["corrections"] == ["dark", "flat"]
    np.testing.assert_allclose(correct_response(frames, dark=100), frames - 100, rtol=1e-5)


def test_a_zinger_in_a_dark_makes_no_ring():
    darks = np.full((10, *SHAPE), 100.0)
    darks[4, 10, 10] += 60000
    found = correct_response(np.full((1, *SHAPE), 5100.0), UNIT, dark=darks, flat=np.full(SHAPE, 10100.0))
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a response, a dark or a flat to correct frames with"),
        ({"flat": images([5]), "residual_sigma": 3}, "residual_sigma needs a flat and a response"),
        ({"dark": 1, "flat_positions": [1]}, "flat_positions needs a flat"),
        ({"flat": 2.0}, "a flat image or flat frames, got 2.0"),
        ({"flat": images([5]), "average": "mode"}, "average to be one of"),
        ({"dark": "none"}, "a dark image, dark frames, or a number of counts, got 'none'"),
        ({"dark": 1, "response": np.ones(SHAPE)}, "expected a Response, got ndarray"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        correct_response(images([10]), **options)
