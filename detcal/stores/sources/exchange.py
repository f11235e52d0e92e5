"""Files with projections, flats and darks in datasets of their own, side by side: Data Exchange (APS), and beamline 8.3.2 of the ALS."""

import re
from functools import singledispatch
from typing import Any

import h5py

from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.hdf5_files import Members, follow, holds, open_hdf5
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.names import natural_order
from detcal.stores.sources.readers import Reader
from detcal.stores.sources.series import Hdf5Series

GROUP = "exchange"
NAMES = {"projections": "data", "flats": "data_white", "darks": "data_dark"}
# Beamline 8.3.2 has a dataset for each frame: name_0000_0012.tif is the projection 12, namebak_0000_0012.tif a flat, namedrk_… a dark
OF_ALS = re.compile(r"(.*)(bak|drk)_[0-9]+_[0-9]+\.tiff?")
ALS_NAMES = {"flats": "bak", "darks": "drk"}


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
def _(reader: Hdf5Series, role: str) -> Reader | None:
    place, _, own = reader.dataset.rpartition("/")
    with open_hdf5(reader.path) as file:
        found = {name: OF_ALS.fullmatch(name) for name in Members.of(follow(file, place)).types}
        beside = [f"{place}/{name}" for name, match in found.items() if match and own.startswith(f"{match[1]}_")]
        if role == "projections" and beside:
            return reader
        names = [name for name in beside if OF_ALS.fullmatch(name)[2] == ALS_NAMES.get(role)]  # type: ignore[index]
        return Hdf5Series.within(reader.path, file, tuple(sorted(names, key=natural_order)), listed=True) if names else None


@in_role.register
def _(reader: Joined, role: str) -> Reader | None:
    parts = [in_role(each, role) for each in reader.readers]
    found = [part for part in parts if part is not None]
    return Joined(tuple(found)) if found else None
