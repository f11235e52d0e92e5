"""Scans in files of other kinds."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

import detcal
from detcal import xrf
from detcal.errors import InputError
from tests.xrf.files import write_maps


def test_plain_spectra_and_positions(tmp_path, simulated):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["a/counts"], file["xy"] = simulated.spectra.values, simulated.positions.values[:, :2].T
        file["t"], file["e"] = simulated.live_time_s.values, simulated.energy.values
    scan = detcal.open_spectra(path, "a/counts", "xy", live_time_s="t", energy_kev="e")
    ours = xrf.regrid_rate(scan, xrf.build_scan_grid(scan))
    wanted = xrf.regrid_rate(simulated, xrf.build_scan_grid(simulated))
    np.testing.assert_array_equal(ours.rate.values, wanted.rate.values)
    assert detcal.open_spectra(path, "a/counts", "xy").energy.attrs["units"] == "channels"
    with pytest.raises(InputError, match="no dataset other"):
        detcal.open_spectra(path, "other", "xy")


@pytest.mark.parametrize("twice", [False, True])
def test_the_sum_of_elements_and_a_copy_in_the_instrument_are_no_other_spectra(tmp_path, twice):
    """As I18 of Diamond writes them: the elements, their sum, and regions of interest."""
    elements = np.random.default_rng(0).poisson(3, (2, 3, 4, 64)).astype(np.float64)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        for group in ("entry1/xspress3", "entry1/instrument/xspress3")[: 1 + twice]:
            file.create_group(group).update({"MCAs": elements, "AllElementSum": elements.sum(axis=2), "Ti_K": elements[..., 10]})
    with pytest.warns(UserWarning, match="MCAs is spectra"):
        scan = detcal.open_scan(tmp_path / "a.nxs")
    np.testing.assert_array_equal(scan.spectra.values, elements.sum(axis=2).reshape(6, 64))


def test_maps_of_several_detectors(tmp_path):
    path = write_maps(tmp_path / "maps.h5")
    scan = detcal.open_maps(path)
    with h5py.File(path) as file:
        cubes = np.stack([file[f"MAPS_RAW/data_{name}"][...] for name in "abcd"])
    wanted = cubes.sum(axis=0).reshape(32, 20).T
    np.testing.assert_array_equal(scan.spectra.values, wanted)
    np.testing.assert_allclose(scan.live_time_s.values, (0.5 + 1 + 0.5 + 0.5) / 4)
    second = detcal.open_maps(path, detector=1)
    np.testing.assert_array_equal(second.spectra.values, cubes[1].reshape(32, 20).T)
    np.testing.assert_allclose(second.live_time_s.values, 1)
    cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)).values
    np.testing.assert_allclose(cube, cubes.sum(axis=0).transpose(1, 2, 0), rtol=1e-6)


def test_maps_that_are_none(tmp_path, original):
    with pytest.raises(InputError, match="MAPS_RAW"):
        detcal.open_maps(original)
    path = write_maps(tmp_path / "maps.h5")
    with pytest.raises(InputError, match="detector from 0 to 3"):
        detcal.open_maps(path, detector=4)
    with pytest.raises(InputError, match="no spectrum is left to make a map of: of 20 spectra"):
        detcal.open_maps(write_maps(path, live=0))


def test_chunks_are_of_spectra(original):
    with pytest.raises(InputError, match="chunks such as"):
        detcal.open_crono(original, chunks={"energy": 3})


def test_graphs_hold_no_open_files(original):
    """So that they can be sent to any worker."""
    import pickle

    assert len(pickle.dumps(detcal.open_crono(original).spectra.data)) < 10000
    assert json.dumps(detcal.open_crono(original).attrs)


def test_open_scan_finds_the_layout(original, tmp_path):
    xr.testing.assert_identical(detcal.open_scan(original), detcal.open_crono(original))
    fly = write_maps(tmp_path / "fly.h5")
    xr.testing.assert_identical(detcal.open_scan(fly, chunks={"row": 2}), detcal.open_maps(fly, chunks={"row": 2}))
    named = detcal.open_scan(original, spectra="XRF/Spectra", positions="XRF/MotorsPositions")
    xr.testing.assert_identical(named, detcal.open_spectra(original, "XRF/Spectra", "XRF/MotorsPositions"))


def test_open_scan_says_what_it_looked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.zeros((3, 4))
    with pytest.raises(InputError, match=r"/XRF \(Crono\), or /MAPS_RAW or /MAPS \(APS\), .*, found none: give spectra and positions"):
        detcal.open_scan(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"expected positions of the spectra \(3, 4\) in .*, which are no map of rows and columns"):
        detcal.open_scan(tmp_path / "a.h5", spectra="counts")
    with pytest.raises(InputError, match="no such file"):
        detcal.open_scan(tmp_path / "b.h5")


def test_a_store_is_no_file_of_a_scan(tmp_path):
    detcal.save(np.ones((3, 4, 5)), tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"expected a scan in .*a\.zarr, .* found data \(frame: 3, y: 4, x: 5\): give another file"):
        detcal.open_scan(tmp_path / "a.zarr")
