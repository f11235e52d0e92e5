"""Monitors, free regions and exposures: what makes one frame brighter than another, beside the sample."""

import re

import h5py
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.frames.selection import parse_frames
from detcal.response import Response, correct_response
from tests.pipelines.commands import change, detcal, fails

FRAMES, SHAPE = 12, (20, 30)
BEAM = np.linspace(1, 0.7, FRAMES)
UNIT = Response.from_gain(np.ones(SHAPE), sigma=2.0)


def images(levels, **coords):
    """Frames of a level each, over a dark of 100."""
    values = 100 + np.asarray(levels, float)[:, None, None] * np.ones(SHAPE)
    return xr.DataArray(values, dims=("frame", "y", "x"), coords={name: ("frame", line) for name, line in coords.items()})


@pytest.mark.parametrize("normalization", ["0:2, 0:2", 2.0])
def test_what_was_normalized_is_not_normalized_again(tmp_path, normalization):
    """Through files too."""
    save(correct_response(images([500, 600]), dark=100, normalization=normalization), tmp_path / "normalized.zarr")
    found, flat = open_frames(tmp_path / "normalized.zarr"), images([1000])
    with pytest.raises(InputError, match="got some that have had a normalization"):
        correct_response(found, flat=flat, normalization=normalization)
    assert correct_response(found, flat=flat).attrs["corrections"] == ["dark", "normalization", "flat"]


@pytest.mark.parametrize("response", [None, UNIT])
def test_a_monitor_of_frames_and_flats(response):
    """Flats of a stronger beam, read by the same monitor."""
    frames = images(5000 * BEAM, monitor=3e4 * BEAM)
    flat = images([30000, 24000], monitor=[9e4, 7.2e4])
    found = correct_response(frames, response, dark=100, flat=flat, normalization="monitor")
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)
    np.testing.assert_array_equal(found.monitor, 3e4 * BEAM)
    assert (found.attrs["units"], found.attrs["normalized_by"]) == ("1", "monitor")
    in_time = correct_response(frames, response, dark=100, flat=flat, normalization="monitor", flat_positions=[0, 11])
    np.testing.assert_allclose(in_time, 0.5, rtol=1e-5)
    with pytest.raises(InputError, match="expected a coordinate of the flats as normalization, got 'monitor': they have none"):
        correct_response(frames, response, flat=flat.drop_vars("monitor"), normalization="monitor")


def test_numbers_are_relative_to_those_of_the_flats():
    found = correct_response(images(5000 * BEAM), dark=100, flat=images([10000]), normalization=BEAM)
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)
    np.testing.assert_array_equal(found.normalization, BEAM)
    np.testing.assert_allclose(correct_response(images([500]), dark=100, normalization=4), 125, rtol=1e-6)


@pytest.mark.parametrize("region", ["2:8, 0:30", ":8,:", (slice(2, 8), slice(None))])
def test_the_open_beam_beside_the_sample_becomes_1(region):
    """Whatever the beam did; bad pixels of the region take no part."""
    frames = images(10000 * BEAM)
    frames[:, 8:] = 100 + (frames[:, 8:] - 100) * 0.3
    frames[3, 4, 4:9] = np.nan
    bad = np.zeros(SHAPE, bool)
    frames[:, 5, 5], bad[5, 5] = 60000, True
    for chunks in ({"frame": 5}, {"frame": -1, "y": 6}):
        found = correct_response(frames.chunk(chunks), dark=100, flat=images([9000]), normalization=region, mask=bad, fill="interpolate")
        np.testing.assert_allclose(np.nan_to_num(found[:, :8], nan=1), 1, rtol=1e-5)
        np.testing.assert_allclose(found[:, 8:], 0.3, rtol=1e-5)
        np.testing.assert_allclose(found.normalization, BEAM / 0.9, rtol=1e-5)
    assert found.attrs["units"] == "1"


def test_a_frame_without_a_beam_in_its_region_is_nan():
    frames = images(1000 * np.ones(3))
    frames[1, :5] = 100
    with pytest.warns(UserWarning, match="1 frames are NaN: nothing in their region is above 0, or was measured"):
        found = correct_response(frames, dark=100, normalization="0:5, 0:30").compute()
    assert np.isnan(found[1]).all()
    assert np.isnan(found.normalization[1])
    assert np.isfinite(found[[0, 2]]).all()


