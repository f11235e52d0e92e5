"""Files of scans of which detectors, rows or positions are missing."""

import h5py
import numpy as np
import pytest

import detcal
from detcal import xrf
from detcal.errors import InputError
from tests.reference import xrf as reference
from tests.xrf.files import changed, spoil
from tests.xrf.scans import METHODS, raster, unrolled, warned


def write_maps(path, counts, live=None, names="abcdefgh"):
    """A file of /MAPS_RAW of counts (detector, energy, row, column) and live times (detector, row, column)."""
    with h5py.File(path, "w") as file:
        for name, cube in zip(names, counts, strict=False):
            file[f"MAPS_RAW/data_{name}"] = cube
        if live is not None:
            file["MAPS_RAW/livetime"] = live
    return path


@pytest.mark.parametrize(
    ("dtype", "value", "kept"),
    [(np.float32, 0.9, np.float32), (np.float64, 1e-3, np.float64), (np.float16, 0.5, np.float32), (np.uint8, 255, np.int32),
     (np.int16, 32767, np.int32), (np.uint16, 65535, np.int32), (np.int32, 2**31 - 5, np.int64), (np.uint32, 2**31 + 5, np.int64),
     (np.int64, 2**40, np.int64), (np.uint64, 2**63 - 1, np.uint64)],
)  # fmt: skip
def test_counts_of_several_detectors_are_added_up_in_a_type_that_holds_them(tmp_path, dtype, value, kept):
    counts = np.full((2, 4, 2, 3), value, dtype)
    if counts.dtype.kind == "f":
        counts[0, 1, 1, 2] = np.nan
    spectra = detcal.open_maps(write_maps(tmp_path / "a.h5", counts, np.ones((2, 2, 3)))).spectra
    assert spectra.dtype == kept
    wanted = counts[0].astype(object) + counts[1].astype(object)
    found = spectra.values.T.reshape(4, 2, 3)
    np.testing.assert_array_equal(found, wanted.astype(kept))
    if counts.dtype.kind != "f":
        assert (found.astype(object) == 2 * int(value)).all()


def test_detectors_of_mixed_types(tmp_path):
    counts = [np.full((3, 2, 2), 40000, np.uint16), np.full((3, 2, 2), 0.25, np.float32)]
    spectra = detcal.open_maps(write_maps(tmp_path / "a.h5", counts, np.ones((2, 2, 2)))).spectra
    np.testing.assert_array_equal(spectra, 40000.25)


@pytest.fixture
def four():
    """Counts of four detectors, a second long."""
    return np.random.default_rng(0).poisson(50, (4, 8, 4, 5)).astype(np.int16), np.ones((4, 4, 5))


@pytest.mark.parametrize("dead", ["no live time", "no live time, NaN", "half", "silent", "silent and no live time"])
def test_a_dead_detector_is_left_out(tmp_path, four, dead):
    counts, live = four
    if dead.startswith("no live"):
        live[2] = np.nan if "NaN" in dead else 0
    if dead == "half":
        live[2, 2:] = 0
    if "silent" in dead:
        counts[2] = 0
        live[2] *= "no live" not in dead
    scan, texts = warned(lambda: detcal.open_maps(write_maps(tmp_path / "a.h5", counts, live)))
    assert len(texts) == 1
    assert "of 4 detectors" in texts[0]
    assert "1 are left out: 2 without" in texts[0]
    assert scan.detector.values.tolist() == [0, 1, 3]
    grid = xrf.build_scan_grid(scan)
    wanted = counts[[0, 1, 3]].sum(axis=0, dtype=int).transpose(1, 2, 0)
    np.testing.assert_array_equal(scan.spectra.values.reshape(4, 5, 8), wanted)
    np.testing.assert_allclose(xrf.regrid_rate(scan, grid).rate, wanted, rtol=1e-6)


def test_detectors_that_nobody_can_call_dead(tmp_path, four):
    """An empty map, and a detector by itself."""
    counts, live = four
    assert detcal.open_maps(write_maps(tmp_path / "a.h5", 0 * counts, live)).sizes["detector"] == 4
    counts[2] = 0
    assert not detcal.open_maps(write_maps(tmp_path / "a.h5", counts, live), detector=2).spectra.values.any()


def test_detectors_by_number(tmp_path, four):
    counts, live = four
    path = write_maps(tmp_path / "a.h5", counts, live)
    np.testing.assert_array_equal(detcal.open_maps(path, detector=[3, 0]).spectra.values.T.reshape(8, 4, 5), counts[3] + counts[0])
    for wrong in (4, -1, [0, 4], [1, 1], [], [0.5], "a"):
        with pytest.raises(InputError, match="expected a detector from 0 to 3"):
            detcal.open_maps(path, detector=wrong)


@pytest.mark.parametrize("detectors", [1, 3])
def test_an_aborted_row_is_left_out(tmp_path, four, detectors):
    counts, live = four
    live[:, 3, 2:] = 0
    path = write_maps(tmp_path / "a.h5", counts[:detectors], live[:detectors])
    (scan, _, found), texts = warned(lambda: rates_of(path))
    assert len(texts) == 1
    assert "of 20 spectra" in texts[0]
    assert "3 without a positive live time (number 17, 18, 19)" in texts[0]
    assert scan.sizes["spectrum"] == 20
    wanted = counts[:detectors].sum(axis=0).transpose(1, 2, 0).astype(float)
    wanted[3, 2:] = np.nan
    np.testing.assert_allclose(found.rate, wanted, rtol=1e-6)
    selected = xrf.regrid_rate(scan, xrf.build_scan_grid(scan, method="selected")).rate
    np.testing.assert_allclose(selected, wanted, rtol=1e-6)


