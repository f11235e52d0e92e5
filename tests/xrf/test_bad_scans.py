"""Files of scans that cannot be used, or not without help."""

import h5py
import numpy as np
import pytest

import detcal
from detcal.errors import InputError
from tests.xrf.files import changed, spoil


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("Spectra", None, "no dataset XRF/Spectra"),
        ("Spectra", lambda whole: whole[0], "spectra \\(spectrum, energy\\)"),
        ("MotorsPositions", None, "no dataset XRF/MotorsPositions"),
        ("MotorsPositions", lambda whole: whole[:, :1], "expected positions of shape"),
        ("MotorsPositions", lambda whole: np.ones_like(whole), "positions equal"),
        ("LiveTimes", lambda whole: 0 * whole, "no spectrum is left to make a map of"),
        ("LiveTimes", lambda whole: whole[:, None], "a live time for each"),
        ("SpectraSelectedIndex", lambda whole: changed(whole, (3, 3), 10**6), "selected spectra from 0 to"),
        ("EnergyVector", lambda whole: whole[::-1], "energies that rise"),
        ("EnergyVector", lambda whole: whole[:-1], "an energy for each of 256 channels"),
    ],
)
def test_files_that_cannot_be_used(crono, name, values, says):
    spoil(crono, name, values)
    with pytest.raises(InputError, match=says) as caught:
        detcal.open_crono(crono)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_short(crono):
    with open(crono, "r+b") as file:
        file.truncate(crono.stat().st_size // 2)
    with pytest.raises(InputError, match="truncated file"):
        detcal.open_crono(crono)


def test_a_file_with_a_spoilt_chunk(crono):
    with h5py.File(crono) as file:
        place = file["XRF/Spectra"].id.get_chunk_info(0)
    with open(crono, "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xff" * 40)
    with pytest.raises(InputError, match="cannot read"):
        detcal.open_crono(crono).spectra.compute()


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="no such"):
        detcal.open_crono(tmp_path / "gone.h5")


def test_bad_live_times_can_be_replaced(crono, simulated):
    spoil(crono, "LiveTimes", lambda whole: 0 * whole)
    scan = detcal.open_crono(crono, live_time_s=simulated.real_time_s.values)
    np.testing.assert_allclose(scan.live_time_s.values, 0.06)


def test_bad_energies_can_be_replaced(crono, simulated):
    spoil(crono, "EnergyVector", lambda whole: whole[::-1])
    with pytest.raises(InputError, match="give energy_kev= in place of the file's own"):
        detcal.open_crono(crono)
    scan = detcal.open_crono(crono, energy_kev=simulated.energy.values)
    np.testing.assert_array_equal(scan.energy.values, simulated.energy.values)
