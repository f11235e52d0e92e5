"""What an HDF5 dataset lacks: HDF5 gives fill values, mostly 0, in its place without an error."""

from functools import lru_cache
from math import prod
from os import stat
from pathlib import Path

import h5py
import numpy as np

from detcal.sizes import MOST_CHUNKS, MOST_ROWS, check_number
from detcal.stores.absence import Absence, MissingChunks, chunk_grid
from detcal.stores.sources.hdf5_files import open_hdf5
from detcal.stores.sources.mappings import find_source
from detcal.stores.sources.virtual import find_virtual


@lru_cache(maxsize=16)
def absence_of(path: str, name: str, version: str) -> Absence | None:
    """What a dataset of a file, as it was in some version, lacks; None if it is whole. A virtual dataset is always described."""
    with open_hdf5(path) as file:
        return find_absence(file[name])


def find_absence(dataset: h5py.Dataset) -> Absence | None:
    """As `absence_of`, of an open file."""
    if dataset.is_virtual:
        return find_virtual(dataset, find_absence)
    if dataset.chunks:
        return missing_chunks(dataset)
    return nothing_written(dataset) if dataset.size else None


def missing_chunks(dataset: h5py.Dataset) -> MissingChunks | None:
    """Chunks that were never written, as of a scan that was aborted."""
    grid = chunk_grid(dataset.shape, dataset.chunks)
    if dataset.id.get_num_chunks() == prod(grid):  # as is usual, and quick to find
        return None
    check_number(prod(grid), MOST_CHUNKS, "chunks", name_of(dataset))
    check_number(dataset.shape[0], MOST_ROWS, "rows", name_of(dataset))
    missing = np.ones(grid, np.bool_)

    def note(stored: h5py.h5d.StoreInfo) -> None:
        place = tuple(start // size for start, size in zip(stored.chunk_offset, dataset.chunks, strict=True))
        if all(number < count for number, count in zip(place, grid, strict=True)):
            missing[place] = False

    dataset.id.chunk_iter(note)
    return MissingChunks(dataset.shape, dataset.chunks, missing) if missing.any() else None


def name_of(dataset: h5py.Dataset) -> str:
    """What to call a dataset in an error."""
    return f"{dataset.file.filename}::{dataset.name}"


def nothing_written(dataset: h5py.Dataset) -> MissingChunks | None:
    """Of a dataset in one piece, all if it has no place in the file; of one in files beside it, the rows behind their ends."""
    created = dataset.id.get_create_plist()
    if created.get_layout() != h5py.h5d.CONTIGUOUS:
        return None
    chunks = (1, *dataset.shape[1:])[: dataset.ndim]
    rows = dataset.shape[0] if dataset.ndim else 1
    if created.get_external_count():
        check_number(rows, MOST_ROWS, "rows", name_of(dataset))
        missing = np.arange(rows) >= external_bytes(dataset) // (dataset.dtype.itemsize * prod(chunks))
    elif dataset.id.get_offset() is None:
        check_number(rows, MOST_ROWS, "rows", name_of(dataset))
        missing = np.ones(rows, np.bool_)
    else:
        return None
    grid = missing.reshape(chunk_grid(dataset.shape, chunks))
    return MissingChunks(dataset.shape, chunks, grid) if grid.any() else None


def external_bytes(dataset: h5py.Dataset) -> int:
    """Bytes of a dataset that lie in external files, up to the first that is too short."""
    created, total = dataset.id.get_create_plist(), 0
    for number in range(created.get_external_count()):
        name, offset, size = created.get_external(number)
        file = name.decode() if isinstance(name, bytes) else name
        place = find_source(Path(dataset.file.filename), file)
        there = 0 if place is None else max(0, stat(place).st_size - offset)
        total += min(there, size)
        if there < size:
            break
    return total
