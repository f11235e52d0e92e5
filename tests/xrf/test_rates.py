"""Rates and their errors, and how near maps come to the truth of a simulation."""

import numpy as np
import pytest

from detcal import simulate, xrf
from tests.reference import xrf as reference
from tests.xrf.scans import made_up, raster

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
