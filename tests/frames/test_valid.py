"""What was measured, by one rule in all subjects; and what was corrected, once."""

from functools import partial

import dask.array as da
import numpy as np
import pyFAI
import pytest
import xarray as xr
from detcal_pipelines.chain import build, check_result
from detcal_pipelines.recipe import read_recipe
from fabio.cbfimage import CbfImage
from hypothesis import given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector
from pyFAI.detectors.sensors import SensorConfig
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, distortion, response, sensor, xrf
from detcal.errors import InputError, OutputError
from detcal.frames.lanes import all_in_lanes, reading
from detcal.frames.readings import ALL_NUMBERS, readings
from detcal.frames.valid import as_mask, find_readings

SHAPE = (8, 8)
HOLE = (4, 4)
GAIN = response.Response.from_gain(np.ones(SHAPE), sigma=1.0)
CORNERS = np.stack(np.meshgrid(*2 * [np.arange(9.0)], indexing="ij"), axis=-1)
IDEAL = distortion.DistortionMap.of_corners(CORNERS, (1.0, 1.0), np.zeros(SHAPE, bool))
PSF = sensor.build_psf(sensor.PlanarGeometry(SHAPE, (1e-4, 1e-4), 1.0, (0.0, 0.0)), attenuation_per_m=1e5, thickness_m=1e-3)


def bins_of(detector=None, **options):
    """Each pixel in a ring, or a few together, near the beam: a mean of few numbers."""
    detector = detector or Detector(1e-4, 1e-4, max_shape=SHAPE)
    return azimuthal.build_bins(Geometry(1.0, detector=detector), npt=1, unit="r_mm", solid_angle=False, **options)


ONE_RING = bins_of()


def mean_of(frames, bins=None, **options):
    return azimuthal.integrate(frames, bins or ONE_RING, **options).compute().intensity.values[:, 0]


def stack_of(value, dtype, count=2, background=100):
    """Frames of 100 counts with a value in one pixel."""
    frames = np.full((count, *SHAPE), background, dtype)
    frames[(slice(None), *HOLE)] = value
    return frames


def lazy(frames, **attrs):
    return xr.DataArray(da.from_array(frames, chunks=(1, -1, -1)), dims=("frame", "y", "x"), attrs=attrs)


def known_pixel(found):
    return np.isfinite(found[(slice(None), *HOLE)]).all()


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
    """Whether a sweep of which the second frame is these has a reading in the pixel."""
    frames = frames if isinstance(frames, xr.DataArray) else lazy(frames)
    cal = response.fit_response(frames, sigma=1.0, cutoff=-1e9, **options).compute()
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
    np.testing.assert_array_equal(all_in_lanes(frames, valid)[:, 0], np.float32(expected))


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


# -------------------------------------------------------------------------------------------------- as frames are opened


JOBS = {
    "correct": lambda frames: response.correct_response(frames, GAIN),
    "fit": lambda frames: response.fit_response(frames, sigma=1.0, cutoff=0.0).gain,
    "deconvolve": lambda frames: sensor.deconvolve(frames, PSF),
    "distortion": lambda frames: distortion.correct_distortion(frames, IDEAL, variance="poisson"),
    "integrate": lambda frames: azimuthal.integrate(frames, ONE_RING),
    "median": lambda frames: azimuthal.median_filter(frames, ONE_RING),
}


@pytest.fixture
def mask():
    masked = np.zeros(SHAPE, bool)
    masked[HOLE] = masked[0, 1] = True
    return masked


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "f4"])
@pytest.mark.parametrize("kind", ["npy", "zarr", "h5"])
def test_masked_pixels_of_opened_frames_are_nan_in_all_subjects(tmp_path, mask, dtype, kind):
    path = tmp_path / f"raw.{kind}"
    frames = stack_of(5, dtype, 4)
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
    for given_ in ("mask.npy", "response.zarr"):
        assert (np.isnan(detcal.open_frames(tmp_path / "raw.npy", mask=tmp_path / given_).values) == mask).all()
    for given_, message in (("stack.npy", "got a stack"), ("map.zarr", "an image or a response as the mask, found DistortionMap")):
        with pytest.raises(InputError, match=message):
            detcal.open_frames(tmp_path / "raw.npy", mask=tmp_path / given_)


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


