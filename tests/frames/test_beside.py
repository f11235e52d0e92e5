"""Darks and flats have the flags of the frames that they are beside, where they say nothing themselves."""

import numpy as np
import pytest
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, response, sensor
from detcal.response.samples import sample_pixels
from tests.frames.subjects import HOLE, ONE_RING, SHAPE, lazy, parallax_geometry, stack_of

DARK, FLAT = 10, 210  # counts


def marked(level, value, dtype="i4"):
    """Two images of a level, of which the first has a number in one pixel."""
    frames = np.full((2, *SHAPE), level, dtype)
    frames[(0, *HOLE)] = value
    return frames


FLAGS = {
    "a number": (-1, {"missing_value": -1}), "one of several": (-2, {"missing_value": [-1, -2]}),
    "a large one": (65535, {"missing_value": 65535}),
    "above the range": (5000, {"valid_max": 4000}), "above both ends": (5000, {"valid_range": np.array([0, 4000])}),
    "below the range": (-7, {"valid_min": 0}),
}  # fmt: skip


@pytest.mark.parametrize("form", [np.asarray, lazy], ids=["array", "lazy"])
@pytest.mark.parametrize("case", FLAGS)
def test_what_frames_flag_is_no_reading_of_their_dark_and_flat(case, form):
    value, attrs = FLAGS[case]
    frames = lazy(stack_of(60, "i4", background=60), **attrs)
    for dark, flat in ((marked(DARK, value), marked(FLAT, FLAT)), (marked(DARK, DARK), marked(FLAT, value))):
        found = response.correct_response(frames, dark=form(dark), flat=form(flat)).values
        np.testing.assert_allclose(found, (60 - DARK) / (FLAT - DARK), rtol=1e-6)


def test_what_is_marked_in_all_frames_of_a_dark_is_nan():
    dark = stack_of(-1, "i4", background=DARK)
    found = response.correct_response(lazy(stack_of(60, "i4"), missing_value=-1), dark=dark).values
    assert np.isnan(found[(slice(None), *HOLE)]).all()
    assert np.isnan(found).sum() == 2


def test_a_sweep_and_frames_that_are_averaged_flag_for_their_darks():
    counts = np.random.default_rng(1).poisson(np.multiply.outer(np.arange(1000, 6000, 1000), np.ones(SHAPE)))
    sweep = lazy(counts.astype("i4"), missing_value=-1)
    with_marks, without = (response.fit_response(sweep, dark, sigma=1.0, intercept=True) for dark in (marked(DARK, -1), marked(DARK, DARK)))
    np.testing.assert_array_equal(with_marks.offset, without.offset)  # a dark of half as much would be in it
    given = {"n_pixels": 1, "pixels": [HOLE], "seed": 0, "sigma": 1.0, "order": 1, "boundary": "nearest", "truncate": 4.0}
    measured = sample_pixels(sweep, marked(DARK, -1), mask=None, **given).measured[:, 0]
    np.testing.assert_array_equal(measured, counts[(slice(None), *HOLE)] - DARK)
    frames = lazy(stack_of(60, "i4", background=60), missing_value=-1)
    found = azimuthal.integrate(frames, ONE_RING, darks=marked(DARK, -1)).compute()
    np.testing.assert_allclose(found.intensity, 60 - DARK)
    np.testing.assert_array_equal(found["count"][:, 0], [63, 64])


def test_what_a_dark_says_itself_comes_first():
    frames = lazy(stack_of(60, "i4", background=60), missing_value=-1)
    dark = lazy(marked(DARK, -1), missing_value=np.nan)
    assert response.correct_response(frames, dark=dark).values[(0, *HOLE)] == 60 - (DARK - 1) / 2
    assert np.isnan(response.correct_response(frames, dark=dark, dummy=-1).values).sum() == 0  # the caller's is of both
    assert response.correct_response(frames, dark=dark, dummy=-1).values[(0, *HOLE)] == 60 - DARK


@pytest.mark.parametrize("attrs", [{"missing_value": 0}, {"valid_min": 1}, {"missing_value": 65535 + 10, "valid_max": np.inf}])
def test_no_counts_in_a_dark_are_a_reading(attrs):
    """And so is what it cannot hold no flag of it."""
    frames = lazy(stack_of(60, "i4", background=60), **attrs)
    dark = np.full(SHAPE, 0, "u2")
    dark[0, 0] = 9
    np.testing.assert_array_equal(response.correct_response(frames, dark=dark).values[0], 60.0 - dark)
    less = np.full(SHAPE, -0.25, "f4")  # the mean of what was taken off already
    np.testing.assert_array_equal(response.correct_response(frames, dark=less).values, 60.25)


