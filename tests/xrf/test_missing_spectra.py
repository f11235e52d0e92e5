"""Scans of which not everything was measured, and maps of few columns: against rasters whose map is known, and slow loops."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from detcal import xrf
from detcal.errors import InputError
from tests.reference import xrf as reference
from tests.xrf.files import changed
from tests.xrf.scans import METHODS, made_up, raster, serpentine, unrolled, warned

# ------------------------------------------------------------------------------------------------------ few columns


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("height", [0.4, 1.0, 5.0])
@pytest.mark.parametrize("there_and_back", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_each_spectrum_of_a_perfect_scan_lies_in_its_own_pixel(rows, columns, there_and_back, height, turned):
    if rows * columns == 1:
        return
    cells = raster(rows, columns, there_and_back).astype(int)
    for flip in ((1, 1), (-1, 1), (1, -1)):
        places = cells * [1.0, height] * flip + [30, -20]
        grid = xrf.build_scan_grid(made_up(places[:, ::-1] if turned else places))
        x, y = np.where(np.array(flip) > 0, cells, cells.max(axis=0) - cells).T
        wanted = np.zeros((rows, columns, rows * columns))
        wanted[y, x, np.arange(rows * columns)] = 1
        wanted = wanted.transpose(1, 0, 2) if turned else wanted
        assert grid.shape == wanted.shape[:2]
        np.testing.assert_allclose(grid.to_scipy().toarray().reshape(wanted.shape), wanted, atol=1e-6)


@pytest.mark.parametrize("lag", [0.5, -0.3, 2.0])
@pytest.mark.parametrize("there_and_back", [False, True])
@pytest.mark.parametrize("shape", [(5, 1), (5, 2), (2, 2), (4, 3), (1, 6), (6, 9)])
def test_a_uniform_scene_stays_uniform_with_a_lag(shape, there_and_back, lag):
    scan = made_up(raster(*shape, there_and_back))
    scan = scan.assign(spectra=(scan.spectra.dims, 40 * scan.live_time_s.values[:, None] * np.ones((1, 5))))
    grid = xrf.build_scan_grid(scan, line_lag=lag)
    found = xrf.regrid_rate(scan, grid).rate.values
    np.testing.assert_allclose(found[np.isfinite(found)], 40, rtol=1e-5)
    np.testing.assert_allclose(grid.to_scipy().sum(axis=0), 1, atol=1e-6)


def test_a_lag_does_not_reach_over_the_way_back():
    """Half a column on, each spectrum of a line in one direction lies between two of its own line's columns."""
    grid = xrf.build_scan_grid(made_up(raster(3, 6, serpentine=False)), line_lag=0.5)
    for number in range(18):
        row = np.flatnonzero(grid.to_scipy()[:, number].toarray()) // 6
        assert set(row.tolist()) == {number // 6}


@pytest.mark.parametrize("gone", [[0], [0, 9], [3, 4], [9]])
@pytest.mark.parametrize("height", [1.0, 5.0])
def test_lines_of_two_are_lines_without_some_positions_too(gone, height):
    places = raster(5, 2) * [1, height]
    places[gone] = np.nan
    grid, _ = warned(lambda: xrf.build_scan_grid(made_up(places)))
    pixels = unrolled(5, 2).ravel()
    for number in set(range(10)) - set(gone):
        np.testing.assert_allclose(grid.to_scipy()[:, number].toarray().ravel(), pixels == number, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- left out


REASONS = [
    ("positions", np.nan, "without a position that is a number"),
    ("positions", np.inf, "without a position that is a number"),
    *(("live_time_s", value, "without a positive live time") for value in (0.0, -1.0, np.nan, np.inf)),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "value", "says"), REASONS)
def test_what_was_not_measured_is_left_out_with_one_warning(method, name, value, says):
    scan = serpentine(5, 6)
    scan[name][7] = value
    scan[name][20] = value
    grid, texts = warned(lambda: xrf.build_scan_grid(scan, method=method))
    assert len(texts) == 1
    assert f"of 30 spectra, 2 {says} (number 7, 20) are left out" in texts[0]
    assert not grid.to_scipy()[:, [7, 20]].nnz
    found = xrf.regrid_rate(scan, grid).compute()  # which does not say it again
    rate, variance = reference.rates(scan.spectra.values, scan.live_time_s.values, grid.to_scipy())
    np.testing.assert_allclose(found.rate.values.reshape(rate.shape), rate, rtol=1e-5)
    np.testing.assert_allclose(found.variance.values.reshape(rate.shape), variance, rtol=1e-5)
    whole = xrf.regrid_rate(serpentine(5, 6), xrf.build_scan_grid(serpentine(5, 6), method=method)).rate.values
    row, column = np.indices((5, 6))
    far = (np.hypot(row - 1, column - 4) > 2) & (np.hypot(row - 3, column - 3) > 2)  # of what is left out
    np.testing.assert_array_equal(found.rate.values[far], whole[far])
    if method in ("drizzle", "selected"):
        gone = np.isin(unrolled(5, 6), [7, 20])
        np.testing.assert_array_equal(np.isnan(found.rate.values[..., 0]), gone)


@pytest.mark.parametrize("method", METHODS)
def test_live_times_that_a_grid_does_not_know_are_left_out_of_rates(method):
    scan = serpentine(5, 6)
    grid = xrf.build_scan_grid(scan, method=method)
    live = changed(scan.live_time_s.values.copy(), 8, 0)
    other = scan.assign(live_time_s=("spectrum", live))
    found, texts = warned(lambda: xrf.regrid_rate(other, grid).compute())
    assert len(texts) == 1
    assert "1 without a positive live time (number 8)" in texts[0]
    rate, variance = reference.rates(scan.spectra.values, live, grid.to_scipy())
    np.testing.assert_allclose(found.rate.values.reshape(rate.shape), rate, rtol=1e-5)
    np.testing.assert_allclose(found.variance.values.reshape(rate.shape), variance, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.rate.values[..., 0]), found.coverage.values == 0)


