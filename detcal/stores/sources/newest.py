"""Files that grow while they are read: the first frames of a stack, as many as are there when it is opened, or as were then."""

from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np

from detcal.errors import InputError
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.readers import Reader
from detcal.stores.sources.selected import Selected

Newest = bool | int  # True: the frames that are there now; a number: the first so many


def frames_there(reader: Reader, newest: Newest, source: str) -> int:
    """How many frames are meant: a number that was given, or all up to the last of which something was written.

    Raises
    ------
    InputError
        There are none, or fewer than were given.
    """
    lacks = reader.lacks
    written = np.flatnonzero(~lacks.whole) if lacks else np.arange(reader.shape[0])
    there = int(written[-1]) + 1 if written.size else 0
    if newest is True and there:
        return there
    if newest is True or not 0 < newest <= there:
        wanted = "a frame" if newest is True else f"newest of true, or from 1 to {there}, the frames that are there,"
        raise InputError(f"expected {wanted} in {source}, got {'none' if newest is True else newest}: wait until more are written")
    return newest


@singledispatch
def first_frames(reader: Any, length: int) -> Reader:
    """The first frames of a stack."""
    return Selected(reader, (range(length),))


@first_frames.register
def _(reader: Hdf5Reader, length: int) -> Reader:
    """Those that are to come are not missing: if none of the first is, these are of the type that was recorded."""
    array, lacks = reader.array, reader.lacks
    if lacks is None or array.virtual or array.ndim != 3 or lacks.of_frames(np.arange(length)) is not None:
        return Selected(reader, (range(length),))
    first = replace(array, shape=(length, *array.shape[1:]), dtype=array.recorded, lacking=False)
    return replace(reader, shape=first.shape, dtype=first.dtype, array=first, header=reader.says.of_first(length))
