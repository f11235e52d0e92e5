"""The numbers of zarr arrays: what is missing becomes NaN, or an error, and not the fill value that zarr gives.

Stores that detcal writes hold every chunk. Other programs may leave out chunks of nothing but the fill value, as zarr does by default:
whether such a chunk was all 0, or was lost, nobody can tell, so that it is missing here too.
"""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import product, takewhile
from math import prod
from os import listdir, stat
from os.path import basename, dirname, isdir, join
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import FsspecStore, ZipStore

from detcal.errors import InputError
from detcal.sizes import MOST_CHUNKS, MOST_ROWS, check_number
from detcal.stores.absence import Absence, Box, Flags, Lacks, MissingChunks, chunk_grid, spread, with_nan
from detcal.stores.checksums import ABSENT, CRC_BYTES, INDEX_ENTRY, checksum_of_metadata
from detcal.stores.indexing import box_around, take
from detcal.stores.sources.dimensions import what_is_there
from detcal.stores.sources.readers import check_readable, clear_errors, fingerprint
from detcal.stores.sources.urls import Remote, is_url, version_of_url
from detcal.stores.sources.zarr_zip import is_zip, zarr_place
from detcal.stores.targets.zarr_store import CHECKSUM, CONSOLIDATED, INCOMPLETE, METADATA, NUMBERS

FEW = 16  # files in one folder that are rather asked for one by one than listed
LEFT_OUT = (
    " (by default zarr leaves out chunks that hold nothing but the fill value {fill}: if these were, use fillna({fill}), or have the"
    " program write them, with write_empty_chunks)"
)


@dataclass(frozen=True)
class ZarrArray:
    """An array of a zarr store as dask takes it; it holds a path and no open store, so that it can be sent to any worker.

    What is missing when it is opened is NaN: then the type is one that has it.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    version: str
    lacking: bool  # whether something is missing

    @classmethod
    def open(cls, path: str, name: str) -> "ZarrArray":
        """An array by its name in a store, the store itself if that is empty.

        Raises
        ------
        InputError
            There is none, it is damaged, or the store is not whole yet.
        """
        check_complete(path)
        check_metadata(path, name)
        with clear_errors(path):
            version = version_of(path, name)
            try:
                array = opened(path, name, version)
            except FileNotFoundError:
                raise InputError(f"no array {name or '/'} in {path}: {what_is_there(shapes_in(path), path)}") from None
            check_number(prod(chunk_grid(array.shape, array.chunks)), MOST_CHUNKS, "chunks", f"{path}::{name}")
            lacking = array.dtype.kind in NUMBERS and bool(missing_chunks(array, tuple((0, length) for length in array.shape)).any())
            if lacking and array.shape:
                check_number(array.shape[0], MOST_ROWS, "rows", f"{path}::{name}")
        dtype = with_nan(array.dtype) if lacking else array.dtype
        return cls(path, name, array.shape, dtype, array.chunks, version, lacking)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def lacks(self) -> Lacks | None:
        """What is missing along the first dimension; None if nothing is."""
        return self.lacks_along((0,) if self.ndim else ())

    @property
    def absence(self) -> Absence | None:
        """Where something is missing; None if nothing is."""
        if not self.lacking:
            return None
        with clear_errors(self.path):
            grid = missing_chunks(opened(self.path, self.name, self.version), tuple((0, length) for length in self.shape))
        return MissingChunks(self.shape, self.chunks, grid)

    def files(self, start: int, stop: int) -> list[str]:
        """The files of some rows."""
        return [self.path, *self.metadata_files()]

    def lacks_along(self, axes: tuple[int, ...]) -> Lacks | None:
        """What is missing along some dimensions, taken together in their order; None if nothing is."""
        if not self.lacking:
            return None
        with clear_errors(self.path):
            array = opened(self.path, self.name, self.version)
            grid = missing_chunks(array, tuple((0, length) for length in self.shape))
            hint = "" if self.of_detcal else LEFT_OUT.format(fill=array.fill_value)
        rows = np.moveaxis(grid, axes, range(len(axes))).reshape(*(grid.shape[axis] for axis in axes), -1)
        whole, some = (self.stretched(np.asarray(flags), axes) for flags in (rows.all(axis=-1), rows.any(axis=-1)))
        return Lacks(whole, some & ~whole, hint)

    def stretched(self, flags: Flags, axes: tuple[int, ...]) -> Flags:
        """Flags of chunks along some dimensions as those of all places there."""
        for place, axis in enumerate(axes):
            flags = np.repeat(flags, self.chunks[axis], axis=place).take(range(self.shape[axis]), axis=place)
        return np.ravel(flags)

    @property
    def of_detcal(self) -> bool:
        """Whether detcal wrote the store, with every chunk."""
        return "detcal_version" in attributes_of(self.path)

    def metadata_files(self) -> list[str]:
        """What `save` writes anew with the array; a zip file has none apart."""
        return [str(file) for file in metadata_files(Path(self.path, self.name))]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        box, inside = box_around(key, self.shape)
        with clear_errors(self.path, self.name or "the array"):
            array = opened(self.path, self.name, self.version)
            grid = missing_chunks(array, box) if array.dtype.kind in NUMBERS else np.zeros((), np.bool_)
            missing = spread(grid, box, self.chunks) if grid.any() else None
            if missing is not None and not self.lacking:
                check_readable(self.path)
                raise InputError(
                    f"cannot read {self.name or 'the array'} in {self.path}: {np.count_nonzero(grid)} chunks are not there, and were when"
                    " it was opened; open it again, or copy it again"
                )
            values = np.asarray(array[tuple(slice(*bounds) for bounds in box)]).astype(self.dtype, copy=False)
        if missing is not None:
            values[missing] = np.nan
        return take(values, inside)


def shapes_in(path: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in a store, by their names; of one that is a single array, its own."""
    node = zarr.open(zarr_place(path), mode="r")
    members = [("/", node)] if isinstance(node, zarr.Array) else node.members(max_depth=None)
    return {name: member.shape for name, member in members if isinstance(member, zarr.Array)}


