"""Chains give what the steps give one by one, and what was corrected is not corrected again."""

import numpy as np
import pytest
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, distortion, response, sensor
from detcal.errors import InputError
from tests.frames.subjects import DARK, GAIN, IDEAL, ONE_RING, PSF, SHAPE, bins_of, lazy, mean_of, parallax_geometry, stack_of

CHAIN = {
    "response": lambda frames: response.correct_response(frames, GAIN, dark=DARK),
    "distortion": lambda frames: distortion.correct_distortion(frames, IDEAL, conserve="mean"),
    "deconvolve": lambda frames: sensor.deconvolve(frames, PSF),
    "fit": lambda frames: response.fit_response(frames, sigma=1.0, cutoff=0.0).gain.to_dataset(name="gain"),
    "integrate": lambda frames: azimuthal.integrate(frames, ONE_RING),
    "median": lambda frames: azimuthal.median_filter(frames, ONE_RING),
    "sigma_clip": lambda frames: azimuthal.sigma_clip(frames, ONE_RING),
}
PAIRS = [(one, other) for one in ("response", "distortion", "deconvolve") for other in CHAIN if one != other]


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize(("first", "then"), PAIRS)
def test_a_chain_gives_what_the_steps_give_one_by_one(tmp_path, mask, first, then, suffix):
    rng = np.random.default_rng(0)
    frames = rng.poisson(20, (4, *SHAPE)).astype(np.int32) * np.arange(1, 5)[:, None, None].astype(np.int32)
    frames[0, 2, 2], frames[1, 3, 5], frames[:, 6, 6] = -1, 3, 7  # 3: the dark takes it to 0; 7: a flag
    np.save(tmp_path / "raw.npy", frames)
    raw = detcal.open_frames(tmp_path / "raw.npy", mask=mask, dummy=[7, -2], chunks={"frame": 3})
    whole = CHAIN[then](CHAIN[first](raw)).compute()
    detcal.save(CHAIN[first](raw), tmp_path / f"between.{suffix}")
    stored = CHAIN[then](detcal.open_frames(tmp_path / f"between.{suffix}")).compute()
    assert CHAIN[first](raw).attrs["corrections"] == detcal.open_frames(tmp_path / f"between.{suffix}").attrs["corrections"]
    loaded = detcal.load(tmp_path / f"between.{suffix}")
    again = CHAIN[then](next(iter(loaded.values()))).compute()
    for found in (stored, again):
        lost = set(whole.coords) - set(found.coords)  # frames of HDF5 come without figures of each frame
        assert not lost or (found is stored and suffix == "h5")
        xr.testing.assert_equal(found.drop_vars(set(found.coords) - set(whole.coords)), whole.drop_vars(lost))


def test_a_result_says_that_its_numbers_are_readings():
    """A gain of -1, say: no detector's flag is looked for in it."""
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE)
    detector.dummy, detector.delta_dummy = -2, 1.5
    raw = lazy(stack_of(4, "i4"), missing_value=-1, valid_min=0, recorded_dtype="int32")
    for job in ("response", "distortion", "deconvolve"):
        found = CHAIN[job](raw)
        assert np.isnan(found.missing_value)
        assert not {"valid_min", "valid_max", "recorded_dtype"} & set(found.attrs)
    below = response.correct_response(raw, GAIN, dark=stack_of(5, "i4", 1, 0))  # 4 - 5 in the pixel
    np.testing.assert_allclose(mean_of(below, bins_of(detector)), (63 * 100 - 1) / 64, rtol=1e-6)
    filled = sensor.deconvolve(stack_of(np.nan, "f4"), PSF, dummy=-9)
    assert filled.missing_value == -9
    assert np.isfinite(mean_of(filled)).all()
    assert (mean_of(filled) > 0).all()


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("flags", [np.nan, -1, [-1, -2]])
def test_flags_and_integers_come_back_from_files(tmp_path, suffix, flags):
    raw = lazy(stack_of(-1, "i4"), missing_value=flags, valid_max=1000).rename("frames").assign_coords(frame=[0.5, np.nan])
    for _ in range(2):  # what was loaded is stored again
        detcal.save(raw, tmp_path / f"raw.{suffix}", overwrite=True)
        for found in (detcal.open_frames(tmp_path / f"raw.{suffix}"), raw := detcal.load(tmp_path / f"raw.{suffix}").frames.load()):
            assert found.dtype == np.int32
            np.testing.assert_array_equal(np.asarray(found.missing_value), flags)
            np.testing.assert_array_equal(found, stack_of(-1, "i4"))
            assert "_FillValue" not in found.coords["frame"].attrs
            np.testing.assert_array_equal(found.frame, [0.5, np.nan])


