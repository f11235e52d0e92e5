"""Crono files: written as the instrument does, and read."""

import h5py
import numpy as np
import pytest

import detcal
from detcal import simulate, xrf
from detcal.errors import InputError, OutputError
from detcal.stores.targets.crono_writer import write_crono
from tests.xrf.files import spoil


def test_a_crono_file_is_read_as_it_was_made(original, simulated):
    scan = detcal.open_crono(original)
    assert scan.spectra.dtype == np.uint16
    assert scan.spectra.dims == ("spectrum", "energy")
    for name in ("spectra", "positions", "selected", "live_time_s", "real_time_s"):
        np.testing.assert_allclose(scan[name].values, simulated[name].values, atol=1e-9)
    np.testing.assert_allclose(scan.energy.values, simulated.energy.values, rtol=1e-6)
    assert scan.attrs["SpectraTime"] == 60
    assert scan.attrs["ScanMode"] == "serpentine"
    assert (scan.positions.values[0] == scan.positions.values[2]).all()


def test_a_crono_file_of_any_size_is_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("detcal.simulate.xrf.BLOCK_BYTES", 2**12)
    path = write_crono(simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2), tmp_path / "a.h5")
    whole = simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2)
    assert whole.spectra.data.npartitions > 2
    monkeypatch.undo()
    np.testing.assert_array_equal(
        detcal.open_crono(path).spectra.values, simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2).spectra.values
    )
    with pytest.raises(OutputError, match="exists"):
        write_crono(simulate.maxrf_scan(6, 10), path)


@pytest.mark.parametrize("shift", [-(10**6), 0.5, 2.0**32, np.nan])
def test_positions_that_are_no_motor_steps_are_not_written(simulated, tmp_path, shift):
    with pytest.raises(InputError, match="whole numbers of µm"):
        write_crono(simulated.assign(positions=simulated.positions + shift), tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_spectra_in_memory_are_written_too(original, simulated, tmp_path):
    found = detcal.open_crono(write_crono(simulated, tmp_path / "a.h5"))
    np.testing.assert_array_equal(found.spectra.values, detcal.open_crono(original).spectra.values)


@pytest.mark.parametrize("chunks", [None, {"spectrum": 1}, {"spectrum": 100}])
def test_gzip_is_decompressed_as_hdf5_does(crono, simulated, chunks):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, chunks=(7, 256), compression="gzip")
    scan = detcal.open_crono(crono, chunks=chunks)
    np.testing.assert_array_equal(scan.spectra.values, simulated.spectra.values)
    np.testing.assert_array_equal(scan.spectra[13:55, 3:90].values, simulated.spectra.values[13:55, 3:90])
    np.testing.assert_array_equal(scan.spectra[5].values, simulated.spectra.values[5])


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True}, {"chunks": (9, 100), "compression": "gzip"}]
)
def test_other_layouts_are_read_too(crono, simulated, options):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, **options)
    np.testing.assert_array_equal(detcal.open_crono(crono).spectra.values, simulated.spectra.values)


@pytest.mark.parametrize("options", [{}, {"chunks": (9, 256), "compression": "gzip"}])
def test_numbers_of_other_machines_are_read(crono, simulated, options):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values.astype(">u2"), **options)
    scan = detcal.open_crono(crono)
    grid = xrf.build_scan_grid(scan)
    np.testing.assert_array_equal(xrf.regrid(scan.spectra, grid), xrf.regrid(simulated.spectra, grid))


def test_spectra_that_were_never_written_are_nan(tmp_path, simulated, crono):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        stored = file["XRF"].create_dataset("Spectra", simulated.spectra.shape, np.uint16, chunks=(9, 256), compression="gzip")
        stored[:9] = simulated.spectra.values[:9]
    with pytest.warns(UserWarning, match=r"Spectra lacks 231 of 240 spectra \(9–239\)"):
        found = detcal.open_crono(crono).spectra.values
    np.testing.assert_array_equal(found[:9], simulated.spectra.values[:9])
    assert np.isnan(found[9:]).all()


