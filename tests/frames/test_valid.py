"""What was measured, by one rule in all subjects."""

from functools import partial

import dask.array as da
import numpy as np
import pyFAI
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, distortion, response, sensor
from detcal.frames.lanes import all_in_lanes, reading
from detcal.frames.readings import ALL_NUMBERS, readings
from tests.frames.subjects import GAIN, HOLE, IDEAL, ONE_RING, PSF, SHAPE, bins_of, known_pixel, lazy, mean_of, stack_of

# How each subject says that the pixel in HOLE was measured
SUBJECTS = {
    "response": lambda frames, **o: known_pixel(response.correct_response(frames, GAIN, **o).values),
    "deconvolve": lambda frames, **o: known_pixel(sensor.deconvolve(frames, PSF, **o).values[...]) and (
        "dummy" not in o or (sensor.deconvolve(frames, PSF, **o).values[(slice(None), *HOLE)] != o["dummy"]).all()
    ),
    "distortion": lambda frames, **o: known_pixel(distortion.correct_distortion(frames, IDEAL, **o).values) and (
        "dummy" not in o or (distortion.correct_distortion(frames, IDEAL, **o).values[(slice(None), *HOLE)] != o["dummy"]).all()
    ),
    "integrate": lambda frames, **o: (azimuthal.integrate(frames, ONE_RING, **o)["count"].values == 64).all(),
    "sigma_clip": lambda frames, **o: (azimuthal.sigma_clip(frames, ONE_RING, threshold=1e9, **o)["count"].values == 64).all(),
    "quantiles": lambda frames, **o: (azimuthal.quantile_filter(frames, ONE_RING, **o)["count"].values == 64).all(),
    "fit": lambda frames, **o: fitted(frames, **o),
}  # fmt: skip


def fitted(frames, **options):
    """Whether a sweep, these with less light in the first of them, has a reading in the pixel."""
    frames = frames if isinstance(frames, xr.DataArray) else lazy(frames)
    dimmed = np.zeros(frames.shape, np.bool_)
    dimmed[0] = True
    dimmed[0][HOLE] = False
    sweep = frames.copy(data=da.where(dimmed, frames.dtype.type(50), da.asarray(frames.data)))
    cal = response.fit_response(sweep, sigma=1.0, cutoff=-1e9, **options).compute()
    return bool(cal.frames_used.values[HOLE] == len(frames) and np.isfinite(cal.gain.values[HOLE]))


# What the pixel holds; what the frames say; whether it was measured
CASES = {
    "a count": (5, "u2", {}, {}, True),
    "a negative count": (-5, "i4", {}, {}, True),
    "the largest of uint8": (255, "u1", {}, {}, True),
    "the largest of uint16": (65535, "u2", {}, {}, False),
    "the largest of uint32": (2**32 - 1, "u4", {}, {}, False),
    "the largest of uint64": (2**64 - 1, "u8", {}, {}, False),
    "the largest of int32": (2**31 - 1, "i4", {}, {}, True),
    "NaN": (np.nan, "f4", {}, {}, False),
    "infinite": (np.inf, "f8", {}, {}, False),
    "minus infinite": (-np.inf, "f4", {}, {}, False),
    "beyond float32": (1e300, "f8", {}, {}, False),
    "a negative real": (-1.0, "f4", {}, {}, True),
    "missing_value": (-1, "i4", {"missing_value": -1}, {}, False),
    "not the missing_value": (-2, "i4", {"missing_value": -1}, {}, True),
    "several missing values": (-2, "i4", {"missing_value": [-1, -2]}, {}, False),
    "missing values far apart": (7, "i4", {"missing_value": [-1, 7, 12]}, {}, False),
    "between missing values": (-1.5, "f4", {"missing_value": [-1, -2]}, {}, True),
    "missing values at both ends of the type": (0, "u2", {"missing_value": [0, 65535]}, {}, False),
    "a missing value that is no whole number": (-9.99, "f4", {"missing_value": -9.99}, {}, False),
    "-1 of an unsigned type": (65535, "u2", {"missing_value": -1}, {}, False),
    "above valid_max": (201, "u2", {"valid_max": 200}, {}, False),
    "at valid_max": (200, "u2", {"valid_max": 200}, {}, True),
    "below valid_min": (-1, "i4", {"valid_min": 0}, {}, False),
    "outside valid_range": (-1, "i4", {"valid_range": np.array([0, 10**6])}, {}, False),
    "the largest count but one, which float32 cannot tell": (2**32 - 1, "u4", {"valid_max": 2**32 - 2}, {}, False),
    "the largest, of a file that speaks": (65535, "u2", {"missing_value": 0}, {}, True),
    "a result of ours": (-1, "i4", {"missing_value": np.nan}, {}, True),
    "the largest, which is no flag": (65535, "u2", {"missing_value": np.nan}, {}, True),
    "the caller's dummy": (-1, "i4", {}, {"dummy": -1}, False),
    "the caller before the file": (-1, "i4", {"missing_value": -1}, {"dummy": -2}, True),
    "the caller before the type": (65535, "u2", {}, {"dummy": 0}, True),
}


