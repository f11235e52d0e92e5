"""Virtual datasets of HDF5, read from their sources one by one.

HDF5 itself would give fill values where a source, or a part of it, is not there, and decode one chunk at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from os.path import abspath
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from detcal.stores.absence import Absence, Box, Flags, Lacks
from detcal.stores.sources.hdf5_files import file_of, follow, open_hdf5
from detcal.stores.sources.mappings import Lines, find_source, mappings_of, shape_of, source_paths, whole

MOST_NAMES = 3  # of sources in a message


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
    gone: tuple[str, ...]  # sources that are not there

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

    def lacks(self, count: int = 1) -> Lacks:
        """By the kinds of parts (the modules of a detector, say) that each frame has, since to look at each pixel would take long. Of
        several dimensions together, those of the first: of a row of a map of which frames are missing, all lack a part."""
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
        named = ", ".join(self.gone[:MOST_NAMES]) + ", …" * (len(self.gone) > MOST_NAMES)
        within = prod(self.shape[1:count])
        whole, partly = (np.repeat(flags, within) for flags in (~some, some & (damaged | ~full[frames.ravel()])))
        return Lacks(whole, partly, f"; sources that are not there: {named}" if self.gone else "")


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
    whole, some = np.asarray(rows.all(axis=1)), np.asarray(rows.any(axis=1))
    return whole, some & ~whole


def find_virtual(dataset: h5py.Dataset, find_absence: Callable[[h5py.Dataset], Absence | None]) -> Virtual:
    """The parts of a virtual dataset that are there now; `find_absence` says what of a source is not."""
    parts: list[Part] = []
    gone: list[str] = []
    sources: dict[Any, Source | None] = {}
    shape = shape_of(dataset)
    for mapping, path in zip(mappings_of(dataset), source_paths(dataset), strict=True):
        place = path, mapping.name
        if path is not None and place not in sources:
            sources[place] = find_source_dataset(path, mapping.name, find_absence)
        source = sources.get(place)
        if path is None or source is None:
            gone.append(f"{mapping.file_name}::{mapping.name}")
            continue
        if isinstance(source.absence, Virtual):
            gone.extend(source.absence.gone)
        of_source = mapping.source_lines or laid_out(mapping.lines, len(source.shape)) or whole(source.shape)
        lines, source_lines = within(mapping.lines, of_source, shape, source.shape)
        if all(map(len, (*lines, *source_lines))):
            parts.append(Part(lines, path, mapping.name, source_lines, source.dtype, source.absence, source.lacking))
    return Virtual(shape, dataset.dtype, tuple(parts), tuple(dict.fromkeys(gone)))


@dataclass(frozen=True)
class Source:
    """A dataset that a virtual one takes from."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    absence: Absence | None
    lacking: bool


def find_source_dataset(path: str, name: str, find_absence: Callable[[h5py.Dataset], Absence | None]) -> Source | None:
    """A dataset in the file of a source; None if it is not there, or empty."""
    with open_hdf5(path) as file:
        found = follow(file, name)
        if not isinstance(found, h5py.Dataset) or not found.shape or not found.size:
            return None
        absence = find_absence(found)
        return Source(shape_of(found), found.dtype, absence, absence is not None and absence.lacks().any())


def data_files(dataset: h5py.Dataset) -> list[str]:
    """The files that hold a dataset's data, as far as they are there: its own, and the sources of a virtual one."""
    own = abspath(file_of(dataset))
    if not dataset.is_virtual:
        return [own, *external_files(dataset)]
    sources = {(path, mapping.name) for path, mapping in zip(source_paths(dataset), mappings_of(dataset), strict=True) if path is not None}
    return list(dict.fromkeys([own, *(file for path, name in sorted(sources) for file in files_behind(path, name))]))


def external_files(dataset: h5py.Dataset) -> list[str]:
    """The files beside its own in which a dataset's numbers lie as they are, as far as they are there."""
    created = dataset.id.get_create_plist()
    names = [created.get_external(number)[0] for number in range(created.get_external_count())]
    places = [find_source(Path(dataset.file.filename), name.decode() if isinstance(name, bytes) else name) for name in names]
    return [place for place in places if place is not None]


def files_behind(path: str, name: str) -> list[str]:
    """The files that hold the data of a source."""
    with open_hdf5(path) as file:
        found = follow(file, name)
        return data_files(found) if isinstance(found, h5py.Dataset) else [path]


def laid_out(lines: Lines, rank: int) -> Lines | None:
    """All of a source of as many places as a part has, in its dimensions, or in those of more than one place: how many there should be,
    since a source may be shorter. None if it has others."""
    if rank == len(lines):
        return whole(tuple(map(len, lines)))
    return whole(tuple(lengths(lines))) if rank == len(lengths(lines)) else None


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