WRITTEN = {
    "Spectra": (np.uint16, 2), "EnergyVector": (np.float32, 1), "CalibrationPoints": (np.float32, 2), "MotorsPositions": (np.uint32, 2),
    "MotorsPositionsStats": (np.uint8, 1), "MotorsTimestamps": (np.uint64, 2), "SpectraSelectedIndex": (np.uint64, 3),
    "LiveTimes": (np.uint64, 1), "RealTimes": (np.uint64, 1), "Timestamps": (np.uint64, 1), "DPPStartTimestamp": (np.uint64, 1),
    "SpectraIDs": (np.uint16, 1), "OutputCountRates": (np.float64, 1), "Detected": (np.uint32, 1), "ResetCounterValue": (np.uint32, 1),
    "Maps/ComputedMaps": (np.float64, 3), "XComputedMapsCoordinate": (np.float64, 3), "YComputedMapsCoordinate": (np.float64, 3),
    "ROIs/ROIsEnergies": (np.float64, 2), "ROIs/ROIsNames": ("S1", 2), "ROIs/ROIsObjects": ("V2", 1),
}  # fmt: skip


def test_the_layout_is_that_of_the_instrument(original, simulated):
    """Every dataset that is published of it but the camera's pictures, and nothing that the reader loses."""
    with h5py.File(original) as file:
        found = {name: (file["XRF"][name].dtype, file["XRF"][name].ndim) for name in WRITTEN}
        assert found == {name: (np.dtype(kind), ndim) for name, (kind, ndim) in WRITTEN.items()}
        settings = dict(file["Configuration/Settings"].attrs)
        assert {value.ndim for value in settings.values()} == {1}
        assert {"SpectraTime", "XSpeed", "XStart", "XSize", "YStart", "YSize"} <= set(settings)
        assert settings["ScanMode"].dtype == "S1"
    scan = detcal.open_crono(original)
    assert set(scan.variables) == set(simulated.variables)
    for name in set(scan.variables) - {"energy", "live_time_s", "real_time_s"}:  # of which the last bit differs
        np.testing.assert_array_equal(scan[name].values, simulated[name].values, err_msg=name)
    np.testing.assert_array_equal(scan.detected.values, scan.spectra.values.sum(axis=1))
    assert (np.diff(scan.start_timestamps.values) == 60000).all()


def test_numbers_of_spectra_wrap():
    found = simulate.maxrf_scan(700, 75, channels=4).spectrum_id.values
    assert (found[65535], found[65536]) == (65535, 0)


@pytest.mark.parametrize("name", ["RealTimes", "Timestamps", "MotorsTimestamps", "ROIs/ROIsNames", "ROIs/ROIsEnergies"])
def test_datasets_of_another_length_are_left_out_aloud(crono, name):
    spoil(crono, name, lambda whole: whole[:-1])
    with pytest.warns(UserWarning, match=f"/XRF/{name} is left out: expected values of shape"):
        detcal.open_crono(crono)


def test_optional_datasets_may_be_missing_or_there(crono, simulated):
    number = simulated.sizes["spectrum"]
    with h5py.File(crono, "r+") as file:
        for name in set(WRITTEN) - {"Spectra", "MotorsPositions", "CalibrationPoints"}:
            del file[f"XRF/{name}"]
        del file["Configuration"]
        file["XRF/SpectraIDs"] = np.arange(number, dtype=np.uint16)
        file["XRF/MotorsTimestamps"] = np.zeros((number, 3), np.uint64)
        file["XRF/Maps/ComputedMaps"] = np.full((12, 15, 2), np.nan)
        file["XRF/ROIs/ROIsNames"] = np.array([list(b"Fe\0"), list(b"CuK")], np.uint8).view("S1")
        file["XRF/CalibrationPoints"][...] = [[50, 1.0], [150, 3.0]]
    scan = detcal.open_crono(crono)
    assert "live_time_s" not in scan
    assert "selected" not in scan
    np.testing.assert_allclose(scan.energy.values, 0.02 * np.arange(256), atol=1e-6)
    assert scan.spectrum_id.dims == ("spectrum",)
    assert scan.roi.values.tolist() == ["Fe", "CuK"]
    with h5py.File(crono, "r+") as file:
        del file["XRF/CalibrationPoints"]
    assert detcal.open_crono(crono).energy.attrs["units"] == "channels"


def test_positions_are_steps_of_a_known_length(original):
    first, second = detcal.open_crono(original), detcal.open_crono(original, motor_step_um=2.5)
    np.testing.assert_allclose(second.positions.values, 2.5 * first.positions.values)
