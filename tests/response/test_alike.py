"""Darks, flats, masks and responses of a whole detector beside frames that were cropped or rebinned since."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response, correct_response, crop, fit_response, plot_pixel_calibrations, rebin
from detcal.response.alike import ALIKE
from detcal.response.samples import sample_pixels

SHAPE = (12, 14)
REGION = "3:11, 2:12"
WITHIN = np.s_[..., 3:11, 2:12]
rng = np.random.default_rng(3)
GAIN = rng.uniform(0.9, 1.1, SHAPE)
FRAMES = xr.DataArray(rng.poisson(500, (5, *SHAPE)).astype(np.uint16), dims=("frame", "y", "x"))
DARK, FLAT = rng.poisson(100, (3, *SHAPE)).astype(np.uint16), rng.poisson(1100, (4, *SHAPE)).astype(np.uint16)
MASK = np.zeros(SHAPE, np.bool_)
MASK[5, 6] = MASK[0, 0] = True
OPTIONS: dict[str, Any] = {"average": "mean"}


def test_images_of_the_whole_detector_are_cropped_with_the_frames() -> None:
    response = Response.from_gain(GAIN, sigma=1.0)
    found = correct_response(crop(FRAMES, REGION), response, dark=DARK, flat=FLAT, mask=MASK, **OPTIONS)
    part = Response.from_gain(GAIN[WITHIN], sigma=1.0)
    wanted = correct_response(FRAMES.values[WITHIN], part, dark=DARK[WITHIN], flat=FLAT[WITHIN], mask=MASK[WITHIN], **OPTIONS)
    np.testing.assert_array_equal(found, wanted)
    assert found.attrs[ALIKE] == ["response", "dark", "flat", "mask"]
    assert found.attrs["resized"] == ["crop 3:11, 2:12 of 12 x 14"]


def test_images_that_were_cropped_already_stay_as_they_are() -> None:
    found = correct_response(crop(FRAMES, REGION), dark=DARK[WITHIN], flat=FLAT, **OPTIONS)
    np.testing.assert_array_equal(found, correct_response(FRAMES, dark=DARK, flat=FLAT, **OPTIONS).values[WITHIN])
    assert found.attrs[ALIKE] == ["flat"]


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_sums_less_sums_of_darks_are_sums_of_differences(how: Any) -> None:
    dark, flat = DARK.mean(0), FLAT.mean(0)
    found = correct_response(rebin(FRAMES, (2, 3), how=how), dark=DARK, flat=FLAT, **OPTIONS)

    def joined(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return values[..., :12].reshape(*values.shape[:-2], 6, 2, 4, 3).sum((-3, -1))

    wanted = joined(FRAMES.values - dark) / joined(flat - dark)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found.attrs[ALIKE] == ["dark", "flat"]


def test_several_steps_one_after_the_other_from_the_shape_that_an_image_has() -> None:
    frames = rebin(crop(crop(FRAMES, REGION), "2:8, :8"), 2)
    whole = correct_response(frames, dark=DARK, flat=FLAT, **OPTIONS)
    inner = correct_response(frames, dark=DARK[WITHIN], flat=FLAT[WITHIN][..., 2:8, :8], **OPTIONS)
    np.testing.assert_array_equal(whole, inner)
    by_hand = correct_response(
        rebin(FRAMES[..., 5:11, 2:10].drop_attrs(), 2),
        dark=rebin(DARK[..., 5:11, 2:10], 2).drop_attrs(),
        flat=rebin(FLAT[..., 5:11, 2:10], 2).drop_attrs(),
        **OPTIONS,
    )
    np.testing.assert_array_equal(whole, by_hand)


def test_a_group_is_bad_with_one_bad_pixel() -> None:
    found = correct_response(rebin(FRAMES, 2), dark=DARK, mask=MASK)
    bad = np.zeros((6, 7), np.bool_)
    bad[2, 3] = bad[0, 0] = True
    np.testing.assert_array_equal(np.isnan(found[0]), bad)


def test_saturated_readings_of_a_flat_are_left_out_before_they_are_joined() -> None:
    """One pixel of four is saturated in a flat of 1000: its group would read 1.5 times too little."""
    flat = np.full(SHAPE, 1000.0)
    flat[4, 4] = 3000.0
    found = correct_response(rebin(np.full((1, *SHAPE), 500.0), 2), dark=0, flat=flat, saturation=2000)
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


def test_numbers_that_are_no_readings_are_left_out_before_they_are_joined() -> None:
    dark = np.full(SHAPE, 100, np.uint32)
    dark[4, 4] = 2**32 - 1
    found = correct_response(rebin(np.full((1, *SHAPE), 500.0), 2), dark=dark)
    np.testing.assert_allclose(found, 1600, rtol=1e-6)


def test_fits_and_samples_of_a_part_of_a_sweep_take_darks_of_the_whole() -> None:
    sweep = xr.DataArray(rng.poisson(np.linspace(500, 5000, 6)[:, None, None] * GAIN).astype(np.uint16) + 100, dims=FRAMES.dims)
    found = fit_response(crop(sweep, REGION), DARK, mask=MASK, sigma=2.0)
    wanted = fit_response(sweep.values[WITHIN], DARK[WITHIN], mask=MASK[WITHIN], sigma=2.0)
    np.testing.assert_array_equal(found.gain, wanted.gain)
    options: dict[str, Any] = {"n_pixels": 3, "pixels": None, "seed": 0, "sigma": 2.0, "order": 1, "boundary": "nearest", "truncate": 4.0}
    part = sample_pixels(crop(sweep, REGION), DARK, mask=MASK, **options)
    np.testing.assert_array_equal(part.measured, sample_pixels(sweep.values[WITHIN], DARK[WITHIN], mask=MASK[WITHIN], **options).measured)
    assert plot_pixel_calibrations(crop(sweep, REGION), DARK, sigma=2.0) is not None


def test_gains_of_single_pixels_are_refused_beside_joined_ones() -> None:
    with pytest.raises(InputError, match=r"whose pixels were joined: .* rebin after correct_response"):
        correct_response(rebin(FRAMES, 2), Response.from_gain(GAIN), dark=DARK)


def test_other_shapes_are_refused_with_those_that_would_do() -> None:
    with pytest.raises(InputError, match=r"expected a dark of shape \(8, 10\) \(y, x\), as the frames, or \(12, 14\), .* got \(5, 5\)"):
        correct_response(crop(FRAMES, REGION), dark=np.ones((5, 5)))
    with pytest.raises(InputError, match=r"expected a dark of shape \(12, 14\) \(y, x\), as the frames, got \(8, 10\)"):
        correct_response(FRAMES, dark=DARK[WITHIN])


def test_pixels_that_were_moved_are_no_part_of_the_detector() -> None:
    straight = crop(FRAMES, REGION).assign_attrs(corrections=["distortion"])
    with pytest.raises(InputError, match=r"expected a dark of shape \(8, 10\)"):
        correct_response(straight, dark=DARK)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_file_keeps_what_was_done(suffix: str, tmp_path: Path) -> None:
    found = open_frames(save(crop(FRAMES, REGION), tmp_path / f"a.{suffix}"))
    wanted = correct_response(crop(FRAMES, REGION), dark=DARK)
    np.testing.assert_array_equal(correct_response(found, dark=DARK), wanted)
    turned = open_frames(tmp_path / f"a.{suffix}", flip="ud")
    with pytest.raises(InputError, match=r"expected a dark of shape \(8, 10\)"):  # nobody knows which way round the dark is
        correct_response(turned, dark=DARK)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_frames_of_a_file_say_that_they_were_filled(suffix: str, tmp_path: Path) -> None:
    filled = correct_response(FRAMES, Response.from_gain(GAIN), dark=DARK, mask=MASK, fill="interpolate")
    found = open_frames(save(filled, tmp_path / f"a.{suffix}"))
    assert found.attrs["fill"] == filled.attrs["fill"] == "interpolated"
    np.testing.assert_array_equal(found.filled, MASK)
