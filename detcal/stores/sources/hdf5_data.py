"""The numbers of HDF5 datasets: what is missing becomes NaN, and what HDF5 would decode under its lock is decoded outside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from os.path import abspath
from typing import Any, NamedTuple

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that detectors write with
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.spare import reused
from detcal.stores.absence import Absence, Box, Flags, Lacks, check_whole, warn_of, with_nan
from detcal.stores.indexing import box_around, take
from detcal.stores.sources.filters import Pipeline, Undecodable, pipeline_of
from detcal.stores.sources.hdf5_absence import absence_of, find_absence
from detcal.stores.sources.hdf5_files import as_it_is_written, file_of
from detcal.stores.sources.mappings import Lines, shape_of
from detcal.stores.sources.readers import check_readable, clear_errors, fingerprint
from detcal.stores.sources.virtual import Virtual, data_files

Values = NDArray[Any]


@dataclass(frozen=True)
class Hdf5Array:
    """A dataset of an HDF5 file as dask takes it; it holds a path and no open file, so that it can be sent to any worker.

    What the file lacks is NaN: then the type is one that has it.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: str
    lacking: bool  # whether something is missing
    virtual: bool
    recorded: np.dtype[Any]  # as it is in the file

    @classmethod
    def of(cls, stored: h5py.Dataset) -> "Hdf5Array":
        """A dataset of an open file; behind a link it lies in another one."""
        path, version = abspath(file_of(stored)), fingerprint(data_files(stored))
        # a virtual one takes long to look through, and is described once; else the file, which is open, is not opened again
        absence = absence_of(path, stored.name, version) if stored.is_virtual else find_absence(stored)
        lacking = absence is not None and absence.lacks().any()
        dtype = with_nan(stored.dtype) if lacking else stored.dtype
        return cls(path, stored.name, shape_of(stored), dtype, version, lacking, stored.is_virtual, stored.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def absence(self) -> Absence | None:
        """What is missing; of a virtual dataset, also where its parts are."""
        return absence_of(self.path, self.name, self.version) if self.lacking or self.virtual else None

    @property
    def lacks(self) -> Lacks | None:
        """What is missing along the first dimension; None if nothing is."""
        return self.lacks_along(1)

    def lacks_along(self, count: int) -> Lacks | None:
        """What is missing along so many of the first dimensions, taken together; None if nothing is."""
        return self.absence.lacks(count) if self.lacking and self.absence else None

    def lacks_across(self, axes: tuple[int, ...]) -> Lacks | None:
        """What is missing along some dimensions, taken together in their order; None if nothing is."""
        missing = self.absence.mask(tuple((0, length) for length in self.shape)) if self.lacking and self.absence else None
        if missing is None:
            return None
        rows = np.moveaxis(missing, axes, range(len(axes))).reshape(prod(self.shape[axis] for axis in axes), -1)
        whole, some = (np.asarray(flags) for flags in (rows.all(axis=1), rows.any(axis=1)))
        return Lacks(whole, some & ~whole)

    def files(self, start: int, stop: int) -> list[str]:
        """The files of some rows: of a virtual dataset, also those of its parts there, which hold the numbers and come first."""
        rows = ((start, stop), *((0, length) for length in self.shape[1:]))
        return list(dict.fromkeys([*files_of_parts(self.absence, rows), self.path]))

    def __getitem__(self, key: Any) -> Values:
        box, inside = box_around(key, self.shape)
        return take(read_box(self.path, self.name, box, self.dtype, self.absence), inside)


def files_of_parts(absence: Absence | None, box: Box) -> Iterator[str]:
    """The files of the parts of a virtual dataset that have something in a box."""
    if isinstance(absence, Virtual):
        for part, _, source in absence.near(box):
            if source is not None:
                yield from files_of_parts(part.absence, tuple((int(line[0]), int(line[-1]) + 1) for line in source))
            yield part.path


class Stored(NamedTuple):
    """All numbers of a dataset, NaN where they are missing, and what is missing along the first dimension; None if nothing is."""

    path: str
    name: str
    numbers: Values
    lacks: Lacks | None

    @classmethod
    def of(cls, stored: h5py.Dataset) -> "Stored":
        """Those of a dataset of an open file, which is not opened again."""
        path, shape = abspath(file_of(stored)), shape_of(stored)
        if stored.is_virtual:
            array = Hdf5Array.of(stored)
            return cls(path, stored.name, array[...], array.lacks)
        absence = find_absence(stored)
        lacks = absence.lacks() if absence else None
        with clear_errors(path, stored.name):
            numbers = read_open(stored, tuple((0, length) for length in shape), with_nan(stored.dtype) if lacks else stored.dtype, absence)
        return cls(path, stored.name, numbers, lacks)

    def whole(self) -> Values:
        """The numbers, on which a result rests.

        Raises
        ------
        InputError
            Some of them are missing.
        """
        check_whole(self.path, {self.name: self.lacks} if self.lacks else {})
        return self.numbers


def values_of(stored: h5py.Dataset) -> Values:
    """All numbers of a dataset of an open file: NaN, with a warning, where they are missing."""
    found = Stored.of(stored)
    if found.lacks:
        warn_of(f"{found.path}::{found.name}", {"": found.lacks}, "values" if stored.ndim < 2 else "rows", stacklevel=2)
    return found.numbers


def whole_values(stored: h5py.Dataset) -> Values:
    """All numbers of a dataset of an open file, on which a result rests.

    Raises
    ------
    InputError
        Some of them are missing.
    """
    return Stored.of(stored).whole()


def read_box(path: str, name: str, box: Box, dtype: np.dtype[Any], absence: Absence | None) -> Values:
    """A part of a dataset.

    Raises
    ------
    InputError
        A damaged file, or chunks that are not there, though they were when it was opened.
    """
    if isinstance(absence, Virtual) and absence.alike:
        return read_parts(absence, box, dtype)
    if isinstance(absence, Virtual):
        for part, *_ in absence.near(box):  # HDF5 would not say that one is not there
            check_readable(part.path)
    with clear_errors(path, name), as_it_is_written(path) as file:
        return read_open(file[name], box, dtype, absence)


def read_open(dataset: h5py.Dataset, box: Box, dtype: np.dtype[Any], absence: Absence | None) -> Values:
    """As `read_box`, of an open file."""
    pipeline = pipeline_of(dataset)
    if pipeline is not None:
        return read_chunks(dataset, pipeline, box, dtype, lacking=absence is not None)
    missing = None if absence is None else absence.mask(box)
    values = np.asarray(dataset[slices_of(box)]) if missing is None else what_is_there(dataset, box, dtype, missing)
    if values.shape != tuple(stop - start for start, stop in box):
        place = f"{dataset.name} in {file_of(dataset)}"
        raise InputError(f"cannot read {place}: it is shorter than when it was opened, or HDF5 cannot read all of it")
    return values.astype(dtype, copy=False)


def what_is_there(dataset: h5py.Dataset, box: Box, dtype: np.dtype[Any], missing: Flags) -> Values:
    """A part of a dataset, NaN where it is missing. Rows of nothing else are not read: HDF5 refuses those of files that are gone."""
    found = np.full(missing.shape, np.nan, dtype)
    if missing.all():
        return found
    rows = np.flatnonzero(~missing.reshape(len(missing), -1).all(axis=1))
    first, last = int(rows[0]), int(rows[-1]) + 1
    start = box[0][0]
    found[first:last] = dataset[slices_of(((start + first, start + last), *box[1:]))]
    found[missing] = np.nan
    return found


def slices_of(box: Box) -> tuple[slice, ...]:
    """A part as an index."""
    return tuple(slice(*bounds) for bounds in box)


def read_parts(virtual: Virtual, box: Box, dtype: np.dtype[Any]) -> Values:
    """A part of a virtual dataset, from its sources: NaN where there is none."""
    found = np.empty([stop - start for start, stop in box], dtype)
    if dtype.kind in "fc":
        found[...] = np.nan
    for part, inside, source in virtual.near(box):
        assert source is not None  # since it is laid out as here
        bounds = tuple((int(line[0]), int(line[-1]) + 1) for line in source)
        of_part = with_nan(part.dtype) if part.lacking else part.dtype
        values = read_box(part.path, part.name, bounds, of_part, part.absence)
        wanted = values[at(tuple(line - line[0] for line in source))]
        found[at(inside)] = wanted.reshape([len(line) for line in inside])
    return found


def at(lines: Lines) -> Any:
    """The index of all combinations of places: slices, which numpy is quick at, if they are regular."""
    steps = [line[1] - line[0] if len(line) > 1 else 1 for line in lines]
    if all(step > 0 and (np.diff(line) == step).all() for line, step in zip(lines, steps, strict=True)):
        return tuple(slice(line[0], line[-1] + 1, step) for line, step in zip(lines, steps, strict=True))
    return np.ix_(*lines)


def read_chunks(dataset: h5py.Dataset, pipeline: Pipeline, box: Box, dtype: np.dtype[Any], *, lacking: bool) -> Values:
    """A part of a dataset whose chunks are decoded here, one after the other."""
    found = reused(tuple(stop - start for start, stop in box), dtype)
    scratch_bytes = prod(dataset.chunks) * dataset.dtype.itemsize
    scratch: Values | None = None  # for chunks that are not whole in what is wanted
    for corner in product(*(range(start - start % size, stop, size) for (start, stop), size in zip(box, dataset.chunks, strict=True))):
        spans = [
            (max(start, place), min(stop, place + size)) for place, size, (start, stop) in zip(corner, dataset.chunks, box, strict=True)
        ]
        part = found[tuple(slice(first - start, last - start) for (first, last), (start, _) in zip(spans, box, strict=True))]
        chunk = raw_chunk(dataset, corner)
        if chunk is None and not lacking:
            raise InputError(f"cannot read {place_of(dataset, spans)}: it is not there, and was when the file was opened; open it again")
        if chunk is None:
            part[...] = np.nan
            continue
        whole = part.shape == dataset.chunks and part.flags.c_contiguous and part.dtype == dataset.dtype
        if not whole and scratch is None:
            scratch = np.empty(dataset.chunks, dataset.dtype)
        target = part if whole or scratch is None else scratch
        try:
            pipeline.decode(*chunk, target.reshape(-1).view(np.uint8))
        except Undecodable:
            if len(chunk[0]) != scratch_bytes or not is_at_edge(dataset, corner):
                raise InputError(
                    f"cannot read {place_of(dataset, spans)}: it does not decompress; the file is damaged, copy it again"
                ) from None
            part[...] = dataset[tuple(slice(*span) for span in spans)]  # a file may leave chunks at its edges as they are
            continue
        if target is scratch:
            part[...] = scratch[tuple(slice(first - place, last - place) for (first, last), place in zip(spans, corner, strict=True))]
    return found


def raw_chunk(dataset: h5py.Dataset, corner: tuple[int, ...]) -> tuple[bytes, int] | None:
    """A chunk as it lies in the file, and which filters it did not go through; None if it is not there."""
    try:
        skipped, chunk = dataset.id.read_direct_chunk(corner)
    except RuntimeError:
        if dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:  # which takes long, so that it is not asked before
            return None
        raise
    return chunk, skipped


def is_at_edge(dataset: h5py.Dataset, corner: tuple[int, ...]) -> bool:
    """Whether a chunk reaches beyond the end of the dataset."""
    return any(place + size > length for place, size, length in zip(corner, dataset.chunks, dataset.shape, strict=True))


def place_of(dataset: h5py.Dataset, spans: list[tuple[int, int]]) -> str:
    """What to call the chunk of some frames, or of rows."""
    first, last = spans[0][0], spans[0][1] - 1
    unit = "frame" if dataset.ndim == 3 else "row"  # of a map, its first dimension
    return f"the chunk of {unit} {first}" + (f" to {last}" if last > first else "") + f" in {dataset.file.filename}::{dataset.name}"
