"""The matrix in use: stored, applied and summed; and the geometries and materials that it is not built from."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import xraydb
from pyFAI.detectors import Detector, detector_factory
from pyFAI.detectors.sensors import ALL_MATERIALS
from pyFAI.geometry import Geometry

from detcal import load, save
from detcal.errors import InputError
from detcal.poni import energy_of
from detcal.sensor import PlanarGeometry, SensorPSF, attenuation_per_m, build_psf
from detcal.sensor.geometry import as_planar, open_geometry

PLANE = {"shape": (4, 5), "pixel_size_m": (172e-6, 172e-6), "distance_m": 0.1, "poni_m": (0, 0)}
PONI = {"Detector": "Pilatus100k", "Distance": 0.1, "Poni1": 0.01, "Poni2": 0.02, "Rot1": 0, "Rot2": 0, "Rot3": 0, "Wavelength": 1e-10}


@pytest.fixture(scope="module")
def psf():
    mask = np.zeros((30, 41), bool)
    mask[5, 6] = True
    return build_psf(
        PlanarGeometry((30, 41), (172e-6, 172e-6), 0.05, (3e-3, -2e-3)),
        thickness_m=450e-6,
        material="Si",
        energy_kev=17.0,
        mask=mask,
        tile_rows=7,
    )


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_matrix_comes_back_from_a_file(psf, tmp_path, suffix):
    save(psf, tmp_path / f"psf{suffix}")
    found = load(tmp_path / f"psf{suffix}")
    assert isinstance(found, SensorPSF)
    assert (found.to_scipy() != psf.to_scipy()).nnz == 0
    assert found.geometry == psf.geometry
    assert (found.thickness_m, found.attenuation_per_m) == (psf.thickness_m, psf.attenuation_per_m)
    np.testing.assert_array_equal(found.mask, psf.mask)


def test_a_matrix_goes_to_scipy(psf, tmp_path):
    psf.save_npz(tmp_path / "psf.npz")
    assert (sp.load_npz(tmp_path / "psf.npz") != psf.to_scipy()).nnz == 0


@pytest.mark.parametrize("frames", [1, 16, 21])
@pytest.mark.parametrize("dtype", ["u2", "f4", ">i4"])
def test_frames_are_blurred_by_the_matrix(psf, frames, dtype):
    stack = np.random.default_rng(0).poisson(100, (frames, 30, 41)).astype(dtype)
    wanted = (psf.to_scipy().astype(float) @ stack.reshape(frames, -1).T.astype(float)).T.reshape(stack.shape)
    found = psf.apply(stack).values
    assert np.isnan(found[:, 5, 6]).all()
    np.testing.assert_allclose(np.nan_to_num(found), wanted, rtol=1e-5)


def test_efficiency_is_the_column_sums(psf):
    np.testing.assert_allclose(psf.efficiency.values.ravel(), np.asarray(psf.to_scipy().sum(axis=0)).ravel(), rtol=1e-6)


def test_frames_of_another_shape_are_refused(psf):
    with pytest.raises(InputError, match=r"expected frames of shape \(30, 41\)"):
        psf.apply(np.zeros((2, 5, 5)))


def refused(message, call, *arguments, **options):
    """InputError with the message, in one line."""
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- attenuation


def has_energy_absorption(material):
    """µ_en is below µ, and its share of µ falls where fluorescence of the highest edge begins to carry energy off."""
    share = [table[:, 2] / table[:, 1] for table in material._data.values()]
    falls = [after[0] < 0.97 * before[-1] for before, after in pairwise(share)]
    return all((part < 1).all() for part in share) and falls[-1]


@pytest.mark.parametrize("material", ALL_MATERIALS)
def test_energy_absorption_is_given_where_the_table_has_it(material):
    if has_energy_absorption(ALL_MATERIALS[material]):
        assert attenuation_per_m(material, 40, absorption="energy") < 0.9 * attenuation_per_m(material, 40)
    else:
        refused(f"µ_en is tabulated for Si, .*not for {material}", attenuation_per_m, material, 40, absorption="energy")


@pytest.mark.parametrize("energy_kev", [15, 30, 60, 150])
def test_the_third_column_of_czt_is_photoelectric_absorption(energy_kev):
    shares = {"Cd": 0.45, "Zn": 0.05, "Te": 0.5}  # by weight
    wanted = {kind: sum(w * xraydb.mu_elam(e, 1000.0 * energy_kev, kind) for e, w in shares.items()) for kind in ("total", "photo")}
    table = np.vstack(list(ALL_MATERIALS["CZT"]._data.values()))
    total, third = table[np.abs(table[:, 0] - energy_kev).argmin(), 1:]
    assert (total, third) == pytest.approx((wanted["total"], wanted["photo"]), rel=1e-3)
    assert attenuation_per_m("CZT", energy_kev) == pytest.approx(575 * total)


@pytest.mark.parametrize("energy_kev", [0.0999, 801, 1e4])
def test_energies_outside_xraydbs_tables_are_refused(energy_kev):
    message = rf"is not tabulated at {energy_kev} keV: xraydb's tables go from 0\.1 to 800 keV"
    refused(message, attenuation_per_m, "kapton", energy_kev)
    refused(message, attenuation_per_m, "SiO2", energy_kev, density_g_cm3=2.2)


@pytest.mark.parametrize("energy_kev", [0.1, 800])
def test_the_ends_of_xraydbs_tables_are_taken(energy_kev):
    assert attenuation_per_m("kapton", energy_kev) == pytest.approx(100 * xraydb.material_mu("kapton", 1000.0 * energy_kev))


@pytest.mark.parametrize(
    ("message", "material", "energy_kev", "options"),
    [
        ("a material's name or formula, got None", None, 17, {}),
        (r"a material's name or formula, got \['Si'\]", ["Si"], 17, {}),
        ("a material's name or formula, got 14", 14, 17, {"density_g_cm3": 2.3}),
        ("positive energy in keV, got '17'", "Si", "17", {}),
        ("positive energy in keV, got None", "Si", None, {}),
        ("positive density in g/cm³, got '2.3'", "Si", 17, {"density_g_cm3": "2.3"}),
        ("not tabulated at 30000 keV: its table goes from 1 to 20000 keV", "Si", 30000, {}),
    ],
)
def test_what_is_no_material_or_number_is_refused(message, material, energy_kev, options):
    refused(message, attenuation_per_m, material, energy_kev, **options)


# ---------------------------------------------------------------------------------------------------------------- planes


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"pixel_size_m as two numbers \(y, x\) in m, got 0.000172", {"pixel_size_m": 172e-6}),
        ("pixel_size_m as two numbers .*, got '172um'", {"pixel_size_m": "172um"}),
        ("pixel_size_m as two numbers .*, got .*'172e-6'", {"pixel_size_m": ("172e-6", "172e-6")}),
        ("pixel_size_m as two numbers", {"pixel_size_m": (1e-4, 1e-4, 1e-4)}),
        ("pixel_size_m as two numbers", {"pixel_size_m": np.ones((2, 2))}),
        ("pixel_size_m as two numbers", {"pixel_size_m": [[1e-4], [1e-4, 1e-4]]}),
        (r"poni_m as two numbers \(y, x\) in m, got 0.01", {"poni_m": 0.01}),
        ("poni_m as two numbers .*, got None", {"poni_m": None}),
        ("poni_m as two numbers", {"poni_m": (0.01,)}),
        ("poni_m", {"poni_m": (np.inf, 0)}),
        ("distance_m as a number in m, got '10 cm'", {"distance_m": "10 cm"}),
        ("distance_m as a number in m, got None", {"distance_m": None}),
        ("distance_m as a number in m", {"distance_m": (0.1, 0.1)}),
        ("rotation_rad as three numbers in rad, got 0.1", {"rotation_rad": 0.1}),
        ("rotation_rad as three numbers", {"rotation_rad": (0, 0)}),
        ("rotation_rad", {"rotation_rad": (0, np.nan, 0)}),
        (r"a shape \(rows, columns\), got 4", {"shape": 4}),
        (r"a shape \(rows, columns\), got '45'", {"shape": "45"}),
        (r"a shape \(rows, columns\), got \(4.5, 5\): both are whole", {"shape": (4.5, 5)}),
        (r"a shape \(rows, columns\)", {"shape": (np.inf, 5)}),
    ],
)
def test_planes_of_other_than_the_right_numbers_are_refused(message, change):
    refused(f"expected .*{message}", PlanarGeometry, **{**PLANE, **change})


@pytest.mark.parametrize("distance", [1, np.float32(1), np.array(1), np.int64(1)])
def test_numbers_of_a_plane_are_floats(distance):
    plane = PlanarGeometry((np.int32(4), 5.0), (1, 2), distance, [0, 1], np.array([0, 0, 1]))
    assert plane == PlanarGeometry((4, 5), (1.0, 2.0), 1.0, (0.0, 1.0), (0.0, 0.0, 1.0))
    assert type(plane.distance_m) is float
    assert {type(size) for size in plane.shape} == {int}
    assert {type(number) for number in (*plane.pixel_size_m, *plane.poni_m, *plane.rotation_rad)} == {float}


# ----------------------------------------------------------------------------------------------------------- .poni files


def write_poni(path, **changes):
    """A .poni file, without those that are changed to None."""
    lines = {**PONI, **changes}
    path.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value is not None))
    return path


def test_a_poni_file_needs_no_wavelength(tmp_path):
    path = write_poni(tmp_path / "a.poni", Wavelength=None)
    found = as_planar(open_geometry(path))
    assert found == PlanarGeometry((195, 487), (172e-6, 172e-6), 0.1, (0.01, 0.02))
    assert as_planar(open_geometry(str(path))) == found
    assert energy_of(open_geometry(path)) is None
    assert build_psf(path, thickness_m=450e-6, energy_kev=20).attenuation_per_m == attenuation_per_m("Si", 20)


def test_a_poni_file_that_has_been_refined_again_gives_the_last(tmp_path):
    path = write_poni(tmp_path / "a.poni")
    path.write_text(path.read_text() + "Distance: 0.2\nPoni1: 0.03\n")
    assert as_planar(open_geometry(path)) == PlanarGeometry((195, 487), (172e-6, 172e-6), 0.2, (0.03, 0.02))


@pytest.mark.parametrize("content", ["", "\n", "frames: 20\nan ordinary note\n", "y,x\n1,2\n", "Detector: Pilatus100k\n"])
def test_files_that_are_no_poni_are_told_as_such(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text(content)
    refused("cannot read .*a.txt as a .poni file: expected Distance, .*got no Distance, Poni1, Poni2, Rot1, .*", open_geometry, path)


@pytest.mark.parametrize("name", ["Distance", "Poni1", "Poni2"])
def test_files_that_lack_a_number_are_not_given_a_default(tmp_path, name):
    path = write_poni(tmp_path / "a.poni", **{name: None})
    refused(f"cannot read .*a.poni as a .poni file: expected .*, got no {name}$", open_geometry, path)


def test_other_bad_poni_files_are_refused(tmp_path):
    refused("cannot read .* as a .poni file: it is a folder", open_geometry, tmp_path)
    refused("no such file", open_geometry, '{"dist": 0.1}')
    path = write_poni(tmp_path / "a.poni", Detector="Pilatus100x")
    refused("Detector pilatus100x is unknown", open_geometry, path)
    with pytest.raises(InputError) as caught:
        open_geometry(path)
    assert len(str(caught.value)) < 300 + len(str(path))  # without the names of all detectors


@pytest.mark.parametrize("distance", [0, -0.1])
def test_poni_files_of_no_positive_distance_are_refused(tmp_path, distance):
    path = write_poni(tmp_path / "a.poni", Distance=distance)
    refused(f"positive pixel sizes and distance, got .* and {float(distance)} m", build_psf, path, attenuation_per_m=1e3)


@pytest.mark.parametrize("wavelength", [0, -1e-10, "nan"])
def test_poni_files_of_no_positive_wavelength_are_refused(tmp_path, wavelength):
    path = write_poni(tmp_path / "a.poni", Wavelength=wavelength)
    refused("expected a positive wavelength in m, got .*: mend the geometry, or give energy_kev", build_psf, path, thickness_m=450e-6)
    assert build_psf(path, thickness_m=450e-6, energy_kev=20).attenuation_per_m == attenuation_per_m("Si", 20)


# ------------------------------------------------------------------------------------------------------------- detectors


def small_detector(orientation=3):
    return Detector(100e-6, 200e-6, max_shape=(20, 30), orientation=orientation)


def stretched():
    detector = small_detector()
    detector.set_dx(np.linspace(0, 1, 30) * np.ones((20, 1)))
    return detector


def bent():
    detector = small_detector()
    corners = detector.get_pixel_corners().copy()
    corners[:, 20:, :, 0] = 1e-3
    detector.set_pixel_corners(corners)
    return detector


def pilatus_of_shifted_modules():
    detector = detector_factory("Pilatus100k")
    corners = detector.get_pixel_corners().copy()
    corners[:, 243:, :, 1] += 86e-6
    detector.set_pixel_corners(corners)
    return detector


@pytest.mark.parametrize("name", ["Aarhus", "Rapid", "Cirpad", "Xpad_flat", "ImXPadS140", "Jungfrau", "Jungfrau8M", "Pixirad1"])
def test_detectors_that_are_curved_or_of_unequal_pixels_are_refused(name):
    detector = detector_factory(name)
    for found in (detector, copy.deepcopy(detector)):
        refused("expected a plane detector of equal pixels, got .*: give each plane part", as_planar, Geometry(0.1, detector=found))


@pytest.mark.parametrize("build", [stretched, bent, pilatus_of_shifted_modules])
def test_detectors_whose_pixels_were_moved_are_refused_and_their_copies_too(build):
    detector = build()
    for found in (detector, copy.copy(detector), copy.deepcopy(detector)):
        refused("expected a plane detector of equal pixels", as_planar, Geometry(0.1, detector=found))


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_regular_detectors_are_taken_whether_pyfai_holds_their_corners_or_not(orientation):
    detector = small_detector(orientation)
    found = as_planar(Geometry(0.1, 0, 0, detector=detector))
    detector.get_pixel_corners()
    assert as_planar(Geometry(0.1, 0, 0, detector=detector)) == found
    detector.binning = (2, 2)
    binned = as_planar(Geometry(0.1, 0, 0, detector=detector))
    assert (binned.shape, binned.pixel_size_m, binned.poni_m) == ((10, 15), (200e-6, 400e-6), found.poni_m)


@pytest.mark.parametrize("name", ["Pilatus1M", "Eiger500k", "Jungfrau1M", "Maxipix5x1", "Mythen", "Mar345", "Perkin", "HF_130K"])
def test_pyfais_detectors_of_equal_pixels_are_taken(name):
    detector = detector_factory(name)
    found = as_planar(Geometry(0.1, 0.01, 0.02, detector=detector))
    assert (found.shape, found.pixel_size_m, found.poni_m) == (detector.shape, (detector.pixel1, detector.pixel2), (0.01, 0.02))