@pytest.mark.filterwarnings("ignore:counts below 0")  # which tests/frames/test_negative.py looks at
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_one_rule_says_in_all_subjects_what_was_measured(subject, case):
    value, dtype, attrs, options, expected = CASES[case]
    if subject in ("integrate", "sigma_clip", "quantiles") and abs(value) > 1e18:
        expected = False  # squares of more are no float32
    with np.errstate(over="ignore"):
        frames = lazy(stack_of(value, dtype), **attrs)
    assert SUBJECTS[subject](frames, **options) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-5, 5) | st.floats(width=32) | st.sampled_from([2.0**31, 65533, 65534, 65535, -1.3]), min_size=1, max_size=40),
    st.sampled_from([-np.inf, -2.0, 0.0]), st.sampled_from([np.inf, 3.0, 65534.0]), st.sampled_from([np.nan, -3.0, 65533.0, -1.3]),
    st.sampled_from([0.0, 1.0, 2.0]),
)  # fmt: skip
def test_kernels_of_sixteen_of_one_and_numpy_agree(values, least, most, flag, more):
    valid = ALL_NUMBERS.within(least, most)._replace(flag=flag, more=more)
    frames = np.array(values, np.float32)[None]
    flags = {float(np.float32(flag + k)) for k in range(int(more) + 1)}
    expected = [value if np.isfinite(value) and least <= value <= most and value not in flags else np.nan for value in frames[0]]
    np.testing.assert_array_equal(readings(frames, valid)[0], np.float32(expected))
    np.testing.assert_array_equal([reading(value, valid) for value in frames[0]], np.float32(expected))
    np.testing.assert_array_equal(all_in_lanes(frames, valid), np.float32(expected))
    np.testing.assert_array_equal(all_in_lanes(frames.repeat(2, 0), valid)[:, 1], np.float32(expected))


def test_whole_numbers_as_limits_are_reals():
    """Kernels would be compiled once more for them."""
    assert {type(each) for each in ALL_NUMBERS.within(0, 5)} == {float}


# ------------------------------------------------------------------------------------------------ the detector's own flags


