"""Masks and flags of frames as they are opened."""

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from fabio.cbfimage import CbfImage
from pyFAI.detectors import Detector

import detcal
from detcal import azimuthal, distortion, response, sensor, xrf
from detcal.errors import InputError
from detcal.frames.valid import as_mask, find_readings
from tests.frames.subjects import GAIN, IDEAL, ONE_RING, PSF, SHAPE, bins_of, lazy, mean_of, stack_of

JOBS = {
    "correct": lambda frames: response.correct_response(frames, GAIN),
    "fit": lambda frames: response.fit_response(frames, sigma=1.0, cutoff=0.0).gain,
    "deconvolve": lambda frames: sensor.deconvolve(frames, PSF),
    "distortion": lambda frames: distortion.correct_distortion(frames, IDEAL, variance="poisson"),
    "integrate": lambda frames: azimuthal.integrate(frames, ONE_RING),
    "median": lambda frames: azimuthal.median_filter(frames, ONE_RING),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "f4"])
@pytest.mark.parametrize("kind", ["npy", "zarr", "h5"])
def test_masked_pixels_of_opened_frames_are_nan_in_all_subjects(tmp_path, mask, dtype, kind):
    path = tmp_path / f"raw.{kind}"
    frames = stack_of(5, dtype, 4)
    frames[0, frames[0] == 100] = 50  # a fit needs a beam that changes
    np.save(path, frames) if kind == "npy" else detcal.save(frames, path)
    opened = detcal.open_frames(path, mask=mask, chunks={"frame": 2})
    assert opened.dtype == np.result_type(dtype, np.float32)
    np.testing.assert_array_equal(opened.values, np.where(mask, np.nan, frames))
    wanted = xr.DataArray(np.where(mask, np.nan, frames.astype(np.float32)), dims=("frame", "y", "x"))
    for name, job in JOBS.items():
        xr.testing.assert_equal(*(job(each).compute() for each in (opened, wanted))), name


def test_a_mask_may_be_a_file_or_a_response(tmp_path, mask):
    np.save(tmp_path / "raw.npy", stack_of(5, "u2"))
    np.save(tmp_path / "mask.npy", mask.astype(np.uint8))
    np.save(tmp_path / "stack.npy", np.stack([mask, mask]))
    detcal.save(response.Response.from_gain(np.where(mask, np.nan, 1)), tmp_path / "response.zarr")
    detcal.save(IDEAL, tmp_path / "map.zarr")
    tifffile.imwrite(tmp_path / "mask_1.tif", mask.astype(np.uint8))
    zarr.create_array(tmp_path / "array.zarr", data=mask)
    zarr.open_group(tmp_path / "group.zarr", mode="w").create_array("mask", data=mask.astype(np.uint8), chunks=mask.shape)  # without names
    for given_ in ("mask.npy", "response.zarr", "mask_*.tif", "array.zarr", "group.zarr"):
        assert (np.isnan(detcal.open_frames(tmp_path / "raw.npy", mask=tmp_path / given_).values) == mask).all()
    tifffile.imwrite(tmp_path / "mask_2.tif", mask.astype(np.uint8))
    for given_, message in (
        ("stack.npy", "got a stack"),
        ("mask_*.tif", "got a stack"),
        ("map.zarr", "an image or a response as the mask, found DistortionMap"),
    ):
        with pytest.raises(InputError, match=message):
            detcal.open_frames(tmp_path / "raw.npy", mask=tmp_path / given_)


@pytest.mark.filterwarnings("ignore:counts below 0")  # of the CCD, of whose numbers nobody says anything
@pytest.mark.parametrize(
    ("detector", "expected"), [("PILATUS3 6M, 60-0114", 100), ("Dectris Eiger 1M", 100), ("some CCD", (62 * 100 - 2) / 64)]
)
def test_a_pilatus_says_in_its_file_that_negative_numbers_are_flags(tmp_path, detector, expected):
    """The chain is the case: no step after the first sees the raw numbers."""
    frames = stack_of(-2, "i4", 1)
    frames[0, 2, 2] = -1 if expected == 100 else 0
    header = {"_array_data.header_contents": f"\r\n# Detector: {detector}\r\n"}
    CbfImage(data=frames[0], header=header).write(str(tmp_path / "raw.cbf"))
    opened = detcal.open_frames(tmp_path / "raw.cbf")
    for found in (opened, response.correct_response(opened, GAIN)):
        np.testing.assert_allclose(mean_of(found), expected, rtol=1e-6)
    np.testing.assert_allclose(mean_of(detcal.open_frames(tmp_path / "raw.cbf", dummy=np.nan)), frames.mean(), rtol=1e-6)


