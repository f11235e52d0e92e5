"""The matrix in use: stored, applied and summed."""

import numpy as np
import pytest
import scipy.sparse as sp

from detcal import load, save
from detcal.errors import InputError
from detcal.sensor import PlanarGeometry, SensorPSF, build_psf


@pytest.fixture(scope="module")
def psf():
    mask = np.zeros((30, 41), bool)
    mask[5, 6] = True
    return build_psf(PlanarGeometry((30, 41), (172e-6, 172e-6), 0.05, (3e-3, -2e-3)), energy_kev=17.0, mask=mask, tile_rows=7)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_matrix_comes_back_from_a_file(psf, tmp_path, suffix):
    save(psf, tmp_path / f"psf{suffix}")
    found = load(tmp_path / f"psf{suffix}")
    assert isinstance(found, SensorPSF)
    assert (found.to_scipy() != psf.to_scipy()).nnz == 0
    assert found.geometry == psf.geometry
    assert (found.thickness_m, found.attenuation_per_m) == (psf.thickness_m, psf.attenuation_per_m)
    np.testing.assert_array_equal(found.mask, psf.mask)


def test_a_matrix_goes_to_scipy(psf, tmp_path):
    psf.save_npz(tmp_path / "psf.npz")
    assert (sp.load_npz(tmp_path / "psf.npz") != psf.to_scipy()).nnz == 0


@pytest.mark.parametrize("frames", [1, 16, 21])
@pytest.mark.parametrize("dtype", ["u2", "f4", ">i4"])
def test_frames_are_blurred_by_the_matrix(psf, frames, dtype):
    stack = np.random.default_rng(0).poisson(100, (frames, 30, 41)).astype(dtype)
    wanted = (psf.to_scipy().astype(float) @ stack.reshape(frames, -1).T.astype(float)).T.reshape(stack.shape)
    found = psf.apply(stack).values
    assert np.isnan(found[:, 5, 6]).all()
    np.testing.assert_allclose(np.nan_to_num(found), wanted, rtol=1e-5)


def test_efficiency_is_the_column_sums(psf):
    np.testing.assert_allclose(psf.efficiency.values.ravel(), np.asarray(psf.to_scipy().sum(axis=0)).ravel(), rtol=1e-6)


def test_frames_of_another_shape_are_refused(psf):
    with pytest.raises(InputError, match=r"expected frames of shape \(30, 41\)"):
        psf.apply(np.zeros((2, 5, 5)))