def test_what_the_user_leaves_out_needs_no_warning():
    scan = made_up(raster(4, 5)).assign(left_out=("spectrum", np.arange(20) == 3))
    grid = xrf.build_scan_grid(scan)
    assert not grid.to_scipy()[:, 3].nnz
    assert xrf.regrid_rate(scan, grid).coverage.values[0, 3] == 0


def test_many_are_counted_and_some_named():
    scan = made_up(raster(6, 6))
    scan.live_time_s[10:30] = 0
    scan.positions[5] = np.nan
    scan.positions[12] = np.nan
    _, texts = warned(lambda: xrf.build_scan_grid(scan))
    assert "2 without a position that is a number (number 5, 12)" in texts[0]
    assert "19 without a positive live time (number 10, 11, 13, 14, 15, …, 29)" in texts[0]


def test_numbers_are_those_of_the_file():
    scan = made_up(raster(4, 5)).assign_coords(spectrum=np.arange(20)).isel(spectrum=slice(10, None))
    scan.live_time_s[2] = 0
    _, texts = warned(lambda: xrf.build_scan_grid(scan))
    assert "(number 12)" in texts[0]


def test_a_scan_of_which_nothing_was_measured_has_no_map():
    scan = made_up(raster(3, 4))
    scan.live_time_s[:] = 0
    with pytest.raises(InputError, match="no spectrum is left to make a map of: of 12 spectra, 12 without a positive live time"):
        xrf.build_scan_grid(scan)


