"""Of what no grid or map can be made."""

import numpy as np
import pytest
import xarray as xr

from detcal import simulate, xrf
from detcal.errors import InputError
from detcal.xrf.grid import MOST_PIXELS
from tests.xrf.scans import made_up, raster


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
    grid = xr.Dataset()  # of a file that does not say what it is, say
    for use in (lambda part: xrf.regrid(part.spectra, grid), lambda part: xrf.regrid_rate(part, grid)):
        with pytest.raises(InputError, match="expected a ScanGrid, got Dataset: build one with build_scan_grid"):
            use(scan)


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


def test_several_scans_put_together_have_no_selection_of_their_own():
    """As of a mosaic; their positions lay out one map of all."""
    scan = simulate.maxrf_scan(4, 6, channels=64)
    both = xr.concat([scan, scan.assign(positions=scan.positions + 10000)], "spectrum", data_vars="minimal")
    assert xrf.build_scan_grid(both).spectra == 2 * scan.sizes["spectrum"]
    with pytest.raises(InputError, match=r"expected the spectra of one scan, .* got several scans put together: .* take another method"):
        xrf.build_scan_grid(both, method="selected")
