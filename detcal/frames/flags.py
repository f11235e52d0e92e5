"""Which numbers of frames stand for "no reading", as those say who may know: a caller, a file, a detector, the type of the frames."""

from collections.abc import Iterable, Mapping
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from detcal.errors import InputError

RANGE, MISSING = ("valid_min", "valid_max", "valid_range"), "missing_value"  # attributes (CF conventions)
AS_RECORDED = "recorded_"  # before the name of a flag, among the attributes of a result: what flagged its raw frames
Run = tuple[float, float]  # the first and last of whole numbers that follow each other; or twice the same number
Dummy = tuple[float, float]  # pyFAI's dummy and delta_dummy


class Flags(NamedTuple):
    """What is no reading: numbers outside low … high, and runs of numbers."""

    low: float = -np.inf
    high: float = np.inf
    runs: tuple[Run, ...] = ()


def by_caller(dummy: Any, dtype: np.dtype[Any]) -> Flags | None:
    """The number that a caller gave; NaN: there is none."""
    if dummy is None:
        return None
    if not isinstance(dummy, float | int | np.number):
        raise InputError(f"expected a dummy that is a number, got {dummy!r}")
    if not can_hold(dtype, dummy):
        limits = np.iinfo(dtype)
        raise InputError(f"expected a dummy that {dtype} frames can hold, from {limits.min} to {limits.max}, got {dummy}")
    return Flags(runs=runs_of([float(dummy)]))


def can_hold(dtype: np.dtype[Any], number: Any) -> bool:
    """Whether frames of a type can hold a number."""
    if dtype.kind not in "iu" or np.isnan(number):
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= number <= limits.max and float(number).is_integer())


def by_attributes(attrs: Mapping[Any, Any], dtype: np.dtype[Any]) -> Flags | None:
    """What the attributes of frames say."""
    given = {name: numbers_of(name, attrs[name]) for name in (*RANGE, MISSING) if attrs.get(name) is not None}
    if not given:
        return None
    ends = given.get("valid_range", ())
    low = max([*given.get("valid_min", ()), *ends[:1]], default=-np.inf)
    high = min([*given.get("valid_max", ()), *ends[1:]], default=np.inf)
    return Flags(low, high, runs_of(as_held(number, dtype) for number in given.get(MISSING, ())))


def numbers_of(name: str, value: Any) -> tuple[float, ...]:
    """The numbers of an attribute."""
    found = np.atleast_1d(np.asarray(value))
    if found.dtype.kind not in "iuf" or found.ndim != 1 or (name == "valid_range" and found.size != 2):
        raise InputError(
            f"expected {'two numbers' if name == 'valid_range' else 'a number'} as the attribute {name} of the frames, got {value!r}: "
            "give dummy or valid_range when they are opened, which take its place"
        )
    return tuple(found.tolist())


def as_held(number: float, dtype: np.dtype[Any]) -> float:
    """The number that frames of a type hold where -1, say, was written: integers begin anew beyond their end."""
    if dtype.kind not in "iu" or not float(number).is_integer():
        return number
    limits = np.iinfo(dtype)
    return (int(number) - limits.min) % (limits.max - limits.min + 1) + limits.min


def by_detector(detector: Dummy | None, dtype: np.dtype[Any]) -> Flags | None:
    """The whole numbers within dummy ± delta_dummy; the same in frames of reals, among which a reading of -1.3 counts stays one."""
    if detector is None:
        return None
    dummy, delta = as_held(detector[0], dtype), detector[1]
    first, last = ceil(dummy - delta), floor(dummy + delta)
    return Flags(runs=((first, last),) if first <= last else runs_of([dummy]))  # else it is no whole number


def by_type(dtype: np.dtype[Any]) -> Flags:
    """The largest number of an unsigned type, with which Dectris detectors and others flag dead pixels and overflows."""
    return Flags(runs=runs_of([np.iinfo(dtype).max])) if dtype.kind == "u" and dtype.itemsize > 1 else Flags()


def runs_of(numbers: Iterable[float]) -> tuple[Run, ...]:
    """Runs of single numbers as float32, rising, those that follow each other as one; NaN is none."""
    runs: list[Run] = []
    for number in sorted({float(np.float32(number)) for number in numbers if not np.isnan(number)}):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
