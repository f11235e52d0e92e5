"""The lag between positions and spectra, found in simulated scans of which it is known."""

import numpy as np
import pytest

from detcal import simulate, xrf
from detcal.errors import InputError
from tests.xrf.scans import made_up, raster


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
