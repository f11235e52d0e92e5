"""The sensor layer of a detector: how thick it is and how strongly it absorbs, by the caller, the geometry or the detector's model."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from pyFAI.geometry import Geometry

from detcal.attenuation import attenuation_per_m as find_attenuation
from detcal.attenuation import is_positive, known_material
from detcal.errors import InputError
from detcal.poni import KEV_M, energy_of

Absorption = Literal["total", "energy"]

SAME_THICKNESS_M = 1e-6  # as pyFAI compares sensors
SAME_ENERGY = 2e-3  # relative
THICKNESSES_M = 1e-7, 0.05  # of what a sensor may be: other numbers are in other units
ATTENUATIONS_PER_M = 1e-3, 1e8
ENERGIES_KEV = 0.05, 2000.0
SAME_ATTENUATION = 0.2  # relative: by so much tables of µ_en differ between their points


class Layer(NamedTuple):
    """What is known of a sensor; None where nothing says it."""

    thickness_m: float | None = None
    material: str | None = None
    attenuation_per_m: float | None = None

    def __str__(self) -> str:
        thickness = "of unknown thickness" if self.thickness_m is None else f"{1e6 * self.thickness_m:.4g} µm"
        return f"{self.material or 'unknown material'} {thickness}"

    def may_be(self, other: "Layer") -> bool:
        """Whether what is known of both is the same."""
        same_material = None in (self.material, other.material) or self.material == other.material
        if self.thickness_m is None or other.thickness_m is None:
            return same_material
        return same_material and abs(self.thickness_m - other.thickness_m) < SAME_THICKNESS_M

    def checked(self) -> "Layer":
        """The same as a caller gives it, with the material's usual name.

        Raises
        ------
        InputError
            What is no number, or none of these units.
        """
        thickness, attenuation = self.thickness_m, self.attenuation_per_m
        return Layer(
            None if thickness is None else within(thickness, "thickness in m", THICKNESSES_M),
            None if self.material is None else known_material(self.material),
            None if attenuation is None else within(attenuation, "attenuation in 1/m", ATTENUATIONS_PER_M),
        )


def find_layer(
    geometry: Any,
    given: Layer,
    energy_kev: float | None = None,
    absorption: Absorption = "total",
    density_g_cm3: float | None = None,
    said: Mapping[Any, Any] | None = None,
) -> tuple[float, float]:
    """Thickness in m and attenuation in 1/m: what is given, else what the geometry or its detector says, or attributes of frames, `said`.

    Raises
    ------
    InputError
        With all that nothing says, or that is open between several sensors; a thickness or an attenuation that is not positive, or of
        another unit.

    Warns
    -----
    UserWarning
        What is given is not what these say.
    """
    given, file = given.checked(), said or {}
    energy_kev = None if energy_kev is None else within(energy_kev, "energy in keV", ENERGIES_KEV)
    known = known_layers(geometry, file)
    layer = completed(given, known)
    if given.attenuation_per_m is None and (energy_kev, absorption, density_g_cm3) != (None, "total", None):
        layer = layer._replace(attenuation_per_m=None)  # that of a parallax correction is µ at the geometry's energy
    absent = ["thickness_m"] * (layer.thickness_m is None) + ["material"] * (layer.attenuation_per_m is layer.material is None)
    problems = [f"{describe(known, geometry)}: give {' and '.join(absent)}"] if absent else []
    energy = None
    if layer.attenuation_per_m is None:
        energy = (energy_of(geometry) or energy_in(file)) if energy_kev is None else energy_kev
        if energy is None:
            problems.append("the geometry has no wavelength: give energy_kev, or attenuation_per_m")
    if problems:
        raise InputError("; ".join(problems))
    warn_if_overruled(given, known, energy_kev, geometry, file, density_g_cm3)
    if layer.attenuation_per_m is None and layer.material is not None and energy is not None:
        found = find_attenuation(layer.material, energy, absorption=absorption, density_g_cm3=density_g_cm3)
        layer = layer._replace(attenuation_per_m=found)
    return within(layer.thickness_m, "thickness in m", THICKNESSES_M), within(
        layer.attenuation_per_m, "attenuation in 1/m", ATTENUATIONS_PER_M
    )


def within(value: Any, name: str, limits: tuple[float, float]) -> float:
    """The number, which is in its unit."""
    if not is_positive(value):
        raise InputError(f"expected a positive {name}, got {value!r}")
    if not limits[0] <= value <= limits[1]:
        raise InputError(f"expected a number from {limits[0]:g} to {limits[1]:g} as {name}, got {value:g}: is it in another unit?")
    return float(value)


def warn_if_overruled(
    given: Layer, known: list[Layer], energy_kev: float | None, geometry: Any, file: Mapping[Any, Any], density_g_cm3: float | None
) -> None:
    """Say so if what is given is not what the geometry, its detector or the frames' file says."""
    others = []
    if known and not any(layer.may_be(given) for layer in known):
        thickness = None if given.thickness_m is None else f"{1e6 * given.thickness_m:.4g} µm"
        others.append((" ".join(filter(None, [given.material, thickness])), describe(known, geometry)))
    wavelength = getattr(geometry, "wavelength", None)
    stated = KEV_M / wavelength if wavelength is not None and wavelength > 0 else energy_in(file)
    if energy_kev is not None and stated is not None and abs(energy_kev / stated - 1) > SAME_ENERGY:
        others.append((f"{energy_kev:.5g} keV", f"the geometry, or the frames' file, has {stated:.5g} keV"))
    absorbs = attenuations_of(given, known, stated if energy_kev is None else energy_kev, density_g_cm3)
    mu = given.attenuation_per_m
    if mu is not None and absorbs and not min(absorbs) * (1 - SAME_ATTENUATION) <= mu <= max(absorbs) * (1 + SAME_ATTENUATION):
        others.append((f"attenuation_per_m = {mu:.4g}", f"{describe(known, geometry)}, of which it is {max(absorbs):.4g}"))
    for taken, instead in others:
        warnings.warn(f"{taken} is taken, as given, though {instead}", stacklevel=4)


