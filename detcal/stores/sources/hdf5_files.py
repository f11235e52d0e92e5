"""HDF5 files opened for reading, those that a running scan still writes too; and what lies in them behind links."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os.path import dirname, exists, isdir, join, realpath
from typing import Any, NamedTuple

import h5py
import numpy as np

from detcal.errors import InputError
from detcal.stores.sources.attributes import DIMS_MARK
from detcal.stores.sources.dimensions import what_is_there
from detcal.stores.sources.readers import clear_errors

ENTRY_DEPTH = 3  # of groups inside each other: subentry, instrument, detector
CIRCLE = "too many links"  # what HDF5 says of links that lead to themselves
ELSEWHERE = -1  # in place of the type of what a link to another file leads to


@contextmanager
def open_hdf5(path: str) -> Iterator[h5py.File]:
    """An HDF5 file, with one line that names it for whatever goes wrong.

    Raises
    ------
    InputError
        A damaged file, or one that its writer keeps for itself.
    """
    with clear_errors(path), as_it_is_written(path) as file:
        yield file


def as_it_is_written(path: str) -> h5py.File:
    """A file, also one whose writer lets others read meanwhile (SWMR)."""
    if isdir(path):
        raise InputError(f"expected an HDF5 file, got the folder {path}: a zarr store that detcal wrote is opened by detcal.load")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "already open for write" not in str(error):
            raise
    try:
        return h5py.File(path, "r", swmr=True)
    except OSError:
        raise InputError(
            f"{path} is open for writing, or its writer died: wait until it is closed, let the writer use SWMR, or, if no one writes "
            f"to it any more, run h5clear -s {path}"
        ) from None


def follow(group: h5py.Group, name: str) -> Any:
    """The object of that name, or None if a link on the way to it leads nowhere, or round in a circle."""
    try:
        return group[name]
    except (KeyError, OSError):
        return None
    except RuntimeError as error:
        if CIRCLE not in str(error):
            raise
        return None


class Found(NamedTuple):
    """A dataset, and what two names of one have in common."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: tuple[str, int]
    interpretation: str = ""  # what NeXus may say that it is: "image", "spectrum"
    dims: tuple[str, ...] = ()  # the names of its dimensions, which detcal notes


class Survey(NamedTuple):
    """What there is in a file: datasets by their names, each once; and names that lead nowhere, with what they link to."""

    datasets: dict[str, Found]
    broken: dict[str, str]


def survey(group: h5py.Group, prefix: str = "") -> Survey:
    """All below a group, each object under the name that leads to it from here. No file behind a link stays open."""
    found = Survey({}, {})
    look_into(group, prefix, found, set())
    return found


def look_into(group: h5py.Group, prefix: str, found: Survey, seen: set[object]) -> None:
    """Add to a survey what lies below a group and was not seen yet."""
    for raw in group.id:
        name = os.fsdecode(raw)
        place = f"{prefix}/{name}"
        item = opened(group, raw)
        if item is None:
            found.broken[place] = target_of(group, name) or "an object that cannot be opened"
            continue
        here = address_of(item)
        if here in seen:
            continue
        seen.add(here)
        if isinstance(item, h5py.h5g.GroupID):
            look_into(h5py.Group(item), place, found, seen)
        elif isinstance(item, h5py.h5d.DatasetID) and (shape := item.shape):
            found.datasets[place] = Found(shape, item.dtype, here, interpretation_of(item), dims_of(h5py.Dataset(item)))


def interpretation_of(item: h5py.h5d.DatasetID) -> str:
    """What a dataset says that it is to be shown as; nothing, if it does not say."""
    if not h5py.h5a.exists(item, b"interpretation"):
        return ""
    value = h5py.Dataset(item).attrs["interpretation"]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def dims_of(dataset: h5py.Dataset) -> tuple[str, ...]:
    """The names of a dataset's dimensions, as detcal notes them; none, if another program wrote it."""
    if not h5py.h5a.exists(dataset.id, DIMS_MARK.encode()):
        return ()
    dims = tuple(map(str, dataset.attrs[DIMS_MARK]))
    return dims if len(dims) == dataset.ndim else ()


def opened(group: h5py.Group, name: bytes) -> h5py.h5g.GroupID | h5py.h5d.DatasetID | None:
    """What a name leads to, as the library has it: h5py's own objects take three times as long. None if it leads nowhere."""
    if group.id.links.get_info(name).type == h5py.h5l.TYPE_HARD:
        try:
            return h5py.h5o.open(group.id, name)
        except (KeyError, OSError):
            return None
    item = follow(group, os.fsdecode(name))
    return None if item is None else item.id


def is_copy(name: str, datasets: Mapping[str, Found]) -> bool:
    """Whether a dataset of an instrument lies in its entry once more, in the group for plots of its detector, as NeXus has it: mostly by a
    link, but some programs write it twice."""
    other = name.replace("/instrument/", "/", 1)
    return other != name and other in datasets and datasets[other].shape == datasets[name].shape


