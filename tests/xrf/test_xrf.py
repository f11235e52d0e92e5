"""Scans on grids: against slow loops, scipy, and simulated scans of which the truth is known."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

import detcal
from detcal import simulate, xrf
from detcal.errors import InputError
from detcal.xrf import kernels, tiles
from detcal.xrf.grid import MOST_PIXELS
from detcal.xrf.path import swept
from tests.reference import xrf as reference

METHODS = ("drizzle", "linear", "nearest", "gaussian", "selected")


@pytest.fixture(scope="module")
def scan():
    """A small scan with wobble and lag, in memory."""
    return simulate.maxrf_scan(24, 30, channels=64, counts=0.5, lag=0.4).compute()


def made_up(positions, channels=5, seed=0, **variables):
    """A scan with positions of our own."""
    positions = np.asarray(positions, float)
    spectra = np.random.default_rng(seed).poisson(3, (len(positions), channels)).astype(np.uint16)
    live = np.random.default_rng(seed + 1).uniform(0.5, 2, len(positions))
    return xr.Dataset(
        {"spectra": (("spectrum", "energy"), spectra), "positions": (("spectrum", "axis"), positions),
         "live_time_s": ("spectrum", live), **variables},
        {"energy": ("energy", np.linspace(1, 20, channels), {"units": "keV"})},
    )  # fmt: skip


def raster(rows, columns, serpentine=True):
    """x, y of a perfect scan."""
    places = []
    for row in range(rows):
        line = range(columns) if row % 2 == 0 or not serpentine else range(columns - 1, -1, -1)
        places += [(column, row) for column in line]
    return np.array(places, float)


# ------------------------------------------------------------------------------------------------------ smoothing, sums


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap"])
@pytest.mark.parametrize("sigma", [0.6, 7.0, 40.0])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_smoothing_is_scipys(mode, sigma, dtype):
    spectra = np.random.default_rng(1).poisson(0.3, (7, 90)).astype(dtype)
    found = xrf.smooth_spectra(da.from_array(spectra, chunks=(3, 40)), sigma_channels=sigma, boundary=mode).values
    np.testing.assert_allclose(found, gaussian_filter1d(spectra.astype(np.float32), sigma, axis=1, mode=mode), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[0], reference.smooth(spectra[0], sigma, mode), rtol=1e-6, atol=1e-7)
    assert found.dtype == np.float32


def test_smoothing_keeps_fractions_of_counts():
    """scipy cuts them off where the input is of whole numbers."""
    spectra = np.zeros((1, 200), np.uint16)
    spectra[0, 100] = 1
    assert float(xrf.smooth_spectra(spectra).sum()) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "nearest", "mirror", "wrap"])
def test_smoothing_takes_what_was_measured(mode):
    spectra = np.random.default_rng(3).poisson(5, (4, 50)).astype(np.float32)
    spectra[0] = np.nan
    spectra[1, [0, 20, 21, 22, 49]] = np.nan, np.inf, -np.inf, np.nan, np.nan
    spectra[2, 3:40] = np.nan  # more than the gaussian reaches over
    found = xrf.smooth_spectra(spectra, sigma_channels=2.0, boundary=mode).values
    for line, wanted in zip(found, spectra, strict=True):
        np.testing.assert_allclose(line, reference.smooth_measured(wanted, 2.0, mode), rtol=1e-6)


@pytest.mark.parametrize("options", [{"sigma_channels": 0}, {"sigma_channels": np.nan}, {"boundary": "odd"}, {"truncate": -1}])
def test_smoothing_refuses_what_makes_no_gaussian(options):
    with pytest.raises(InputError, match="expected"):
        xrf.smooth_spectra(np.ones((2, 9)), **options)


def test_summary_is_one_of_all_measured_spectra():
    cube = np.random.default_rng(2).normal(5, 2, (6, 7, 11)).astype(np.float32)
    cube[2, 3] = np.nan
    cube[5] = np.nan
    found = xrf.summary_spectra(xr.DataArray(da.from_array(cube, chunks=(2, 3, 4)), dims=("row", "column", "energy"))).compute()
    values = cube.reshape(-1, 11).astype(float)
    np.testing.assert_allclose(found["sum"], np.nansum(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["mean"], np.nanmean(values, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found["max"], np.nanmax(values, axis=0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_summary_leaves_out_what_is_not_measured_in_each_channel(seed, block):
    rng = np.random.default_rng(seed)
    spectra = rng.normal(-5, 2, (8, 4))
    spectra[rng.random((8, 4)) < 0.5] = np.nan
    found = xrf.summary_spectra(da.from_array(spectra, chunks=(block, 3)))
    for channel, values in enumerate(spectra.T):
        there = values[~np.isnan(values)]
        wanted = (there.sum(), there.mean(), there.max()) if there.size else (np.nan,) * 3
        np.testing.assert_allclose([found[name].values[channel] for name in ("sum", "mean", "max")], wanted, rtol=1e-12)


def test_summary_of_nothing_is_not_a_number():
    found = xrf.summary_spectra(np.full((3, 4), np.nan, np.float32)).compute()
    assert all(np.isnan(found[name]).all() for name in ("sum", "mean", "max"))


def test_summary_of_counts_is_exact():
    spectra = np.random.default_rng(3).integers(0, 65536, (1000, 8), dtype=np.uint16)
    found = xrf.summary_spectra(da.from_array(spectra, chunks=(37, -1)))["sum"].values
    np.testing.assert_array_equal(found, spectra.astype(np.int64).sum(axis=0))


# ------------------------------------------------------------------------------------------------------------ the matrix


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


# ---------------------------------------------------------------------------------------------------------------- rates


def test_rates_are_counts_over_live_time(scan):
    grid = xrf.build_scan_grid(scan)
    found = xrf.regrid_rate(scan, grid).compute()
    counts = reference.regrid(scan.spectra.values, grid.to_scipy())
    seconds = grid.to_scipy() @ scan.live_time_s.values
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.rate.values.reshape(counts.shape), counts / seconds[:, None], rtol=1e-5)
        squared = reference.regrid(scan.spectra.values, grid.to_scipy().power(2)) / seconds[:, None] ** 2
    np.testing.assert_allclose(found.variance.values.reshape(counts.shape), squared, rtol=1e-5)
    uncovered = grid.coverage.values == 0
    assert np.isnan(found.rate.values[uncovered]).all()
    assert np.isnan(found.live_time_s.values[uncovered]).all()


def test_uneven_exposures_leave_no_trace():
    """Counts in proportion to their live times: the rate is the same everywhere, the counts are not."""
    scan = made_up(raster(6, 8))
    scan = scan.assign(spectra=(("spectrum", "energy"), (40 * scan.live_time_s.values[:, None] * np.ones((1, 5))).astype(np.float32)))
    for method in ("drizzle", "linear", "nearest", "gaussian"):
        found = xrf.regrid_rate(scan, xrf.build_scan_grid(scan, method=method)).rate.values
        np.testing.assert_allclose(found[np.isfinite(found)], 40, rtol=1e-5)


def test_variance_is_that_of_poisson():
    scan = made_up(raster(6, 8) + np.random.default_rng(1).normal(0, 0.2, (48, 2)))
    grid = xrf.build_scan_grid(scan)
    rng = np.random.default_rng(2)
    mean = rng.uniform(20, 60, (48, 1))
    rates, variances = [], []
    for _ in range(400):
        drawn = scan.assign(spectra=(("spectrum", "energy"), rng.poisson(mean, (48, 5)).astype(np.uint16)))
        found = xrf.regrid_rate(drawn, grid)
        rates.append(found.rate.values)
        variances.append(found.variance.values)
    there = grid.coverage.values > 0.05
    ratio = np.var(rates, axis=0)[there].mean() / np.mean(variances, axis=0)[there].mean()
    assert 0.95 < ratio < 1.05


def test_effective_spectra_count_whole_ones():
    found = xrf.regrid_rate(made_up(raster(4, 6, serpentine=False)), xrf.build_scan_grid(made_up(raster(4, 6, serpentine=False))))
    np.testing.assert_allclose(found.effective_spectra.values, 1, rtol=1e-5)
    wide = xrf.build_scan_grid(made_up(raster(4, 6, serpentine=False)), step=(2.0, 2.0))
    assert xrf.regrid_rate(made_up(raster(4, 6)), wide).effective_spectra.values.max() > 3


# ------------------------------------------------------------------------------------------------------- against truth


def truth_on(grid, shape, step=(500, 833)):
    """Paints (row, column, paint) in the grid's pixels, and where these lie in the target."""
    row, column = grid.y.values / step[0] - 100, grid.x.values / step[1] - 100
    inside = (np.arange(8) + 0.5) / 8 - 0.5
    places = np.broadcast_arrays((row[:, None] + inside)[:, None, :, None], (column[:, None] + inside)[None, :, None, :])
    paints = simulate.paint(np.stack(places, axis=-1), shape).mean(axis=(2, 3))
    return paints, np.outer((row > -0.4) & (row < shape[0] - 0.6), (column > -0.4) & (column < shape[1] - 0.6))


