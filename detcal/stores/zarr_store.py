"""The one place that writes zarr.

Each block is written by one task to whole chunks (or shards) of an array that exists already: two tasks on one chunk would
overwrite each other silently. A chunk is always written, even if it is all zero, so that its presence means that it was
computed, and ends in a checksum, so that a flipped byte is an error and not data.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from detcal.errors import InputError

COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle), Crc32cCodec())


def prepare_zarr(
    dataset: xr.Dataset, path: Path, *, chunks: Mapping[str, int] | None = None, shards: Mapping[str, int] | None = None
) -> list[da.Array]:
    """Create a store and return the lazy writes of its blocks; coords and arrays in memory are written at once."""
    dataset = dataset.map(lambda variable: with_blocks(variable, shards or chunks), keep_attrs=True)
    encoding = {str(name): layout(variable, chunks, shards) for name, variable in dataset.items()}
    with warnings.catch_warnings():
        # xarray warns on opening a store without consolidated metadata, zarr on writing one with it
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=True, compute=False, encoding=encoding)
    group = zarr.open_group(path, mode="r+")
    return [lazy_writes(variable.data, open_array(group, str(name))) for name, variable in dataset.items()]


def with_blocks(variable: xr.DataArray, wanted: Mapping[str, int] | None) -> xr.DataArray:
    """The variable over dask, in the blocks wanted or else its own, each dimension in equal blocks but for the last."""
    data = variable.data if isinstance(variable.data, da.Array) else da.from_array(np.asarray(variable.data), chunks=-1)
    equal = [
        min(int((wanted or {}).get(str(dim), max(sizes))), max(1, length))
        for dim, sizes, length in zip(variable.dims, data.chunks, data.shape, strict=True)
    ]
    return variable.copy(data=data.rechunk(tuple(equal)))


def layout(variable: xr.DataArray, chunks: Mapping[str, int] | None, shards: Mapping[str, int] | None) -> dict[str, Any]:
    """Chunks, shards and codecs for xarray's writer."""
    block = variable.data.chunksize
    if shards is None:
        return {"chunks": block, "compressors": COMPRESSORS}
    inner = tuple(
        min(size, (chunks or {}).get(str(dim), 1 if str(dim) in shards else size)) for dim, size in zip(variable.dims, block, strict=True)
    )
    if any(size % part for size, part in zip(block, inner, strict=True)):
        raise InputError(f"expected shards of whole chunks, got shards {block} of chunks {inner} for {variable.name}")
    return {"chunks": inner, "shards": block, "compressors": COMPRESSORS}


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """An array of the group that also writes chunks of fill values."""
    return zarr.open_array(group.store_path / name, mode="r+", config={"write_empty_chunks": True})


def lazy_writes(data: da.Array, target: zarr.Array) -> da.Array:
    """One task a block, each of which returns a single True: what computes them is the whole run."""
    return da.map_blocks(
        write_block, data, target=target, dtype=np.bool_, chunks=tuple((1,) * len(sizes) for sizes in data.chunks),
        meta=np.empty((0,) * data.ndim, np.bool_),
    )  # fmt: skip


def write_block(block: NDArray[Any], target: zarr.Array, block_info: Any = None) -> NDArray[np.bool_]:
    """Write one block to its place, which must be whole chunks of the target."""
    region = tuple(slice(start, stop) for start, stop in block_info[0]["array-location"])
    unit = target.shards or target.chunks
    for part, size, length in zip(region, unit, target.shape, strict=True):
        if part.start % size or (part.stop % size and part.stop != length):
            raise InputError(f"cannot write {region}: it cuts through the chunks {unit} of {target.path}")
    target[region] = block
    return np.ones((1,) * block.ndim, np.bool_)
