"""The image key of tomography files (NXtomo): which frames are projections, flats and darks, and at which angles they were taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import dirname
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.selection import KEY, PROJECTION
from detcal.frames.stack import DIMS
from detcal.stores.sources.attributes import own_attributes
from detcal.stores.sources.hdf5_data import Stored, values_of
from detcal.stores.sources.hdf5_files import Members, address
from detcal.stores.sources.scanned import Coords

KEYS = {"projections": PROJECTION, "flats": 1, "darks": 2}
INVALID = 3
ALIGNMENT = -1  # projections taken again at the end, to see whether the sample has moved; only in image_key_control
KNOWN = (*KEYS.values(), INVALID, ALIGNMENT)
CONTROL = "image_key_control"  # the second says of alignment positions too, and may be there alone
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


class StoredKey(NamedTuple):
    """A key as it lies in a file, which is heeded only where frames are chosen by it; None: not a key for each frame."""

    place: str
    shape: tuple[int, ...]
    values: Stored | None
    control: Stored | None

    def checked(self, frames: int) -> ImageKey:
        """The key of so many frames.

        Raises
        ------
        InputError
            It is of another length than the stack, lacks some, or has values that have no meaning.
        """
        advice = 'mend it, or take frames by their numbers (frames = ":" takes all)'
        if self.values is None:
            raise InputError(f"expected {self.place} to have a key for each of the {frames} frames, got shape {self.shape}: {advice}")
        values = self.values.whole()
        wrong = ~np.isin(values, KNOWN)
        if wrong.any():
            raise InputError(
                f"expected keys 0 (projection), 1 (flat), 2 (dark) or 3 (invalid) in {self.place}, got {values[wrong][0]}: {advice}"
            )
        values = values.astype(np.int64)
        return ImageKey(values if self.control is None else np.where(self.control.whole() == ALIGNMENT, INVALID, values), self.place)

    def line(self) -> Coords:
        """The keys as a coordinate, if there is one for each frame; some programs write them as reals."""
        if self.values is None or self.values.lacks:
            return {}
        keys = self.values.numbers
        if keys.dtype.kind == "f" and np.isin(keys, KNOWN).all():
            keys = keys.astype(np.int64)
        return {KEY: (DIMS[0], keys, {})} if keys.dtype.kind in "iu" else {}


class Tomography(NamedTuple):
    """What a file says of a tomography scan: its image key, and the rotation angles as coordinates; which angles do not fit."""

    key: StoredKey
    angles: Coords
    misfit: str = ""


def tomography_in(path: str, file: h5py.File, dataset: str, frames: int, entry: Sequence[Members]) -> Tomography | None:
    """What an open file says of a stack of so many frames; None if it has no image key."""
    keyed = group_of_key(file, dataset, frames, entry)
    if keyed is None:
        return None
    groups = [keyed, *entry]
    found = [line for each in groups if each.holds(ANGLE) and (line := each.group[ANGLE]).dtype.kind in "iuf"]
    fitting = next((line for line in found if line.shape == (frames,)), None)
    key = stored_key(path, keyed, frames, entry)
    if fitting is not None:
        return Tomography(key, {ANGLE: (DIMS[0], values_of(fitting), own_attributes(fitting))})
    misfit = f"expected an angle for each of the {frames} frames, got shape {found[0].shape}" if found else ""
    return Tomography(key, {}, f"{path}::{found[0].name} is left out: {misfit}" if misfit else "")


def stored_key(path: str, keyed: Members, frames: int, entry: Sequence[Members]) -> StoredKey:
    """The key in a group that has one, with what stands beside it, or beside the same key in another group of the entry, of alignment."""
    stored = key_in(keyed)
    if stored.shape != (frames,):
        return StoredKey(f"{path}::{stored.name}", stored.shape, None, None)
    same = (each for each in entry if each.holds(CONTROL) and each.holds(KEY) and address(each.group[KEY]) == address(stored))
    controls = (members.group[CONTROL] for members in (keyed, *same) if members.holds(CONTROL))
    control = next((each for each in controls if each.shape == stored.shape), None)
    return StoredKey(f"{path}::{stored.name}", stored.shape, Stored.of(stored), None if control is None else Stored.of(control))


def group_of_key(file: h5py.File, dataset: str, frames: int, entry: Sequence[Members]) -> Members | None:
    """The group with the image key of a dataset: its own, or another one of its entry that holds the same data.

    An NXtomo entry may also keep its data elsewhere, behind a virtual dataset, say: then its only key counts for stacks of that length.
    """
    own, data = Members.of(file[dirname(f"/{dataset.strip('/')}")]), file[dataset]
    if holds_key(own):
        return own
    keyed = [members for members in entry if holds_key(members)]
    same = next((members for members in keyed if any(members.names_of(data))), None)
    if same is not None:
        return same
    keys = {address(key_in(members)): members for members in keyed}
    fitting = [members for members in keys.values() if key_in(members).shape == (frames,) and data.ndim == 3]
    return fitting[0] if len(keys) == len(fitting) == 1 else None


def holds_key(members: Members) -> bool:
    """Whether a group has an image key."""
    return members.holds(KEY) or members.holds(CONTROL)


def key_in(members: Members) -> h5py.Dataset:
    """The image key of a group that has one."""
    return members.group[KEY if members.holds(KEY) else CONTROL]
