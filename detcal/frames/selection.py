"""Which frames of a stack are meant: what a caller may ask for, and the runs of frame numbers that this means."""

import re
from collections.abc import Sequence
from itertools import pairwise
from operator import index
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from detcal.errors import InputError

Role = Literal["projections", "flats", "darks"]
Choice = int | slice | Sequence[int] | str
Runs = tuple[range, ...]

ROLES: tuple[str, ...] = get_args(Role)
# Coordinates of frames from a file in which projections, flats and darks are one stack:
KEY, PROJECTION = "image_key", 0  # what each frame is, where that is not the same; and what projections are
NUMBER = "frame_number"  # in that stack
OF_STACK = "stack"  # its attribute: which stack that is, so that frames that were changed and saved since are still known as those of it
BEFORE = "projections_before"  # of flats alone, in all of the stack: whichever projections are chosen, it tells which were taken together
SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?")
MOST_NAMED = 20  # numbers in a message
EXPECTED = 'a number, a list of numbers, a slice such as "10:50" or "::2", or "projections", "flats" or "darks"'


def parse_frames(choice: Choice) -> str | slice | tuple[int, ...]:
    """A choice of frames in its plain form: the name of a role, a slice, or numbers.

    Parameters
    ----------
    choice
        A number, a slice (as Python's, or as a text such as "10:50" or "::2"), a list of numbers, or a role.

    Raises
    ------
    InputError
        Anything else, no numbers, or a step of 0.
    """
    if isinstance(choice, str):
        return choice if choice in ROLES else checked_slice(parse_slice(choice))
    if isinstance(choice, slice):
        return checked_slice(choice)
    numbers = whole_numbers(choice if np.iterable(choice) else [choice])
    if not numbers:
        raise InputError(f"expected frames: {EXPECTED}; got an empty list")
    return numbers


def parse_slice(text: str) -> slice:
    """A slice from a text."""
    found = SLICE.fullmatch(text)
    if found is None:
        raise InputError(f"expected frames: {EXPECTED}; got {text!r}")
    return slice(*(None if part is None else int(part) for part in found.groups()))


def checked_slice(part: slice) -> slice:
    """The same slice, if its parts are whole numbers."""
    whole_numbers(each for each in (part.start, part.stop, part.step) if each is not None)
    if part.step == 0:
        raise InputError(f"expected frames in steps of 1 or more, or backwards, got {part}")
    return part


def whole_numbers(values: Any) -> tuple[int, ...]:
    """Numbers of frames as Python's own; True and False are no numbers."""
    values = list(values)
    if any(isinstance(value, bool | np.bool_) for value in values):
        raise InputError(f"expected frames: {EXPECTED}; got True and False: give the numbers of those that are True (numpy.flatnonzero)")
    try:
        return tuple(index(value) for value in values)
    except TypeError:
        raise InputError(f"expected frames: {EXPECTED}; got {values}") from None


def runs_of(choice: slice | tuple[int, ...], length: int, source: str) -> Runs:
    """The runs of frame numbers that a choice means in a stack of this length, in the order asked for.

    Raises
    ------
    InputError
        No frame, or one that the stack does not have.
    """
    if isinstance(choice, slice):
        run = range(*choice.indices(length))
        if not run:
            raise InputError(f"frames = {text_of(choice)} means none of the {length} frames in {source}")
        return (run,)
    wrong = [number for number in choice if not -length <= number < length]
    if wrong:
        raise InputError(f"expected frames from 0 to {length - 1}, as {source} has, got {wrong[0]}")
    return consecutive([number % length for number in choice])


def consecutive(numbers: Sequence[int]) -> Runs:
    """The numbers, in their order, as runs of consecutive ones."""
    breaks = [place for place, (before, after) in enumerate(pairwise(numbers), 1) if after != before + 1]
    return tuple(range(numbers[start], numbers[stop - 1] + 1) for start, stop in pairwise([0, *breaks, len(numbers)]))


def text_of(part: slice) -> str:
    """A slice as it is written in a recipe."""
    ends = ["" if each is None else str(each) for each in (part.start, part.stop, part.step)]
    return f'"{":".join(ends if part.step is not None else ends[:2])}"'


def as_choice(numbers: Sequence[int]) -> Choice:
    """Numbers of frames as they are written in a recipe: a slice if they follow each other."""
    runs = consecutive(numbers)
    return f"{runs[0].start}:{runs[0].stop}" if len(runs) == 1 else list(numbers)


def check_projections(frames: xr.DataArray) -> None:
    """Refuse projections among which are flats or darks of the same file.

    Raises
    ------
    InputError
        How many there are, and how to leave them out.
    """
    if KEY not in frames.coords or frames.coords[KEY].shape != frames.shape[:1]:
        return
    are = np.asarray(frames.coords[KEY] == PROJECTION)
    if not are.any() or are.all():
        return
    written = as_written(as_choice(np.asarray(frames.coords.get(NUMBER, np.arange(len(are))))[are].tolist()))
    raise InputError(
        f"expected projections, got {len(are)} frames of which {len(are) - sum(are)} are none by their {KEY}: leave those out, in a recipe "
        f'by [input] frames = {written} (or "projections": all there are), in Python by frames[frames.{KEY} == {PROJECTION}]'
    )


def as_written(choice: Any) -> str:
    """A choice of frames as a recipe has it; of many numbers the first."""
    if not isinstance(choice, list):
        return f'"{choice}"' if isinstance(choice, str) else str(choice)
    return f"[{', '.join(map(str, choice[:MOST_NAMED]))}{', …' * (len(choice) > MOST_NAMED)}]"
