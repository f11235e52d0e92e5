"""What files say of how their frames were recorded, as attributes of the frames with units in their names; read out of Dectris' headers."""

import re
from math import inf, isfinite, pi
from typing import Any

import numpy as np

# Signs as they are, words in small letters and the singular: NeXus leaves it to the writer whether it is Å, angstrom or Angstroms
METRES = {
    "m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12, "Å": 1e-10, "A": 1e-10, "angstrom": 1e-10,
    "micron": 1e-6, **{f"{part}met{end}": factor for part, factor in {
        "": 1.0, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12}.items() for end in ("er", "re")},
}  # fmt: skip
SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "ms": 1e-3, "millisecond": 1e-3, "us": 1e-6, "µs": 1e-6, "microsecond": 1e-6, "ns": 1e-9,
    "nanosecond": 1e-9,
}  # fmt: skip
PIXELS = {"pixel": 1.0, "px": 1.0}
KEV = {"keV": 1.0, "kev": 1.0, "eV": 1e-3, "ev": 1e-3, "J": 1 / 1.602176634e-16}

RADIANS = {"rad": 1.0, "radian": 1.0, "deg": pi / 180, "degree": pi / 180, "°": pi / 180, "mrad": 1e-3}

FACTS = (
    "sensor_material", "sensor_thickness_m", "wavelength_m", "energy_kev", "detector_distance_m", "beam_center_x_px", "beam_center_y_px",
    "pixel_size_x_m", "pixel_size_y_m", "frame_time_s", "exposure_time_s",
)  # fmt: skip
# Metres that are none: some files give millimetres and no units
MOST = {"pixel_size_x_m": 0.02, "pixel_size_y_m": 0.02, "sensor_thickness_m": 0.1, "detector_distance_m": 200.0}
MATERIALS = {"Silicon": "Si", "Cadmium Telluride": "CdTe", "Gallium Arsenide": "GaAs"}
NUMBER = r"([-+0-9.eE]+)"
# A line of a header, which names the fact, and the facts that its numbers are; some programs write a colon or "=" after the name.
HEADER: list[tuple[str, tuple[str, ...], float]] = [
    (rf"Pixel_size[ :=]+{NUMBER} m x {NUMBER} m", ("pixel_size_x_m", "pixel_size_y_m"), 1),
    (rf"sensor, thickness[ :=]+{NUMBER} m", ("sensor_thickness_m",), 1),
    (rf"Exposure_time[ :=]+{NUMBER} s", ("exposure_time_s",), 1),
    (rf"Exposure_period[ :=]+{NUMBER} s", ("frame_time_s",), 1),
    (rf"Wavelength[ :=]+{NUMBER} A", ("wavelength_m",), 1e-10),
    (rf"Detector_distance[ :=]+{NUMBER} m\b", ("detector_distance_m",), 1),
    (rf"Beam_xy[ :=]+\({NUMBER}, *{NUMBER}\)", ("beam_center_x_px", "beam_center_y_px"), 1),
    (rf"Count_cutoff[ :=]+{NUMBER}", ("valid_max",), 1),
]
MATERIAL = re.compile(r"#?\s*(\w[\w ]*?) sensor, thickness")


def facts_in_header(header: str) -> dict[str, Any]:
    """What the header of a Pilatus or Eiger, in a CBF or TIFF file, says of its frames."""
    found: dict[str, Any] = {}
    for pattern, names, factor in HEADER:
        texts = match.groups() if (match := re.search(pattern, header)) else ()
        found |= {name: value * factor for name, text in zip(names, texts, strict=False) if (value := number_in(text)) is not None}
    if material := MATERIAL.search(header):
        found["sensor_material"] = MATERIALS.get(material[1].strip(), material[1].strip())
    return known(found)


def number_in(text: str) -> float | None:
    """A number, whole if it is; None if the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


def is_limit(value: float, name: str, dtype: np.dtype[Any]) -> bool:
    """Whether a type can hold numbers beyond a limit, valid_min or valid_max."""
    if dtype.kind not in "iu" or not np.isfinite(value):
        return bool(np.isfinite(value))
    limits = np.iinfo(dtype)
    return bool(value < limits.max if name == "valid_max" else value > limits.min)


def known(found: dict[str, Any]) -> dict[str, Any]:
    """Without what detectors write where they do not know: 0, or numbers below; and without what must be in other units than are meant."""
    centre = [found.get(name, 0) for name in ("beam_center_x_px", "beam_center_y_px")]
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str)
        or (isfinite(value) and (any(centre) if name.startswith("beam_center") else 0 < value < MOST.get(name, inf)))
    }


def converted(value: float, units: str, factors: dict[str, float], default: str) -> float | None:
    """A value in other units, those of a default where none are given; None if its units are not known."""
    sign = units.strip() or default
    factor = factors.get(sign, factors.get(sign.lower().removesuffix("s")) if len(sign) > 2 else None)
    return None if factor is None else value * factor


def factor_between(units: str, others: str) -> float | None:
    """What values in some units are to be multiplied with to be in others; None where nobody knows."""
    if singular(units) == singular(others):
        return 1.0
    for factors in (METRES, SECONDS, KEV, RADIANS):
        ones, two = (converted(1.0, each, factors, "") for each in (units, others))
        if ones is not None and two is not None:
            return 1.0 if ones == two else ones / two
    return None


def singular(units: str) -> str:
    """Units as they are compared: it is left to the writer whether they are counts or Count."""
    sign = units.strip()
    return sign.lower().removesuffix("s") if len(sign) > 2 else sign