def rms_against_truth(scan, method, lag, counts, shape):
    """Error of the rates of all channels, within the target."""
    grid = xrf.build_scan_grid(scan, method=method, line_lag=lag)
    rates = xrf.regrid_rate(scan, grid).rate.values
    if method == "selected":
        paints, inside = simulate.true_map(*shape), np.ones(shape, bool)
    else:
        paints, inside = truth_on(grid, shape)
    means = simulate.paint_spectra(scan.energy.values)
    places = np.indices(shape).reshape(2, -1).T.astype(float)
    means *= counts / (means.mean(axis=1) @ simulate.paint(places, shape).mean(axis=0))
    return np.sqrt(np.nanmean((rates - paints @ means / 0.06)[inside] ** 2))


@pytest.mark.parametrize("lag", [0.0, 0.5])
@pytest.mark.parametrize("counts", [0.02, 0.2])
def test_drizzle_is_nearer_to_the_truth_than_selection(lag, counts):
    """An edge and a star, of the same exposures: 25 % less in rms, up to some counts a channel. Truths are means over pixels."""
    shape = (60, 60)
    scan = simulate.maxrf_scan(*shape, channels=64, counts=counts, lag=lag, seed=3).compute()
    ours = rms_against_truth(scan, "drizzle", lag or None, counts, shape)
    peer = rms_against_truth(scan, "selected", None, counts, shape)
    assert ours < 0.75 * peer, ours / peer


