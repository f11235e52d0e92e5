"""What was corrected is not corrected again: frames carry in their attributes what was done to them, through files too."""

from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from detcal.errors import InputError
from detcal.frames.valid import settled

ATTRIBUTE = "corrections"  # of frames: a list of the names below, in the order in which they were done
# By name: what that is, for an error
NAMES = {
    "dark": "a dark taken off",
    "gain": "pixel gains applied",
    "flat": "a flat divided out",
    "normalization": "a normalization",
    "parallax": "parallax in the sensor taken out",
    "efficiency": "the sensor's efficiency divided out",
    "distortion": "distortion corrected",
}


def corrections_of(data: Any) -> tuple[str, ...]:
    """What was done to frames already."""
    return tuple(data.attrs.get(ATTRIBUTE, ())) if isinstance(data, xr.DataArray) else ()


def attributes_of(
    frames: xr.DataArray,
    more: Mapping[str, Any],
    *,
    done: Iterable[str] = (),
    undone: Iterable[str] = (),
    dummy: float | None = None,
) -> dict[Any, Any]:
    """The attributes of a result: those of its frames, what was done to them, that all its numbers but a dummy are readings, and more."""
    done_to = [name for name in corrections_of(frames) if name not in undone] + [*done]
    kept = {name: value for name, value in settled(frames.attrs, dummy).items() if name != ATTRIBUTE}
    return kept | ({ATTRIBUTE: done_to} if done_to else {}) | dict(more)


def refuse_twice(data: Any, names: Iterable[str], advice: str, what: str = "frames") -> None:
    """Raise if some of these corrections were done already.

    Raises
    ------
    InputError
        With what to do, `advice`.
    """
    done = corrections_of(data)
    again = [name for name in names if name in done]
    if again:
        said = ", ".join(NAMES[name] for name in again)
        raise InputError(
            f"expected {what} that were not corrected yet, got some that have had {said} (their attribute {ATTRIBUTE} says so): {advice}"
        )