# ---------------------------------------------------------------------------------------------------------- exposures


@pytest.mark.parametrize("named", [True, False])
def test_frames_and_flats_of_other_exposures(named):
    """Frames of 0.5 s and flats of 0.1 s; by a coordinate, or by numbers."""
    times = {"frames": 0.5, "flat": [0.1, 0.1]}
    frames, flat = images(5000 * BEAM, t=np.full(FRAMES, 0.5)), images([2000, 2000], t=[0.1, 0.1])
    found = correct_response(frames, dark=100, flat=flat, exposure="t" if named else times)
    np.testing.assert_allclose(found, 0.5 * BEAM[:, None, None] * np.ones(SHAPE), rtol=1e-5)
    both = correct_response(frames, dark=100, flat=flat, exposure="t" if named else times, normalization=BEAM)
    np.testing.assert_allclose(both, 0.5, rtol=1e-5)


def test_an_attribute_of_the_file_is_an_exposure():
    frames, flat = images([5100]).assign_attrs(exposure_time_s=0.5), images([2000]).assign_attrs(exposure_time_s=0.1)
    np.testing.assert_allclose(correct_response(frames, dark=100, flat=flat, exposure="exposure_time_s"), 0.51, rtol=1e-5)


def test_darks_of_several_exposures():
    """A pixel leaks 40 counts a second over an offset of 100: frames of 0.5 s have 120, flats of 2 s 180."""
    darks = np.stack([np.full(SHAPE, 100 + 40 * t) for t in (0.25, 1.0, 1.0, 0.25)])
    options = {"dark": darks, "exposure": {"frames": 0.5, "flat": 2.0, "dark": [0.25, 1, 1, 0.25]}}
    frames, flat = np.full((2, *SHAPE), 120 + 1000.0), np.full((1, *SHAPE), 180 + 8000.0)
    np.testing.assert_allclose(correct_response(frames, flat=flat, **options), 0.5, rtol=1e-5)
    with pytest.raises(InputError, match="expected frames of one exposure, beside darks of 2, got 2: correct one after the other"):
        correct_response(frames, **options | {"exposure": {"frames": [0.5, 1.0], "dark": [0.25, 1, 1, 0.25]}})


def test_darks_of_another_exposure_are_warned_of():
    with pytest.warns(UserWarning, match="darks of an exposure of 0.1 are taken off frames of 2 as they are: give darks of both"):
        correct_response(images([5]), dark=np.ones(SHAPE), exposure={"frames": 2.0, "dark": 0.1})


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalization": 0}, "expected positive numbers as normalization, got 0 for frame 0"),
        ({"normalization": [1, np.nan]}, "got nan for frame 1: leave such frames out"),
        ({"normalization": [1, 2, 3]}, r"a normalization for each of the 2 frames, or one for all, got \(3,\) numbers"),
        ({"normalization": "current"}, "expected a coordinate of the frames as normalization, got 'current': they have none"),
        ({"normalization": "0:50, 0:5"}, r"expected a region \"y0:y1, x0:x1\" inside frames of \(20, 30\), got '0:50, 0:5'"),
        ({"normalization": "5:5, 0:5"}, "expected a region"),
        ({"normalization": "-50:, 0:5"}, "expected a region"),
        ({"normalization": (slice(0, 4, 2), slice(0, 5))}, "expected a region"),
        ({"exposure": {"flat": 1.0}}, "expected the exposure of frames too, got that of flat"),
        ({"exposure": {"frame": 1.0}}, "expected exposure as the name of a coordinate, or numbers by frames, flat and dark, got"),
        ({"exposure": 2.0}, "expected exposure as the name of a coordinate"),
        ({"exposure": {"frames": -1}}, "expected positive numbers as exposure, got -1 for frame 0"),
        ({"exposure": {"frames": 1}, "flat": images([9])}, "expected the exposure of flat too, got that of frames"),
    ],
)
def test_what_is_no_brightness_is_refused_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        correct_response(images([5, 6]), **{"dark": 100} | options)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- in a recipe


