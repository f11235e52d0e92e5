"""The geometry and the sensor that a point-spread matrix is made of."""

import dask
import numpy as np
import pytest
import xraydb
from pyFAI.detectors import detector_factory
from pyFAI.detectors.sensors import SensorConfig
from pyFAI.geometry import Geometry
from pyFAI.parallax import Parallax, ThinSensor

from detcal.sensor import PlanarGeometry, build_psf
from tests.sensor.geometries import refused, tilted
from tests.sensor.rays import PITCH, SENSOR, SILICON, SQUARE, assert_same_bits, plane

# -------------------------------------------------------------------------------------------------------------- geometry


def arrays(psf):
    return dask.compute(psf.data, psf.indices, psf.indptr)


@pytest.mark.parametrize("rotations", [(0.3, 0, 0), (0, -0.2, 0), (0, 0, 0.7), (0.3, -0.2, 0.7)])
def test_tilt_does_not_change_the_matrix(rotations):
    assert_same_bits(arrays(build_psf(tilted(rotations), **SENSOR)), arrays(build_psf(tilted((0, 0, 0)), **SENSOR)))


def test_rays_in_the_tilted_laboratory_go_where_the_matrix_says():
    """pyFAI's own pixel positions in three dimensions: PONI and distance are the foot of the normal and its length."""
    geometry = tilted()
    positions = np.stack(geometry.calc_pos_zyx(corners=False), axis=-1)
    along_y, along_x = (a / np.linalg.norm(a) for a in (positions[1, 0] - positions[0, 0], positions[0, 1] - positions[0, 0]))
    normal = np.cross(along_y, along_x)
    distance = positions @ normal
    np.testing.assert_allclose(abs(distance), geometry.dist, rtol=1e-6)  # pyFAI's positions are float32
    outwards = normal * np.sign(distance[0, 0])
    secant = np.linalg.norm(positions, axis=-1) / (positions @ outwards)
    plain = PlanarGeometry((12, 16), (PITCH, 75e-6), geometry.dist, (geometry.poni1, geometry.poni2))
    np.testing.assert_allclose(1 / secant, plain.incidence(), rtol=1e-6)
    # on through the sensor to a depth of 1 mm, and straight back to the front
    depth = 1e-3
    deep = positions * (1 + depth * secant / np.linalg.norm(positions, axis=-1))[..., None] - depth * outwards
    for axis, (direction, pitch, poni) in enumerate(((along_y, PITCH, geometry.poni1), (along_x, 75e-6, geometry.poni2))):
        index = np.indices((12, 16))[axis]
        shift = (deep - positions) @ direction
        np.testing.assert_allclose(shift, ((index + 0.5) * pitch - poni) * depth / geometry.dist, rtol=0, atol=5e-11)


@pytest.mark.parametrize("orientation", [1, 2, 4])
def test_detectors_that_are_read_from_another_corner(orientation):
    """pyFAI counts the PONI from the corner that the orientation names; pixels are numbered as they lie in the file."""
    geometry = tilted((0, 0, 0), orientation)
    psf = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON)
    y, x, _ = geometry.detector.calc_cartesian_positions()
    cosine = geometry.dist / np.sqrt(geometry.dist**2 + (y - geometry.poni1) ** 2 + (x - geometry.poni2) ** 2)
    np.testing.assert_allclose(psf.geometry.incidence(), cosine, rtol=1e-6)


def test_every_kind_of_geometry_gives_the_same_matrix(tmp_path):
    geometry = tilted()
    geometry.save(str(tmp_path / "tilted.poni"))
    plain = PlanarGeometry((12, 16), (PITCH, 75e-6), 0.0123456789, (1.1e-3, -0.7e-3))
    wanted = build_psf(plain, energy_kev=12.39841984332 / 0.6968, **SENSOR)
    for source in (geometry, str(tmp_path / "tilted.poni"), tmp_path / "tilted.poni"):
        found = build_psf(source, **SENSOR)
        assert found.geometry == plain
        assert found.attenuation_per_m == pytest.approx(wanted.attenuation_per_m, rel=1e-12)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        np.testing.assert_allclose(found.data, wanted.data, rtol=1e-6)


def test_planes_may_be_given_as_lists_and_arrays():
    wanted = build_psf(PlanarGeometry((4, 5), SQUARE, 0.01, (1e-4, 2e-4)), thickness_m=450e-6, attenuation_per_m=SILICON)
    for kind in (list, np.array):
        geometry = PlanarGeometry(kind((4, 5)), kind(SQUARE), 0.01, kind((1e-4, 2e-4)))
        assert_same_bits(arrays(build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON)), arrays(wanted))


def test_mask_is_by_default_that_of_the_detector():
    dead = np.zeros((12, 16), bool)
    dead[3:5] = True
    geometry = tilted(mask=dead.astype(np.int8))
    np.testing.assert_array_equal(build_psf(geometry, **SENSOR).mask, dead)
    np.testing.assert_array_equal(build_psf(geometry, mask=~dead, **SENSOR).mask, ~dead)
    gaps = detector_factory("Pilatus300k").mask != 0
    assert gaps.any()
    np.testing.assert_array_equal(
        build_psf(Geometry(0.3, detector="Pilatus300k"), thickness_m=450e-6, attenuation_per_m=SILICON).mask, gaps
    )


