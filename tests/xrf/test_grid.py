"""Scans on grids: against slow loops and scipy."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detcal
from detcal import xrf
from detcal.xrf import kernels, tiles
from detcal.xrf.path import swept
from tests.reference import xrf as reference
from tests.xrf.scans import METHODS, made_up, raster


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.2, 2.5))
def test_boxes_are_laid_as_polygons_are_clipped(seed, height):
    rng = np.random.default_rng(seed)
    starts, ends = rng.uniform(-0.5, 5.5, (2, 4, 2))
    ends[0, 0] = starts[0, 0]  # level
    ends[1, 1] = starts[1, 1] + 0.01  # steep
    starts[:, 0] = starts[:, 0].clip(0.5, 4.5)
    starts[:, 1] = starts[:, 1].clip(0.2, 4.8)
    entries, shares = np.empty((400, 3), np.int32), np.empty(400)
    count, reached = kernels.lay_boxes(starts, ends, height, (5, 5), 0, entries, shares)
    assert reached == 4
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        found = np.zeros((5, 5))
        mine = entries[:count, 0] == number
        found[entries[:count][mine][:, 1], entries[:count][mine][:, 2]] = shares[:count][mine]
        np.testing.assert_allclose(found, reference.box_shares(start, end, height, (5, 5)), atol=1e-7)


def test_boxes_ask_for_room():
    starts, ends = np.full((3, 2), 0.5), np.full((3, 2), 4.5)
    entries, shares = np.empty((12, 3), np.int32), np.empty(12)
    count, reached = kernels.lay_boxes(starts, ends, 1.0, (5, 5), 0, entries, shares)
    assert reached < 3
    np.testing.assert_allclose(shares[:count].sum(), reached)


def test_a_perfect_scan_is_its_own_map():
    found = xrf.build_scan_grid(made_up(raster(4, 6, serpentine=False)))
    assert found.shape == (4, 6)
    np.testing.assert_allclose(found.to_scipy().toarray(), np.eye(24), atol=1e-6)
    assert found.step == (1, 1)


@pytest.mark.parametrize("method", ["nearest", "selected"])
def test_a_perfect_serpentine_is_unrolled(method):
    places = raster(4, 6)
    selected = np.array([[row * 6 + (column if row % 2 == 0 else 5 - column) for column in range(6)] for row in range(4)])
    scan = made_up(places, selected=(("row", "column"), selected))
    found = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan, method=method)).values
    np.testing.assert_array_equal(found, scan.spectra.values[selected])


@pytest.mark.parametrize("method", METHODS)
def test_shares_are_those_of_their_method(scan, method):
    grid = xrf.build_scan_grid(scan, method=method)
    rows = np.asarray(grid.to_scipy().sum(axis=1)).ravel()
    columns = np.asarray(grid.to_scipy().sum(axis=0)).ravel()
    assert (grid.to_scipy().data > 0).all()
    if method == "drizzle":
        np.testing.assert_allclose(columns, 1, atol=1e-6)
    else:
        np.testing.assert_allclose(rows[rows > 0], 1, atol=1e-6)
    np.testing.assert_allclose(grid.coverage.values.ravel(), rows, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([None, 0.7, (1.3, 0.6), 5.0]))
def test_drizzle_keeps_every_count(seed, turned, step):
    rng = np.random.default_rng(seed)
    places = raster(int(rng.integers(1, 7)), int(rng.integers(3, 9)))
    places = places + rng.normal(0, 0.2, places.shape)
    places[-1] = places[0]  # a place that was visited twice
    scan = made_up(places[:, ::-1] if turned else places, seed=seed)
    cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan, step=step)).values.astype(float)
    np.testing.assert_allclose(np.nansum(cube, axis=(0, 1)), scan.spectra.values.sum(axis=0, dtype=float), rtol=1e-6)


def test_drizzle_conserves_counts_and_uses_every_spectrum(scan):
    grid = xrf.build_scan_grid(scan, line_lag=0.4)
    cube = xrf.regrid(scan.spectra, grid).values.astype(float)
    np.testing.assert_allclose(np.nansum(cube, axis=(0, 1)), scan.spectra.values.sum(axis=0, dtype=float), rtol=1e-6)
    assert len(np.unique(grid.indices)) == scan.sizes["spectrum"]
    chosen = len(np.unique(scan.selected))
    assert 0.24 < 1 - chosen / scan.sizes["spectrum"] < 0.3


def test_exposures_do_not_reach_over_jumps():
    """The way back of a scan in one direction is no exposure."""
    starts, ends = swept(raster(3, 5, serpentine=False)[:, ::-1], np.ones(2))
    np.testing.assert_allclose(ends[:, 1] - starts[:, 1], 1)
    np.testing.assert_allclose(ends[:, 0], starts[:, 0])


def test_linear_interpolation_is_exact_on_a_plane():
    rng = np.random.default_rng(5)
    places = raster(12, 12) + rng.uniform(-0.2, 0.2, (144, 2))
    places = np.concatenate([places, places[:20]])
    scan = made_up(places)
    plane = (3 * places[:, :1] + 2 * places[:, 1:] + 10).astype(np.float32)
    grid = xrf.build_scan_grid(scan, method="linear")
    found = xrf.regrid(plane, grid).values[..., 0]
    wanted = 3 * grid.x.values + 2 * grid.y.values[:, None] + 10
    inside = np.isfinite(found)
    assert inside[1:-1, 1:-1].all()
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-5)


def test_spectra_at_one_place_are_averaged():
    places = np.concatenate([raster(3, 3), [[1, 1]]])
    grid = xrf.build_scan_grid(made_up(places), step=1.0, method="linear")
    np.testing.assert_allclose(grid.to_scipy().toarray()[4], [0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0.5], atol=1e-6)


def test_holes_are_not_bridged():
    places = raster(10, 20)
    places = places[(places[:, 0] < 5) | (places[:, 0] > 14)]
    for method in ("drizzle", "linear", "nearest", "gaussian"):
        grid = xrf.build_scan_grid(made_up(places), method=method)
        assert (grid.coverage.values[1:-1, 8:12] == 0).all(), method
        found = xrf.regrid(made_up(places).spectra, grid).values
        assert np.isnan(found[1:-1, 8:12]).all(), method


@pytest.mark.parametrize("method", METHODS)
def test_regridding_is_the_slow_product(scan, method):
    part = scan.isel(spectrum=slice(0, 170), row=slice(0, 4))
    grid = xrf.build_scan_grid(part, method=method)
    found = xrf.regrid(part.spectra, grid).values
    np.testing.assert_allclose(found.reshape(-1, 64), reference.regrid(part.spectra.values, grid.to_scipy()), rtol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_maps_do_not_depend_on_chunks_and_scheduler(scan, turned, monkeypatch):
    if turned:
        scan = scan.assign(positions=(("spectrum", "axis"), scan.positions.values[:, [1, 0, 2]]))
    grid = xrf.build_scan_grid(scan)
    whole = xrf.regrid(scan.spectra, grid).values
    for chunks, tile in (((7, -1), 2**14), ((100, 20), 2**16), ((-1, 1), 1)):
        monkeypatch.setattr("detcal.xrf.tiles.TILE_BYTES", tile)
        lazy = xrf.regrid(scan.spectra.copy(data=da.from_array(scan.spectra.values, chunks=chunks)), grid)
        with dask.config.set(scheduler="sync" if tile == 1 else "threads"):
            np.testing.assert_array_equal(lazy.values, whole)


def test_tiles_read_a_few_lines_of_the_scan(scan, monkeypatch):
    monkeypatch.setattr("detcal.xrf.tiles.TILE_BYTES", 1)
    grid = xrf.build_scan_grid(scan)
    read = []

    def counted(block):
        read.append(len(block))
        return block

    counting = scan.spectra.chunk(spectrum=10).data.map_blocks(counted, dtype=np.uint16, meta=np.empty((0, 0), np.uint16))
    lazy = xrf.regrid(scan.spectra.copy(data=counting), grid).data
    assert lazy.numblocks[0] == grid.shape[0]
    lazy.blocks[12].compute()
    assert sum(read) < 5 * 41  # spectra in a line


def wandering(rows, way):
    """A scan of so many rows of 20 places, and what the stage did after it."""
    places = raster(rows, 20)
    home = np.linspace(places[-1], places[0], 30)
    after = {"late": [home[-1:]], "homing": [home], "twice": [places[::-1]], "there and home": [places[::-1], home]}
    return made_up(np.concatenate([places, *after[way]]), channels=1)


@pytest.mark.parametrize("way", ["late", "homing", "twice", "there and home"])
@pytest.mark.parametrize("turned", [False, True])
def test_tiles_read_what_they_have_a_share_of(way, turned):
    """And not all that lies between: one spectrum at the start, after the scan, would have them read it all."""
    held = []
    for rows in (40, 80):
        scan = wandering(rows, way)
        if turned:
            scan = scan.assign(positions=(("spectrum", "axis"), scan.positions.values[:, ::-1]))
        read = []
        counting = scan.spectra.chunk(spectrum=10).data.map_blocks(
            lambda block, read=read: read.append(len(block)) or block, dtype=np.uint16, meta=np.empty((0, 0), np.uint16)
        )
        grid = xrf.build_scan_grid(scan)
        found = xrf.regrid(scan.spectra.copy(data=counting), grid, tile_rows=8).values
        np.testing.assert_allclose(found.ravel(), grid.to_scipy() @ scan.spectra.values[:, 0].astype(float), rtol=1e-6)
        assert sum(read) < 1.6 * grid.spectra
        held.append(tiles.most_spectra(grid, 8, counting.chunks[0]))
    assert held[1] <= held[0] + 10


def test_a_grid_is_saved_and_loaded(scan, tmp_path):
    grid = xrf.build_scan_grid(scan, line_lag=0.3)
    for name in ("grid.zarr", "grid.h5"):
        detcal.save(grid, tmp_path / name)
        found = detcal.load(tmp_path / name)
        assert isinstance(found, xrf.ScanGrid)
        assert (found.to_scipy() != grid.to_scipy()).nnz == 0
        assert (found.step, found.method, found.line_lag, found.unit, found.shape) == (grid.step, "drizzle", 0.3, "um", grid.shape)
        np.testing.assert_array_equal(xrf.regrid(scan.spectra, found).values, xrf.regrid(scan.spectra, grid).values)


@pytest.mark.parametrize("step", [None, (250.0, 400.0)])
def test_smoothing_before_and_after_is_the_same(scan, step):
    """Whichever is cheaper is done: a finer grid has more pixels than there are spectra."""
    grid = xrf.build_scan_grid(scan, step=step)
    found = xrf.regrid(scan.spectra, grid, sigma_channels=3.0).values
    before = xrf.regrid(xrf.smooth_spectra(scan.spectra, sigma_channels=3.0), grid).values
    after = xrf.smooth_spectra(xrf.regrid(scan.spectra, grid), sigma_channels=3.0).values
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found, before if grid.coverage.size >= grid.spectra else after)
