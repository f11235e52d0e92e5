"""A matrix that is built lazily is built once, whatever takes it, and however often."""

import pickle

import dask
import numpy as np
import pytest

from detcal import load, save
from detcal.distortion import DistortionMap, build_overlaps, correct_distortion, overlaps, uncorrect
from detcal.frames.once import Once
from detcal.sensor import PlanarGeometry, build_psf, deconvolve, kernels

TILES = 4


def counted(monkeypatch, module, name):
    """The calls of a function of a module, from now on."""
    calls, function = [], getattr(module, name)

    def call(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, call)
    return calls


@pytest.fixture
def fills(monkeypatch):
    """The bands of a sensor's matrix that are filled."""
    return counted(monkeypatch, kernels, "fill_band")


def lazy_psf():
    plane = PlanarGeometry((40, 30), (172e-6, 172e-6), 0.28, (-0.05, -0.05))
    return build_psf(plane, thickness_m=450e-6, attenuation_per_m=1500.0, tile_rows=40 // TILES)


FRAMES = np.random.default_rng(0).uniform(1, 9, (3, 40, 30))
USES = {
    "blur": lambda psf: psf.apply(FRAMES),
    "efficiency": lambda psf: psf.efficiency,
    "direct": lambda psf: deconvolve(FRAMES, psf),
    "lsmr": lambda psf: deconvolve(FRAMES, psf, method="lsmr"),
    "mlem": lambda psf: deconvolve(FRAMES, psf, method="mlem", max_iterations=3),
    "variance": lambda psf: deconvolve(FRAMES, psf, variance=FRAMES),
}


@pytest.mark.parametrize("use", USES)
def test_the_bands_of_a_lazy_psf_are_filled_once(fills, use):
    psf = lazy_psf()
    first, other = USES[use](psf), USES[use](psf)
    first.compute()
    assert len(fills) == TILES
    dask.compute(first, other)
    USES["direct"](psf).compute()
    assert len(fills) == TILES


def test_matrices_in_memory_and_of_scipy_are_the_same_one(fills):
    psf = lazy_psf()
    psf.to_scipy(), psf.compute(), psf.T, psf.efficiency.compute(), psf.conditioning
    deconvolve(FRAMES, psf.compute()).compute()
    assert len([rows for rows, _, _, _, gaps, _ in fills if not np.shares_memory(gaps, psf.mask.values)]) == TILES


def test_a_matrix_that_was_computed_is_saved_as_it_is(fills, tmp_path):
    psf = lazy_psf()
    deconvolve(FRAMES, psf, method="direct").compute()
    wanted = psf.conditioning
    at_first = len(fills)
    for name in ("psf.zarr", "psf.npz"):
        save(psf, tmp_path / name)
        found = load(tmp_path / name)
        assert (found.to_scipy() != psf.to_scipy()).nnz == 0
        assert found.conditioning == wanted
    assert len(fills) == at_first


def test_efficiency_is_the_sum_of_the_columns():
    psf = lazy_psf()
    np.testing.assert_allclose(psf.efficiency, np.asarray(psf.to_scipy().sum(axis=0)).reshape(40, 30), rtol=1e-6)


def test_tiles_of_overlaps_are_filled_once(monkeypatch):
    fills = counted(monkeypatch, overlaps, "fill_rows")
    corners = np.stack(np.meshgrid(np.arange(41.0), np.arange(31.0), indexing="ij"), axis=-1) * 1.03
    matrix = build_overlaps(DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((40, 30), bool)), tile_rows=40 // TILES)
    found = correct_distortion(FRAMES, matrix, variance="poisson", coverage=True)
    found.compute()
    assert len(fills) == TILES
    dask.compute(found, correct_distortion(FRAMES, matrix), uncorrect(FRAMES, matrix))
    assert len(fills) == TILES


def test_another_process_builds_its_own():
    """What is built does not travel with the graph."""
    once = Once(many_zeros)
    assert once.get() is once.get()
    sent = pickle.dumps(once)
    assert len(sent) < 1000
    assert pickle.loads(sent).get() is not once.get()


def many_zeros():
    return np.zeros(10_000)
