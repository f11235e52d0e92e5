"""The image keys and angles of stacks in one file or several: which frames are projections, flats and darks."""

import warnings
from functools import singledispatch
from typing import Any

import numpy as np

from detcal.errors import InputError
from detcal.frames.selection import KEY
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.joined import Joined, join_lines
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.nxtomo import ANGLE, INVALID, ImageKey
from detcal.stores.sources.scanned import Coords
from detcal.stores.sources.series import Hdf5Series


@singledispatch
def find_key(reader: Any) -> ImageKey | None:
    """The image key of a stack; None if it has none.

    Raises
    ------
    InputError
        A key of another length than the stack, with values that have no meaning, or in some of several files alone.
    """
    return None


@find_key.register
def _(reader: Hdf5Reader | Hdf5Series) -> ImageKey | None:
    tomography = reader.says.tomography
    return None if tomography is None else tomography.key.checked(reader.shape[0])


@find_key.register
def _(reader: Joined) -> ImageKey | None:
    keys = [find_key(each) for each in reader.readers]
    found = [key for key in keys if key is not None]
    if not found:
        return None
    if len(found) < len(keys):
        without = reader.readers[keys.index(None)]
        raise InputError(
            f"expected an image_key in every file, as in {found[0].place}, got none in {getattr(without, 'path', 'another')}: open them "
            'apart, or take frames by their numbers (frames = ":" takes all)'
        )
    return ImageKey(np.concatenate([key.values for key in found]), f"{found[0].place} and {len(found) - 1} more")


@singledispatch
def angles_of(reader: Any) -> Coords:
    """The rotation angles of a stack with an image key, and the key, as coordinates along its frames; none if there is no key."""
    return {}


@angles_of.register
def _(reader: Hdf5Reader | Hdf5Series) -> Coords:
    tomography = reader.says.tomography
    if tomography is None:
        return {}
    if tomography.misfit:
        warnings.warn(tomography.misfit, stacklevel=2)
    return tomography.angles | tomography.key.line()


@angles_of.register
def _(reader: MissingPart) -> Coords:
    frames = reader.shape[0]
    return {ANGLE: ("frame", np.full(frames, np.nan), {}), KEY: ("frame", np.full(frames, INVALID), {})}


@angles_of.register
def _(reader: Joined) -> Coords:
    lines = [angles_of(each) for each in reader.readers]
    there = [line for each, line in zip(reader.readers, lines, strict=True) if not isinstance(each, MissingPart)]
    names = [ANGLE] if any(ANGLE in line for line in there) else []
    names += [KEY] if all(KEY in line for line in lines) else []  # in part it would say nothing of the others
    return join_lines(reader.readers, [{name: line[name] for name in names if name in line} for line in lines])