def test_masks_add_up_and_flags_stay_beside_them(tmp_path, mask):
    frames = stack_of(5, "u2", 1)
    frames[0, 1, 1], frames[0, 2, 2] = 65535, 7
    np.save(tmp_path / "raw.npy", frames)
    opened = detcal.open_frames(tmp_path / "raw.npy", mask=mask)
    assert azimuthal.integrate(opened, bins_of(mask=frames[0] == 7))["count"].values == 64 - 4
    assert azimuthal.integrate(opened, bins_of(), dummy=7)["count"].values == 64 - 3  # 65535 is a count then
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE)
    detector.dummy, detector.delta_dummy = -2, 1.5
    assert azimuthal.integrate(opened, bins_of(detector))["count"].values == 64 - 3  # as of uint16: 65533 … 65535


def test_dummy_and_valid_range_are_attributes_and_take_the_place_of_the_files(tmp_path):
    raw = lazy(stack_of(-1, "i4"), missing_value=100)
    detcal.save(raw, tmp_path / "raw.zarr")
    assert detcal.open_frames(tmp_path / "raw.zarr").missing_value == 100
    opened = detcal.open_frames(tmp_path / "raw.zarr", dummy=-1)
    assert opened.dtype == np.int32
    assert opened.missing_value == -1
    assert (mean_of(opened) == 100).all()
    opened = detcal.open_frames(tmp_path / "raw.zarr", valid_range=(0, 200))
    assert {"valid_min": 0, "valid_max": 200}.items() <= opened.attrs.items()
    assert "missing_value" not in opened.attrs
    assert (mean_of(opened) == 100).all()
    assert np.isnan(mean_of(detcal.open_frames(tmp_path / "raw.zarr", dummy=[-1, 100]))).all()
    np.testing.assert_allclose(mean_of(detcal.open_frames(tmp_path / "raw.zarr", dummy=np.nan)), (63 * 100 - 1) / 64, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.zeros((3, 3))}, r"a mask of shape \(8, 8\) \(y, x\), as the frames, got \(3, 3\)"),
        ({"mask": np.zeros((2, 8, 8))}, r"got a stack \(2, 8, 8\)"),
        ({"mask": np.full(SHAPE, "a")}, "a mask of booleans or numbers"),
        ({"dummy": "a"}, "a dummy that is a number, got 'a'"),
        ({"dummy": -1}, "a dummy that uint16 frames can hold"),
        ({"valid_range": (5, 1)}, "valid_range as two rising numbers"),
        ({"valid_range": 5}, "valid_range as two rising numbers"),
        ({"valid_range": (0, np.nan)}, "valid_range as two rising numbers"),
    ],
)
def test_what_makes_no_mask_or_mark_is_refused(tmp_path, options, message):
    np.save(tmp_path / "raw.npy", stack_of(5, "u2"))
    with pytest.raises(InputError, match=message):
        detcal.open_frames(tmp_path / "raw.npy", **options)


def test_attributes_that_are_no_numbers_are_refused():
    for attrs in ({"missing_value": "none"}, {"valid_range": [1, 2, 3]}):
        with pytest.raises(InputError, match=f"as the attribute {next(iter(attrs))} of the frames.*give dummy or valid_range"):
            find_readings(lazy(stack_of(5, "u2"), **attrs))


def test_a_mask_of_one_image_is_a_mask(mask):
    for given_ in (
        mask,
        mask[None],
        mask.astype(float),
        np.where(mask, np.nan, 0),
        xr.DataArray(mask.T, dims=("x", "y")),
        da.from_array(mask),
    ):
        np.testing.assert_array_equal(np.asarray(as_mask(given_, SHAPE, "frames")), mask)


def test_spectra_heed_what_their_attributes_say():
    counts = np.arange(12, dtype=np.uint32).reshape(3, 4) + 2**25
    counts[1, 2] = 7
    flagged = xr.DataArray(counts, dims=("spectrum", "energy"), attrs={"missing_value": 7, "valid_max": 2**25 + 10})
    found = xrf.summary_spectra(flagged).compute()
    known = np.where((counts == 7) | (counts > 2**25 + 10), np.nan, counts)
    np.testing.assert_array_equal(found["sum"], np.nansum(known, axis=0))
    np.testing.assert_array_equal(found["max"], np.nanmax(known, axis=0))
