"""Whether a zarr store is whole: every file of it there and as it was written, and no other; a zipped store too.

What it should hold is known from what was noted as it was written, or else from its own metadata. Every chunk ends in a checksum.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, Protocol

from detcal.errors import InputError
from detcal.stores.checksums import Seal, checksum_in, checksum_of, fault_in, seal_in
from detcal.stores.targets.chunk_files import CHUNKS
from detcal.stores.targets.zarr_store import INCOMPLETE, METADATA

MOST_CHUNKS = 2**24  # of an array: more are a damaged shape
MOST_TEXT = 2**26  # bytes of metadata
UNREADABLE = (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)  # what a damaged zip file may raise
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)  # what metadata of any content may raise
FOREIGN = "it does not belong there"
ABSENT = "it is not there"
ANOTHER = "it is another one than was written"

Metadata = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class Contents:
    """The files that a store should hold.

    Attributes
    ----------
    chunks
        How many chunks are in each file of chunks, 0 if it is one, and its seal if that was noted.
    others
        All other files, with their bytes and checksums if these were noted.
    """

    chunks: dict[str, tuple[int, Seal | None]] = field(default_factory=dict)
    others: dict[str, Seal | None] = field(default_factory=dict)


class Files(Protocol):
    """The files of a store."""

    def names(self) -> Iterable[str]:
        """All of them, as seen from the store."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """One of them, to be read."""


@dataclass(frozen=True)
class FolderFiles:
    """Those of a store in a folder; links are not followed."""

    root: Path

    def names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.root):
            links = (each for each in folders if Path(folder, each).is_symlink())
            yield from (Path(folder, each).relative_to(self.root).as_posix() for each in (*files, *links))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        path = self.root / name
        if not S_ISREG(path.lstat().st_mode):
            raise OSError("it is a link, or no plain file")
        with open(path, "rb") as file:
            yield file


@dataclass(frozen=True)
class ArchiveFiles:
    """Those of a store in a zip file."""

    archive: zipfile.ZipFile

    def names(self) -> Iterable[str]:
        return (name for name in self.archive.namelist() if not name.endswith("/"))

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return self.archive.open(name)


@contextmanager
def files_of(path: Path) -> Iterator[Files]:
    """The files of a store, in a folder or a zip file.

    Raises
    ------
    BadZipFile
        It is no zip file.
    """
    if path.is_dir():
        yield FolderFiles(path)
        return
    with zipfile.ZipFile(path) as archive:
        yield ArchiveFiles(archive)


def faults_in(files: Files, contents: Contents) -> Iterator[Fault]:
    """All that is wrong with the files of a store."""
    there = set(files.names())
    for name, (chunks, seal) in contents.chunks.items():
        reason = fault_of_chunks(files, name, chunks, seal) if name in there else ABSENT
        if reason:
            yield Fault(name, reason)
    for name, seal in contents.others.items():
        reason = fault_of_other(files, name, seal) if name in there else ABSENT
        if reason:
            yield Fault(name, reason)
    for name in sorted(there - contents.chunks.keys() - contents.others.keys()):
        yield Fault(name, FOREIGN)


def fault_of_chunks(files: Files, name: str, chunks: int, seal: Seal | None) -> str | None:
    """What is wrong with a file of chunks that is there."""
    try:
        with files.open(name) as file:
            return fault_in(file, chunks) or (ANOTHER if seal not in (None, seal_in(file, chunks)) else None)
    except UNREADABLE as error:
        return f"it cannot be read, {error}"


def fault_of_other(files: Files, name: str, seal: Seal | None) -> str | None:
    """What is wrong with another file that is there."""
    try:
        with files.open(name) as file:
            return "it is not as it was written" if seal not in (None, checksum_in(file)) else None
    except UNREADABLE as error:
        return f"it cannot be read, {error}"


def other_files(store: Path, arrays: Collection[str]) -> dict[str, Seal]:
    """Bytes and checksums of all files of a store but the chunks of some arrays."""
    chunks = {f"{name}/{CHUNKS}" for name in arrays}
    found: dict[str, Seal] = {}
    for folder, folders, files in os.walk(store):
        here = Path(folder).relative_to(store)
        folders[:] = [each for each in folders if (here / each).as_posix() not in chunks]
        names = ((here / each).as_posix() for each in files)
        found |= {name: checksum_of(store / name) for name in names if name not in chunks}
    return found


def chunk_name(array: str, place: Iterable[int]) -> str:
    """The file of a block of an array."""
    return "/".join([array, CHUNKS, *map(str, place)])


def contents_by_metadata(files: Files, path: Path) -> tuple[Contents, list[Fault]]:
    """What a store should hold by its own metadata, and what is wrong with these.

    Raises
    ------
    InputError
        A store of another program, whose chunks have no checksums.
    """
    texts = {name for name in files.names() if name == METADATA or name.endswith(f"/{METADATA}")}
    if not texts:
        raise InputError(f"expected a store that detcal wrote, got {path}, which holds no metadata")
    root, reason = read_json(files, METADATA) if METADATA in texts else (None, ABSENT)
    faults = [Fault(METADATA, reason)] if reason else []
    if root is not None:
        attributes = root.get("attributes")
        if not isinstance(attributes, Mapping) or "detcal_version" not in attributes:
            raise InputError(f"expected a store that detcal wrote, got {path}: its chunks have no checksums to check them by")
        if INCOMPLETE in attributes:
            faults.append(Fault(METADATA, "what writes the store has not ended"))
    contents = Contents(others={METADATA: None})
    arrays = arrays_of(files, root, texts, faults)
    for name, metadata in arrays.items():
        contents.others[f"{name}/{METADATA}"] = None
        try:
            contents.chunks |= {file: (inside, None) for file, inside in chunk_files(name, metadata)}
        except MALFORMED as error:
            faults.append(Fault(f"{name}/{METADATA}", f"it does not describe an array of detcal, {error}"))
    if listed_in(root) is None:  # chunks of which nothing is known may belong there
        for file in files.names():
            name, within, _ = file.partition(f"/{CHUNKS}/")
            if within and name not in arrays:
                contents.others |= {f"{name}/{METADATA}": None, file: None}
    return contents, faults


def arrays_of(files: Files, root: Metadata | None, texts: set[str], faults: list[Fault]) -> dict[str, Metadata]:
    """The metadata of all arrays: as the store lists them, or if that is lost, their own; where the two differ is noted."""
    found: dict[str, Metadata] = {}
    listed = listed_in(root)
    if root is not None and listed is None:
        faults.append(Fault(METADATA, "it does not list the arrays"))
    own_names = {text.removesuffix(f"/{METADATA}") for text in texts} - {METADATA}
    for name in sorted(own_names if listed is None else listed):
        text = f"{name}/{METADATA}"
        own, reason = read_json(files, text) if text in texts else (None, None)  # that it is not there is noticed with all files
        expected = own if listed is None else listed[name]
        if reason is None and own is not None and own != expected:
            reason = f"it does not say what {METADATA} of the store says of {name}"
        if reason:
            faults.append(Fault(text, reason))
        if expected is not None:
            found[name] = expected
    return found


def listed_in(root: Metadata | None) -> dict[str, Metadata] | None:
    """The arrays that the metadata of a store list; None if they list nothing."""
    try:
        return dict(root["consolidated_metadata"]["metadata"]) if root is not None else None
    except MALFORMED:
        return None


def read_json(files: Files, name: str) -> tuple[Metadata | None, str | None]:
    """What a file of metadata says, and what is wrong with it."""
    try:
        with files.open(name) as file:
            text = file.read(MOST_TEXT)
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, f"it is no JSON, {error}"
    except UNREADABLE as error:
        return None, f"it cannot be read, {error}"
    return (found, None) if isinstance(found, dict) else (None, "it is no table of metadata")


def chunk_files(name: str, metadata: Metadata) -> Iterator[tuple[str, int]]:
    """The files of an array's chunks, and how many chunks are in each, 0 if it is one."""
    shape, units = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [-(-int(length) // int(unit)) for length, unit in zip(shape, units, strict=True)]
    first, codecs, inside = metadata["codecs"][0], metadata["codecs"], 0
    if first["name"] == "sharding_indexed":
        inner, codecs = first["configuration"]["chunk_shape"], first["configuration"]["codecs"]
        inside = prod(int(unit) // int(size) for unit, size in zip(units, inner, strict=True))
    if codecs[-1]["name"] != "crc32c":
        raise ValueError("its chunks have no checksums")
    if prod(grid) > MOST_CHUNKS:
        raise ValueError(f"it claims {prod(grid)} chunks")
    return ((chunk_name(name, place), inside) for place in product(*map(range, grid)))