def test_points_that_were_never_reached_do_not_widen_the_map():
    """An aborted scan: the rest of the file's positions and live times is 0."""
    places = raster(6, 10) + np.array([5000, 7000])
    scan = made_up(places)
    scan.positions[47:] = 0
    scan.live_time_s[47:] = 0
    grid, texts = warned(lambda: xrf.build_scan_grid(scan))
    assert len(texts) == 1
    assert grid.shape == (5, 10)
    np.testing.assert_allclose(grid.step, 1)
    np.testing.assert_array_equal(grid.coverage.values == 0, np.isin(unrolled(5, 10), [47, 48, 49]))


def test_rows_that_were_never_reached_are_rows_of_the_map():
    scan = serpentine(5, 6)
    scan.live_time_s[24:] = 0
    for method in ("drizzle", "selected"):
        grid, texts = warned(lambda: xrf.build_scan_grid(scan, method=method))  # noqa: B023
        assert len(texts) == 1
        assert grid.shape == (5, 6)
        np.testing.assert_allclose(grid.y.values, np.arange(5))
        found = xrf.regrid_rate(scan, grid).rate.values
        assert np.isnan(found[4]).all()
        assert np.isfinite(found[:4]).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([None, 0.7, 3.0]), st.sampled_from([None, 0.4]))
def test_everything_measured_is_in_the_map_once(seed, step, lag):
    rng = np.random.default_rng(seed)
    places = raster(int(rng.integers(1, 6)), int(rng.integers(3, 8)), bool(rng.integers(2)))
    places = places + rng.normal(0, 0.1, places.shape) * rng.integers(2)
    scan = made_up(places, seed=seed)
    size = len(places)
    gone = rng.random(size) < 0.2
    gone[:2] = False
    scan.positions[gone & (rng.random(size) < 0.5)] = np.nan
    scan.live_time_s[gone] = rng.choice([0, -1, np.nan, np.inf], gone.sum())
    spectra = scan.spectra.values.astype(np.float32)
    spectra[rng.random(spectra.shape) < 0.1] = np.nan
    scan = scan.assign(spectra=(scan.spectra.dims, spectra))
    grid, texts = warned(lambda: xrf.build_scan_grid(scan, step=step, line_lag=lag))
    assert len(texts) == bool(gone.any())
    found = xrf.regrid(scan.spectra, grid).values.astype(float)
    np.testing.assert_allclose(np.nansum(found, axis=(0, 1)), np.nansum(spectra[~gone].astype(float), axis=0), rtol=1e-5)


# ------------------------------------------------------------------------------------- channels that were not measured


@pytest.mark.parametrize("method", METHODS)
def test_channels_that_were_not_measured_spoil_no_neighbour(method):
    places = raster(5, 8) + np.random.default_rng(1).normal(0, 0.05, (40, 2))
    spectra = np.random.default_rng(2).poisson(30, (40, 6)).astype(np.float64)
    spectra[11] = np.nan
    spectra[20, 3] = np.nan
    spectra[21, 3] = np.inf
    spectra[22, 4] = -np.inf
    scan = made_up(places, 6, selected=(("row", "column"), unrolled(5, 8)))
    scan = scan.assign(spectra=(scan.spectra.dims, spectra))
    grid = xrf.build_scan_grid(scan, method=method)
    for blocks in (scan, scan.assign(spectra=scan.spectra.chunk(spectrum=7, energy=4))):
        found = xrf.regrid_rate(blocks, grid, tile_rows=2).compute()
        rate, variance = reference.rates(spectra, scan.live_time_s.values, grid.to_scipy())
        np.testing.assert_allclose(found.rate.values.reshape(rate.shape), rate, rtol=1e-5)
        np.testing.assert_allclose(found.variance.values.reshape(rate.shape), variance, rtol=1e-5)
        counts = xrf.regrid(blocks.spectra, grid).values
        ones, _ = reference.rates(spectra, np.ones(40), grid.to_scipy())  # means of what was measured
        if method == "drizzle":
            ones = reference.regrid(np.where(np.isfinite(spectra), spectra, 0), grid.to_scipy())
            ones[np.isnan(rate)] = np.nan
        np.testing.assert_allclose(counts.reshape(ones.shape), ones, rtol=1e-5)


