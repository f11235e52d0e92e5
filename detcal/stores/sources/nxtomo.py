"""The image key of tomography files (NXtomo): which frames are projections, flats and darks, and at which angles they were taken."""

import warnings
from dataclasses import dataclass
from functools import singledispatch
from posixpath import dirname
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.hdf5 import Hdf5Reader, own_attributes
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of, whole_values
from detcal.stores.sources.hdf5_files import address, follow, groups_of_entry, holds, is_same, open_hdf5
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Coords
from detcal.stores.sources.series import Hdf5Series

KEYS = {"projections": 0, "flats": 1, "darks": 2}
INVALID = 3
ALIGNMENT = -1  # projections taken again at the end, to see whether the sample has moved; only in image_key_control
KEY, CONTROL = "image_key", "image_key_control"  # the second says of alignment positions too, and may be there alone
ANGLE = "rotation_angle"


@dataclass(frozen=True)
class ImageKey:
    """The keys of all frames, and the dataset that they come from."""

    values: NDArray[np.int64]
    place: str

    def numbers(self, role: str) -> tuple[int, ...]:
        """The numbers of the projections, flats or darks.

        Raises
        ------
        InputError
            There are none.
        """
        found = np.flatnonzero(self.values == KEYS[role])
        if not found.size:
            raise InputError(f"{self.place} names no {role}: it has {self.contents()}")
        return tuple(found.tolist())

    def contents(self) -> str:
        """What there is, in words: 10 projections, 5 flats, 3 darks."""
        counts = {**{role: np.sum(self.values == key) for role, key in KEYS.items()}}
        counts["others"] = len(self.values) - sum(counts.values())
        return ", ".join(f"{count} {role if count != 1 else role[:-1]}" for role, count in counts.items() if count)


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
    with open_hdf5(reader.path) as file:
        group = group_of_key(file, reader.dataset, reader.shape[0])
        if group is None:
            return None
        stored = key_in(group)
        values = checked_key(stored, place := f"{reader.path}::{stored.name}", reader.shape[0])
        control = follow(group, CONTROL)
        if isinstance(control, h5py.Dataset) and control.shape == values.shape:
            values = np.where(whole_values(control) == ALIGNMENT, INVALID, values)
        return ImageKey(values, place)


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


def checked_key(stored: h5py.Dataset, place: str, frames: int) -> NDArray[np.int64]:
    """The values of a key.

    Raises
    ------
    InputError
        As `find_key`.
    """
    advice = 'mend it, or take frames by their numbers (frames = ":" takes all)'
    if stored.shape != (frames,):
        raise InputError(f"expected {place} to have a key for each of the {frames} frames, got shape {stored.shape}: {advice}")
    values = whole_values(stored)
    wrong = ~np.isin(values, [*KEYS.values(), INVALID, ALIGNMENT])
    if wrong.any():
        raise InputError(f"expected keys 0 (projection), 1 (flat), 2 (dark) or 3 (invalid) in {place}, got {values[wrong][0]}: {advice}")
    return values.astype(np.int64)


def group_of_key(file: h5py.File, dataset: str, frames: int) -> h5py.Group | None:
    """The group with the image key of a dataset: its own, or another one of its entry that holds the same data.

    An NXtomo entry may also keep its data elsewhere, behind a virtual dataset, say: then its only key counts for stacks of that length.
    """
    own, data = follow(file, dirname(f"/{dataset.strip('/')}")), file[dataset]
    if holds_key(own):
        return own
    keyed = [group for group in groups_of_entry(file, dataset) if holds_key(group)]
    same = [group for group in keyed if any(is_same(group, name, data) for name in group)]
    if same:
        return same[0]
    keys = {address(key_in(group)): group for group in keyed}
    fitting = [group for group in keys.values() if key_in(group).shape == (frames,) and data.ndim == 3]
    return fitting[0] if len(keys) == len(fitting) == 1 else None


def holds_key(group: Any) -> bool:
    """Whether a group has an image key."""
    return holds(group, KEY) or holds(group, CONTROL)


def key_in(group: h5py.Group) -> h5py.Dataset:
    """The image key of a group that has one."""
    return group[KEY if holds(group, KEY) else CONTROL]


@singledispatch
def angles_of(reader: Any) -> Coords:
    """The rotation angles of a stack with an image key, and the key, as coordinates along its frames; none if there is no key."""
    return {}


@angles_of.register
def _(reader: Hdf5Reader | Hdf5Series) -> Coords:
    with open_hdf5(reader.path) as file:
        keyed = group_of_key(file, reader.dataset, reader.shape[0])
        if keyed is None:
            return {}
        groups = [keyed, *groups_of_entry(file, reader.dataset)]
        found = [group[ANGLE] for group in groups if holds(group, ANGLE) and group[ANGLE].dtype.kind in "iuf"]
        fitting = [line for line in found if line.shape == (reader.shape[0],)]
        if found and not fitting:
            warnings.warn(
                f"{reader.path}::{found[0].name} is left out: expected an angle for each of the {reader.shape[0]} frames, "
                f"got shape {found[0].shape}", stacklevel=2,
            )  # fmt: skip
        angles: Coords = {ANGLE: ("frame", values_of(fitting[0]), own_attributes(fitting[0]))} if fitting else {}
        stored = key_in(keyed)
        whole = stored.shape == (reader.shape[0],) and stored.dtype.kind in "iu" and Hdf5Array.of(stored).lacks is None
        return angles | ({KEY: ("frame", whole_values(stored), {})} if whole else {})


@angles_of.register
def _(reader: MissingPart) -> Coords:
    frames = reader.shape[0]
    return {ANGLE: ("frame", np.full(frames, np.nan), {}), KEY: ("frame", np.full(frames, INVALID), {})}


@angles_of.register
def _(reader: Joined) -> Coords:
    lines = [angles_of(each) for each in reader.readers]
    in_all = [name for name in lines[0] if all(name in each for each in lines)]
    return {name: ("frame", np.concatenate([each[name][1] for each in lines]), lines[0][name][2]) for name in in_all}