def target_of(group: h5py.Group, name: str) -> str | None:
    """What a link names; None if it is a hard one, or there is none."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink) and exists(join(dirname(group.file.filename), link.filename)):
        return f"{link.filename} (which is damaged, or has no {link.path})"
    return getattr(link, "filename", None) or getattr(link, "path", None)


def address(item: h5py.HLObject) -> tuple[str, int]:
    """What two names of one object have in common."""
    return address_of(item.id)


def address_of(item: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> tuple[str, int]:
    """As `address`, of an object as the library has it."""
    return os.fsdecode(h5py.h5f.get_name(item)), h5py.h5o.get_info(item).addr


def file_of(item: h5py.HLObject) -> str:
    """The file in which an object lies, by its name: without the object that h5py makes of it, since some have thousands of links."""
    return str(os.fsdecode(h5py.h5f.get_name(item.id)))


def find_dataset(path: str, file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of that name, or an error that says where the way to it ends."""
    found = follow(file, name)
    if not isinstance(found, h5py.Dataset):
        reason = first_gap(file, name) if found is None else "that is a group"
        there = what_is_there({place: each.shape for place, each in survey(file).datasets.items()}, path)
        raise InputError(f"no dataset {name} in {path}: {reason}; {there}")
    return found


def first_gap(file: h5py.File, name: str) -> str:
    """The first part of a name that is not there, and where it links to if it is a link."""
    parts = name.strip("/").split("/")
    places = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    place = next(place for place in places if follow(file, place) is None)
    target = target_of(file, place)
    return f"{place} is not there" if target is None else f"{place} links to {target}, which is not there"


class Members(NamedTuple):
    """A group, and the types of what lies in it, as HDF5 numbers them: to open each object, again and again, would take long."""

    group: h5py.Group
    types: dict[str, int]

    @classmethod
    def of(cls, group: h5py.Group) -> "Members":
        """Links to other files are not followed: a master file may have thousands. Names that lead nowhere are left out."""
        found = ((os.fsdecode(name), type_of(group, name)) for name in group.id)
        return cls(group, {name: kind for name, kind in found if kind is not None})

    def holds(self, name: str) -> bool:
        """Whether there is a dataset of that name, which may lead on to another group, or file."""
        kind = self.types.get(name, ELSEWHERE if "/" in name else None)
        return kind == h5py.h5o.TYPE_DATASET or (kind == ELSEWHERE and isinstance(follow(self.group, name), h5py.Dataset))

    def groups(self) -> Iterator[h5py.Group]:
        """The groups in the group."""
        return (self.group[name] for name, kind in self.types.items() if kind == h5py.h5o.TYPE_GROUP)

    def with_attribute(self, attribute: str) -> Iterator[tuple[str, h5py.Dataset]]:
        """The datasets, by their names, that have an attribute of that name."""
        for name, kind in self.types.items():
            if kind == h5py.h5o.TYPE_DATASET and h5py.h5a.exists(self.group.id, attribute.encode(), obj_name=os.fsencode(name)):
                yield name, self.group[name]

    def names_of(self, data: h5py.Dataset) -> Iterator[str]:
        """The names that lead to a dataset; of links to other files that is read off them, none is followed."""
        wanted = h5py.h5o.get_info(data.id)
        for name, kind in self.types.items():
            if kind == ELSEWHERE:
                if leads_to(self.group, name, data):
                    yield name
            elif kind == h5py.h5o.TYPE_DATASET:
                found = h5py.h5o.get_info(self.group.id, os.fsencode(name))
                if (found.fileno, found.addr) == (wanted.fileno, wanted.addr):
                    yield name


def type_of(group: h5py.Group, name: bytes) -> int | None:
    """The type of the object to which a name leads; None if it leads nowhere."""
    link = group.id.links.get_info(name).type
    if link == h5py.h5l.TYPE_EXTERNAL:
        return ELSEWHERE
    if link == h5py.h5l.TYPE_SOFT:  # which may go on to another file, as h5py alone opens them
        item = follow(group, os.fsdecode(name))
        return None if item is None else int(h5py.h5o.get_info(item.id).type)
    try:
        return int(h5py.h5o.get_info(group.id, name).type)
    except (KeyError, OSError, RuntimeError):
        return None


def leads_to(group: h5py.Group, name: str, data: h5py.Dataset) -> bool:
    """Whether a link to another file names a dataset."""
    link = group.get(name, getlink=True)
    file = join(dirname(group.file.filename), link.filename)
    return bool(link.path.strip("/") == data.name.strip("/") and realpath(file) == realpath(data.file.filename))


def groups_of_entry(file: h5py.File, dataset: str) -> Iterator[Members]:
    """The entry in which a dataset lies, and the groups in it, in its instruments and subentries; links to other files are not followed.

    Of Data Exchange the instrument too, which lies beside the data.
    """
    name = dataset.strip("/").split("/")[0]
    entry = follow(file, name)
    yield from groups_below(entry if isinstance(entry, h5py.Group) else file, ENTRY_DEPTH)
    if name == "exchange" and isinstance(instrument := follow(file, "measurement/instrument"), h5py.Group):
        yield from groups_below(instrument, ENTRY_DEPTH)


def groups_below(group: h5py.Group, depth: int) -> Iterator[Members]:
    """A group, and the groups in it, so many inside each other."""
    found = Members.of(group)
    yield found
    for inner in found.groups() if depth else ():
        yield from groups_below(inner, depth - 1)


def holds(group: Any, name: str) -> bool:
    """Whether there is a dataset of that name."""
    return isinstance(group, h5py.Group) and name in group and isinstance(follow(group, name), h5py.Dataset)
