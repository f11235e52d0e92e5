"""A measured fly scan (skipped where the data is not there)."""

import numpy as np
import pytest

import detcal
from detcal import xrf


@pytest.fixture(scope="module")
def path(shared_data):
    found = shared_data / "xrf" / "2xfm_0011_2xfm3__0.h5"
    if not found.exists():
        pytest.skip(f"no measured scan: {found.name} is not there")
    return found


@pytest.mark.parametrize("detector", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("method", ["drizzle", "selected", "linear", "nearest", "gaussian"])
def test_a_column_that_was_exposed_longer_is_as_bright_as_the_others(path, detector, method):
    """2.4 times the counts, 0.95 to 1.05 times the rate."""
    scan = detcal.open_maps(path, detector=detector)
    raw = scan.spectra.sum("energy").values.reshape(11, 9).sum(axis=0)
    assert 2.3 < raw[0] / raw[1:].mean() < 2.5
    found = xrf.regrid_rate(scan, xrf.build_scan_grid(scan, method=method))
    columns = np.nansum(found.rate.values.astype(float), axis=(0, 2))
    assert 0.95 < columns[0] / columns[1:].mean() < 1.05


def test_no_count_is_lost(path):
    scan = detcal.open_maps(path)
    spectra = scan.spectra.values
    assert spectra.shape == (99, 2048)
    cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)).values.astype(float)
    assert cube.shape == (11, 9, 2048)
    np.testing.assert_allclose(np.nansum(cube, axis=(0, 1)), spectra.sum(axis=0), rtol=1e-6)


def test_each_detector_keeps_its_place(path):
    """Detectors and rows in the file's order: counts that the file itself tells, nearly all of which are in the spectra."""
    import h5py

    with h5py.File(path) as file:
        output = file["MAPS_RAW/ouputcounts"][2].ravel()
    ours = detcal.open_maps(path, detector=2).spectra.sum("energy").values
    assert np.corrcoef(ours, output)[0, 1] > 0.999
