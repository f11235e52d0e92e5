"""Masks and flags in recipes."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build, check_result
from detcal_pipelines.recipe import read_recipe

import detcal
from detcal import azimuthal, sensor
from detcal.errors import InputError, OutputError
from tests.frames.subjects import DARK, GAIN, PSF, parallax_geometry, stack_of


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