@pytest.fixture
def folder(tmp_path):
    """Frames of a beam that fades, half of them covered, a monitor and a flat."""
    frames = images(8000 * BEAM).values
    frames[:, 10:] = 100 + (frames[:, 10:] - 100) / 4
    with h5py.File(tmp_path / "ct.h5", "w") as file:
        file["data"], file["monitor"] = np.rint(frames).astype(np.uint16), BEAM
    save(np.full(SHAPE, 8100, np.uint16), tmp_path / "flat.h5")
    text = render("correct_response").replace('response = "', '# response = "').replace('dark = "dark.h5"', "dark = 100")
    (tmp_path / "r.toml").write_text(text.replace('"ct.h5"', '"ct.h5"\ndataset = "data"'))
    return tmp_path


@pytest.mark.parametrize("frames", ["2:6", "::-1", [7, 0]])
@pytest.mark.parametrize("named", [False, True])
def test_the_monitor_of_frames_that_are_chosen(folder, frames, named):
    """Of their own file, as they are chosen there; or as the table says, of whatever file."""
    written = f'"{frames}"' if isinstance(frames, str) else f"{frames}"
    change(folder, "r.toml", 'dataset = "data"', f'dataset = "data"\nframes = {written}')
    name = "monitor.h5" if named else "ct.h5"
    with h5py.File(folder / name, "a") as file:
        file["beside"] = BEAM
    chosen = f", frames = {written}" if named else ""
    change(folder, "r.toml", '# normalization = "0:50, 0:2000"', f'normalization = {{ path = "{name}", dataset = "beside"{chosen} }}')
    detcal(folder, "run", "r.toml", "--workers", "2")
    wanted = BEAM[parse_frames(frames) if isinstance(frames, str) else frames]
    np.testing.assert_allclose(xr.open_zarr(folder / "corrected.zarr").normalization, wanted)


def test_numbers_for_the_frames_that_are_chosen_alone_stay(folder):
    change(folder, "r.toml", 'dataset = "data"', 'dataset = "data"\nframes = "2:6"')
    with h5py.File(folder / "ct.h5", "a") as file:
        file["four"] = BEAM[2:6]
    change(folder, "r.toml", '# normalization = "0:50, 0:2000"', 'normalization = { path = "ct.h5", dataset = "four" }')
    detcal(folder, "run", "r.toml", "--workers", "2")
    np.testing.assert_allclose(xr.open_zarr(folder / "corrected.zarr").normalization, BEAM[2:6])


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ('"darks"', "expected frames of monitor in .*ct.h5 by their numbers, got 'darks': an array has no image_key"),
        ("[3, 12]", "expected frames from 0 to 11, as monitor of .*ct.h5 has, got 12"),
        ('"0:3"', "a normalization for each of the 12 frames, or one for all, got \\(3,\\) numbers: in a recipe { path, dataset, frames }"),
    ],
)
def test_frames_of_a_monitor_that_there_are_not(folder, frames, said):
    table = f'{{ path = "ct.h5", dataset = "monitor", frames = {frames} }}'
    change(folder, "r.toml", '# normalization = "0:50, 0:2000"', f"normalization = {table}")
    assert re.search(said, fails(folder, "check", "r.toml"))


@pytest.mark.parametrize("given", ['"0:10, 0:30"', '{ path = "ct.h5", dataset = "monitor" }'])
def test_recipes_take_monitors_and_regions(folder, given):
    change(folder, "r.toml", '# normalization = "0:50, 0:2000"', f"normalization = {given}")
    change(folder, "r.toml", '# exposure = "exposure_time_s"', "exposure = { frames = 2.0, flat = 2.0 }")
    assert read_recipe(folder / "r.toml").takes_rows == ("path" in given)
    detcal(folder, "run", "r.toml", "--workers", "2")
    found = xr.open_zarr(folder / "corrected.zarr")
    np.testing.assert_allclose(found.corrected[:, :10], 1, rtol=1e-3)
    np.testing.assert_allclose(found.corrected[:, 10:], 0.25, rtol=1e-3)
    np.testing.assert_allclose(found.normalization / found.normalization[0], BEAM, rtol=1e-3)