@pytest.mark.parametrize("method", ["fit", "window"])
def test_elements_do_not_see_what_was_not_measured(method):
    """A uniform scene without noise: the same amount in every pixel, with a lost spectrum, a lost channel and a lost line."""
    from detcal.xrf.lines import lines_of, pattern_of

    energy = 0.04 * np.arange(330)
    mean = sum(300 * pattern_of(lines_of(name, 1, 12), energy, 0.14) for name in ("Ca", "Fe")) + 0.5
    places = raster(6, 7) + np.random.default_rng(0).normal(0, 0.1, (42, 2))
    live = np.random.default_rng(1).uniform(0.5, 2, 42)
    spectra = live[:, None] * mean
    spectra[9] = np.nan
    spectra[16, 158:162] = np.nan  # of iron's Kα
    scan = xr.Dataset(
        {"spectra": (("spectrum", "energy"), spectra), "positions": (("spectrum", "axis"), places), "live_time_s": ("spectrum", live)},
        {"energy": ("energy", energy, {"units": "keV"})},
    )
    grid = xrf.build_scan_grid(scan)
    found = xrf.element_maps(scan, grid, elements=["Ca", "Fe"], method=method).rate.values
    whole = scan.assign(spectra=(scan.spectra.dims, live[:, None] * mean))
    wanted = xrf.element_maps(whole, grid, elements=["Ca", "Fe"], method=method).rate.values
    np.testing.assert_allclose(wanted, 300, rtol=0.02)
    there = np.isfinite(found)
    assert there[0].sum() > 40
    assert there[1].sum() > 38
    np.testing.assert_allclose(found[there], wanted[there], rtol=2e-3)


def test_a_fit_without_some_channels_is_that_of_the_others():
    from detcal.xrf import kernels
    from detcal.xrf.elements import extent_of

    centres = np.array([10, 18, 30])
    patterns = np.exp(-0.5 * ((np.arange(40) - centres[:, None]) / 2) ** 2)
    patterns /= patterns.sum(axis=1, keepdims=True)
    patterns = np.concatenate([patterns, np.full((1, 40), 1 / 40)])
    counts = np.random.default_rng(0).poisson(200 * patterns.sum(axis=0)).astype(float)[None]
    counts[0, [0, 9, 10, 19, 20]] = np.nan
    extents = np.array([extent_of(pattern) for pattern in patterns])
    amounts, errors = np.empty((2, 1, 4))
    kernels.fit_pixels(counts, patterns, extents, np.ones(1), amounts, errors)
    there = np.isfinite(counts[0])
    wanted, wrong = reference.fit(counts[0, there], patterns[:, there], 1.0)
    np.testing.assert_allclose(amounts[0], wanted, rtol=1e-3)
    np.testing.assert_allclose(errors[0], wrong, rtol=1e-2)
    counts[0, extents[2, 0] : extents[2, 1]] = np.nan
    kernels.fit_pixels(counts, patterns, extents, np.ones(1), amounts, errors)
    assert np.isnan([amounts[0, 2], errors[0, 2]]).all()
    assert np.isfinite([amounts[0, 0], errors[0, 0]]).all()


def test_the_lag_is_found_without_some_spectra():
    from detcal import simulate

    scan = simulate.maxrf_scan(40, 30, channels=16, counts=200.0, lag=0.5).compute()
    spectra = scan.spectra.values.astype(np.float32)
    spectra[[100, 555, 901]] = np.nan
    scan = scan.assign(spectra=(scan.spectra.dims, spectra))
    scan.live_time_s[300:310] = 0
    scan.positions[700] = np.nan
    grid, texts = warned(lambda: xrf.build_scan_grid(scan, line_lag="auto"))
    assert len(texts) == 1
    assert abs(grid.line_lag - 0.5) < 0.05
