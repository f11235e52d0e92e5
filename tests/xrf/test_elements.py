"""Element maps and the calibration of energies."""

import dask
import h5py
import numpy as np
import pytest
import xarray as xr
import xraydb

import detcal
from detcal import simulate, xrf
from detcal.errors import InputError
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.xrf import kernels, tiles
from detcal.xrf.elements import extent_of
from detcal.xrf.lines import background_patterns, lines_of, pattern_of, shell_lines
from tests.reference import xrf as reference


@pytest.fixture(scope="module")
def painted():
    """A scan with a known number of counts in the lines of each paint."""
    scan = simulate.maxrf_scan(30, 30, channels=1024, counts=1.0, seed=4).compute()
    means = simulate.paint_spectra(scan.energy.values)
    places = np.indices((30, 30)).reshape(2, -1).T.astype(float)
    means *= 1.0 / (means.mean(axis=1) @ simulate.paint(places, (30, 30)).mean(axis=0))
    return scan, simulate.true_map(30, 30) * 0.85 * means.sum(axis=1) / 0.06


@pytest.mark.parametrize("method", ["fit", "window"])
def test_elements_are_found_where_they_are(painted, method):
    """Against the truth, in units of the errors that come with the maps: pixels of one spectrum, without edges."""
    scan, truth = painted
    grid = xrf.build_scan_grid(scan, method="selected")
    found = xrf.element_maps(scan, grid, elements=list(simulate.PAINTS), method=method).compute()
    paints = simulate.true_map(30, 30)
    even = np.ptp([np.roll(paints, shift, axis) for shift in (-1, 0, 1) for axis in (0, 1)], axis=0).max(axis=-1) < 0.1
    even[[0, -1]] = even[:, [0, -1]] = False
    pull = ((found.rate.values - truth.transpose(2, 0, 1)) / found.error.values)[:, even]
    assert even.sum() > 100
    assert (np.abs(pull.mean(axis=1)) < 0.2).all(), pull.mean(axis=1)
    assert ((pull.std(axis=1) > 0.85) & (pull.std(axis=1) < 1.15)).all(), pull.std(axis=1)


@pytest.mark.parametrize("method", ["fit", "window"])
@pytest.mark.parametrize("grid_method", ["drizzle", "linear", "selected"])
def test_counts_are_rates_times_live_times(painted, method, grid_method):
    """And need no live times; those of an interpolated pixel are as of a spectrum, which all have been as long."""
    scan, _ = painted
    scan = scan.assign(live_time_s=("spectrum", np.full(scan.sizes["spectrum"], 0.25)))
    grid = xrf.build_scan_grid(scan, method=grid_method)
    rates, options = xrf.regrid_rate(scan, grid), {"elements": ["Fe", "Pb-M"], "method": method}
    wanted = xrf.element_maps(scan, grid, **options).compute()
    found = xrf.element_maps(scan.drop_vars("live_time_s"), grid, quantity="counts", **options).compute()
    assert set(found) == {"counts", "error"}
    assert found.counts.units == found.error.units == "counts"
    for name, rate in (("counts", "rate"), ("error", "error")):
        np.testing.assert_allclose(found[name], wanted[rate] * rates.live_time_s, rtol=2e-5)
    with pytest.raises(InputError, match='expected quantity to be "rate" or "counts", got \'amount\''):
        xrf.element_maps(scan, grid, quantity="amount", **options)


def test_errors_hold_where_spectra_are_shared(painted):
    """Drizzled pixels are made of parts of spectra: their noise is less than Poisson's."""
    scan, _ = painted
    flat = scan.assign(spectra=(scan.spectra.dims, np.random.default_rng(1).poisson(scan.spectra.values.mean(axis=0), scan.spectra.shape)))
    grid = xrf.build_scan_grid(scan)
    found = xrf.element_maps(flat, grid, elements=["Fe", "Cu"]).isel(row=slice(1, -1), column=slice(6, -6)).compute()
    spread = found.rate.std(("row", "column")) / found.error.mean(("row", "column"))
    assert (np.abs(spread.values - 1) < 0.08).all(), spread.values


@pytest.mark.parametrize("method", ["fit", "window"])
@pytest.mark.parametrize(("counts", "least"), [(1, 0.5), (3, 0.8), (10, 0.9), (100, 0.9)])
def test_errors_hold_down_to_single_counts(method, counts, least):
    """Pulls over repeated noise, pixels in which nothing was found among them; of single counts the errors are too large, not too small."""
    energy = 0.04 * np.arange(330)
    names = ["Ca", "Fe", "Cu"]
    mean = counts * sum(pattern_of(lines_of(name, 1, 12), energy, 0.14) for name in names) + 5 / energy.size
    spectra = np.random.default_rng(counts).poisson(mean, (400, energy.size)).astype(np.uint16)
    scan = xr.Dataset(
        {"spectra": (("spectrum", "energy"), spectra), "positions": (("spectrum", "axis"), np.argwhere(np.ones((20, 20)))),
         "live_time_s": ("spectrum", np.full(400, 0.5)), "selected": (("row", "column"), np.arange(400).reshape(20, 20))},
        {"energy": ("energy", energy, {"units": "keV"})},
    )  # fmt: skip
    found = xrf.element_maps(scan, xrf.build_scan_grid(scan, method="selected"), elements=names, method=method).compute()
    pull = ((found.rate - 2 * counts) / found.error).values
    assert least < pull.std() < 1.2
    assert (found.error >= 2 * 0.999).all()  # a count in half a second
    assert abs((found.rate.values / 2).mean() - counts) < 0.15 + 0.02 * counts


