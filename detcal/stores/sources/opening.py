"""The reader for files of whatever kind, one or many."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise, zip_longest
from pathlib import Path

import h5py

from detcal.errors import InputError
from detcal.stores.sources.choice import Datasets, arrays_of_frames, datasets_of_frames
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.hdf5_files import open_hdf5
from detcal.stores.sources.headers import Header
from detcal.stores.sources.image_files import ImageFilesReader
from detcal.stores.sources.joined import Joined, check_alike, join
from detcal.stores.sources.missing import MissingPart, named
from detcal.stores.sources.names import HDF5_SUFFIXES, PathOrName, find_paths, gaps_in, is_series, warn_of_several
from detcal.stores.sources.numbered import numbered
from detcal.stores.sources.readers import NpyReader, Reader
from detcal.stores.sources.series import Hdf5Series
from detcal.stores.sources.zarr_reader import ZarrReader
from detcal.stores.sources.zarr_zip import is_store


def open_reader(path: PathOrName | Sequence[PathOrName], dataset: Datasets) -> tuple[Reader, str]:
    """The reader for these files, and what to call their frames."""
    paths = find_paths(path)
    check_once(paths)
    gaps = gaps_in(paths) if is_series(path) else {}
    runs = [paths[start:stop] for start, stop in pairwise([0, *gaps, len(paths)])]
    readers, names = zip(*(open_files(run, dataset) for run in runs), strict=True)
    called = names[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]} ({len(paths)} files)"
    found = with_gaps(list(readers), [run[0] for run in runs], [*gaps.values()])
    warn_of_several(path, paths)
    return numbered(found) if is_series(path) else found, called


def check_once(paths: list[str]) -> None:
    """Refuse a file that is listed twice."""
    path, count = Counter(paths).most_common(1)[0]
    if count > 1:
        raise InputError(f"expected each file once, got {path} {count} times: leave it out of the list")


def open_files(paths: list[str], dataset: Datasets) -> tuple[Reader, str]:
    """The reader for files one after the other, and what to call the frames of one."""
    if is_image_file(paths[0]):
        return ImageFilesReader.open(tuple(paths)), paths[0]
    readers, names = zip(*one_mask(open_stack_files(paths, dataset)), strict=True)
    check_no_overlap(paths, list(readers))
    return join(list(readers), list(names)), names[0]


def open_stack_files(paths: list[str], dataset: Datasets) -> Iterator[tuple[Reader, str]]:
    """As `open_stack_file`, of several; files after the first that hold arrays alone may be damaged, as image files may."""
    first, name = open_stack_file(paths[0], dataset)
    yield first, name
    for path in paths[1:]:
        yield (first.next_in_series(path), path) if isinstance(first, NpyReader) and is_npy(path) else open_stack_file(path, dataset)


def one_mask(opened: Iterable[tuple[Reader, str]]) -> Iterator[tuple[Reader, str]]:
    """Readers of files one after the other, of which those with the same mask as the one before hold it only once."""
    last: Header | None = None
    for reader, name in opened:
        if isinstance(reader, Hdf5Reader | Hdf5Series):
            last = reader.says.sharing_mask(last)
            yield replace(reader, header=last), name
        else:
            yield reader, name


def check_no_overlap(paths: list[str], readers: list[Reader]) -> None:
    """Refuse a file that is listed beside another one that takes its frames from it, as a master file does."""
    listed = set(paths)
    for path, reader in zip(paths, readers, strict=True):
        inner = next((file for file in reader.files(0, reader.shape[0]) if file in listed and file != path), None)
        if inner is not None:
            raise InputError(f"expected each frame once, but {path} takes its own from {inner}, which is listed too: leave one of them out")


def with_gaps(readers: list[Reader], names: list[str], gaps: list[list[str]]) -> Reader:
    """Readers of files between which some are not there: these are NaN, of as many frames as the first file has."""
    if not gaps:
        return readers[0]
    check_alike(readers, names)
    first, lost = readers[0], [name for gap in gaps for name in gap]
    hint = f"; files that are not there: {named(lost)}. If none is missing, give a list of the files"
    frames = length_of_first(first)
    between = [MissingPart((len(gap) * frames, *first.shape[1:]), first.dtype, hint) for gap in gaps]
    return Joined(tuple(part for part in chain(*zip_longest(readers, between)) if part is not None))


def length_of_first(reader: Reader) -> int:
    """The frames of the first file."""
    if isinstance(reader, ImageFilesReader):
        return reader.starts[1]
    return reader.readers[0].shape[0] if isinstance(reader, Joined) else reader.shape[0]


def is_image_file(path: str) -> bool:
    """Whether a file is of a kind that image libraries read; one of HDF5 that is damaged shows only by its name."""
    suffix = Path(path).suffix.lower()
    return not (is_store(path) or h5py.is_hdf5(path) or suffix in HDF5_SUFFIXES or suffix == ".npy")


def is_npy(path: str) -> bool:
    """Whether a file is one of numpy's, by its name."""
    return Path(path).suffix.lower() == ".npy" and not h5py.is_hdf5(path)


def open_stack_file(path: str, dataset: Datasets) -> tuple[Reader, str]:
    """The reader of an HDF5 file, zarr store or .npy file, and what to call its frames."""
    store = is_store(path)
    if not store and is_npy(path):
        return NpyReader.open(path), path
    if store:
        names = arrays_of_frames(path, dataset)
        return join([ZarrReader.open(path, name) for name in names], [f"{path}::{name}" for name in names]), frames_called(path, names)
    with open_hdf5(path) as file:
        names = datasets_of_frames(path, file, dataset)
        if len(names) == 1:
            return Hdf5Reader.within(path, file, names[0]), frames_called(path, names)
        listed = dataset is not None and not isinstance(dataset, str)
        return Hdf5Series.within(path, file, names, listed=listed), frames_called(path, names)


def frames_called(path: str, names: tuple[str, ...]) -> str:
    """What to call the frames in these datasets."""
    return f"{path}::{names[0]}" + (f" … {names[-1]}" if len(names) > 1 else "")
