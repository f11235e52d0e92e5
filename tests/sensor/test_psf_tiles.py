"""The point-spread matrix is the same in other tiles and on other schedulers."""

import dask
import numpy as np
import pytest
import scipy.sparse as sp
from distributed import Client, LocalCluster

from detcal.sensor import build_psf
from tests.sensor.rays import PITCH, SILICON, SQUARE, assert_same_bits, plane


@pytest.fixture(scope="module")
def tiled():
    """A detector with dead pixels, seen up to 60°, and its matrix as one task makes it."""
    geometry = plane((70, 41), (PITCH, 75e-6), 0.006, (24.3, 11))
    mask = np.random.default_rng(4).random(geometry.shape) < 0.05
    mask[30:33] = True  # a band without any coefficient

    def build(tile_rows):
        psf = build_psf(geometry, thickness_m=1e-3, attenuation_per_m=SILICON, mask=mask, tile_rows=tile_rows)
        return psf.data, psf.indices, psf.indptr

    return build, dask.compute(*build(None), scheduler="synchronous")


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("tile_rows", [None, 1, 7, 64, 1000])
def test_matrix_does_not_depend_on_tiles(tiled, tile_rows, scheduler):
    build, wanted = tiled
    parts = build(tile_rows)
    assert (parts[0].npartitions > 1) == ((tile_rows or 70) < 70)
    assert_same_bits(dask.compute(*parts, scheduler=scheduler), wanted)


def test_matrix_does_not_depend_on_processes(tiled):
    build, wanted = tiled
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        for tile_rows in (None, 7, 64):
            assert_same_bits(dask.compute(*build(tile_rows)), wanted)


@pytest.mark.parametrize("tile_rows", [None, 7])
def test_types_are_those_that_are_documented(tiled, tile_rows):
    lazy = tiled[0](tile_rows)
    for parts in (lazy, dask.compute(*lazy)):
        assert [part.dtype for part in parts] == [np.float32, np.int32, np.int64]


def test_matrix_is_csr_with_rising_indices(tiled):
    data, indices, indptr = tiled[1]
    indptr = indptr.astype(np.int64)
    assert indptr.shape == (70 * 41 + 1,)
    assert indptr[0] == 0
    assert indptr[-1] == len(data) == len(indices)
    assert (np.diff(indptr) >= 0).all()
    row = np.repeat(np.arange(70 * 41), np.diff(indptr))
    assert (np.diff(row * 70 * 41 + indices) > 0).all()  # so none is there twice
    assert indices.min() >= 0
    assert indices.max() < 70 * 41
    assert (data >= 0).all()
    assert (data < 1).all()


def test_lazy_arrays_say_their_shape_and_type_before_they_are_computed(tiled):
    build, wanted = tiled
    for lazy, array in zip(build(7), wanted, strict=True):
        assert lazy.shape == array.shape
        assert lazy.dtype == array.dtype


def test_saved_npz_is_the_matrix(tmp_path):
    psf = build_psf(plane((5, 7), SQUARE, 0.02, (1, 2.5)), thickness_m=450e-6, attenuation_per_m=SILICON)
    psf.save_npz(tmp_path / "psf.npz")
    found, wanted = sp.load_npz(tmp_path / "psf.npz"), psf.to_scipy()
    assert (found.shape, found.format) == ((35, 35), "csr")
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_computed_psf_is_the_same_in_memory():
    lazy = build_psf(plane((5, 7), SQUARE, 0.02, (1, 2.5)), thickness_m=450e-6, attenuation_per_m=SILICON, tile_rows=2)
    computed = lazy.compute()
    assert lazy.data.npartitions == 3
    assert computed.data.npartitions == 1
    assert_same_bits(dask.compute(computed.data, computed.indices, computed.indptr), dask.compute(lazy.data, lazy.indices, lazy.indptr))
    np.testing.assert_array_equal(computed.efficiency, lazy.efficiency)
    assert computed.geometry == lazy.geometry == plane((5, 7), SQUARE, 0.02, (1, 2.5))
