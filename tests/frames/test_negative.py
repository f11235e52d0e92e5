"""Counts below 0: nobody says what they are, or a geometry says that some stand for none."""

import warnings

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, distortion, response, sensor
from detcal.first_look import look_at
from tests.frames.subjects import GAIN, IDEAL, ONE_RING, PSF, bins_of, lazy, stack_of
from tests.pipelines.commands import detcal as command

TOLD = "counts below 0 are taken as readings, since nothing says that they stand for none: give dummy = -1"
STEPS = {
    "rebin": lambda frames, **o: response.rebin(frames, 2, **o),
    "gains": lambda frames, **o: response.correct_response(frames, GAIN, **o),
    "zingers": lambda frames, **o: response.remove_zingers(frames, **o),
    "rings": lambda frames, **o: azimuthal.integrate(frames, ONE_RING, **o),
    "blur": lambda frames, **o: sensor.deconvolve(frames, PSF, **o),
    "map": lambda frames, **o: distortion.correct_distortion(frames, IDEAL, **o),
    "fit": lambda frames, **o: response.fit_response(frames, sigma=1.0, cutoff=-1e9, **o).gain,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", ["i2", "i4"])
def test_counts_below_0_of_which_nobody_says_anything_are_told(step, dtype):
    frames = lazy(np.random.default_rng(0).poisson(stack_of(100, "i4", 4)).astype(dtype))
    frames.data[0, 0, 0] = -1
    with pytest.warns(UserWarning, match=TOLD):
        STEPS[step](frames).compute()
    with warnings.catch_warnings(action="error"):
        STEPS[step](frames)  # nothing is read while the graph is built
        STEPS[step](frames, dummy=-1).compute()
        STEPS[step](frames, dummy=np.nan).compute()
        STEPS[step](frames.assign_attrs(missing_value=[-1, -2])).compute()
        STEPS[step](frames.where(frames >= 0, 0)).compute()
        STEPS[step](frames.astype("f4")).compute()


def test_such_frames_with_a_mask_are_told_too():
    frames = detcal.frames.valid.with_flags(lazy(stack_of(-1, "i4")), mask=np.eye(8, k=1))
    with pytest.warns(UserWarning, match=TOLD):
        response.rebin(frames, 2).compute()


def test_a_run_says_it_once(tmp_path):
    np.save(tmp_path / "raw.npy", stack_of(-1, "i4", count=40))
    text = "[input]\npath = 'raw.npy'\nchunk_frames = 1\n[[steps]]\noperation = 'rebin'\nfactors = [2, 2]\n[output]\npath = 'out.zarr'\n"
    (tmp_path / "recipe.toml").write_text(text)
    assert command(tmp_path, "run", "recipe.toml").stderr.count(TOLD) == 1


def test_a_first_look_says_how_many_there_are(tmp_path):
    frames = stack_of(-2, "i4")
    frames[:, 0, 0] = -1
    np.save(tmp_path / "raw.npy", frames)
    with pytest.warns(UserWarning, match=TOLD):
        said = look_at(tmp_path / "raw.npy").lines
    assert said["negative"].startswith("3.125 % (-2 to -1): flags? Then say dummy = -1, or")
    for dummy in (-1, np.nan):
        assert "negative" not in look_at(detcal.open_frames(tmp_path / "raw.npy", dummy=dummy)).lines


# -------------------------------------------------------------------------------------------- what a detector flags besides


@pytest.fixture(scope="module")
def flagging():
    """As Dectris detectors do, as pyFAI knows them: -2 and -1, and -3 within its delta_dummy."""
    detector = Detector(1e-4, 1e-4, max_shape=(8, 8))
    detector.dummy, detector.delta_dummy = -2, 1.5
    return bins_of(detector)


def told_of(result):
    """The warnings of a computation, in words; each once, as it is for whoever runs it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result.compute()
    return sorted({str(each.message) for each in told})


@pytest.mark.parametrize(
    ("attrs", "options", "left"),
    [
        ({"missing_value": -1}, {}, "[-2]"), ({"missing_value": -2}, {}, "[-1]"), ({"valid_max": 1000}, {}, "[-2, -1]"),
        ({}, {"dummy": -1}, "[-2]"),
        ({"missing_value": [-1, -2]}, {}, ""), ({"valid_min": 0}, {}, ""), ({"missing_value": np.nan}, {}, ""), ({}, {}, ""),
        ({}, {"dummy": np.nan}, ""), ({"valid_min": -1}, {}, "[-1]"),
    ],
)  # fmt: skip
def test_numbers_that_only_the_detector_flags_are_told(flagging, attrs, options, left):
    raw = stack_of(7, "i4")
    assert told_of(azimuthal.integrate(lazy(raw, **attrs), flagging, **options)) == []  # as they have none of these numbers
    raw[:, 0, :2] = -1, -2
    told = told_of(azimuthal.integrate(lazy(raw, **attrs), flagging, **options))
    assert [text for text in told if "of the geometry" not in text] == []
    assert [text.startswith(f"the detector of the geometry flags {left} too, which the frames have") for text in told] == [True] * bool(
        left
    )


def test_so_they_are_where_a_later_step_of_a_recipe_knows_the_detector(tmp_path):
    np.save(tmp_path / "raw.npy", stack_of(-2, "i4"))
    detector = Detector(1e-4, 1e-4, max_shape=(8, 8))
    detector.dummy, detector.delta_dummy = -2, 1.5
    detcal.save(sensor.build_psf(Geometry(1.0, detector=detector), thickness_m=1e-3, attenuation_per_m=1e5), tmp_path / "psf.zarr")
    steps = "[[steps]]\noperation = 'crop'\nregion = '0:, 0:'\n[[steps]]\noperation = 'deconvolve'\npsf = 'psf.zarr'\nmethod = 'direct'"
    for dummy, told in (("-1", True), ("[-1, -2]", False), ("nan", False)):
        (tmp_path / "recipe.toml").write_text(f"[input]\npath = 'raw.npy'\ndummy = {dummy}\n{steps}\n[output]\npath = 'out.zarr'\n")
        assert any("flags [-2] too" in text for text in told_of(build(read_recipe(tmp_path / "recipe.toml")))) == told


def test_an_image_of_negative_readings_that_was_made_real_is_as_it_is():
    frames = xr.DataArray(-np.ones((1, 8, 8), "f4"), dims=("frame", "y", "x"))
    np.testing.assert_array_equal(response.rebin(frames, 2), -4)
