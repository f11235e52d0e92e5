"""Masks and flags in recipes."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build, check_result
from detcal_pipelines.recipe import read_recipe
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, sensor
from detcal.errors import InputError, OutputError
from tests.frames.subjects import DARK, GAIN, IDEAL, PSF, SHAPE, parallax_geometry, stack_of


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


def test_a_recipe_that_deconvolves_leaves_parallax_and_efficiency_to_that(tmp_path):
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
    bins = azimuthal.build_bins(geometry, npt=3, unit="r_mm", parallax=False, sensor_efficiency=False)
    xr.testing.assert_equal(found, azimuthal.integrate(sharp, bins).compute())
    found = built(tmp_path, start + rings).compute()
    xr.testing.assert_equal(found, azimuthal.integrate(stack_of(50, "u2"), azimuthal.build_bins(geometry, npt=3, unit="r_mm")).compute())
    steps = f"[[steps]]\noperation = 'correct_response'\nresponse = 'gain.zarr'\ndark = 'dark.npy'\n{rings}dark = 'dark.npy'"
    with pytest.raises(InputError, match="a dark taken off"):
        built(tmp_path, start + steps)


BEFORE = {
    "remove_zingers": "", "crop": "region = '0:, 0:'", "rebin": "factors = [1, 1]",
    "correct_response": "dark = 1.0\nflat = 'flat.npy'",
    "correct_distortion": "distortion = 'ideal.zarr'", "uncorrect": "distortion = 'ideal.zarr'",
}  # fmt: skip


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory):
    """Of an ideal detector, and of one that flags -1 and -2."""
    folder = tmp_path_factory.mktemp("flagging")
    detcal.save(IDEAL, folder / "ideal.zarr")
    np.save(folder / "flat.npy", np.full(SHAPE, 2.0, np.float32))
    flagging = Detector(1e-4, 1e-4, max_shape=SHAPE)
    flagging.dummy, flagging.delta_dummy = -2, 1.5
    psf = sensor.build_psf(Geometry(1.0, detector=flagging), thickness_m=1e-3, attenuation_per_m=1e5)
    detcal.save(psf, folder / "flagging.zarr")
    return folder


@pytest.mark.parametrize(("first", "dtype"), [*((first, "f4") for first in BEFORE), ("crop", "i4"), ("crop", "u4")])
def test_what_the_detector_of_a_later_step_flags_is_no_reading_for_the_first(calibrations, first, dtype):
    """A .npy file says nothing of its frames, and neither does what the first step makes of them."""
    frames = stack_of(-1, "i4", background=200)
    frames[:, 1, 6] = -2
    np.save(calibrations / "raw.npy", frames.astype(dtype))
    steps = (
        f"[[steps]]\noperation = '{first}'\n{BEFORE[first]}\n[[steps]]\noperation = 'deconvolve'\npsf = 'flagging.zarr'\nmethod = 'direct'"
    )
    found = built(calibrations, f"[input]\npath = 'raw.npy'\n{steps}").values
    np.testing.assert_array_equal(np.isnan(found), frames < 0)
    found = built(calibrations, f"[input]\npath = 'raw.npy'\ndummy = nan\n{steps}").values  # what the caller says comes first
    assert np.isfinite(found).all()
