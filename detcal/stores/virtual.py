"""Virtual datasets of HDF5, read from their sources one by one.

HDF5 itself would give fill values where a source, or a part of it, is not there, and decode one chunk at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from os import stat
from os.path import abspath, basename
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.stores.absence import Absence, Box, Flags, Lacks
from detcal.stores.readers import clear_errors

Lines = tuple[NDArray[np.intp], ...]  # places along each dimension, of which a part holds all combinations
UNLIMITED = h5py.h5s.UNLIMITED


@dataclass(frozen=True)
class Mapping:
    """A part of a virtual dataset, and where it is said to come from."""

    lines: Lines
    file_name: str
    name: str
    source_lines: Lines | None  # None: all of the source


@dataclass(frozen=True)
class Part:
    """A part of a virtual dataset that is there."""

    lines: Lines
    path: str
    name: str
    source_lines: Lines
    dtype: np.dtype[Any]
    absence: Absence | None  # of the source
    lacking: bool  # whether anything of it is missing

    def overlap(self, box: Box) -> tuple[Lines, Lines | None] | None:
        """The places inside a box, and the places in the source that belong to them, if it is laid out alike; None if there are none."""
        spans = [np.searchsorted(line, bounds) for line, bounds in zip(self.lines, box, strict=True)]
        if any(first == last for first, last in spans):
            return None
        inside = tuple(line[first:last] - start for line, (first, last), (start, _) in zip(self.lines, spans, box, strict=True))
        if not self.alike:
            return inside, None
        wanted = iter([slice(*span) for line, span in zip(self.lines, spans, strict=True) if len(line) > 1])
        return inside, tuple(line[next(wanted)] if len(line) > 1 else line for line in self.source_lines)

    @property
    def alike(self) -> bool:
        """Whether dimensions of the source go with those of the virtual dataset, in their order."""
        return lengths(self.lines) == lengths(self.source_lines)


def lengths(lines: Lines) -> list[int]:
    """Of all lines of more than one place."""
    return [len(line) for line in lines if len(line) > 1]


@dataclass(frozen=True)
class Virtual:
    """A virtual dataset: the parts of it that are there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: tuple[Part, ...]

    @property
    def alike(self) -> bool:
        """Whether it can be read part by part: each is laid out as here, and of the same type."""
        return all(part.alike and part.dtype == self.dtype for part in self.parts)

    def near(self, box: Box) -> Iterator[tuple[Part, Lines, Lines | None]]:
        """The parts that have something in a box, with its places there and in the source."""
        for part in self.parts:
            if part.lines[0][0] < box[0][1] and part.lines[0][-1] >= box[0][0] and (places := part.overlap(box)):
                yield part, *places

    def mask(self, box: Box) -> Flags | None:
        missing = np.ones([stop - start for start, stop in box], np.bool_)
        for part, inside, source in self.near(box):
            here = missing_of(part, source)
            missing[np.ix_(*inside)] &= here if isinstance(here, bool) else here.reshape([len(line) for line in inside])
        return missing if missing.any() else None

    def lacks(self) -> Lacks:
        """By the kinds of parts (the modules of a detector, say) that each frame has, since to look at each pixel would take long."""
        kinds: dict[Any, list[Part]] = {}
        for part in self.parts:
            kinds.setdefault(tuple(line.tobytes() for line in part.lines[1:]), []).append(part)
        there = np.zeros((len(kinds), self.shape[0]), np.bool_)
        damaged, some = np.zeros(self.shape[0], np.bool_), np.zeros(self.shape[0], np.bool_)
        for number, parts in enumerate(kinds.values()):
            for part in parts:
                whole, partly = lacks_of(part)
                there[number, part.lines[0]] |= ~whole
                some[part.lines[0]] |= ~whole
                damaged[part.lines[0]] |= partly
        planes = [parts[0].lines[1:] for parts in kinds.values()]
        present, frames = np.unique(there, axis=1, return_inverse=True)
        full = np.array([covers(self.shape[1:], [plane for plane, flag in zip(planes, flags, strict=True) if flag]) for flags in present.T])
        return Lacks(~some, some & (damaged | ~full[frames.ravel()]))


def covers(shape: tuple[int, ...], planes: list[Lines]) -> bool:
    """Whether these parts of a frame are all of it."""
    if any(all(len(line) == length for line, length in zip(lines, shape, strict=True)) for lines in planes):
        return True
    found = np.zeros(shape, np.bool_)
    for lines in planes:
        found[np.ix_(*lines)] = True
    return bool(found.all())