def test_an_empty_pixel_is_uncertain_by_a_count():
    amounts, errors = np.empty((2, 2, 1))
    kernels.fit_pixels(np.zeros((2, 50)), np.full((1, 50), 0.02), np.array([[0, 50]]), np.array([1.0, 0.25]), amounts, errors)
    np.testing.assert_array_equal(amounts, 0)
    np.testing.assert_allclose(errors[:, 0], [1, 0.25], rtol=0.01)


def test_the_fit_is_the_likeliest_one(painted):
    """One pixel at a time, down to a few counts, against scipy's minimum of the likelihood."""
    scan, _ = painted
    energy = scan.energy.values[70:300]
    patterns = [pattern_of(lines_of(name, 1, 40), scan.energy.values, 0.14)[70:300] for name in ("Ca", "Ti", "Fe", "Cu", "Pb")]
    patterns = np.stack([*patterns, *background_patterns(energy, 2.0).T])
    many = scan.spectra.values[:6, 70:300].astype(float)
    few = np.random.default_rng(0).binomial(many.astype(int), 0.03).astype(float)
    counts = np.concatenate([many, few])
    extents = np.array([extent_of(pattern) for pattern in patterns])
    amounts, errors = np.empty((2, 12, len(patterns)))
    kernels.fit_pixels(counts, patterns, extents, np.full(12, 0.5), amounts, errors)
    wanted, wrong = np.stack([reference.fit(spectrum, patterns, 0.5) for spectrum in counts], axis=1)
    assert ((wanted[:, :5] > 0.01) & (wanted[:, :5] < 1)).sum() > 2
    np.testing.assert_allclose(amounts, wanted, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(errors[:, :5], wrong[:, :5], rtol=1e-2)


def test_windows_before_and_after_the_grid_are_the_same(painted):
    from detcal.xrf.lines import window_of

    scan, _ = painted
    grid = xrf.build_scan_grid(scan)
    line = lines_of("Fe", 1, 40)
    weights, pattern = (make(line, scan.energy.values, 0.14) for make in (window_of, pattern_of))
    rates = xrf.regrid_rate(scan, grid).rate.values.astype(float)
    after = rates @ weights / (weights @ pattern)
    before = xrf.element_maps(scan, grid, elements=["Fe"], method="window").rate.values[0]
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4 * np.nanmax(after))


def test_elements_read_what_they_need_once(crono, simulated, monkeypatch):
    """Amounts and errors of windows come from one pass; fits put no other channels on the grid than theirs."""
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, chunks=(32, 256), compression="gzip")
    keys = []
    read = Hdf5Array.__getitem__
    scan = detcal.open_crono(crono, chunks={"spectrum": 32})
    monkeypatch.setattr(Hdf5Array, "__getitem__", lambda self, key: keys.append(key) or read(self, key))
    grid = xrf.build_scan_grid(scan)
    dask.compute(xrf.element_maps(scan, grid, elements=["Fe"], method="window", fwhm_kev=0.6, tile_rows=2))
    assert sum(len(range(*rows.indices(grid.spectra))) for rows, _ in keys) == grid.spectra
    shapes = []
    regrid_tile = tiles.regrid_tile
    monkeypatch.setattr(tiles, "regrid_tile", lambda *arguments: shapes.append(arguments[-1]) or regrid_tile(*arguments))
    dask.compute(xrf.element_maps(scan, grid, elements=["Fe"], energy_range_kev=(5, 8)))
    assert {shape[2] for shape in shapes} == {15}


def test_windows_leave_a_slope_out():
    from detcal.xrf.lines import window_of

    energy = np.linspace(0, 30, 2000)
    weights = window_of(lines_of("Fe", 1, 30), energy, 0.14)
    assert abs(weights @ (3 * energy + 5)) < 1e-9 * (np.abs(weights) @ (3 * energy + 5))


def test_element_maps_do_not_depend_on_chunks(painted):
    scan, _ = painted
    grid = xrf.build_scan_grid(scan)
    for method in ("fit", "window"):
        whole = xrf.element_maps(scan, grid, elements=["Fe", "Pb-M"], method=method).compute()
        parts = xrf.element_maps(
            scan.assign(spectra=scan.spectra.chunk(spectrum=77)), grid, elements=["Fe", "Pb-M"], method=method
        ).compute()
        xr.testing.assert_identical(whole, parts)
        assert np.isnan(whole.rate.values[:, grid.coverage.values == 0]).all()