def attenuations_of(given: Layer, known: list[Layer], energy_kev: float | None, density_g_cm3: float | None) -> list[float]:
    """What the sensors that it may be absorb, in 1/m: by all that leaves the beam, and by the energy that stays, which callers may mean as
    well; as far as there are tables of it."""
    fitting = [layer for layer in known if layer.may_be(given)]
    found = [layer.attenuation_per_m for layer in fitting if layer.attenuation_per_m is not None]
    if energy_kev is None:
        return found
    for material in {layer.material for layer in fitting if layer.material is not None}:
        for absorption in get_args(Absorption):
            with suppress(InputError):
                found.append(find_attenuation(material, energy_kev, absorption=absorption, density_g_cm3=density_g_cm3))
    return found


def energy_in(attrs: Mapping[Any, Any]) -> float | None:
    """Photon energy in keV, as the attributes of frames say: by the wavelength, if they have both, as rings have it."""
    wavelength = attrs.get("wavelength_m")
    return attrs.get("energy_kev") if wavelength is None else KEV_M / wavelength


def completed(given: Layer, known: list[Layer]) -> Layer:
    """What is given, and for the rest what all those sensors have in common that it may be."""
    fitting = [layer for layer in known if layer.may_be(given)] or known
    return Layer(
        only({layer.thickness_m for layer in fitting}) if given.thickness_m is None else given.thickness_m,
        only({layer.material for layer in fitting}) if given.material is None else given.material,
        only({layer.attenuation_per_m for layer in fitting}) if given[1:] == (None, None) else given.attenuation_per_m,
    )


def only(values: set[Any]) -> Any:
    """The one value that there is; None if there are several, or none."""
    return next(iter(values)) if len(values) == 1 else None


def names_its_sensor(geometry: Geometry) -> bool:
    """Whether a pyFAI geometry says which sensor it has, for its parallax or of its detector: not only what its model may have."""
    return getattr(geometry.parallax, "sensor", None) is not None or geometry.detector.sensor is not None


def known_layers(geometry: Any, file: Mapping[Any, Any] = MappingProxyType({})) -> list[Layer]:
    """The sensor that a pyFAI geometry has for its parallax, or its detector; else that of the frames' file, by its attributes; else those
    with which pyFAI knows the detector's model."""
    recorded = Layer(file.get("sensor_thickness_m"), file.get("sensor_material")).checked()
    in_file = [] if recorded == Layer() else [recorded]
    if not isinstance(geometry, Geometry):
        return in_file
    detector = geometry.detector
    models = [layer_of(sensor) for sensor in detector.SENSORS]
    corrected = getattr(geometry.parallax, "sensor", None)
    if not names_its_sensor(geometry):
        return [layer for layer in models if layer.may_be(recorded)] or in_file if in_file else models
    stated = Layer() if detector.sensor is None else layer_of(detector.sensor)
    if corrected is not None:
        thickness = getattr(corrected, "thickness", None) or stated.thickness_m
        stated = Layer(thickness, stated.material, None if stated.material else corrected.mu)
    if stated.thickness_m is None:
        stated = stated._replace(thickness_m=only({layer.thickness_m for layer in models if layer.may_be(stated)}))
    return [stated]


def layer_of(sensor: Any) -> Layer:
    """One of pyFAI's sensors, whose material is of its own or a name, and whose thickness may not be known."""
    return Layer(sensor.thickness or None, getattr(sensor.material, "name", sensor.material))


def describe(known: list[Layer], geometry: Any) -> str:
    """What is known of a geometry's sensor, for an error."""
    if not known:
        return "the geometry says nothing of its sensor"
    if not isinstance(geometry, Geometry):
        return f"of the sensor is known from the frames' file: {'; '.join(map(str, known))}"
    return f"of the sensor of {geometry.detector.name} is known: {'; '.join(map(str, known))}"