def test_what_drizzle_gains_is_noise():
    """Its pixels are made of two spectra where the grid lies between them: √½ of the noise, and else only the blur."""
    scan = simulate.maxrf_scan(60, 60, channels=64, counts=50.0, seed=3).compute()
    effective = xrf.regrid_rate(scan, xrf.build_scan_grid(scan)).effective_spectra.values[5:-5, 10:-20]
    assert 1.9 < np.median(effective) < 2.3
    ratio = rms_against_truth(scan, "drizzle", None, 50.0, (60, 60)) / rms_against_truth(scan, "selected", None, 50.0, (60, 60))
    assert 0.95 < ratio < 1.1


@pytest.fixture(scope="module", params=range(4))
def exposed(request):
    """A scan of 4096 counts a spectrum, one a channel of the instrument's: a lag is found from the sums of spectra alone."""
    return request.param, simulate.maxrf_scan(85, 37, channels=64, counts=64.0, seed=request.param).spectra.compute()


@pytest.mark.parametrize("lag", [0.2, 0.5, 1.0, 3.0, -0.7])
def test_lag_is_found(exposed, lag):
    """Within 10 %, whatever the noise. Positions lag, spectra do not."""
    seed, spectra = exposed
    scan = simulate.maxrf_scan(85, 37, channels=64, lag=lag, seed=seed).assign(spectra=spectra)
    found = xrf.build_scan_grid(scan, line_lag="auto").line_lag
    assert abs(found - lag) < 0.1 * abs(lag), found