def rates_of(path, **options):
    scan = detcal.open_maps(path, **options)
    grid = xrf.build_scan_grid(scan)
    return scan, grid, xrf.regrid_rate(scan, grid).compute()


def test_points_without_all_detectors_are_left_out(tmp_path, four):
    """Three of four detectors are no four: their sum would be a darker point."""
    counts, live = four
    live[1, 2, 2] = 0
    (_, _, found), texts = warned(lambda: rates_of(write_maps(tmp_path / "a.h5", counts, live)))
    assert len(texts) == 1
    assert "1 without a live time of every detector (number 12)" in texts[0]
    wanted = counts.sum(axis=0).transpose(1, 2, 0).astype(float)
    wanted[2, 2] = np.nan
    np.testing.assert_allclose(found.rate, wanted, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_rates_of_detectors_of_unequal_live_times_are_added_up(tmp_path, method):
    """Whatever the dead time is in each point: 200 and 100 and 50 counts a second are 350."""
    live = np.random.default_rng(0).uniform(0.1, 1, (3, 5, 6))
    counts = np.array([200, 100, 50])[:, None, None, None] * live[:, None] * np.array([1, 2, 3, 4])[:, None, None]
    scan = detcal.open_maps(write_maps(tmp_path / "a.h5", counts, live))
    np.testing.assert_allclose(scan.spectra, counts.sum(axis=0).reshape(4, 30).T)
    grid = xrf.build_scan_grid(scan, method=method)
    found = xrf.regrid_rate(scan, grid).compute()
    np.testing.assert_allclose(found.rate, np.broadcast_to(350 * np.array([1, 2, 3, 4]), found.rate.shape), rtol=1e-5)
    if method == "selected":  # a pixel is a spectrum: the variances of the detectors' rates add up
        np.testing.assert_allclose(found.variance, (counts / live[:, None] ** 2).sum(axis=0).transpose(1, 2, 0), rtol=1e-5)


@pytest.mark.parametrize("method", ["fit", "window"])
def test_elements_of_detectors_of_unequal_live_times_are_added_up(tmp_path, method):
    from detcal.xrf.lines import lines_of, pattern_of

    energy = 0.04 * np.arange(330)
    mean = 300 * pattern_of(lines_of("Fe", 1, 12), energy, 0.14) + 0.2
    live = np.random.default_rng(0).uniform(0.2, 1, (2, 3, 4))
    counts = np.array([2, 1])[:, None, None, None] * live[:, None] * mean[:, None, None]
    scan = detcal.open_maps(write_maps(tmp_path / "a.h5", counts, live)).assign_coords(energy=("energy", energy, {"units": "keV"}))
    found = xrf.element_maps(scan, xrf.build_scan_grid(scan), elements=["Fe"], method=method)
    np.testing.assert_allclose(found.rate, 900, rtol=0.01)


def test_maps_of_other_shapes_are_refused_by_name(tmp_path, four):
    counts, live = four
    with pytest.raises(InputError, match=r"expected times of shape \(4, 4, 5\) in .*livetime"):
        detcal.open_maps(write_maps(tmp_path / "a.h5", counts, live[:3]))
    with pytest.raises(InputError, match="of numbers"):
        detcal.open_maps(write_maps(tmp_path / "b.h5", counts.astype("S2"), live))


@pytest.mark.parametrize("value", [0, -5])
def test_a_crono_file_with_a_zero_live_time_is_opened_and_used(crono, simulated, tmp_path, value):
    number = int(simulated.selected.values[4, 5])
    spoil(crono, "LiveTimes", lambda whole: changed(whole.astype(np.int64), number, value).astype(np.uint64))
    path, texts = warned(lambda: detcal.convert_crono(crono, tmp_path / "map.zarr", progress=False))
    assert len(texts) == 1
    assert f"of 240 spectra of {crono}, 1 without a positive live time (number {number}) are left out" in texts[0]
    wanted = reference.cronomaxrf(simulated.spectra.values, simulated.selected.values)["maxrf_cube"]
    wanted[4, 5] = np.nan
    np.testing.assert_allclose(detcal.get_array(path, "maxrf_cube"), wanted, rtol=1e-6, atol=1e-7)
    scan, _ = warned(lambda: detcal.open_crono(crono))
    assert np.isnan(scan.live_time_s.values[number])
    found = xrf.regrid_rate(scan, xrf.build_scan_grid(scan, method="selected"))  # says nothing more
    assert np.isnan(found.rate.values[4, 5]).all()
    assert np.isfinite(found.rate.values).all(axis=2).sum() == 12 * 15 - 1


def test_positions_of_a_plain_file_may_be_missing(tmp_path):
    places = raster(4, 5)
    places[6] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"], file["xy"], file["t"] = np.ones((20, 3), np.uint16), places, np.ones(20)
    scan, texts = warned(lambda: detcal.open_spectra(tmp_path / "a.h5", "counts", "xy", live_time_s="t"))
    assert len(texts) == 1
    assert "1 without a position that is a number (number 6)" in texts[0]
    found = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)).values[..., 0]
    np.testing.assert_allclose(found, np.where(unrolled(4, 5) == 6, np.nan, 1), rtol=1e-6)
