"""The one place that writes zarr.

Each block is written by one task to whole chunks (or shards) of an array that exists already: two tasks on one chunk would
overwrite each other silently. A chunk is always written, even if it is all zero, so that its presence means that it was
computed, and ends in a checksum, so that a flipped byte is an error and not data.
"""

import json
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from detcal.errors import InputError, OutputError
from detcal.frames.stack import frames_a_block
from detcal.stores.checksums import checksum_of_metadata
from detcal.stores.targets.chunk_files import ChunkFiles
from detcal.stores.targets.replacing import remove

COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
# Spectra are smooth and mostly empty: bytes together take half the room of bits together, and an eighth of the time.
SPECTRA_COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())
LARGEST_CHUNK = 2**31  # bytes that the compressor takes at once
METADATA = "zarr.json"
CONSOLIDATED = "consolidated_metadata"  # in the metadata of a store, copies of those of all its arrays
CHECKSUM = "detcal_checksum"  # beside these copies, of all metadata of the store
NUMBERS = "biufc"  # kinds of numpy types
INCOMPLETE = "detcal_incomplete"  # attribute of a store that is being written: it goes with the last change to the store
Sizes = Mapping[str, int]
Layouts = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # sizes of a chunk, and of what a task writes, by variable


def prepare_zarr(dataset: xr.Dataset, path: Path, *, chunks: Sizes | None = None, shards: Sizes | None = None) -> dict[str, da.Array]:
    """Create a store, unless it was begun before, and return the lazy writes of its numbers, by their names; what is empty takes none.

    Coords that are not lazy, and variables of texts or times, are written at once. The store is marked as incomplete, see `complete`.

    Raises
    ------
    InputError
        Sizes of dimensions that there are not, of nothing, or shards that do not hold whole chunks.
    """
    numbers = lazy_numbers(dataset)
    layouts = plan_layouts(dataset, chunks, shards)
    blocks = {name: variable.copy(data=variable.data.rechunk(layouts[name][1])) for name, variable in numbers.items()}
    if not (path / METADATA).exists():
        begin_store(in_memory(dataset, set(numbers)).assign(empty(numbers)), path, layouts, sharded=bool(shards))
    group = zarr.open_group(path, mode="r+")
    targets = {name: ChunkFiles.of(array_in(group, name), path) for name, variable in blocks.items() if variable.size}
    return {name: lazy_writes(blocks[name].data, target, path) for name, target in targets.items()}


def empty(numbers: Mapping[str, xr.DataArray]) -> dict[str, xr.Variable]:
    """Variables in place of lazy ones, each in one block: xarray prepares a write of every block, which nobody would compute."""
    return {
        name: variable.variable.copy(data=da.empty(variable.shape, dtype=variable.dtype, chunks=-1)) for name, variable in numbers.items()
    }


def begin_store(dataset: xr.Dataset, path: Path, layouts: Layouts, *, sharded: bool) -> None:
    """A store in which all is written but what is lazy."""
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"compressors": SPECTRA_COMPRESSORS if "energy" in variable.dims else COMPRESSORS}
        | ({"_FillValue": None} if variable.dtype.kind in NUMBERS else {})  # no number but those that attributes name stands for another
        for name, variable in dataset.variables.items()
    }
    for name, (chunk, unit) in layouts.items():
        encoding[name] |= {"chunks": chunk, "shards": unit if sharded else None}
    dataset = dataset.assign_attrs({INCOMPLETE: "what writes it has not ended"})
    with ThreadPoolExecutor(1) as pool:  # which Ctrl-C waits for: zarr's own threads would write on after the store was cleared away
        pool.submit(create_store, dataset, path, encoding).result()


def complete(path: Path) -> None:
    """Commit a store: from here on it is valid. One small file is replaced, in one step, on disks as on object stores.

    Its checksum stands where others than detcal pass it over, and is not copied or kept by those that write the store's metadata anew.
    """
    metadata = json.loads((path / METADATA).read_bytes())
    metadata["attributes"].pop(INCOMPLETE, None)
    metadata[CONSOLIDATED].pop(CHECKSUM, None)
    metadata[CONSOLIDATED][CHECKSUM] = checksum_of_metadata(metadata)
    new = path / f".{METADATA}.new"
    new.write_text(json.dumps(metadata, indent=2))
    new.replace(path / METADATA)


def create_store(dataset: xr.Dataset, path: Path, encoding: Mapping[str, Mapping[str, Any]]) -> None:
    """A store with all that is in memory; the arrays of what is lazy are empty still."""
    with warnings.catch_warnings():
        # xarray warns on opening a store without consolidated metadata, zarr on writing one with it
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        with zarr.config.set({"array.write_empty_chunks": True}):
            dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=True, compute=False, encoding=encoding)


