"""Geometries from pyFAI's .json files and NXdetectors of NeXus files are those of .poni files; and what is none."""

import json
import logging

import h5py
import numpy as np
import pyFAI
import pytest
import xarray as xr
from detcal_pipelines.template import render
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry
from pyFAI.io.integration_config import WorkerConfig
from pyFAI.io.ponifile import PoniFile
from pyFAI.utils.decorators import DEPRECATION_CACHE

from detcal import open_frames, save
from detcal.azimuthal import build_bins, integrate, radial_background
from detcal.errors import InputError
from tests.azimuthal.rings import make_bins
from tests.pipelines.commands import change, detcal, fails

SHAPE = (40, 50)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def same_bins(found, wanted):
    np.testing.assert_allclose(found.centres, wanted.centres, rtol=1e-6)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.norm, wanted.norm, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- .json


def place():
    return pyFAI.load({"detector": "Pilatus 100k", "distance": 0.15, "poni1": 0.02, "poni2": 0.04, "rot1": 0.1, "wavelength": 1e-10})


FORMS = {
    "of its integration tool": lambda path: WorkerConfig(application="integrate", poni=PoniFile(place()), nbpt_rad=500).save(str(path)),
    "of its geometry": lambda path: path.write_text(json.dumps(place().get_config(), default=str)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_json_file_of_pyfais_is_a_geometry(tmp_path, form):
    path = tmp_path / "calibration.json"
    FORMS[form](path)
    same_bins(build_bins(path, npt=50), build_bins(place(), npt=50))
    save(np.ones((3, 195, 487), np.int32), tmp_path / "scan.h5")
    (tmp_path / "integrate.toml").write_text(render("integrate").replace("detector.poni", "calibration.json"))
    detcal(tmp_path, "check", "integrate.toml")


def test_a_json_file_is_read_without_a_word_of_pyfais(tmp_path, caplog):
    """Which tells of its deprecated code with a stack of calls, once a process."""
    (tmp_path / "calibration.json").write_text(json.dumps(place().get_config(), default=str))
    DEPRECATION_CACHE.clear()
    logging.disable(logging.NOTSET)
    build_bins(tmp_path / "calibration.json", npt=9)
    assert not caplog.records


@pytest.mark.parametrize("text", ["{}", "[1, 2]", '{"poni": {"dist": 0.1}, "version": 5}', '{"dist": 0.1', "1"])
def test_a_json_file_that_is_none(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot read .*calibration.json as a .poni file"):
        build_bins(tmp_path / "calibration.json", npt=50)


# --------------------------------------------------------------------------------------------------------- NXdetector

PIXEL = 75e-6


def write_nexus(path, **changes):
    """Frames with where their detector stood, in units of their own."""
    facts = {
        "detector_distance": (30.0, "mm"), "beam_center_x": (20.5, "pixel"), "beam_center_y": (11.0, "pixel"),
        "x_pixel_size": (75, "um"), "y_pixel_size": (PIXEL, "m"), "sensor_thickness": (450.0, "um"),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        for name, kind in (("instrument", "NXinstrument"), ("instrument/detector", "NXdetector"), ("instrument/beam", "NXbeam")):
            entry.create_group(name).attrs["NX_class"] = kind
        detector = entry["instrument/detector"]
        for name, (value, units) in {**facts, **changes}.items():
            if value is not None:
                detector[name] = value
                detector[name].attrs["units"] = units
        detector["sensor_material"] = "Si"
        detector["data"] = np.random.default_rng(0).poisson(100, (4, *SHAPE)).astype(np.uint16)
        entry["instrument/beam/incident_wavelength"] = 0.7
        entry["instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
        entry["data"] = h5py.SoftLink("/entry/instrument/detector")


def wanted_of(**options):
    detector = Detector(PIXEL, PIXEL, max_shape=SHAPE, orientation=3)
    detector.set_config({"sensor": {"material": "Si", "thickness": 450e-6}})
    return build_bins(Geometry(0.03, 11 * PIXEL, 20.5 * PIXEL, detector=detector, wavelength=0.7e-10), npt=20, **options)


@pytest.mark.parametrize("unit", ["q_nm^-1", "2th_deg", "r_px"])
def test_frames_say_where_their_detector_stood(tmp_path, unit):
    write_nexus(tmp_path / "scan.h5")
    frames = open_frames(tmp_path / "scan.h5")
    bins = build_bins(frames, npt=20, unit=unit)
    same_bins(bins, wanted_of(unit=unit))
    assert "efficiency" in bins.corrections


def test_a_recipe_takes_its_own_input_for_a_geometry(tmp_path):
    write_nexus(tmp_path / "scan.h5")
    (tmp_path / "integrate.toml").write_text(render("integrate"))
    change(tmp_path, "integrate.toml", '"detector.poni"', '"scan.h5"')
    change(tmp_path, "integrate.toml", "# npt = 1000", "npt = 20")
    detcal(tmp_path, "run", "integrate.toml", "--workers", "2")
    wanted = integrate(open_frames(tmp_path / "scan.h5"), wanted_of()).compute()
    np.testing.assert_allclose(xr.open_zarr(tmp_path / "integrated.zarr").intensity, wanted.intensity, rtol=1e-6)
    write_nexus(tmp_path / "scan.h5", detector_distance=(None, ""), beam_center_x=(None, ""))
    told = fails(tmp_path, "check", "integrate.toml")
    assert "expected frames that say where their detector stood, got none of detector_distance_m, beam_center_x_px" in told


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"pixel_size_x_m": 0.0}, "expected pixels of a size above 0, got pixel_size_y_m 7.5e-05 and pixel_size_x_m 0"),
        ({"detector_distance_m": "far"}, "expected a number as attribute detector_distance_m of the frames, got 'far'"),
        ({"detector_distance_m": np.nan}, "detector_distance_m of the frames, got nan"),
        ({"detector_distance_m": -1.0}, "expected a distance above 0"),
        ({"wavelength_m": None, "energy_kev": None}, "the geometry has no wavelength, which q_nm"),
    ],
)
def test_frames_that_do_not(tmp_path, attrs, message):
    write_nexus(tmp_path / "scan.h5")
    frames = open_frames(tmp_path / "scan.h5").assign_attrs(attrs)
    with pytest.raises(InputError, match=message):
        build_bins(frames, npt=20)


def test_an_energy_is_a_wavelength(tmp_path):
    write_nexus(tmp_path / "scan.h5")
    frames = open_frames(tmp_path / "scan.h5").assign_attrs(wavelength_m=None, energy_kev=12.39841984 / 0.7)
    same_bins(build_bins(frames, npt=20), wanted_of())


# ---------------------------------------------------------------------------------------------- frames of another place


@pytest.mark.parametrize("call", [integrate, lambda frames, bins: radial_background(frames, bins)])
def test_bins_of_another_detector(call):
    """By shape, which is all that is known of frames without a file."""
    with pytest.raises(
        InputError,
        match=r"expected frames of shape \(3, 4\) .* as the bins, got \(4, 3\): rows and columns are exchanged|expected a DataArray",
    ):
        call(np.ones((2, 4, 3)), make_bins(np.zeros((3, 4), int)))


@pytest.mark.parametrize("unit", ["qip_nm^-1", "exit_angle_deg", "chi_deg", "qx_nm^-1", ""])
def test_units_that_need_another_angle(unit):
    """Those of fibres and of azimuths: no ring is a line of equal value in them."""
    with pytest.raises(InputError, match=f"unknown unit '{unit}'; near are ".replace("^", r"\^")):
        build_bins(place(), unit=unit)
