"""Data Exchange files (APS): projections, flats and darks in datasets of their own, side by side."""

from functools import singledispatch
from typing import Any

import h5py

from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.hdf5_files import holds, open_hdf5
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.readers import Reader

GROUP = "exchange"
NAMES = {"projections": "data", "flats": "data_white", "darks": "data_dark"}


@singledispatch
def in_role(reader: Any, role: str) -> Reader | None:
    """The projections, which a stack is, or the flats or darks beside it; None if there are none."""
    return None


@in_role.register
def _(reader: Hdf5Reader, role: str) -> Reader | None:
    place, _, own = reader.dataset.rpartition("/")
    if own != NAMES["projections"] or place.rsplit("/", 1)[-1] != GROUP:
        return None
    with open_hdf5(reader.path) as file:
        group = file[place]
        found = isinstance(group, h5py.Group) and holds(group, NAMES[role])
    return Hdf5Reader.open(reader.path, f"{place}/{NAMES[role]}") if found else None


@in_role.register
def _(reader: Joined, role: str) -> Reader | None:
    parts = [in_role(each, role) for each in reader.readers]
    found = [part for part in parts if part is not None]
    return Joined(tuple(found)) if found else None