def lazy_numbers(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """The variables that hold numbers, over dask; and coords that are lazy, as a figure of each frame that is found with it."""
    coords = {name: line for name, line in dataset.coords.items() if isinstance(line.data, da.Array)}
    return {str(name): over_dask(variable) for name, variable in {**dataset, **coords}.items() if variable.dtype.kind in NUMBERS}


def plan_layouts(dataset: xr.Dataset, chunks: Sizes | None, shards: Sizes | None) -> Layouts:
    """The layout of each variable that holds numbers.

    Raises
    ------
    InputError
        As `prepare_zarr`.
    """
    check_sizes(dataset, chunks)
    check_sizes(dataset, shards)
    return {name: layout(variable, chunks, shards) for name, variable in lazy_numbers(dataset).items()}


def check_sizes(dataset: xr.Dataset, sizes: Sizes | None) -> None:
    """Refuse sizes of dimensions that no variable has, and sizes of nothing."""
    if any(dim not in dataset.dims or size < 1 for dim, size in (sizes or {}).items()):
        raise InputError(f"expected sizes of at least 1 for some of the dimensions {', '.join(map(str, dataset.dims))}, got {sizes}")


def over_dask(variable: xr.DataArray) -> xr.DataArray:
    """The variable as a dask array, one in memory in blocks along its first dimension."""
    if isinstance(variable.data, da.Array):
        return variable
    values = np.asarray(variable.data)
    sizes = (frames_a_block(values.nbytes // max(1, len(values))), *(-1,) * (values.ndim - 1)) if values.ndim else ()
    return variable.copy(data=da.from_array(values, chunks=sizes, name=False))


def in_memory(dataset: xr.Dataset, lazy: set[str]) -> xr.Dataset:
    """The dataset with all but its lazy variables computed, and texts of a type that zarr has a specification for."""
    found = {str(name): variable.compute() for name, variable in dataset.variables.items() if name not in lazy}
    texts = {name: variable.astype(object) for name, variable in found.items() if variable.dtype.kind == "U"}
    return dataset.assign(found | texts)


def layout(variable: xr.DataArray, chunks: Sizes | None, shards: Sizes | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of a chunk, and of what a task writes: a chunk too, or a shard of whole chunks.

    What is not asked for follows the largest dask block; but along a dimension that is named in `shards` alone a chunk is 1.
    """
    sizes = []
    for dim, blocks in zip(map(str, variable.dims), variable.data.chunks, strict=True):
        length, block = max(1, variable.sizes[dim]), max(1, *blocks)
        chunk = (chunks or {}).get(dim, 1 if shards and dim in shards else block)
        unit = shards.get(dim, round_up(block, chunk)) if shards else chunk
        if unit % chunk:
            raise InputError(f"expected shards of whole chunks, got {unit} and {chunk} along {dim} of {variable.name}")
        chunk = min(chunk, length)
        sizes.append((chunk, min(unit, round_up(length, chunk))))
    chunk_sizes, units = tuple(chunk for chunk, _ in sizes), tuple(unit for _, unit in sizes)
    if prod(chunk_sizes) * variable.dtype.itemsize >= LARGEST_CHUNK:
        raise InputError(f"expected chunks of less than 2 GiB, got {chunk_sizes} of {variable.dtype} for {variable.name}: give chunks=")
    return chunk_sizes, units


def round_up(size: int, part: int) -> int:
    """The next whole multiple of `part`."""
    return -(-size // part) * part


def array_in(group: zarr.Group, name: str) -> zarr.Array:
    """An array of a group."""
    return zarr.open_array(group.store_path / name, mode="r")


def lazy_writes(data: da.Array, target: ChunkFiles, store: Path) -> da.Array:
    """One task a block, each of which returns a single True: what computes them is the whole run."""
    return da.map_blocks(
        write_block, data, target=target, store=store, dtype=np.bool_, chunks=tuple((1,) * len(sizes) for sizes in data.chunks),
        meta=np.empty((0,) * data.ndim, np.bool_),
    )  # fmt: skip


def write_block(block: NDArray[Any], target: ChunkFiles, store: Path, block_id: tuple[int, ...] = ()) -> NDArray[np.bool_]:
    """Write one block to its place, one file: a chunk of the target, or a shard."""
    check_kept(store)
    try:
        target.write(block, block_id)
    finally:
        check_kept(store)
    return np.ones((1,) * block.ndim, np.bool_)


def check_kept(store: Path) -> None:
    """Clear a store away that was given up: when a run fails, its last tasks go on, and zarr makes the folders that they miss again."""
    if not (store / METADATA).exists():
        remove(store)
        raise OutputError(f"the output {store} was given up while it was written, or somebody has moved or removed it")
