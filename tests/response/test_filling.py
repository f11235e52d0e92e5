"""Bad pixels filled from their neighbours: by request, bounded, and noted."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response, correct_response
from tests.pipelines.commands import detcal
from tests.reference import response as reference

SHAPE = (40, 60)


def scattered(rng, share=0.1):
    """Single bad pixels, a column, a wide gap, and corners."""
    bad = rng.random(SHAPE) < share
    bad[:, 20:22] = bad[:, 40:57] = bad[0, 0] = bad[-2:, -2:] = True
    return bad


@pytest.fixture(scope="module")
def trial():
    """Frames with some readings missing, gains with bad pixels, and a dark that lacks one."""
    rng = np.random.default_rng(7)
    frames = rng.uniform(1000, 2000, (5, *SHAPE)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.05] = np.nan
    bad = scattered(rng)
    gains = np.where(bad, np.nan, rng.uniform(0.9, 1.1, SHAPE))
    dark = np.full(SHAPE, 100.0)
    dark[10, 10] = np.nan
    return frames, Response.from_gain(gains, sigma=2.0), dark, bad | np.isnan(dark)


@pytest.mark.parametrize("chunks", [{"frame": 2}, {"frame": 5, "y": 9}])
def test_bad_pixels_are_filled_from_their_neighbours(trial, chunks):
    frames, response, dark, bad = trial
    stack = xr.DataArray(frames, dims=("frame", "y", "x")).chunk(chunks)
    plain = correct_response(stack, response, dark=dark)
    assert np.isnan(plain.values[:, bad]).all()
    assert "filled" not in plain.coords
    found = correct_response(stack, response, dark=dark, fill="interpolate")
    np.testing.assert_allclose(found, reference.fill(plain.values, bad), rtol=1e-6)
    np.testing.assert_array_equal(found.values[:, ~bad], plain.values[:, ~bad])
    assert found.attrs["fill"] == "interpolated"
    # nothing is made up in the middle of the gap, from which only its ends are near
    assert not found.filled.values[12:28, 48].any()
    np.testing.assert_array_equal(found.filled.values & ~bad, False)
    assert found.filled.values[:, 20:22].all()


def test_what_is_linear_is_met_exactly():
    """Of a flat that falls off in both directions, beside bad columns and in clusters; not at the edge, where lines have one end."""
    ramp = 1000 + np.arange(SHAPE[0])[:, None] * 7.0 + np.arange(SHAPE[1]) * 3.0
    bad = np.zeros(SHAPE, bool)
    bad[:, 30:33] = bad[10:13, 10:14] = bad[20, 5] = True
    found = correct_response(ramp, dark=0, mask=bad, fill="interpolate").values
    np.testing.assert_allclose(found, ramp, rtol=1e-6)


def test_masked_pixels_take_no_part_in_the_flat():
    flat, bad = np.full(SHAPE, 1000.0), np.zeros(SHAPE, bool)
    flat[5, 5], bad[5, 5] = 1e6, True
    for dark_off in (False, True):
        options = {"flat": flat, "mask": bad, "flat_is_dark_subtracted": dark_off}
        found = correct_response(np.full(SHAPE, 500.0), Response.from_gain(np.ones(SHAPE), sigma=2.0), **options).values
        assert np.isnan(found[5, 5])
        np.testing.assert_allclose(np.nan_to_num(found, nan=0.5), 0.5, rtol=1e-6)


def test_a_mean_of_neighbours_is_as_good_as_they_are():
    """Photon noise of 1 %: what is filled is off by less than that."""
    rng = np.random.default_rng(1)
    flat = rng.poisson(10000, (1, 200, 200)).astype(float)
    bad = rng.random(flat[0].shape) < 0.02
    found = correct_response(flat, dark=0, mask=bad, fill="interpolate").values[:, bad]
    assert np.std(found) < 0.005 * 10000
    assert abs(np.mean(found) / 10000 - 1) < 1e-3


def test_the_note_goes_on_through_steps_and_files(tmp_path):
    """In a run by blocks of frames."""
    rng = np.random.default_rng(2)
    bad = rng.random((64, 48)) < 0.02
    save(rng.poisson(5000, (24, 64, 48)).astype(np.uint16), tmp_path / "ct.h5")
    save(rng.poisson(9000, (64, 48)).astype(np.uint16), tmp_path / "flat.h5")
    save(bad.astype(np.uint8), tmp_path / "mask.edf")
    text = render("correct_response").replace('response = "', '# response = "').replace('dark = "', '# dark = "')
    text = text.replace("# mask =", "mask =").replace("# fill =", "fill =").replace("# chunk_frames = 16", "chunk_frames = 5")
    (tmp_path / "r.toml").write_text(text.replace("[output]", '[[steps]]\noperation = "minus_log"\n[output]'))
    assert not read_recipe(tmp_path / "r.toml").takes_rows  # neighbours may be in other blocks of rows
    detcal(tmp_path, "run", "r.toml", "--workers", "2")
    found = xr.open_zarr(tmp_path / "corrected.zarr")
    np.testing.assert_array_equal(found.filled, bad)
    assert found.attenuation.attrs["fill"] == "interpolated"
    assert np.isfinite(found.attenuation.values).all()


def test_a_fill_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="expected fill = \"interpolate\", or none, got 'zero'"):
        correct_response(np.ones(SHAPE), dark=0, fill="zero")


@pytest.mark.parametrize(("flip", "kind"), [(None, "zarr"), ("ud", "zarr"), ("both", "zarr"), (None, "h5"), ("both", "nxs")])
def test_what_was_filled_is_known_when_frames_are_opened_again(tmp_path, flip, kind):
    mask = np.zeros((6, 8), bool)
    mask[1, 2] = True
    found = correct_response(np.full((3, 6, 8), 9, np.uint16), dark=1, mask=mask, fill="interpolate")
    save(found, tmp_path / f"filled.{kind}")
    opened = open_frames(tmp_path / f"filled.{kind}", flip=flip, frames=[0, 2])
    assert isinstance(opened.filled.data, da.Array)
    assert opened.filled.attrs == found.filled.attrs
    np.testing.assert_array_equal(opened.filled, {None: mask, "ud": mask[::-1], "both": mask[::-1, ::-1]}[flip])
