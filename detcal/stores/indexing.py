"""Any index as the smallest box around it, and what to take out of that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.stores.absence import Box


def box_around(key: Any, shape: tuple[int, ...]) -> tuple[Box, tuple[Any, ...]]:
    """The part of an array that holds all that a key asks for, and the key's indices inside it, one a dimension."""
    parts = key if isinstance(key, tuple) else (key,)
    if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray | list)]:
        place = next(number for number, part in enumerate(parts) if part is Ellipsis)
        parts = (*parts[:place], *(slice(None),) * (len(shape) - len(parts) + 1), *parts[place + 1 :])
    parts = (*parts, *(slice(None),) * (len(shape) - len(parts)))
    bounds = [bounds_of(part, length) for part, length in zip(parts, shape, strict=True)]
    return tuple(bound for bound, _ in bounds), tuple(inside for _, inside in bounds)


def bounds_of(part: Any, length: int) -> tuple[tuple[int, int], Any]:
    """The range that an index along one dimension lies in, and the index inside it."""
    if isinstance(part, slice):
        wanted = range(length)[part]
        if not wanted:
            return (0, 0), slice(None)
        return (min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1), slice(None, None, wanted.step)
    places = np.arange(length)[part]
    if not places.size:
        return (0, 0), slice(None)
    return (int(places.min()), int(places.max()) + 1), places - places.min()


def take(values: NDArray[Any], inside: tuple[Any, ...]) -> NDArray[Any]:
    """The indices inside a box, each along its own dimension."""
    for axis in reversed(range(len(inside))):
        if not (isinstance(inside[axis], slice) and inside[axis] == slice(None)):
            values = values[(*(slice(None),) * axis, inside[axis])]
    return values