def test_parallax_is_taken_out_once():
    """Or else by two pixels here: the radius of the outermost pixels, by hand from the depth at which rays are absorbed."""
    sharp = sensor.deconvolve(stack_of(100, "u2"), PSF)
    assert sharp.corrections == ["parallax", "efficiency"]
    with_it, without_it = (
        azimuthal.build_bins(parallax_geometry(), npt=3, unit="r_mm", parallax=wanted, sensor_efficiency=False) for wanted in (None, False)
    )
    assert with_it.corrections == ("parallax",)
    assert without_it.corrections == ()
    plain = Geometry(0.1, detector=Detector(1e-4, 1e-4, max_shape=SHAPE), wavelength=1e-10)
    np.testing.assert_array_equal(without_it.radius, azimuthal.build_bins(plain, npt=3, unit="r_mm").radius)
    assert (with_it.radius.values != without_it.radius.values).any()
    for job in (azimuthal.integrate, azimuthal.sigma_clip, azimuthal.median_filter, azimuthal.outlier_mask):
        with pytest.raises(InputError, match=r"parallax in the sensor taken out.*parallax=False"):
            job(sharp, with_it)
        job(sharp, without_it).compute()
        job(stack_of(100, "u2"), with_it).compute()
    with pytest.raises(InputError, match="geometry with parallax"):
        azimuthal.build_bins(plain, npt=3, unit="r_mm", parallax=True)
    assert parallax_geometry().parallax is not None


def test_efficiency_is_divided_out_once():
    sharp = sensor.deconvolve(stack_of(100, "u2"), PSF)
    with_it, without_it = (
        azimuthal.build_bins(parallax_geometry(), npt=3, unit="r_mm", parallax=False, sensor_efficiency=wanted) for wanted in (None, False)
    )
    assert with_it.corrections == ("efficiency",)
    with pytest.raises(InputError, match=r"the sensor's efficiency divided out.*sensor_efficiency=False"):
        azimuthal.integrate(sharp, with_it)
    profiles = azimuthal.integrate(sharp, without_it)
    assert profiles.intensity.corrections == ["parallax", "efficiency"]
    assert azimuthal.integrate(stack_of(100, "u2"), with_it).intensity.corrections == ["efficiency"]


TWICE = {
    "dark in bins": (lambda frames: azimuthal.integrate(frames, bins_of(dark=DARK)), {"dark": DARK}, "a dark taken off.*no dark="),
    "flat in bins": (lambda frames: azimuthal.integrate(frames, bins_of(flat=DARK)), {"flat": DARK}, "a flat divided out.*no flat="),
    "gain": (lambda frames: response.correct_response(frames, GAIN), {}, "pixel gains applied.*leave out"),
    "dark of a fit": (lambda frames: response.fit_response(frames, DARK), {"dark": DARK}, "a sweep.*a dark taken off.*leave the dark out"),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_was_corrected_is_not_corrected_again(what):
    job, options, message = TWICE[what]
    done = response.correct_response(stack_of(100, "u2"), GAIN, **options)
    with pytest.raises(InputError, match=message) as caught:
        job(done)
    assert "\n" not in str(caught.value)
    for again in (lambda: sensor.deconvolve(sensor.deconvolve(done, PSF), PSF), lambda: CHAIN["distortion"](CHAIN["distortion"](done))):
        with pytest.raises(InputError, match=r"leave .* out"):
            again()


def test_what_takes_a_correction_back_says_so():
    sharp = sensor.deconvolve(response.correct_response(stack_of(100, "u2"), GAIN, dark=DARK), PSF)
    assert sharp.corrections == ["dark", "gain", "parallax", "efficiency"]
    assert PSF.apply(sharp).corrections == ["dark", "gain"]
    straight = distortion.correct_distortion(sharp, IDEAL)
    assert straight.corrections[-1] == "distortion"
    assert distortion.uncorrect(straight, IDEAL).corrections == sharp.corrections


def test_a_flat_that_says_that_its_dark_is_off_keeps_its_counts():
    flat = stack_of(200, "u2", 3, 200)
    without_dark = response.correct_response(flat, GAIN, dark=DARK)
    wanted = response.correct_response(stack_of(100, "u2"), GAIN, dark=DARK, flat=without_dark.values, flat_is_dark_subtracted=True)
    found = response.correct_response(stack_of(100, "u2"), GAIN, dark=DARK, flat=without_dark)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(found, 97 / 197, rtol=1e-6)
