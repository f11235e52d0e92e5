"""How strongly a sensor material absorbs."""

from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal

import numpy as np
import xraydb
from numpy.typing import NDArray
from pyFAI.detectors.sensors import ALL_MATERIALS, SensorMaterial
from scipy.interpolate import CubicSpline

from detcal.errors import InputError

# Of pyFAI's tables those whose third column is µ_en: that of CZT is photoelectric absorption alone, fluorescence and all, and
# that of BaFBr0.85I0.15 is µ again.
WITH_ENERGY = ("Si", "Ge", "CdTe", "GaAs", "Gd2O2S", "Se")
ELAM_KEV = (0.1, 800)  # beyond them xraydb only warns, and gives the value at the end
# What pyFAI's materials are called in words, in small letters
WORDS = {
    "silicon": "Si", "germanium": "Ge", "selenium": "Se", "cadmium telluride": "CdTe", "cadmium zinc telluride": "CZT", "cdznte": "CZT",
    "gallium arsenide": "GaAs", "gadolinium oxysulfide": "Gd2O2S", "gadox": "Gd2O2S",
}  # fmt: skip


def attenuation_per_m(
    material: str, energy_kev: float, *, absorption: Literal["total", "energy"] = "total", density_g_cm3: float | None = None
) -> float:
    """Linear attenuation coefficient of a material, 1/m.

    Parameters
    ----------
    material
        One of pyFAI's sensor materials (Si, Ge, CdTe, GaAs, Gd2O2S, …; "si" and "silicon" are the same), a material that xraydb knows by
        name, or any chemical formula with its density.
    energy_kev : keV
    absorption : "total" or "energy"
        "total": µ, all that leaves the beam. "energy": µ_en, the energy that stays in the sensor. µ_en is known for Si, Ge, CdTe, GaAs,
        Gd2O2S and Se alone.
    density_g_cm3 : g/cm³, optional
        In place of the tabulated density.

    Raises
    ------
    InputError
        An unknown material (with the nearest names), a formula without density, an energy outside the tables, no µ_en.

    Notes
    -----
    The tables are NIST's (Hubbell and Seltzer 1995), interpolated in the logarithms between edges: µ by a cubic spline, as NIST's XCOM
    does it, µ_en by straight lines, as its tables are meant to be; but for pyFAI's BaFBr0.85I0.15, and its CZT, which is of 45 % Cd,
    5 % Zn and 50 % Te by weight. Formulas are of Elam's tables. Where scattering takes over from absorption straight lines would put
    silicon's µ up to 1.9 % too high (at 69 keV); of the values themselves, between 15 and 20 keV, 13 %.

    Examples
    --------
    >>> from detcal.sensor import attenuation_per_m
    >>> round(attenuation_per_m("Si", 17.4))
    1559
    """
    if absorption not in ("total", "energy"):
        raise InputError(f'expected absorption to be "total" or "energy", got {absorption!r}')
    material = known_material(material)
    if not is_positive(energy_kev):
        raise InputError(f"expected a positive energy in keV, got {energy_kev!r}")
    if density_g_cm3 is not None and not is_positive(density_g_cm3):
        raise InputError(f"expected a positive density in g/cm³, got {density_g_cm3!r}")
    if absorption == "energy" and material not in WITH_ENERGY:
        raise InputError(f"µ_en is tabulated for {', '.join(WITH_ENERGY)}, not for {material}: use µ, or give attenuation_per_m")
    tabulated = ALL_MATERIALS.get(material)
    if tabulated is not None:
        return from_table(tabulated, energy_kev, absorption, density_g_cm3)
    return from_formula(material, energy_kev, density_g_cm3)


def known_material(material: Any) -> str:
    """The name by which pyFAI knows a material, however it is written; else as it is.

    Raises
    ------
    InputError
        No text.
    """
    if not isinstance(material, str):
        raise InputError(f"expected a material's name or formula, got {material!r}")
    plain = " ".join(material.replace("_", " ").split())
    names = {name.lower(): name for name in ALL_MATERIALS} | WORDS
    return plain if plain in ALL_MATERIALS else names.get(plain.lower(), material)


def is_positive(value: Any) -> bool:
    """Whether it is a number, of numpy's too, and one that is positive and finite."""
    array = isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf"
    return (array or isinstance(value, Real)) and not isinstance(value, bool | np.bool_) and 0 < float(value) < np.inf


def from_table(material: SensorMaterial, energy_kev: float, absorption: str, density_g_cm3: float | None) -> float:
    """µ or µ_en of one of pyFAI's materials."""
    for limits, table in material._data.items():
        if limits.min <= energy_kev <= limits.max:
            energies, total, energy = np.log(between_edges(table, energy_kev).T)
            place = np.log(energy_kev)
            found = CubicSpline(energies, total, bc_type="natural")(place) if absorption == "total" else np.interp(place, energies, energy)
            return float(100 * np.exp(found) * (density_g_cm3 or material.rho))
    lowest, highest = min(limits.min for limits in material._data), max(limits.max for limits in material._data)
    raise InputError(f"{material.name} is not tabulated at {energy_kev} keV: its table goes from {lowest:g} to {highest:g} keV")


def between_edges(table: NDArray[np.float64], energy_kev: float) -> NDArray[np.float64]:
    """The part of a table around an energy in which energies grow: at an absorption edge, one stands there twice."""
    parts = np.split(table, np.flatnonzero(np.diff(table[:, 0]) <= 0) + 1)
    return next(part for part in reversed(parts) if len(part) > 1 and part[0, 0] <= energy_kev)


def from_formula(material: str, energy_kev: float, density_g_cm3: float | None) -> float:
    """µ of a material that xraydb knows, or of a formula."""
    known: Mapping[str, object] = xraydb.get_materials()
    if density_g_cm3 is None and material.lower() not in known:
        near = get_close_matches(material, [*ALL_MATERIALS, *known], n=3, cutoff=0.4)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise InputError(f"unknown material {material!r}{hint}. A chemical formula needs density_g_cm3")
    if not ELAM_KEV[0] <= energy_kev <= ELAM_KEV[1]:
        raise InputError(f"{material} is not tabulated at {energy_kev} keV: xraydb's tables go from {ELAM_KEV[0]} to {ELAM_KEV[1]} keV")
    try:
        found = float(100 * xraydb.material_mu(material, 1000 * float(energy_kev), density=density_g_cm3))
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise InputError(f"cannot read {material!r} as a chemical formula: {' '.join(str(error).split())}") from error
    if not found > 0:
        raise InputError(f"cannot read {material!r} as a chemical formula: no element in it absorbs")
    return found
