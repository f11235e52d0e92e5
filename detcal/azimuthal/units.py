"""Units of the radius: pyFAI's, three that are multiples of them, and what one is in another."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyFAI import units

from detcal.errors import InputError

Doubles = NDArray[np.float64]

SPACINGS = ("d_nm", "d_A")
UNITS = (
    "q_nm^-1", "q_A^-1", "2th_deg", "2th_rad", "s_nm^-1", "s_A^-1", "r_mm", "r_m", "r_px", *SPACINGS, "d*2_nm^-2", "d*2_A^-2",
    "log10(q.m)_None", "log(q.nm)_None", "log(1+q.nm)_None", "log(1+q.A)_None", "arcsinh(q.nm)_None", "arcsinh(q.A)_None",
)  # fmt: skip
TURN = 2 * np.pi


class Unit(NamedTuple):
    """A unit of the radius.

    Attributes
    ----------
    base
        pyFAI's unit whose numbers are brought to this one.
    scale
        By how much pyFAI's own numbers, in SI or nm, are multiplied.
    positive
        Whether no radius is below 0.
    """

    base: str
    scale: float
    positive: bool


def find_unit(name: str, detector: Any) -> Unit:
    """A unit by its name, for a pyFAI detector.

    Raises
    ------
    InputError
        Pixels, where they are not square.
    """
    if name == "r_px":
        if not np.isclose(detector.pixel1, detector.pixel2):
            raise InputError(f"expected square pixels for the unit r_px, got {detector.pixel1:g} × {detector.pixel2:g} m: take r_mm")
        return Unit("r_m", 1 / detector.pixel1, True)
    base = name.replace("s_", "q_") if name.startswith("s_") else name
    known = units.to_unit(base)
    return Unit(base, known.scale if base == name else known.scale / TURN, bool(known.positive))


def check_unit(name: str) -> None:
    """Raise an InputError for a unit that does not exist."""
    if name not in UNITS:
        near = get_close_matches(name, UNITS, n=3, cutoff=0.3) or list(UNITS)
        near.sort(key=lambda known: not known.startswith(name[:1]))
        raise InputError(f"unknown unit {name!r}; near are {', '.join(near)}")


# ---------------------------------------------------------------------------------------------------- one in another

# By unit: to q in 1/nm, and back, of numbers and the wavelength in nm
Pair = tuple[Callable[[Doubles, float], Doubles], Callable[[Doubles, float], Doubles]]
ANGLES: dict[str, float] = {"2th_rad": 1.0, "2th_deg": np.pi / 180}  # radians
PER_LENGTH: dict[str, float] = {"q_nm^-1": 1.0, "q_A^-1": 10.0, "s_nm^-1": TURN, "s_A^-1": 10 * TURN}  # q, 1/nm
LENGTHS: dict[str, float] = {"d_nm": 1.0, "d_A": 10.0}  # in one nm
SQUARES: dict[str, float] = {"d*2_nm^-2": 1.0, "d*2_A^-2": 100.0}  # 1/nm²


def angle(unit: float) -> Pair:
    """2θ: q = 4π·sin θ/λ."""
    return (
        lambda number, wavelength: 4 * np.pi * np.sin(number * unit / 2) / wavelength,
        lambda q, wavelength: 2 * np.arcsin(q * wavelength / (4 * np.pi)) / unit,
    )


def multiple(unit: float) -> Pair:
    """q, and s = q/2π."""
    return lambda number, _: number * unit, lambda q, _: q / unit


def spacing(in_a_nm: float) -> Pair:
    """d = 2π/q."""
    return lambda number, _: TURN * in_a_nm / number, lambda q, _: TURN * in_a_nm / q


def square(unit: float) -> Pair:
    """1/d² = (q/2π)²."""
    return lambda number, _: TURN * np.sqrt(number * unit), lambda q, _: (q / TURN) ** 2 / unit


PAIRS: dict[str, Pair] = {
    **{name: angle(unit) for name, unit in ANGLES.items()}, **{name: multiple(unit) for name, unit in PER_LENGTH.items()},
    **{name: spacing(unit) for name, unit in LENGTHS.items()}, **{name: square(unit) for name, unit in SQUARES.items()},
}  # fmt: skip


def in_unit(numbers: Any, unit: str, wanted: str, wavelength_m: float | None) -> Doubles:
    """Radii in one unit as they are in another; NaN where there is no such number, as an angle of a q above 4π/λ.

    Raises
    ------
    InputError
        An unknown unit, one of the detector's plane or a logarithm beside another, or no wavelength where one is an angle.
    """
    numbers = np.asarray(numbers, float)
    check_unit(wanted)
    if unit == wanted:
        return numbers
    alone = [name for name in (unit, wanted) if name not in PAIRS]
    if alone:
        raise InputError(
            f"{unit} cannot be shown in {wanted}, since {alone[0]} is neither an angle, q, s nor d: build the bins in {wanted}"
        )
    if wavelength_m is None and (unit in ANGLES) != (wanted in ANGLES):
        raise InputError(f"{unit} in {wanted} needs a wavelength, which the geometry does not have: add it, and build the bins anew")
    wavelength = np.nan if wavelength_m is None else 1e9 * wavelength_m
    with np.errstate(divide="ignore", invalid="ignore"):
        return PAIRS[wanted][1](PAIRS[unit][0](numbers, wavelength), wavelength)
