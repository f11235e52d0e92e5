"""How much a sensor absorbs, against published tables."""

import numpy as np
import pytest
import xraydb
from pyFAI.detectors.sensors import ALL_MATERIALS

from detcal.sensor import attenuation_per_m, build_psf
from tests.sensor.geometries import tilted
from tests.sensor.rays import SENSOR, SQUARE, plane


@pytest.mark.parametrize(
    ("energy_kev", "total_cm2_g", "energy_cm2_g"), [(10, 33.89, 32.89), (15, 10.34, 9.794), (20, 4.464, 4.076), (30, 1.436, 1.164)]
)
def test_silicon_is_nists_where_it_is_tabulated(energy_kev, total_cm2_g, energy_cm2_g):
    assert attenuation_per_m("Si", energy_kev) == pytest.approx(232.9 * total_cm2_g, rel=1e-12)
    assert attenuation_per_m("Si", energy_kev, absorption="energy") == pytest.approx(232.9 * energy_cm2_g, rel=1e-12)


def test_silicons_absorbed_energy_is_interpolated_in_the_logarithms():
    """Between 15 and 20 keV µ_en falls as a power of the energy; a straight line, as pyFAI draws it, lies above it."""
    found = attenuation_per_m("Si", 17.793, absorption="energy")
    power = np.log(4.076 / 9.794) / np.log(20 / 15)
    assert found == pytest.approx(232.9 * 9.794 * (17.793 / 15) ** power, rel=1e-12)
    assert found < 0.9 * 232.9 * np.interp(17.793, [15, 20], [9.794, 4.076])


@pytest.mark.parametrize(("material", "density", "within"), [("Si", 2.329, 7e-4), ("GaAs", 5.3176, 2e-3), ("Ge", 5.327, 1e-3)])
def test_attenuation_between_tabulated_energies_is_that_of_other_tables(material, density, within):
    """Elam's go through NIST's values, and have more between them: straight lines in the logarithms are up to 1.9 % off."""
    for energy in np.arange(13, 100, 0.5):
        wanted = 100 * xraydb.material_mu(material, 1000 * energy, density=density)
        assert attenuation_per_m(material, energy) == pytest.approx(wanted, rel=within), energy


@pytest.mark.parametrize("material", ["Si", "CdTe", "GaAs", "Ge", "Gd2O2S", "Se"])
def test_no_more_energy_is_absorbed_than_leaves_the_beam(material):
    for energy in np.geomspace(3, 1000, 100):
        assert attenuation_per_m(material, energy, absorption="energy") <= attenuation_per_m(material, energy)


def test_the_tutorials_energy():
    found = attenuation_per_m("Si", 17.793, absorption="energy")
    assert found == pytest.approx(1356, abs=1)  # a straight line gives 1537
    photoelectric = 100 * xraydb.material_mu("Si", 17793, density=2.329, kind="photo")
    assert found == pytest.approx(photoelectric, rel=0.01)
    assert attenuation_per_m("Si", 17.793) == pytest.approx(100 * xraydb.material_mu("Si", 17793, density=2.329), rel=0.01)


def test_attenuation_at_an_absorption_edge_is_on_its_side():
    """The table has two values at the K edge of cadmium, 26.7112 keV."""
    below, above = (attenuation_per_m("CdTe", 26.7112 * factor) for factor in (1 - 1e-9, 1 + 1e-9))
    assert below == pytest.approx(585 * 9.834, rel=1e-6)
    assert above == pytest.approx(585 * 29.43, rel=1e-6)


def test_density_takes_the_place_of_the_tabulated_one():
    assert attenuation_per_m("CdTe", 40, density_g_cm3=2 * 5.85) == pytest.approx(2 * attenuation_per_m("CdTe", 40))


def test_formula_with_density_and_materials_by_name_are_xraydbs():
    found = attenuation_per_m("Cd0.9Zn0.1Te", 20, density_g_cm3=5.78)
    assert found == pytest.approx(100 * xraydb.material_mu("Cd0.9Zn0.1Te", 20000, density=5.78), rel=1e-12)
    assert found == pytest.approx(attenuation_per_m("CdTe", 20), rel=0.03)  # a material that resembles it
    assert attenuation_per_m("kapton", 10) == pytest.approx(100 * xraydb.material_mu("kapton", 10000), rel=1e-12)


def test_psf_takes_its_attenuation_from_material_and_energy():
    geometry = plane((4, 5), SQUARE, 0.3, (2, 2))
    options = {"energy_kev": 40, "material": "CdTe", "absorption": "energy", "density_g_cm3": 5.0}
    assert build_psf(geometry, thickness_m=450e-6, **options).attenuation_per_m == pytest.approx(500 * 9.635)
    assert build_psf(geometry, energy_kev=15, **SENSOR).attenuation_per_m == pytest.approx(232.9 * 10.34)
    with pytest.warns(UserWarning, match="15 keV is taken, as given, though the geometry, or the frames' file, has 17.793 keV"):
        assert build_psf(tilted(), energy_kev=15, **SENSOR).attenuation_per_m == pytest.approx(232.9 * 10.34)
    assert build_psf(tilted(), thickness_m=450e-6, attenuation_per_m=77.0).attenuation_per_m == 77.0


@pytest.mark.parametrize("material", ALL_MATERIALS)
def test_attenuation_is_the_tables_at_their_energies(material):
    """Which have some twice, at edges; a few of these lie within a part of a table."""
    table = np.vstack(list(ALL_MATERIALS[material]._data.values()))
    for energy in np.unique(table[:, 0]):
        found = attenuation_per_m(material, energy) / (100 * ALL_MATERIALS[material].rho)
        assert np.isclose(found, table[table[:, 0] == energy, 1], rtol=1e-6).any(), energy
