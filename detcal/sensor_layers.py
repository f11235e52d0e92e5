"""The sensor layer of a detector: how thick it is and how strongly it absorbs, by the caller, the geometry or the detector's model."""

from typing import Any, Literal, NamedTuple

from pyFAI.geometry import Geometry

from detcal.attenuation import attenuation_per_m as find_attenuation
from detcal.attenuation import is_positive
from detcal.errors import InputError
from detcal.poni import energy_of

SAME_THICKNESS_M = 1e-6  # as pyFAI compares sensors


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


def find_layer(
    geometry: Any,
    given: Layer,
    energy_kev: float | None = None,
    absorption: Literal["total", "energy"] = "total",
    density_g_cm3: float | None = None,
) -> tuple[float, float]:
    """Thickness in m and attenuation in 1/m: what is given, else what the geometry or its detector says.

    Raises
    ------
    InputError
        With all that nothing says, or that is open between several sensors; a thickness or an attenuation that is not positive.
    """
    known = known_layers(geometry)
    layer = completed(given, known)
    if given.attenuation_per_m is None and (energy_kev, absorption, density_g_cm3) != (None, "total", None):
        layer = layer._replace(attenuation_per_m=None)  # that of a parallax correction is µ at the geometry's energy
    absent = ["thickness_m"] * (layer.thickness_m is None) + ["material"] * (layer.attenuation_per_m is layer.material is None)
    problems = [f"{describe(known, geometry)}: give {' and '.join(absent)}"] if absent else []
    energy = None
    if layer.attenuation_per_m is None:
        energy = energy_of(geometry) if energy_kev is None else energy_kev
        if energy is None:
            problems.append("the geometry has no wavelength: give energy_kev, or attenuation_per_m")
    if problems:
        raise InputError("; ".join(problems))
    if layer.attenuation_per_m is None and layer.material is not None and energy is not None:
        found = find_attenuation(layer.material, energy, absorption=absorption, density_g_cm3=density_g_cm3)
        layer = layer._replace(attenuation_per_m=found)
    return positive(layer.thickness_m, "thickness in m"), positive(layer.attenuation_per_m, "attenuation in 1/m")


def positive(value: Any, name: str) -> float:
    """The number."""
    if not is_positive(value):
        raise InputError(f"expected a positive {name}, got {value}")
    return float(value)


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


def known_layers(geometry: Any) -> list[Layer]:
    """The sensor that a pyFAI geometry has for its parallax, or its detector; else those with which pyFAI knows the detector's model."""
    if not isinstance(geometry, Geometry):
        return []
    detector = geometry.detector
    models = [layer_of(sensor) for sensor in detector.SENSORS]
    corrected = getattr(geometry.parallax, "sensor", None)
    if not names_its_sensor(geometry):
        return models
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
    return f"of the sensor of {geometry.detector.name} is known: {'; '.join(map(str, known))}"