def check_complete(path: str) -> None:
    """Refuse a store that is still being written, or whose writer broke off; a group or array inside one too.

    Raises
    ------
    InputError
        With what to do.
    """
    around = [] if is_url(path) else takewhile(lambda folder: (folder / METADATA).is_file(), Path(path).parents)
    with clear_errors(path):
        if any(INCOMPLETE in attributes_of(store) for store in (path, *map(str, around))):
            raise InputError(f"{path} is not whole: what writes it has not ended; wait for it, or run it again if it broke off")


def check_metadata(path: str, name: str) -> None:
    """Refuse a store that detcal wrote if what it says of itself, or of an array, has changed; of others nobody knows.

    Raises
    ------
    InputError
        With what to do.
    """
    if is_zip(Path(path)) or not Path(path, METADATA).is_file():  # zip files have checksums of their own
        return
    with clear_errors(path):
        metadata = json.loads(Path(path, METADATA).read_bytes())
        listed = metadata.get(CONSOLIDATED) or {}
        noted = listed.pop(CHECKSUM, None)
        if noted is None:
            return
        if noted != checksum_of_metadata(metadata):
            raise InputError(f"{path} is damaged: its {METADATA} is not as it was written; copy or write it again")
        own, known = Path(path, name, METADATA), listed["metadata"].get(name)
        if known is not None and own.is_file() and json.loads(own.read_bytes()) != known:
            raise InputError(
                f"{path} is damaged: {name}/{METADATA} does not say what the store says of {name}; copy or write it again, or, if it was"
                " changed on purpose, call zarr.consolidate_metadata of the store"
            )


def attributes_of(path: str | Path) -> dict[str, Any]:
    """The attributes of a store; none of what is no group."""
    try:
        return dict(zarr.open_group(zarr_place(path), mode="r").attrs)
    except (FileNotFoundError, zarr.errors.ContainsArrayError):
        return {}


def version_of(path: str, name: str) -> str:
    """What changes when an array is written anew: `save` replaces the whole folder; to look at every chunk would take long."""
    if is_url(path):
        return version_of_url(path, name)
    folder = Path(path) if is_zip(Path(path)) else Path(path, name)
    return fingerprint(str(file) for file in (folder, *metadata_files(folder))) if folder.exists() else ""


def metadata_files(folder: Path) -> list[Path]:
    """The file that says what an array is, in its folder."""
    return [file for kind in ("zarr.json", ".zarray") if (file := folder / kind).is_file()]


@lru_cache(maxsize=64)
def opened(path: str, name: str, version: str) -> zarr.Array:
    """An array as it was in some version."""
    found = zarr.open(zarr_place(path), path=name, mode="r")
    if not isinstance(found, zarr.Array):
        raise FileNotFoundError
    return found


