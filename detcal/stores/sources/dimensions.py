"""What the names of an array's dimensions say: whether it holds frames, and where in it these have their rows and columns."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError

ROW_AND_COLUMN = ("y", "x")
# Dimensions that results have, and no frame has: what an array with one of them holds
NO_FRAMES = {"radial": "profiles", "azimuthal": "profiles", "energy": "spectra", "spectrum": "values of spectra", "pixel": "a table"}
MAP = 4  # dimensions, or more: frames of a grid of places, say


MOST_LISTED = 5  # arrays in a message


class Sliced(Protocol):
    """An array in a file."""

    @property
    def ndim(self) -> int: ...

    def __getitem__(self, key: Any) -> NDArray[Any]: ...


class Described(NamedTuple):
    """An array in a file: its shape and type, and the names of its dimensions, if it has any."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether the names say what it is; else the shape has to."""
        return has_frames(self.dims) or bool(what_is_no_frame(self.dims))

    @property
    def rank(self) -> int:
        """2: an image, 3: a stack, 4: a map of any number of dimensions; 0: what names say is none of these."""
        return 0 if what_is_no_frame(self.dims) else min(len(self.shape), MAP)

    @property
    def sizes(self) -> str:
        """Its dimensions in words."""
        return f"({', '.join(f'{dim}: {size}' for dim, size in zip(self.dims, self.shape, strict=True))})"


def what_is_there(shapes: Mapping[str, tuple[int, ...]], path: str) -> str:
    """The arrays of a file by their names, the largest first, for an error that says that another one is not there."""
    names = sorted(shapes, key=lambda name: (-prod(shapes[name]), name))
    more = f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    held = ", ".join(f"{name} {shapes[name]}" for name in names[:MOST_LISTED])
    return f"it holds {held or 'no arrays'}{more}; `detcal tree {path}` lists all"


def has_frames(dims: Sequence[str]) -> bool:
    """Whether these are names of dimensions of which two are rows and columns of pixels."""
    return set(ROW_AND_COLUMN) <= set(dims)


def what_is_no_frame(dims: Sequence[str]) -> str:
    """What an array with dimensions of these names holds, if they say that it is no frames; else nothing."""
    return "" if has_frames(dims) else next((what for dim, what in NO_FRAMES.items() if dim in dims), "")


def check_frames(dims: Sequence[str], place: str, path: str) -> None:
    """Refuse an array of which the names of its dimensions say that it holds no frames.

    Raises
    ------
    InputError
        With what it holds, and what opens that.
    """
    if what := what_is_no_frame(dims):
        raise InputError(f"expected frames, got {what} ({', '.join(dims)}) in {place}: detcal.load({path!r}) opens them")


def as_stack(names: Sequence[str], ndim: int) -> tuple[int, ...]:
    """The dimensions of an array in the order of a stack: those that count frames, rows, columns."""
    if not has_frames(names):
        return tuple(range(ndim))
    last = [names.index(name) for name in ROW_AND_COLUMN]
    return (*(axis for axis in range(ndim) if axis not in last), *last)


def part_of(array: Sliced, axes: tuple[int, ...], counted: Sequence[slice], rows: tuple[int, int]) -> NDArray[Any]:
    """Some rows (frame, y, x) of the frames at these places of the dimensions that count them; `axes` are those of the array in the order
    of a stack."""
    places: list[Any] = [slice(None)] * array.ndim
    for axis, wanted in zip(axes[:-1], (*counted, slice(*rows)), strict=True):
        places[axis] = wanted
    values = array[tuple(places)].transpose(axes)
    return np.ascontiguousarray(values.reshape(-1, *values.shape[-2:]))
