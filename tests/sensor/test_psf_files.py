"""The matrix in scipy's form, transposed, made by hand, and as a figure."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from detcal import load, save
from detcal.errors import InputError, OutputError
from detcal.sensor import Conditioning, SensorPSF, build_psf, calibration, deconvolve, plot_absorption
from tests.sensor.blurs import MILD, dense, frames_of, psf_of
from tests.sensor.rays import SILICON, SQUARE, plane


def test_npz_files_are_scipys_and_load_again(tmp_path):
    psf = psf_of("PONI outside")
    save(psf, tmp_path / "psf.npz")
    assert (sp.load_npz(tmp_path / "psf.npz") != psf.to_scipy()).nnz == 0
    found = load(tmp_path / "psf.npz")
    assert isinstance(found, SensorPSF)
    assert (found.to_scipy() != psf.to_scipy()).nnz == 0
    np.testing.assert_array_equal(found.mask, psf.mask)
    assert (found.geometry, found.slab, found.attenuation_per_m) == (psf.geometry, psf.slab, psf.attenuation_per_m)
    frames = frames_of(psf)
    np.testing.assert_array_equal(deconvolve(frames, found), deconvolve(frames, psf))


def test_npz_files_of_others_and_other_things_are_refused(tmp_path):
    sp.save_npz(tmp_path / "other.npz", sp.eye(4, format="csr"))
    with pytest.raises(InputError, match=r"expected a matrix that detcal wrote, got .* without detcal_attrs, detcal_mask"):
        load(tmp_path / "other.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"cannot read .*bad.npz: it is damaged"):
        load(tmp_path / "bad.npz")
    with pytest.raises((InputError, OutputError), match="npz"):
        save(np.ones((3, 4, 4)), tmp_path / "frames.npz")


def test_transposed_matrices_spread_back():
    psf = psf_of("75°")
    recorded = np.random.default_rng(0).uniform(0, 9, psf.mask.size)
    np.testing.assert_allclose(psf.T @ recorded, dense(psf).T @ recorded, rtol=1e-5)


def test_the_conditioning_that_was_asked_for_is_kept(tmp_path, monkeypatch):
    psf = build_psf(plane((12, 13), SQUARE, 0.02, (1, 2.5)), thickness_m=450e-6, attenuation_per_m=SILICON)
    save(psf, tmp_path / "before.zarr")
    wanted = psf.conditioning
    save(psf, tmp_path / "psf.zarr")
    monkeypatch.setattr(calibration, "find_conditioning", lambda *_: Conditioning(-1.0, -1.0))
    assert load(tmp_path / "psf.zarr").conditioning == wanted
    assert load(tmp_path / "before.zarr").conditioning == Conditioning(-1.0, -1.0)


@pytest.mark.parametrize("name", MILD)
def test_matrices_that_were_built_are_those_of_their_slab(name):
    for dead in (False, True):
        psf = psf_of(name, dead)
        replace(psf, data=psf.data * np.float32(1)).in_memory.compute()


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("indptr that rises", lambda parts: parts | {"indptr": parts["indptr"][:-1]}),
        ("indptr that rises", lambda parts: parts | {"data": parts["data"][:-1]}),
        ("pixels that its rays do not go to", lambda parts: parts | {"data": -parts["data"]}),
        ("pixels that its rays do not go to", lambda parts: parts | {"indices": parts["indices"][::-1]}),
        ("pixels that its rays do not go to", lambda parts: parts | {"indices": parts["indices"] + 100_000}),
    ],
)
def test_matrices_by_hand_that_are_not_of_their_slab_are_refused(message, change):
    psf = psf_of("PONI outside", dead=False)
    parts = change({name: getattr(psf, name).compute() for name in ("data", "indices", "indptr")})
    by_hand = replace(psf, **{name: da.from_array(part, chunks=-1) for name, part in parts.items()})
    with pytest.raises(InputError, match=message) as caught:
        deconvolve(np.ones(psf.shape), by_hand).compute()
    assert "\n" not in str(caught.value)


def test_a_matrix_of_a_thinner_slab_is_refused():
    psf = psf_of("75°, many pixels crossed", dead=False)
    with pytest.raises(InputError, match="a sensor of 50 µm, got coefficients of pixels that its rays do not go to"):
        replace(psf, thickness_m=50e-6).in_memory.compute()


def test_the_figure_ends_at_the_efficiency():
    psf = build_psf(plane((12, 13), SQUARE, 0.02, (6, 6.5)), thickness_m=450e-6, attenuation_per_m=SILICON)
    lines = plot_absorption(psf).axes[0].lines
    ends = [line.get_ydata()[-1] for line in lines]
    assert ends[0] == pytest.approx(100 * -np.expm1(-SILICON * 450e-6), rel=1e-4)
    assert ends[1] > ends[0]
    assert all(line.get_ydata()[0] == 0 for line in lines)