def missing_of(part: Part, source: Lines | None) -> Flags | bool:
    """What the source of a part lacks at these places; one that is laid out in another way lacks all or nothing."""
    if part.absence is None or source is None:
        return part.lacking
    missing = part.absence.mask(tuple((int(line[0]), int(line[-1]) + 1) for line in source))
    return False if missing is None else missing[np.ix_(*(line - line[0] for line in source))]


def lacks_of(part: Part) -> tuple[Flags, Flags]:
    """Places along the first dimension of which a part lacks everything, and something."""
    nothing = np.zeros(len(part.lines[0]), np.bool_)
    missing = missing_of(part, part.source_lines if part.alike else None)
    if isinstance(missing, bool):
        return nothing | missing, nothing
    rows = missing.reshape(len(nothing), -1)
    return rows.all(axis=1), rows.any(axis=1) & ~rows.all(axis=1)


def find_virtual(dataset: h5py.Dataset, find_absence: Callable[[h5py.Dataset], Absence | None]) -> Virtual:
    """The parts of a virtual dataset that are there now; `find_absence` says what of a source is not."""
    parts, sources = [], {}
    for mapping, path in zip(mappings_of(dataset), source_paths(dataset), strict=True):
        place = path, mapping.name
        if path is not None and place not in sources:
            sources[place] = find_source_dataset(path, mapping.name, find_absence)
        if path is None or (source := sources[place]) is None:
            continue
        all_of_it = tuple(np.arange(length) for length in source.shape)
        lines, source_lines = within(mapping.lines, mapping.source_lines or all_of_it, dataset.shape, source.shape)
        if all(map(len, (*lines, *source_lines))):
            parts.append(Part(lines, path, mapping.name, source_lines, source.dtype, source.absence, source.lacking))
    return Virtual(dataset.shape, dataset.dtype, tuple(parts))


@dataclass(frozen=True)
class Source:
    """A dataset that a virtual one takes from."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    absence: Absence | None
    lacking: bool


def find_source_dataset(path: str, name: str, find_absence: Callable[[h5py.Dataset], Absence | None]) -> Source | None:
    """A dataset in the file of a source; None if it is not there, or empty."""
    with clear_errors(path), h5py.File(path, "r") as file:
        found = follow(file, name)
        if not isinstance(found, h5py.Dataset) or not found.shape or not found.size:
            return None
        dataset = open_dataset(found.file, found.name)
        absence = find_absence(dataset)
        return Source(dataset.shape, dataset.dtype, absence, absence is not None and absence.lacks().any())


def data_files(dataset: h5py.Dataset) -> list[str]:
    """The files that hold a dataset's data, as far as they are there: its own, and the sources of a virtual one."""
    own = abspath(dataset.file.filename)
    if not dataset.is_virtual:
        return [own]
    sources = {(path, mapping.name) for path, mapping in zip(source_paths(dataset), mappings_of(dataset), strict=True) if path is not None}
    return list(dict.fromkeys([own, *(file for path, name in sorted(sources) for file in files_behind(path, name))]))


def files_behind(path: str, name: str) -> list[str]:
    """The files that hold the data of a source."""
    with clear_errors(path), h5py.File(path, "r") as file:
        found = follow(file, name)
        return data_files(found) if isinstance(found, h5py.Dataset) else [path]


def follow(group: h5py.Group, name: str) -> Any:
    """The object of that name, or None if a link on the way to it leads nowhere."""
    try:
        return group[name]
    except (KeyError, OSError):
        return None


def within(lines: Lines, source_lines: Lines, shape: tuple[int, ...], source_shape: tuple[int, ...]) -> tuple[Lines, Lines]:
    """Both sides of a mapping, without what lies behind the ends of the datasets: sources of an aborted scan are shorter."""
    if lengths(lines) != lengths(source_lines):
        return lines, source_lines
    keep = [np.flatnonzero(line < length) for line, length in zip(lines, shape, strict=True)]
    keep_source = [np.flatnonzero(line < length) for line, length in zip(source_lines, source_shape, strict=True)]
    long = [axis for axis, line in enumerate(lines) if len(line) > 1]
    long_source = [axis for axis, line in enumerate(source_lines) if len(line) > 1]
    for axis, source_axis in zip(long, long_source, strict=True):
        keep[axis] = keep_source[source_axis] = np.intersect1d(keep[axis], keep_source[source_axis])
    return tuple(map(np.take, lines, keep)), tuple(map(np.take, source_lines, keep_source))