@pytest.mark.parametrize(
    ("element", "published"),
    [
        ("Ca", {3.69168: 100, 3.68809: 50}),
        ("Fe", {6.40384: 100, 6.39084: 50, 7.05798: 17}),
        ("Cu", {8.04778: 100, 8.02783: 51}),
    ],
)
def test_lines_are_where_and_as_bright_as_others_say(element, published):
    """X-ray Data Booklet (Lawrence Berkeley National Laboratory, 2009), table 1-3: Kα1, Kα2, Kβ1,3; tables differ by a few %."""
    found = lines_of(element, 1, 40)
    for energy, brightness in published.items():
        near = np.abs(found.energy_kev - energy) < 0.002
        assert near.any()
        assert 100 * found.share[near].sum() / found.share.max() == pytest.approx(brightness, abs=5)
    assert found.strongest_kev == pytest.approx(next(iter(published)), abs=0.002)


def test_lines_are_those_of_the_tables():
    iron = lines_of("Fe", 1, 40)
    assert iron.share.sum() == pytest.approx(1)
    assert iron.strongest_kev == pytest.approx(xraydb.xray_lines("Fe")["Ka1"].energy / 1000)
    assert lines_of("Pb", 1, 40).strongest_kev == pytest.approx(10.551, abs=0.01)
    assert lines_of("Pb-M", 1, 40).strongest_kev == pytest.approx(2.34, abs=0.02)
    assert shell_lines("H", "H", "K") is None
    energy = np.linspace(0, 40, 4000)
    pattern = pattern_of(iron, energy, 0.14)
    assert pattern.sum() == pytest.approx(1)
    assert pattern @ energy == pytest.approx(iron.share @ iron.energy_kev, rel=1e-6)


@pytest.mark.parametrize(
    ("elements", "options", "says"),
    [
        (["Fe", "Xx"], {}, "no element 'Xx'"),
        (["H"], {}, "no strong line"),
        (["Fe-Q"], {}, "shell K, L or M"),
        ([], {}, "one or more symbols"),
        (["Fe", "Fe"], {}, "each shell of an element once"),
        (["Fe", "Fe-K"], {}, "each shell of an element once"),
        ([26], {}, "symbols of elements"),
        (None, {}, "symbols of elements"),
        (["Fe"], {"background_kev": 0}, "positive background_kev"),
        (["Fe"], {"background_kev": -1}, "positive background_kev"),
        (["Fe"], {"background_kev": np.nan}, "positive background_kev"),
        (["Fe"], {"method": "peaks"}, "method"),
        (["Fe"], {"fwhm_kev": 0.05}, "fwhm_kev of at least"),
        (["Fe"], {"energy_range_kev": (6.3, 6.5)}, "more channels than elements"),
    ],
)
def test_elements_that_cannot_be_mapped(simulated, elements, options, says):
    grid = xrf.build_scan_grid(simulated)
    with pytest.raises(InputError, match=says) as caught:
        xrf.element_maps(simulated, grid, elements=elements, **options)
    assert "\n" not in str(caught.value)


def test_elements_need_energies(simulated):
    grid = xrf.build_scan_grid(simulated)
    for energy in (("energy", np.arange(256.0), {"units": "channels"}), ("energy", simulated.energy.values[::-1], {"units": "keV"})):
        with pytest.raises(InputError, match=r"energies (in keV|that rise)"):
            xrf.element_maps(simulated.assign_coords(energy=energy), grid, elements=["Fe"])


def test_energies_are_calibrated_by_lines(painted):
    scan, _ = painted
    true = scan.energy.values
    gain = true[1] - true[0]
    names = ("Ca", "Fe", "Cu")
    lines = [lines_of(name, 1, 40).strongest_kev for name in names]
    places = [(line - true[0]) / gain for line in lines]
    found = xrf.calibrate_energy(scan, channels=places, lines_kev=lines)
    np.testing.assert_allclose(found.energy.values, true, atol=1e-9)
    assert found.energy.attrs["gain_kev"] == pytest.approx(gain)
    searched = xrf.calibrate_energy(scan, channels=[round(place) + 2 for place in places], lines_kev=lines, search_channels=6)
    assert np.abs(searched.energy.values - true)[70:300].max() < gain / 3


@pytest.mark.parametrize(
    ("channels", "lines", "says"),
    [([10], [1.0], "two or more"), ([10, 10], [1.0, 2.0], "two or more"), ([10, 20, 30], [1, 2], "two or more"),
     ([10, 999], [1, 2], "channels from 0"), ([20, 10], [1, 2], "rise")],
)  # fmt: skip
def test_energies_that_cannot_be_calibrated(simulated, channels, lines, says):
    with pytest.raises(InputError, match=says):
        xrf.calibrate_energy(simulated, channels=channels, lines_kev=lines)


def test_no_peak_is_no_line(simulated):
    with pytest.raises(InputError, match="no peak"):
        xrf.calibrate_energy(simulated, channels=[220, 240], lines_kev=[30, 33], search_channels=4)
