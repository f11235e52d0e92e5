"""Scans that were ended between spectra, positions and times: what lacks something takes part in no map, and the rest is used."""

import h5py
import numpy as np
import pytest

import detcal
from tests.xrf.files import spoil

SPECTRA = np.random.default_rng(3).poisson(9, (20, 64)).astype(np.uint16)
PLACES = np.stack([np.arange(20) % 5, np.arange(20) // 5], axis=1) * 2.0
MAP = SPECTRA.reshape(4, 5, 64)


def write(path, spectra, **others):
    with h5py.File(path, "w") as file:
        file["counts"] = spectra
        file.update(others)
    return path


@pytest.mark.parametrize("together", [True, False], ids=["xy", "x and y"])
@pytest.mark.parametrize("turned", [False, True])
def test_fewer_positions_than_spectra(tmp_path, together, turned):
    places = PLACES[:15]
    others = {"xy": places.T if turned else places} if together else {"x": places[:, 0], "y": places[:, 1]}
    path = write(tmp_path / "a.h5", SPECTRA, **others)
    with pytest.warns(UserWarning, match="left out") as told:
        scan = detcal.open_spectra(path, "counts", "xy" if together else ["x", "y"])
    assert len(told) == 1
    assert "5 without a position that is a number (number 15, 16, 17, 18, 19) are left out" in str(told[0].message)
    np.testing.assert_array_equal(scan.positions.values[:15], places)
    assert np.isnan(scan.positions.values[15:]).all()
    np.testing.assert_array_equal(scan.left_out, np.arange(20) >= 15)
    np.testing.assert_array_equal(scan.spectra.values, SPECTRA)


def test_more_positions_than_spectra(tmp_path):
    path = write(tmp_path / "a.h5", SPECTRA[:15], xy=PLACES, t=np.ones(15))
    with pytest.warns(UserWarning, match=r"20 positions but 15 spectra.*only those are used") as told:
        scan = detcal.open_spectra(path, "counts", "xy", live_time_s="t")
    assert len(told) == 1
    np.testing.assert_array_equal(scan.positions, PLACES[:15])
    assert "left_out" not in scan


@pytest.mark.parametrize("lines", [False, True], ids=["maps", "lines"])
def test_rows_that_have_no_positions(tmp_path, lines):
    x, y = (PLACES.reshape(4, 5, 2)[:3, :, axis] for axis in (0, 1))
    path = write(tmp_path / "a.h5", MAP, x=x[0] if lines else x, y=y[:, 0] if lines else y)
    with pytest.warns(UserWarning, match=r"5 without a position that is a number \(number 15, 16"):
        scan = detcal.open_spectra(path, "counts", ["x", "y"])
    np.testing.assert_array_equal(scan.positions.values[:15], PLACES[:15])
    assert np.isnan(scan.positions.values[15:, 1]).all()


@pytest.mark.parametrize("elements", [1, 3])
def test_fewer_live_times(tmp_path, elements):
    several = np.stack([SPECTRA] * elements, axis=1) if elements > 1 else SPECTRA
    times = np.linspace(1, 2, 15)[:, None] * np.ones(elements)
    path = write(tmp_path / "a.h5", several, xy=PLACES, t=times if elements > 1 else times[:, 0])
    with pytest.warns(UserWarning, match="5 without a positive live time"):
        scan = detcal.open_spectra(path, "counts", "xy", live_time_s="t")
    np.testing.assert_allclose(scan.live_time_s.values[:15], times[:, 0])
    assert np.isnan(scan.live_time_s.values[15:]).all()


@pytest.mark.parametrize(("name", "kind"), [("MotorsPositions", "position"), ("LiveTimes", "positive live time")])
def test_of_a_crono_scanner(crono, name, kind):
    with h5py.File(crono) as file:
        number = len(file["XRF/Spectra"])
    spoil(crono, name, lambda whole: whole[:-5])
    with pytest.warns(UserWarning, match=f"5 without a {kind}.*number {number - 5}, .* {number - 1}\\) are left out"):
        scan = detcal.open_crono(crono)
    assert scan.left_out.values[-5:].all()
    assert not scan.left_out.values[:-5].any()


def test_a_list_of_positions_of_spectra_that_may_lie_in_several_orders_is_no_guess(tmp_path):
    path = write(tmp_path / "a.h5", MAP, xy=PLACES[:15])
    with pytest.raises(detcal.errors.InputError, match="expected positions of shape"):
        detcal.open_spectra(path, "counts", "xy")
