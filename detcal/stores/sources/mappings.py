"""What a virtual dataset takes from which source, as HDF5 lists it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from os import stat
from os.path import abspath, basename
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.stores.sources.hdf5_files import open_hdf5

Sizes = tuple[int, ...]
Lines = tuple[NDArray[np.intp], ...]  # places along each dimension, of which a part holds all combinations
UNLIMITED = h5py.h5s.UNLIMITED


@dataclass(frozen=True)
class Mapping:
    """A part of a virtual dataset, and where it is said to come from."""

    lines: Lines
    file_name: str
    name: str
    source_lines: Lines | None  # None: all of the source


def mappings_of(dataset: h5py.Dataset) -> tuple[Mapping, ...]:
    """All mappings of a virtual dataset, one for each file of those that are named by a number."""
    path = abspath(dataset.file.filename)
    return read_mappings(path, dataset.name, shape_of(dataset), str(stat(path).st_mtime_ns))


@lru_cache(maxsize=16)  # HDF5 takes seconds to list thousands
def read_mappings(path: str, name: str, shape: tuple[int, ...], version: str) -> tuple[Mapping, ...]:
    """The mappings of a virtual dataset as its file was in some version."""
    with open_hdf5(path) as file:
        return tuple(mapping for source in file[name].virtual_sources() for mapping in read_mapping(shape, source))


def read_mapping(shape: tuple[int, ...], source: Any) -> Iterator[Mapping]:
    """The mappings of one of HDF5's."""
    names = source.file_name, source.dset_name
    if "%b" in source.file_name + source.dset_name:
        yield from read_numbered(shape, source)
        return
    of_virtual = selections(source.vspace, None, shape)
    of_source = selections(source.src_space, source.vspace, shape)
    for number, lines in enumerate(of_virtual):
        yield Mapping(lines or whole(shape), *names, of_source[number] if len(of_source) == len(of_virtual) else None)


def read_numbered(shape: tuple[int, ...], source: Any) -> Iterator[Mapping]:
    """A mapping for each number in the names of files, or of datasets."""
    start, stride, count, block = source.vspace.get_regular_hyperslab()
    axis = count.index(UNLIMITED)
    source_lines = selections(source.src_space, source.vspace, shape)[0]
    for number, first in enumerate(range(start[axis], shape[axis], stride[axis])):
        lines = lines_of((*start[:axis], first, *start[axis + 1 :]), stride, (*count[:axis], 1, *count[axis + 1 :]), block)
        file_name, name = (text.replace("%b", str(number)).replace("%%", "%") for text in (source.file_name, source.dset_name))
        yield Mapping(lines, file_name, name, source_lines)


def whole(shape: tuple[int, ...]) -> Lines:
    """All places."""
    return tuple(np.arange(length) for length in shape)


def selections(space: h5py.h5s.SpaceID, virtual: h5py.h5s.SpaceID | None, shape: tuple[int, ...]) -> list[Lines | None]:
    """What is selected, None for all; what has no end reaches as far as `virtual`, the selection in a virtual dataset of that shape."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return [None]
    if not space.is_regular_hyperslab():
        corners = space.get_select_hyper_blocklist()
        return [tuple(np.arange(first, last + 1) for first, last in zip(low, high, strict=True)) for low, high in corners]
    start, stride, count, block = space.get_regular_hyperslab()
    if UNLIMITED not in (*count, *block):
        return [lines_of(start, stride, count, block)]
    left, steps = blocks_left(space if virtual is None else virtual, shape)
    many = tuple(steps if number == UNLIMITED else number for number in count)
    return [lines_of(start, stride, many, tuple(left if size == UNLIMITED else size for size in block))]


def blocks_left(virtual: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many places, and steps, a selection without an end has in a virtual dataset of that shape."""
    start, stride, count, block = virtual.get_regular_hyperslab()
    axis = next(axis for axis, sizes in enumerate(zip(count, block, strict=True)) if UNLIMITED in sizes)
    left = max(0, shape[axis] - start[axis])
    return left, -(-left // stride[axis])


def lines_of(start: Sizes, stride: Sizes, count: Sizes, block: Sizes) -> Lines:
    """The places of a regular selection."""
    return tuple(
        (first + step * np.arange(number)[:, None] + np.arange(size)).ravel()
        for first, step, number, size in zip(start, stride, count, block, strict=True)
    )


def source_paths(dataset: h5py.Dataset) -> list[str | None]:
    """The file of each mapping; None if it is not there."""
    own = dataset.file.filename
    found = {
        name: abspath(own) if name == "." else find_source(Path(own), name) for name in {each.file_name for each in mappings_of(dataset)}
    }
    return [found[mapping.file_name] for mapping in mappings_of(dataset)]


def find_source(own: Path, name: str) -> str | None:
    """Where HDF5 finds the source of a virtual dataset: beside the file, even if it once lay elsewhere, or here."""
    places = [own.parent / name, own.parent / basename(name), own.resolve().parent / name, Path(name)]
    return next((abspath(place) for place in places if place.exists()), None)


def shape_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """The shape of a dataset; HDF5 ends one over numbered files before the first that is not there, and here it goes on to the last."""
    shape = dataset.shape
    if not dataset.is_virtual or None not in dataset.maxshape:
        return shape
    for source in dataset.virtual_sources():
        numbers = numbers_of(Path(dataset.file.filename).parent, source.file_name)
        if numbers and len(numbers) <= max(numbers):
            start, stride, count, block = source.vspace.get_regular_hyperslab()
            axis = count.index(UNLIMITED)
            end = start[axis] + max(numbers) * stride[axis] + block[axis]
            shape = (*shape[:axis], max(shape[axis], end), *shape[axis + 1 :])
    return shape


def numbers_of(folder: Path, name: str) -> set[int]:
    """The numbers of files that are there, of a name that has %b in place of a number."""
    before, _, after = Path(folder, name).name.partition("%b")
    if "%b" not in name or "%b" in after:
        return set()
    beside = Path(folder, name).parent
    names = (path.name for path in beside.iterdir()) if beside.is_dir() else ()
    found = (each[len(before) : len(each) - len(after)] for each in names if each.startswith(before) and each.endswith(after))
    return {int(number) for number in found if number.isascii() and number.isdigit()}
