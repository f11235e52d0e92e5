"""Spectra in an NXdata, by the names of its axes, in whatever order these are; and which NXdata of several is meant."""

from itertools import permutations

import h5py
import numpy as np
import pytest

import detcal
from tests.xrf.layouts import COLUMNS, COUNTS, ENERGY_EV, LIVE_S, MAP, POINTS, ROWS, X, Y, put

DIMS = ("y", "x", "energy")


def write(path, order, names=None, square=False):
    """The map with its axes in some order; a square part of it, in which no length tells which axis is which."""
    side = min(ROWS, COLUMNS) if square else None
    lines = {"y": Y[:side, 0], "x": X[0, :side], "energy": ENERGY_EV}
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/plot")
        file["entry"].attrs["NX_class"] = "NXentry"
        called = names or {}
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": [called.get(axis, axis) for axis in order]})
        group["data"] = MAP[:side, :side].transpose([DIMS.index(axis) for axis in order])
        for axis, line in lines.items():
            put(group, called.get(axis, axis), line, "eV" if axis == "energy" else "mm")
        group["live"] = LIVE_S[0, :side, :side].transpose([DIMS.index(axis) for axis in order if axis != "energy"])
    return path


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("names", [{}, {"y": "samy", "x": "samx", "energy": "bins"}, {"y": "StageY", "x": "StageX"}], ids=str)
@pytest.mark.parametrize("order", list(permutations(DIMS)), ids="-".join)
def test_axes_in_any_order(tmp_path, order, names, square):
    scan = detcal.open_scan(write(tmp_path / "a.nxs", order, names, square), live_time_s="entry/plot/live")
    side = min(ROWS, COLUMNS) if square else None
    np.testing.assert_array_equal(scan.spectra, MAP[:side, :side].reshape(-1, len(ENERGY_EV)))
    np.testing.assert_allclose(scan.positions, np.stack([X[:side, :side].ravel(), Y[:side, :side].ravel()], axis=1) * 1000)
    np.testing.assert_allclose(scan.energy, ENERGY_EV / 1000)
    np.testing.assert_allclose(scan.live_time_s, LIVE_S[0, :side, :side].ravel())
    assert scan.selected.shape == ((side, side) if square else (ROWS, COLUMNS))


def test_positions_of_each_point_lie_as_the_spectra_do(tmp_path):
    path = write(tmp_path / "a.nxs", ("x", "y", "energy"))
    with h5py.File(path, "r+") as file:
        group = file["entry/plot"]
        del group["x"], group["y"]
        put(group, "x", X.T, "mm")
        put(group, "y", Y.T, "mm")
    np.testing.assert_allclose(detcal.open_scan(path).positions, np.stack([X.ravel(), Y.ravel()], axis=1) * 1000)


def test_elements_of_a_detector_beside_the_axes_of_a_map(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/plot")
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["energy", "element", "x", "y"]})
        file["entry"].attrs["NX_class"] = "NXentry"
        group["data"] = COUNTS.transpose(3, 0, 2, 1)
        put(group, "energy", ENERGY_EV, "eV")
    scan = detcal.open_scan(tmp_path / "a.nxs")
    np.testing.assert_array_equal(scan.spectra, POINTS)
    np.testing.assert_array_equal(scan.detector_spectra, COUNTS.reshape(len(COUNTS), -1, len(ENERGY_EV)))


@pytest.mark.parametrize("default", [True, False])
def test_the_signal_is_meant_and_no_larger_dataset_beside_it(tmp_path, default):
    """As I18 of Diamond writes them: the sum is the signal, beside its elements, and energies have no axis."""
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry1/xspress3")
        file["entry1"].attrs["NX_class"] = "NXentry"
        group.attrs.update({"NX_class": "NXdata", "signal": "AllElementSum", "axes": ["SampleY", "SampleX", "."]})
        group["AllElementSum"], group["MCAs"] = MAP, COUNTS.transpose(1, 2, 0, 3) * 2
        put(group, "SampleY", Y[:, 0], "mm")
        put(group, "SampleX", X[0], "mm")
        if default:
            file.attrs["default"], file["entry1"].attrs["default"] = "entry1", "xspress3"
    scan = detcal.open_scan(tmp_path / "a.nxs")
    np.testing.assert_array_equal(scan.spectra, POINTS)
    np.testing.assert_allclose(scan.positions, np.stack([X.ravel(), Y.ravel()], axis=1) * 1000)


def test_default_chooses_among_several(tmp_path):
    path = write(tmp_path / "a.nxs", DIMS)
    with h5py.File(path, "r+") as file:
        file.copy("entry/plot", "entry/another")
        file["entry/another/data"][...] = 0
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "plot"
    np.testing.assert_array_equal(detcal.open_scan(path).spectra, POINTS)