@pytest.mark.parametrize("suffix", [None, ".zarr", ".h5"])
@pytest.mark.parametrize("case", FLAGS)
def test_results_know_for_their_darks_what_flagged_raw_frames(tmp_path, case, suffix):
    """In them, all numbers are readings."""
    value, attrs = FLAGS[case]
    made = response.remove_zingers(lazy(stack_of(60, "i4", background=60), **attrs))
    if suffix is not None:
        detcal.save(made, tmp_path / f"made{suffix}")
        made = detcal.open_frames(tmp_path / f"made{suffix}")
    assert np.isnan(made.missing_value)
    for once in (made, response.rebin(made, 1)):  # and what is made of results
        np.testing.assert_allclose(response.correct_response(once, dark=marked(DARK, value)).values, 60 - DARK)


def test_a_dark_that_is_binned_as_its_frames_were_has_their_flags_before():
    frames = response.rebin(lazy(stack_of(60, "i4", background=60), missing_value=-1), 2)
    found = response.correct_response(frames, dark=marked(DARK, -1)).values
    np.testing.assert_allclose(found, 4 * (60 - DARK), rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------- recipes


def built(folder, steps, flags="dummy = -1"):
    text = f"[input]\npath = 'raw.npy'\n{flags}\n{steps}\n[output]\npath = 'out.zarr'\n"
    (folder / "recipe.toml").write_text(text)
    return build(read_recipe(folder / "recipe.toml")).compute()


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "raw.npy", stack_of(60, "i4", background=60))
    np.save(tmp_path / "dark.npy", marked(DARK, -1))
    np.save(tmp_path / "flat.npy", marked(FLAT, -1))
    return tmp_path


@pytest.mark.filterwarnings("ignore:two frames that are averaged")  # of which one has the mark, as long as this is a reading
@pytest.mark.parametrize("before", ["", "[[steps]]\noperation = 'remove_zingers'\n"], ids=["alone", "behind another step"])
def test_what_the_input_of_a_recipe_flags_is_no_reading_of_darks_and_flats(files, before):
    step = f"{before}[[steps]]\noperation = 'correct_response'\ndark = 'dark.npy'\nflat = 'flat.npy'"
    np.testing.assert_allclose(built(files, step).values, (60 - DARK) / (FLAT - DARK), rtol=1e-6)
    with pytest.warns(UserWarning, match="counts below 0 are taken as readings"):
        assert not np.allclose(built(files, step, flags="dummy = nan").values, (60 - DARK) / (FLAT - DARK))


@pytest.mark.filterwarnings("ignore:two frames that are averaged")  # of which one has the mark, as long as this is a reading
def test_nor_of_those_that_bins_are_built_with(files):
    parallax_geometry().save(str(files / "x.poni"))
    step = (
        "[[steps]]\noperation = 'integrate'\ngeometry = 'x.poni'\nnpt = 1\nunit = 'r_mm'\nsolid_angle = false\ndark = 'dark.npy'\nflat = "
    )
    for flags in ("dummy = -1", "dummy = [-1, -2]", "valid_range = [0.0, 1000.0]"):
        found = built(files, f"{step}'flat.npy'\nparallax = false\nsensor_efficiency = false", flags)
        np.testing.assert_allclose(found.intensity, (60 - DARK) / FLAT, rtol=1e-6)
    with pytest.warns(UserWarning, match="counts below 0 are taken as readings"):  # what was prepared before is not taken
        other = built(files, f"{step}'flat.npy'\nparallax = false\nsensor_efficiency = false", "dummy = nan")
    assert not np.allclose(other.intensity, (60 - DARK) / FLAT, rtol=1e-6)


def test_a_dark_of_a_file_that_speaks_keeps_its_own_flags(files):
    dark = detcal.open_frames(files / "dark.npy", dummy=-3)
    detcal.save(dark, files / "dark.zarr")
    found = built(files, "[[steps]]\noperation = 'correct_response'\ndark = 'dark.zarr'").values
    assert found[(0, *HOLE)] == 60 - (DARK - 1) / 2


def test_what_the_detector_of_a_later_step_flags_is_no_reading_of_a_dark(files):
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE)
    detector.dummy, detector.delta_dummy = -2, 1.5
    psf = sensor.build_psf(Geometry(1.0, detector=detector), thickness_m=1e-3, attenuation_per_m=1e5)
    detcal.save(psf, files / "psf.zarr")
    step = "[[steps]]\noperation = 'correct_response'\ndark = 'dark.npy'\n[[steps]]\noperation = 'deconvolve'\npsf = 'psf.zarr'\n"
    found = built(files, f"{step}method = 'direct'", flags="")
    np.testing.assert_allclose(found, sensor.deconvolve(np.full((2, *SHAPE), 60.0 - DARK), psf, method="direct"), rtol=1e-5)