def missing_chunks(array: zarr.Array, box: Box) -> Flags:
    """Which of the chunks that have something in a box are not there, those inside shards too."""
    units = array.shards or array.chunks
    spans = [range(start // size, -(-stop // size)) for (start, stop), size in zip(box, units, strict=True)]
    if not all(spans):
        return np.zeros([len(span) for span in spans], np.bool_)
    store = files_of(array.store_path.store)
    prefix = f"{array.path}/" if array.path else ""
    keys = [prefix + array.metadata.encode_chunk_key(place) for place in product(*spans)]
    there = store.holds(keys)
    counts = [len(span) for span in spans]
    flags = np.array([not found for found in there], np.bool_)
    codec = getattr(array.metadata, "codecs", (None,))[0]
    if array.shards is None or not isinstance(codec, ShardingCodec):
        return flags.reshape(counts)
    inside = chunk_grid(array.shards, array.chunks)
    in_shards = np.array(
        [np.ones(inside, np.bool_) if gone else missing_in_shard(codec, store, key, inside) for key, gone in zip(keys, flags, strict=True)]
    )
    return in_box(in_shards.reshape(*counts, *inside), box, array.shards, array.chunks)


def in_box(flags: Flags, box: Box, shards: tuple[int, ...], chunks: tuple[int, ...]) -> Flags:
    """Flags of chunks, from those by shard, and by chunk in it, of the shards that have something in a box."""
    rank = len(box)
    order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
    grid = flags.transpose(order).reshape([flags.shape[axis] * flags.shape[rank + axis] for axis in range(rank)])
    firsts = [start // shard * (shard // chunk) for (start, _), shard, chunk in zip(box, shards, chunks, strict=True)]
    wanted = ((start // chunk, -(-stop // chunk)) for (start, stop), chunk in zip(box, chunks, strict=True))
    return np.asarray(grid[tuple(slice(first - before, last - before) for (first, last), before in zip(wanted, firsts, strict=True))])


def missing_in_shard(codec: ShardingCodec, store: "Folder | Archive | Remote", key: str, inside: tuple[int, ...]) -> Flags:
    """Which chunks the index of a shard does not have; none if its index is packed in an unusual way, as zarr itself never does."""
    first, *others = codec.index_codecs
    if not isinstance(first, BytesCodec) or any(not isinstance(other, Crc32cCodec) for other in others):
        return np.zeros(inside, np.bool_)
    size = INDEX_ENTRY * prod(inside)
    at_start = word(codec.index_location) == "start"
    index = store.part(key, size + CRC_BYTES * len(others), at_start=at_start)[:size]
    if len(index) < size:  # of which zarr makes fill values if nothing is left
        raise InputError(f"the shard {key} in {store.path} is cut short: copy or write it again")
    order = ">" if word(first.endian) == "big" else "<"
    return (np.frombuffer(index, f"{order}u8").reshape(*inside, 2) == ABSENT).all(axis=-1)


def word(option: Any) -> str:
    """An option of a codec: a word, or before zarr 3.4 a member of an enumeration."""
    return str(getattr(option, "value", option))


def files_of(store: Any) -> "Folder | Archive | Remote":
    """The files of a store, which zarr itself can only list all at once."""
    if isinstance(store, FsspecStore):
        return Remote(store)
    return Archive(store.path) if isinstance(store, ZipStore) else Folder(store.root)


@dataclass(frozen=True)
class Folder:
    """The files of a store in a folder."""

    path: Path

    def holds(self, keys: list[str]) -> list[bool]:
        """Whether each of these is there; folders with many are listed."""
        places = [join(self.path, key) for key in keys]
        counts = Counter(map(dirname, places))
        names = {folder: set(listdir(folder) if isdir(folder) else ()) for folder, count in counts.items() if count > FEW}
        return [basename(place) in names[dirname(place)] if dirname(place) in names else is_there(place) for place in places]

    def part(self, key: str, size: int, *, at_start: bool) -> bytes:
        """The first or last bytes of a file."""
        with open(join(self.path, key), "rb") as file:
            if not at_start:
                file.seek(max(0, file.seek(0, 2) - size))
            return file.read(size)


def is_there(place: str) -> bool:
    """Whether there is a file; one that may not be looked at is an error, and not missing."""
    try:
        stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@dataclass(frozen=True)
class Archive:
    """The files of a store in a zip file."""

    path: Path

    def holds(self, keys: list[str]) -> list[bool]:
        """Whether each of these is there."""
        names = names_in(str(self.path), fingerprint([str(self.path)]))
        return [key in names for key in keys]

    def part(self, key: str, size: int, *, at_start: bool) -> bytes:
        """The first or last bytes of a file."""
        with zipfile.ZipFile(self.path) as archive, archive.open(key) as file:
            if not at_start:
                file.seek(max(0, file.seek(0, 2) - size))
            return file.read(size)


@lru_cache(maxsize=16)
def names_in(path: str, version: str) -> frozenset[str]:
    """The files in a zip file as it was in some version."""
    with zipfile.ZipFile(path) as archive:
        return frozenset(archive.namelist())