def test_no_lag_is_found_where_there_is_none(exposed):
    seed, spectra = exposed
    found = xrf.build_scan_grid(simulate.maxrf_scan(85, 37, channels=64, seed=seed).assign(spectra=spectra), line_lag="auto").line_lag
    assert abs(found) < 0.02


@pytest.mark.parametrize("lag", [8.0, 12.0, 20.0])
def test_a_lag_beyond_the_search_is_not_guessed(exposed, lag):
    seed, spectra = exposed
    scan = simulate.maxrf_scan(85, 37, channels=64, lag=lag, seed=seed).assign(spectra=spectra)
    with pytest.raises(InputError, match=r"lag of at most 5 columns, found|the lag cannot be estimated") as caught:
        xrf.build_scan_grid(scan, line_lag="auto")
    assert "line_lag=" in str(caught.value)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(60, 40), (6, 12)])
def test_noise_has_no_lag(shape, seed):
    scan = made_up(raster(*shape)).drop_vars("live_time_s")
    scan = scan.assign(spectra=(scan.spectra.dims, np.random.default_rng(seed).poisson(5, scan.spectra.shape).astype(np.uint16)))
    with pytest.raises(InputError, match="the lag cannot be estimated from this scan"):
        xrf.build_scan_grid(scan, line_lag="auto")


def test_lag_taken_out_moves_lines_of_both_directions(scan):
    """Half a column each way, along the path."""
    places = raster(4, 9)
    shifted = xrf.build_scan_grid(made_up(places), step=1.0, line_lag=0.5)
    plain = xrf.build_scan_grid(made_up(places), step=1.0)
    assert shifted.line_lag == 0.5
    assert (shifted.to_scipy() != plain.to_scipy()).nnz
    middle = shifted.to_scipy()[4].toarray().ravel()  # of the first line: half of each of two spectra
    np.testing.assert_allclose(middle[3:5], 0.5, atol=1e-6)
    middle = shifted.to_scipy()[9 + 4].toarray().ravel()  # the second line runs back: spectrum 9 + 4 is at column 4, and 9 + 3 at 5
    np.testing.assert_allclose(middle[12:14], 0.5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({"positions": np.ones((24, 2))}, {}, "all 24 positions equal"),
        ({"positions": np.full((24, 2), np.nan)}, {}, "no spectrum is left to make a map of: of 24 spectra, 24 without a position"),
        ({"positions": np.arange(24.0)[:, None]}, {}, "x and y of each spectrum"),
        ({}, {"step": 1e-5}, "pixels, more than"),
        ({}, {"step": 0}, "positive step"),
        ({}, {"step": (1, 2, 3)}, "positive step"),
        ({}, {"method": "cubic"}, "method to be one of"),
        ({}, {"method": "selected"}, "another method"),
        ({}, {"step": "a"}, "positive step"),
        ({}, {"line_lag": "some"}, "line_lag"),
        ({}, {"line_lag": [1]}, "line_lag as a number"),
        ({"live_time_s": np.zeros(24)}, {"line_lag": "auto"}, "24 without a positive live time"),
        ({"spectra": np.zeros((24, 5))}, {"line_lag": "auto"}, "the lag cannot be estimated"),
    ],
)
def test_grids_that_cannot_be_built(change, options, says):
    scan = made_up(raster(4, 6))
    for name, values in change.items():
        scan[name] = (scan[name].dims, values) if values.shape == scan[name].shape else (("spectrum", "one"), values)
    with pytest.raises(InputError, match=says) as caught:
        xrf.build_scan_grid(scan, **options)
    assert "\n" not in str(caught.value)


def test_a_lag_is_found_in_spectra_alone():
    with pytest.raises(InputError, match="a scan with spectra"):
        xrf.build_scan_grid(made_up(raster(4, 6)).drop_vars("spectra"), line_lag="auto")


@pytest.mark.parametrize("tile_rows", [0, -1, 1.5, "a"])
def test_tiles_are_of_whole_lines(scan, tile_rows):
    with pytest.raises(InputError, match="tile_rows as a whole number"):
        xrf.regrid(scan.spectra, xrf.build_scan_grid(scan), tile_rows=tile_rows)


