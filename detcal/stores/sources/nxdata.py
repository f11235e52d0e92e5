"""What NeXus says of data: which dataset is the signal of a file, and what lies along its dimensions, in old and new spellings."""

import re
from collections.abc import Iterator, Sequence
from posixpath import dirname
from typing import Any

import h5py
import numpy as np

from detcal.stores.sources.hdf5_files import Members, address, follow

INDICES = "_indices"
Dimensions = dict[str, int]  # by the name of an axis: along which dimension it lies


def texts_of(value: Any) -> list[str]:
    """The texts of an attribute: one or several, of a fixed length or not."""
    return [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in np.ravel(value).tolist()]


def names_of(value: Any) -> list[str]:
    """The names of axes, which older files write as one text: "theta:y:x", "[theta,y,x]"."""
    texts = texts_of(value)
    return [name.strip() for name in re.split("[:,]", texts[0].strip("[] "))] if len(texts) == 1 else texts


def default_signal(file: h5py.File) -> h5py.Dataset | None:
    """The dataset to which a file's @default leads; None if it does not say."""
    return signal_of(Members.of(default_group(file)))


def default_group(file: h5py.File) -> h5py.Group:
    """The group to which a file's @default leads, on from group to group, or as far as they say."""
    group: Any = file
    for _ in range(8):  # more than there are groups inside each other; @default may lead in a circle
        names = texts_of(group.attrs["default"]) if "default" in group.attrs else []
        if not names and group.name == "/":
            names = [name for name in group if is_of_class(follow(group, name), "NXentry")]
        if len(names) != 1 or not isinstance(inner := follow(group, names[0]), h5py.Group):
            break
        group = inner
    return group


def is_of_class(item: Any, *kinds: str) -> bool:
    """Whether an object is a group of one of some NeXus classes."""
    return isinstance(item, h5py.Group) and texts_of(item.attrs.get("NX_class", "")) in [[kind] for kind in kinds]


def signal_of(members: Members) -> h5py.Dataset | None:
    """The dataset that a group names as its signal, or that older files mark as such."""
    group = members.group
    named = [name for name in texts_of(group.attrs.get("signal", "")) if members.holds(name)]
    if named:
        return group[named[0]]
    marked = (item for _, item in members.with_attribute("signal") if texts_of(item.attrs["signal"]) == ["1"])
    return next(marked, None)


def axes_of(file: h5py.File, dataset: str, shape: tuple[int, ...], entry: Sequence[Members]) -> dict[str, tuple[int, h5py.Dataset]]:
    """The lines along the dimensions of a dataset, by their names, as far as they have its length: of the first group that has some."""
    seen = set()
    for members, name in places_of(file, dataset, entry):
        place = address(members.group), name
        axes = {} if place in seen else {axis: (where, members.group[axis]) for axis, where in dimensions_of(members, name, shape).items()}
        if axes:
            return axes
        seen.add(place)
    return {}


def places_of(file: h5py.File, dataset: str, entry: Sequence[Members]) -> Iterator[tuple[Members, str]]:
    """The groups in which a dataset lies, with its name there: on the way to it, behind links, and where else in its entry."""
    data, own = file[dataset], dataset.rsplit("/", 1)[-1]
    yield Members.of(file[dirname(f"/{dataset.strip('/')}")]), own
    yield Members.of(data.parent), data.name.rsplit("/", 1)[-1]
    for members in entry:
        yield from ((members, name) for name in members.names_of(data))


def dimensions_of(members: Members, name: str, shape: tuple[int, ...]) -> Dimensions:
    """Where the lines in a group lie along one of its datasets."""
    group = members.group
    attrs, own = group.attrs, group[name].attrs
    spelled = next((names_of(each["axes"]) for each in (attrs, own) if "axes" in each), [])
    wanted = dict(zip(spelled, range(len(shape)), strict=False))
    for key in attrs:
        value = attrs[key] if key.endswith(INDICES) else ()
        if np.size(value) == 1 and np.asarray(value).dtype.kind in "iu":
            wanted[key.removesuffix(INDICES)] = int(np.ravel(value)[0])
    found = {axis: place for axis, place in wanted.items() if fits(members, axis, place, shape)}
    return found or marked_axes(members, shape) or theta_of_exchange(members, shape)


def marked_axes(members: Members, shape: tuple[int, ...]) -> Dimensions:
    """Lines that say themselves, as in older files, which dimension is theirs: from 1 on, the slowest first, or last where that fits."""
    found: Dimensions = {}
    for name, item in members.with_attribute("axis"):
        mark = texts_of(item.attrs["axis"])
        if len(mark) == 1 and mark[0].strip().isdigit():
            number = int(mark[0])
            places = [place for place in (number - 1, len(shape) - number) if fits(members, name, place, shape)]
            if places and places[0] not in found.values():  # further ones are alternatives
                found[name] = places[0]
    return found


def theta_of_exchange(members: Members, shape: tuple[int, ...]) -> Dimensions:
    """The angles that lie beside the projections of Data Exchange files."""
    return {"theta": 0} if members.group.name.endswith("exchange") and fits(members, "theta", 0, shape) else {}


def fits(members: Members, name: str, place: int, shape: tuple[int, ...]) -> bool:
    """Whether there is a line of numbers of that name that is as long as a dimension."""
    if not (name and 0 <= place < len(shape) and members.holds(name)):
        return False
    line = members.group[name]
    return line.shape == (shape[place],) and line.dtype.kind in "iuf"