# --------------------------------------------------------------------------------- chains, and what was corrected already


def parallax_geometry():
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE, sensor=SensorConfig.from_dict({"material": "Si", "thickness": 1e-3}))
    geometry = Geometry(0.1, detector=detector, wavelength=1e-10)
    geometry.enable_parallax(True)
    return geometry


DARK = np.full((2, *SHAPE), 3, np.uint16)
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
        xr.testing.assert_equal(found.drop_vars(set(found.coords) - set(whole.coords)), whole)


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
    with_it, without_it = (azimuthal.build_bins(parallax_geometry(), npt=3, unit="r_mm", parallax=wanted) for wanted in (None, False))
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


# ------------------------------------------------------------------------------------------------------------ in recipes


def built(folder, text):
    (folder / "recipe.toml").write_text(f"{text}\n[output]\npath = 'out.zarr'\n")
    return build(read_recipe(folder / "recipe.toml"))


def test_input_of_a_recipe_has_masks_and_flags(tmp_path, mask):
    frames = stack_of(5, "i4")
    frames[0, 1, 1], frames[0, 2, 2] = -1, 500
    np.save(tmp_path / "raw.npy", frames)
    np.save(tmp_path / "mask.npy", mask)
    detcal.save(GAIN, tmp_path / "gain.zarr")
    step = "[[steps]]\noperation = 'correct_response'\nresponse = 'gain.zarr'\n"
    given_ = "mask = 'mask.npy'\ndummy = [-1.0, -2.0]\nvalid_range = [-5.0, 400.0]\n"
    result = built(tmp_path, f"[input]\npath = 'raw.npy'\n{given_}{step}")
    np.testing.assert_array_equal(result.values, np.where(mask | (frames == -1) | (frames == 500), np.nan, frames))
    result = built(tmp_path, f"[input]\npath = 'raw.npy'\n{step}dummy = 500")
    np.testing.assert_array_equal(result.values, np.where(frames == 500, np.nan, frames))


def test_the_mask_of_a_recipe_is_an_input_that_no_output_replaces(tmp_path, mask):
    np.save(tmp_path / "raw.npy", stack_of(5, "u2"))
    np.save(tmp_path / "mask.npy", mask)
    detcal.save(GAIN, tmp_path / "gain.zarr")
    text = "[input]\npath = 'raw.npy'\nmask = 'mask.npy'\n[[steps]]\noperation = 'correct_response'\nresponse = 'gain.zarr'"
    (tmp_path / "recipe.toml").write_text(f"{text}\n[output]\npath = 'mask.npy'\noverwrite = true\n")
    recipe = read_recipe(tmp_path / "recipe.toml")
    with pytest.raises(OutputError):
        check_result(recipe, build(recipe), overwrite=True)


def test_a_recipe_that_deconvolves_leaves_parallax_to_that(tmp_path):
    np.save(tmp_path / "raw.npy", stack_of(50, "u2"))
    np.save(tmp_path / "dark.npy", DARK)
    detcal.save(GAIN, tmp_path / "gain.zarr")
    detcal.save(PSF, tmp_path / "psf.zarr")
    geometry = parallax_geometry()
    geometry.save(str(tmp_path / "x.poni"))
    start = "[input]\npath = 'raw.npy'\n"
    rings = "[[steps]]\noperation = 'integrate'\ngeometry = 'x.poni'\nunit = 'r_mm'\nnpt = 3\n"
    sharp = sensor.deconvolve(stack_of(50, "u2"), PSF)
    found = built(tmp_path, f"{start}[[steps]]\noperation = 'deconvolve'\npsf = 'psf.zarr'\n{rings}").compute()
    xr.testing.assert_equal(found, azimuthal.integrate(sharp, azimuthal.build_bins(geometry, npt=3, unit="r_mm", parallax=False)).compute())
    found = built(tmp_path, start + rings).compute()
    xr.testing.assert_equal(found, azimuthal.integrate(stack_of(50, "u2"), azimuthal.build_bins(geometry, npt=3, unit="r_mm")).compute())
    steps = f"[[steps]]\noperation = 'correct_response'\nresponse = 'gain.zarr'\ndark = 'dark.npy'\n{rings}dark = 'dark.npy'"
    with pytest.raises(InputError, match="a dark taken off"):
        built(tmp_path, start + steps)