# ---------------------------------------------------------------------------------------------- what the file says of them


def mappings_of(dataset: h5py.Dataset) -> tuple[Mapping, ...]:
    """All mappings of a virtual dataset, one for each file of those that are named by a number."""
    path = abspath(dataset.file.filename)
    return read_mappings(path, dataset.name, dataset.shape, str(stat(path).st_mtime_ns))


@lru_cache(maxsize=16)  # HDF5 takes seconds to list thousands
def read_mappings(path: str, name: str, shape: tuple[int, ...], version: str) -> tuple[Mapping, ...]:
    """The mappings of a virtual dataset as its file was in some version."""
    with clear_errors(path), h5py.File(path, "r") as file:
        return tuple(mapping for source in file[name].virtual_sources() for mapping in read_mapping(shape, source))


def read_mapping(shape: tuple[int, ...], source: Any) -> Iterator[Mapping]:
    """The mappings of one of HDF5's."""
    if "%b" in source.file_name + source.dset_name:
        yield from read_numbered(shape, source)
        return
    of_source = selections(source.src_space, source.src_space.shape)
    of_virtual = selections(source.vspace, shape)
    if len(of_source) == len(of_virtual):
        for lines, source_lines in zip(of_virtual, of_source, strict=True):
            yield Mapping(lines, source.file_name, source.dset_name, source_lines)
    else:
        yield from (Mapping(lines, source.file_name, source.dset_name, None) for lines in of_virtual)


def read_numbered(shape: tuple[int, ...], source: Any) -> Iterator[Mapping]:
    """A mapping for each number in the names of files, or of datasets."""
    start, stride, count, block = source.vspace.get_regular_hyperslab()
    axis = count.index(UNLIMITED)
    (source_lines,) = selections(source.src_space, source.src_space.shape)
    for number, first in enumerate(range(start[axis], shape[axis], stride[axis])):
        place = [*start[:axis], first, *start[axis + 1 :]], stride, [*count[:axis], 1, *count[axis + 1 :]], block
        names = (name.replace("%b", str(number)).replace("%%", "%") for name in (source.file_name, source.dset_name))
        yield Mapping(lines_of(*place, shape), *names, source_lines)


def selections(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> list[Lines | None]:
    """What is selected of a dataset; None stands for all."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return [None if not shape else tuple(np.arange(length) for length in shape)]
    if space.is_regular_hyperslab():
        return [lines_of(*space.get_regular_hyperslab(), shape)]
    corners = space.get_select_hyper_blocklist()
    return [tuple(np.arange(first, last + 1) for first, last in zip(low, high, strict=True)) for low, high in corners]


def lines_of(start: Any, stride: Any, count: Any, block: Any, shape: tuple[int, ...]) -> Lines:
    """The places of a regular selection; one without an end ends with the dataset."""
    return tuple(
        (first + step * np.arange(-(-(length - first) // step) if number == UNLIMITED else number)[:, None] + np.arange(size)).ravel()
        for first, step, number, size, length in zip(start, stride, count, block, shape, strict=True)
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


def open_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset; one over numbered files up to the last of them that is there: HDF5 would end it before the first that is not."""
    dataset = file[name]
    if not dataset.is_virtual or None not in dataset.maxshape:
        return dataset
    gap = max((largest_number(Path(file.filename).parent, source.file_name) for source in dataset.virtual_sources()), default=0)
    if not gap:
        return dataset
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_virtual_printf_gap(gap)
    return h5py.Dataset(h5py.h5d.open(dataset.file.id, dataset.name.encode(), access))


def largest_number(folder: Path, name: str) -> int:
    """The largest number of a file whose name has one in place of %b."""
    before, found, after = name.partition("%b")
    if not found:
        return 0
    place = Path(folder, before + after)
    names = (path.name for path in place.parent.iterdir()) if place.parent.is_dir() else ()
    head, tail = Path(before + "%").name[:-1], after
    numbers = [each[len(head) : len(each) - len(tail)] for each in names if each.startswith(head) and each.endswith(tail)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)