def test_too_many_pixels_are_refused_with_the_numbers():
    scan = made_up(raster(4, 6))
    with pytest.raises(InputError, match=r"300001 × 500001 = 1\.5e\+11 pixels, more than 1e\+09"):
        xrf.build_scan_grid(scan, step=1e-5)
    assert MOST_PIXELS == 10**9


def test_positions_that_are_missing():
    with pytest.raises(InputError, match="positions"):
        xrf.build_scan_grid(made_up(raster(4, 6)).drop_vars("positions"))


def test_a_line_has_no_triangles():
    scan = made_up(np.stack([np.arange(9), np.zeros(9)], axis=1))
    with pytest.raises(InputError, match="one line"):
        xrf.build_scan_grid(scan, method="linear")
    assert xrf.build_scan_grid(scan).shape == (1, 9)


@pytest.mark.parametrize("selected", [[[0, 24]], [[-1, 2]], [[0.5, 1.0]], [1, 2]])
def test_selected_spectra_that_there_are_not(selected):
    values = np.array(selected)
    scan = made_up(raster(4, 6), selected=(("row", "column")[: values.ndim], values))
    with pytest.raises(InputError, match="selected spectra"):
        xrf.build_scan_grid(scan, method="selected")


def test_no_live_times():
    scan = made_up(raster(4, 6)).drop_vars("live_time_s")
    with pytest.raises(InputError, match="live_time_s"):
        xrf.regrid_rate(scan, xrf.build_scan_grid(scan))


@pytest.mark.parametrize("dtype", [">u2", ">f4", "<f8", "f2", np.longdouble, "u1", ">i8"])
def test_spectra_of_any_numbers(dtype):
    """Files of other machines hold bytes in the other order, and kernels know neither half nor long reals."""
    scan = made_up(raster(4, 6))
    grid = xrf.build_scan_grid(scan)
    other = scan.assign(spectra=scan.spectra.astype(dtype))
    np.testing.assert_array_equal(xrf.regrid(other.spectra, grid), xrf.regrid(scan.spectra, grid))
    np.testing.assert_array_equal(
        xrf.smooth_spectra(other.spectra, sigma_channels=1.0), xrf.smooth_spectra(scan.spectra, sigma_channels=1.0)
    )
    np.testing.assert_array_equal(xrf.summary_spectra(other.spectra)["sum"], xrf.summary_spectra(scan.spectra)["sum"])


def test_spectra_of_another_scan(scan):
    grid = xrf.build_scan_grid(scan)
    for use in (lambda part: xrf.regrid(part.spectra, grid), lambda part: xrf.regrid_rate(part, grid),
                lambda part: xrf.element_maps(part, grid, elements=["Fe"])):  # fmt: skip
        with pytest.raises(InputError, match="as the grid was built for"):
            use(scan.isel(spectrum=slice(0, -1)))


def test_a_selection_means_the_same_spectra_where_others_are_left_out(scan):
    grid = xrf.build_scan_grid(scan, method="selected")
    kept = np.delete(np.arange(scan.sizes["spectrum"]), [0, 5, 6, 100])
    part = scan.isel(spectrum=kept)
    found = xrf.regrid(part.spectra, xrf.build_scan_grid(part, method="selected")).values
    gone = np.isin(scan.selected.values, [0, 5, 6, 100])
    assert gone.any()
    assert np.isnan(found[gone]).all()
    np.testing.assert_array_equal(found[~gone], xrf.regrid(scan.spectra, grid).values[~gone])
    with pytest.raises(InputError, match=r"cut them off with .isel\(row"):
        xrf.build_scan_grid(scan.isel(spectrum=slice(1, 300)), method="selected")


@pytest.mark.parametrize(
    "data",
    [np.ones((2, 2), complex), np.array([["a", "b"]]), np.array([[1, None]]), np.ones((1, 2, 3, 4)), np.ones((3, 0)),
     xr.DataArray(np.ones((2, 3)), dims=("a", "b"))],
)  # fmt: skip
def test_what_are_no_spectra(data):
    with pytest.raises(InputError, match="expected"):
        xrf.summary_spectra(data)