# ---------------------------------------------------------------------------------------- the sensor of a geometry


def described(psf):
    return psf.thickness_m, psf.attenuation_per_m


def standing(detector, **sensor):
    """A geometry of a pyFAI detector, whose sensor is of this material and thickness, at 20 keV: NIST's table has that energy."""
    geometry = Geometry(0.1, 0.01, 0.01, detector=detector_factory(detector) if isinstance(detector, str) else detector)
    geometry.wavelength = 12.39841984332e-10 / 20
    if sensor:
        geometry.detector.sensor = SensorConfig(**sensor)
    return geometry


SI_20 = 232.9 * 4.464  # 1/m, of NIST's table
CDTE_20 = 100 * xraydb.material_mu("CdTe", 20_000, density=5.85)  # of Elam's tables, which differ by a percent


def test_the_sensor_is_that_of_the_geometry(tmp_path):
    """Of a .poni file's Detector_config, of a detector, of its model where there is but one, of a parallax correction."""
    cdte = standing("Eiger2 CdTe 1M", material="CdTe", thickness=750e-6)
    cdte.save(str(tmp_path / "cdte.poni"))
    thick = standing("Pilatus 100k", material="Si", thickness=1e-3)
    corrected = standing("Pilatus 100k")
    corrected.enable_parallax(True, sensor_material="Si", sensor_thickness=320e-6)
    for geometry, thickness, mu in (
        (cdte, 750e-6, CDTE_20), (tmp_path / "cdte.poni", 750e-6, CDTE_20), (standing("Eiger2 CdTe 1M"), 750e-6, CDTE_20),
        (thick, 1e-3, SI_20), (corrected, 320e-6, SI_20), (standing("Eiger2 500k"), 450e-6, SI_20),
        (standing("Eiger2 CdTe 1M", material="CdTe"), 750e-6, CDTE_20),
    ):  # fmt: skip
        assert described(build_psf(geometry)) == pytest.approx((thickness, mu), rel=0.02), geometry


def test_a_parallax_correction_without_a_material_has_its_own_attenuation():
    geometry = standing("Pilatus 100k")
    geometry.parallax = Parallax(ThinSensor(thickness=600e-6, mu=500.0))
    assert described(build_psf(geometry)) == (600e-6, 500.0)
    assert described(build_psf(geometry, material="Si")) == pytest.approx((600e-6, SI_20))
    refused("is known: unknown material 600 µm: give material$", build_psf, geometry, energy_kev=30)


def test_the_callers_sensor_comes_first():
    geometry = standing("Eiger2 CdTe 1M", material="CdTe", thickness=750e-6)
    for given, taken, wanted in (
        ({"thickness_m": 1e-3}, "1000 µm", (1e-3, CDTE_20)),
        ({"material": "Si"}, "Si", (750e-6, SI_20)),
        ({"thickness_m": 2e-4, "material": "Si"}, "Si 200 µm", (2e-4, SI_20)),
        ({"attenuation_per_m": 77.0}, "attenuation_per_m = 77", (750e-6, 77.0)),
    ):
        with pytest.warns(UserWarning, match=f"^{taken} is taken, as given, though .* is known: CdTe 750 µm"):
            assert described(build_psf(geometry, **given)) == pytest.approx(wanted, rel=0.02)
    lambda_ = standing("Lambda 750k")  # of Si 300 or 500 µm, GaAs 500 µm, or CdTe 1 mm: one of these answers to what is given
    assert described(build_psf(lambda_, material="CdTe")) == pytest.approx((1e-3, CDTE_20), rel=0.02)
    assert described(build_psf(lambda_, thickness_m=300e-6)) == pytest.approx((300e-6, SI_20))


def test_a_sensor_that_nothing_says_or_that_is_one_of_several_is_refused():
    several = "of the sensor of Pilatus 100k is known: Si 320 µm; Si 450 µm; Si 1000 µm: give thickness_m$"
    refused(several, build_psf, standing("Pilatus 100k"))
    refused("is known: Si 300 µm; .*: give thickness_m and material$", build_psf, standing("Lambda 750k"))
    refused("is known: Si 300 µm; .*: give material$", build_psf, standing("Lambda 750k"), thickness_m=500e-6)
    refused("is known: CdTe of unknown thickness: give thickness_m$", build_psf, standing("Perkin", material="CdTe"))
    nothing = "the geometry says nothing of its sensor: give "
    refused(f"{nothing}thickness_m and material$", build_psf, standing("Perkin"))
    refused(f"{nothing}material$", build_psf, standing("Perkin"), thickness_m=450e-6)
    bare = plane((4, 5), SQUARE, 0.1, (0, 0))
    refused(f"{nothing}thickness_m and material; the geometry has no wavelength: give energy_kev, or attenuation_per_m$", build_psf, bare)
    refused(f"{nothing}thickness_m$", build_psf, bare, attenuation_per_m=SILICON)