@pytest.mark.parametrize(
    ("name", "dtype", "flags"),
    [
        ("Pilatus100k", "i4", (-1, -2)), ("Pilatus100k", "f4", (-1, -2)), ("Pilatus100k", "f8", (-2, -3)),
        ("Eiger500k", "u2", (65535, 65534)), ("Eiger500k", "u4", (2**32 - 1, 2**32 - 2)), ("Eiger500k", "i4", (-1, -2)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("what", ["frames", "dark", "flat", "variance", "psf", "loaded"])
def test_flags_of_the_detector_of_a_geometry_are_no_counts(tmp_path, name, dtype, flags, what):
    detector = pyFAI.detector_factory(name)
    frame = np.full((1, *detector.shape), 10, dtype)
    frame[0, ::97], frame[0, 5::97] = flags
    clean = np.full((1, *detector.shape), 10.0)
    clean[0, ::97] = clean[0, 5::97] = np.nan
    geometry = Geometry(0.1, 0.0151, 0.0162, detector=detector)
    if what == "psf":
        small = Detector(1e-4, 1e-4, max_shape=SHAPE)
        small.dummy, small.delta_dummy = detector.dummy, detector.delta_dummy
        psf = sensor.build_psf(Geometry(1.0, detector=small), thickness_m=1e-3, attenuation_per_m=1e5)
        assert np.isnan(sensor.deconvolve(stack_of(flags[0], dtype), psf).values[(slice(None), *HOLE)]).all()
        return
    build = partial(azimuthal.build_bins, geometry, npt=20, unit="r_mm", solid_angle=False)
    if what in ("dark", "flat"):
        found, wanted = (build(**{what: image}) for image in (frame, clean))
        np.testing.assert_array_equal(found.indices, wanted.indices)
        return
    bins = build()
    if what == "loaded":
        detcal.save(bins, tmp_path / "bins.zarr")
        bins = detcal.load(tmp_path / "bins.zarr")
    given_ = {"variance": frame} if what == "variance" else {}
    found = azimuthal.integrate(np.full_like(frame, 10) if given_ else frame, bins, **given_).compute()
    wanted = azimuthal.integrate(clean, build(), **({"variance": clean} if given_ else {})).compute()
    xr.testing.assert_equal(found, wanted)
    assert (found.intensity == 10).all()


def test_a_reading_between_the_detectors_flags_stays_one():
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE)
    detector.dummy, detector.delta_dummy = -2, 1.5
    bins = bins_of(detector)
    np.testing.assert_allclose(mean_of(stack_of(-1.3, "f4"), bins), (63 * 100 - 1.3) / 64, rtol=1e-6)
    assert (mean_of(stack_of(-1.0, "f4"), bins) == 100).all()
    np.testing.assert_allclose(mean_of(stack_of(-4, "i4"), bins), (63 * 100 - 4) / 64, rtol=1e-6)
    ours = lazy(stack_of(-1.0, "f4"), missing_value=np.nan)
    np.testing.assert_allclose(mean_of(ours, bins), (63 * 100 - 1) / 64, rtol=1e-6)


# --------------------------------------------------------------------------------------------------------- darks and flats


@pytest.mark.parametrize(("dtype", "flag"), [("u2", 65535), ("u4", 2**32 - 1), ("f4", np.nan), ("f4", np.inf)])
def test_a_mark_in_a_dark_or_flat_takes_no_part_in_its_mean(dtype, flag):
    frames = np.array([10, 20, 30], dtype)[:, None, None] * np.ones((3, *SHAPE), dtype)
    frames[(0, *HOLE)] = flag
    corrected = response.correct_response(stack_of(100, "u2"), GAIN, dark=frames).values
    expected = np.full(SHAPE, 100.0 - 20)
    expected[HOLE] = 100.0 - 25
    np.testing.assert_array_equal(corrected, np.broadcast_to(expected, corrected.shape))
    bins = bins_of(dark=frames)
    np.testing.assert_allclose(mean_of(stack_of(100, "u2"), bins), (63 * 80 + 75) / 64, rtol=1e-6)
    flat = bins_of(flat=frames)
    np.testing.assert_allclose(mean_of(stack_of(100, "u2"), flat), 6400 / (63 * 20 + 25), rtol=1e-6)


def test_a_saturated_dark_image_is_no_number():
    dark = stack_of(65535, "u2", 1, 10)
    corrected = response.correct_response(stack_of(100, "u2"), GAIN, dark=dark).values
    assert np.isnan(corrected[(slice(None), *HOLE)]).all()
    assert np.isnan(corrected).sum() == 2
    assert (mean_of(stack_of(100, "u2"), bins_of(dark=dark[0])) == 90).all()
    dummies = response.correct_response(stack_of(100, "i4"), GAIN, dark=stack_of(-1, "i4", 3, 10), dummy=-1).values
    assert np.isnan(dummies).sum() == 2


def test_a_dummy_that_the_dark_cannot_hold_is_that_of_the_frames():
    corrected = response.correct_response(stack_of(-1, "i4"), GAIN, dark=stack_of(65535, "u2", 3, 10), dummy=-1).values
    assert np.isnan(corrected).sum() == 2
    assert np.nanmax(corrected) == 90


def test_saturated_dots_of_a_hole_grid_are_dots():
    y, x = np.mgrid[:200, :220]
    image = np.full((200, 220), 100.0)
    for row in range(20, 200, 20):
        for column in range(20, 220, 20):
            image += 60000 / (1 + np.exp(np.minimum((np.hypot(y - row, x - column) - 4.2) * 4, 50)))
    saturated = np.minimum(image * 1.3, 65535).astype(np.uint16)
    points = distortion.find_grid_points(saturated)
    assert len(points) == 9 * 10
    np.testing.assert_allclose(np.sort(np.unique(points.y.values.round(1))), np.arange(20, 200, 20), atol=0.11)
