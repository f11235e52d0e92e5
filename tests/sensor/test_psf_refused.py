"""Of what no point-spread matrix can be made."""

import numpy as np
import pytest
from pyFAI.detectors import Detector, detector_factory
from pyFAI.geometry import Geometry

from detcal.sensor import PlanarGeometry, attenuation_per_m, build_psf
from tests.sensor.geometries import refused
from tests.sensor.rays import PITCH, SENSOR, SILICON, SQUARE, plane


@pytest.mark.parametrize(
    ("message", "material", "energy_kev", "options"),
    [
        ("unknown material 'silicium'; near are .*silicon", "silicium", 10, {}),
        ("unknown material 'CdTeSe'; near are CdTe", "CdTeSe", 10, {}),
        ("unknown material 'Bi12GeO20'.*needs density_g_cm3", "Bi12GeO20", 10, {}),
        (r"unknown material '~~~~'\. A chemical formula", "~~~~", 10, {}),
        ("positive energy in keV, got -1", "Si", -1, {}),
        ("positive energy in keV, got 0", "Si", 0, {}),
        ("positive energy in keV, got nan", "Si", np.nan, {}),
        ("Si is not tabulated at 0.5 keV", "Si", 0.5, {}),
        ("Si is not tabulated at 1000000.0 keV", "Si", 1e6, {}),
        ('absorption to be "total" or "energy", got \'x\'', "Si", 10, {"absorption": "x"}),
        ("µ_en is tabulated for Si, .*not for kapton", "kapton", 10, {"absorption": "energy"}),
        ("cannot read 'Xx3' as a chemical formula", "Xx3", 10, {"density_g_cm3": 1}),
        ("cannot read '' as a chemical formula", "", 10, {"density_g_cm3": 1}),
        ("positive density", "Si", 10, {"density_g_cm3": -1}),
        ("positive density", "Si", 10, {"density_g_cm3": 0}),
        ("positive density", "SiO2", 10, {"density_g_cm3": np.nan}),
    ],
)
def test_bad_materials_are_refused(message, material, energy_kev, options):
    refused(message, attenuation_per_m, material, energy_kev, **options)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("positive pixel sizes", {"pixel_size_m": (0, PITCH)}),
        ("positive pixel sizes", {"pixel_size_m": (PITCH, -PITCH)}),
        ("positive pixel sizes and distance, .* and 0 m", {"distance_m": 0}),
        ("positive pixel sizes and distance, .* and -0.1 m", {"distance_m": -0.1}),
        (r"shape \(rows, columns\), got \(0, 5\)", {"shape": (0, 5)}),
        (r"shape \(rows, columns\), got \(4, 5, 6\)", {"shape": (4, 5, 6)}),
        ("positive pixel sizes", {"pixel_size_m": (PITCH, np.nan)}),
        ("positive pixel sizes and distance", {"distance_m": np.nan}),
        ("distance", {"distance_m": np.inf}),
        ("poni", {"poni_m": (np.nan, 0)}),
    ],
)
def test_bad_planes_are_refused(message, change):
    good = {"shape": (4, 5), "pixel_size_m": SQUARE, "distance_m": 0.1, "poni_m": (0, 0)}
    refused(message, PlanarGeometry, **{**good, **change})


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("positive thickness in m, got 0", {"thickness_m": 0}),
        ("positive thickness in m, got -0.00045", {"thickness_m": -450e-6}),
        ("positive thickness in m, got nan", {"thickness_m": np.nan}),
        ("positive attenuation in 1/m, got 0", {"attenuation_per_m": 0}),
        ("positive attenuation in 1/m, got nan", {"attenuation_per_m": np.nan}),
        ("has no wavelength: give energy_kev, or attenuation_per_m", {"attenuation_per_m": None}),
        (r"mask of shape \(4, 5\).*got \(5, 4\)", {"mask": np.zeros((5, 4), bool)}),
        ("the mask leaves no pixel", {"mask": np.ones((4, 5), bool)}),
        ("thickness", {"thickness_m": np.inf}),
        ("attenuation", {"attenuation_per_m": np.inf}),
        ("tile_rows", {"tile_rows": -1}),
    ],
)
def test_bad_options_are_refused(message, change):
    good = {**SENSOR, "attenuation_per_m": SILICON}
    refused(message, build_psf, plane((4, 5), SQUARE, 0.1, (0, 0)), **{**good, **change})


def test_rays_beyond_89_degrees_are_refused():
    for degrees, good in ((88.5, True), (89.1, False)):
        geometry = PlanarGeometry((1, 3), SQUARE, 0.1, (PITCH / 2, -0.1 * np.tan(np.radians(degrees))))
        if good:
            build_psf(geometry, thickness_m=1e-5, attenuation_per_m=SILICON)
        else:
            refused("within 89°", build_psf, geometry, thickness_m=1e-5, attenuation_per_m=SILICON)


@pytest.mark.parametrize("name", ["Aarhus", "Xpad_flat", "Pixirad1", "Cirpad"])
def test_detectors_that_are_not_one_plane_of_equal_pixels_are_refused(name):
    refused("expected a plane detector of equal pixels, got", build_psf, Geometry(0.1, detector=name), attenuation_per_m=SILICON)


def test_geometries_that_lack_something_are_refused():
    refused("has no wavelength", build_psf, Geometry(0.1, detector="Pilatus100k"), thickness_m=450e-6)
    refused("a detector with a shape", build_psf, Geometry(0.1, detector=Detector(PITCH, PITCH)), attenuation_per_m=SILICON)
    refused("positive pixel sizes and distance", build_psf, Geometry(0, detector="Pilatus100k"), attenuation_per_m=SILICON)


def test_a_detector_without_pixel_size_is_refused():
    refused("pixel size", build_psf, Geometry(0.1, detector=Detector(max_shape=(4, 5))), attenuation_per_m=SILICON)


@pytest.mark.parametrize("geometry", [None, 3, np.zeros((4, 5)), detector_factory("Pilatus100k")])
def test_what_is_no_geometry_is_refused(geometry):
    refused("expected a pyFAI geometry, a .poni file or a PlanarGeometry, got", build_psf, geometry)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("cannot read .*bad.poni as a .poni file", bytes(range(128, 256))),
        ("cannot read .*bad.poni as a .poni file", b"poni_version: 2\nDetector: Detector\nDistance: near\n"),
        ("expected a detector with a shape", b"Distance: 0.1\nPoni1: 0\nPoni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\n"),
        ("expected", b""),
    ],
)
def test_files_that_are_no_geometry_are_refused(tmp_path, message, content):
    (tmp_path / "bad.poni").write_bytes(content)
    refused(message, build_psf, tmp_path / "bad.poni", attenuation_per_m=SILICON)


def test_missing_files_are_refused(tmp_path):
    refused("no such file: .*none.poni", build_psf, tmp_path / "none.poni")
    refused("cannot read", build_psf, tmp_path)
