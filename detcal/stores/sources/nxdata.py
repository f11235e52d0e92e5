"""What NeXus says of data: which dataset is the signal of a file, and what lies along its dimensions, in old and new spellings."""

import re
from collections.abc import Iterator
from posixpath import dirname
from typing import Any

import h5py
import numpy as np

from detcal.stores.sources.hdf5_files import follow, groups_of_entry, holds, is_same, members_of

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
    """The dataset to which a file's @default leads, on from group to group; None if they do not say."""
    group: Any = file
    for _ in range(8):  # more than there are groups inside each other; @default may lead in a circle
        names = texts_of(group.attrs["default"]) if "default" in group.attrs else []
        if not names and group.name == "/":
            names = [name for name in group if is_of_class(follow(group, name), "NXentry")]
        if len(names) != 1 or not isinstance(inner := follow(group, names[0]), h5py.Group):
            break
        group = inner
    return signal_of(group)


def is_of_class(item: Any, *kinds: str) -> bool:
    """Whether an object is a group of one of some NeXus classes."""
    return isinstance(item, h5py.Group) and texts_of(item.attrs.get("NX_class", "")) in [[kind] for kind in kinds]


def signal_of(group: h5py.Group) -> h5py.Dataset | None:
    """The dataset that a group names as its signal, or that older files mark as such."""
    named = [name for name in texts_of(group.attrs.get("signal", "")) if holds(group, name)]
    if named:
        return group[named[0]]
    marked = (item for _, item in members_of(group) if isinstance(item, h5py.Dataset) and texts_of(item.attrs.get("signal", "")) == ["1"])
    return next(marked, None)


def axes_of(file: h5py.File, dataset: str, shape: tuple[int, ...]) -> dict[str, tuple[int, h5py.Dataset]]:
    """The lines along the dimensions of a dataset, by their names, as far as they have its length: of the first group that has some."""
    for group, name in places_of(file, dataset):
        axes = {axis: (place, group[axis]) for axis, place in dimensions_of(group, name, shape).items()}
        if axes:
            return axes
    return {}


def places_of(file: h5py.File, dataset: str) -> Iterator[tuple[h5py.Group, str]]:
    """The groups in which a dataset lies, with its name there: on the way to it, behind links, and where else in its entry."""
    data, own = file[dataset], dataset.rsplit("/", 1)[-1]
    yield file[dirname(f"/{dataset.strip('/')}")], own
    yield data.parent, data.name.rsplit("/", 1)[-1]
    for group in groups_of_entry(file, dataset):
        yield from ((group, name) for name in group if is_same(group, name, data))


def dimensions_of(group: h5py.Group, name: str, shape: tuple[int, ...]) -> Dimensions:
    """Where the lines in a group lie along one of its datasets."""
    attrs, own = group.attrs, group[name].attrs
    spelled = next((names_of(each["axes"]) for each in (attrs, own) if "axes" in each), [])
    wanted = dict(zip(spelled, range(len(shape)), strict=False))
    for key, value in attrs.items():
        if key.endswith(INDICES) and np.size(value) == 1 and np.asarray(value).dtype.kind in "iu":
            wanted[key.removesuffix(INDICES)] = int(np.ravel(value)[0])
    found = {axis: place for axis, place in wanted.items() if fits(group, axis, place, shape)}
    return found or marked_axes(group, shape) or theta_of_exchange(group, shape)


def marked_axes(group: h5py.Group, shape: tuple[int, ...]) -> Dimensions:
    """Lines that say themselves, as in older files, which dimension is theirs: from 1 on, the slowest first, or last where that fits."""
    found: Dimensions = {}
    for name, item in members_of(group):
        mark = texts_of(item.attrs.get("axis", "")) if isinstance(item, h5py.Dataset) else []
        if len(mark) == 1 and mark[0].strip().isdigit():
            number = int(mark[0])
            places = [place for place in (number - 1, len(shape) - number) if fits(group, name, place, shape)]
            if places and places[0] not in found.values():  # further ones are alternatives
                found[name] = places[0]
    return found


def theta_of_exchange(group: h5py.Group, shape: tuple[int, ...]) -> Dimensions:
    """The angles that lie beside the projections of Data Exchange files."""
    return {"theta": 0} if group.name.endswith("exchange") and fits(group, "theta", 0, shape) else {}


def fits(group: h5py.Group, name: str, place: int, shape: tuple[int, ...]) -> bool:
    """Whether there is a line of numbers of that name that is as long as a dimension."""
    if not (name and 0 <= place < len(shape) and holds(group, name)):
        return False
    return group[name].shape == (shape[place],) and group[name].dtype.kind in "iuf"
