"""Whole frames of a file that has them by rows, in a store beside the output while a run lasts.

Steps that need whole frames would have to read all of such a file for each block, or to hold all of it. So where that does not fit, a run
begins by copying its input: a few rows of many frames at a time, each chunk of the file once, into pieces of as many frames as a block has.
Of these pieces the run puts its blocks together, each once. The copy is removed with all else that a run leaves beside its output. A run
that goes on uses one that is whole, and makes any other again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.highlevelgraph import HighLevelGraph

from detcal.frames.stack import frames_a_block
from detcal.stores.soundness import MALFORMED
from detcal.stores.sources.zarr_data import ZarrArray
from detcal.stores.targets.replacing import remove, sync
from detcal.stores.targets.save import stored_form
from detcal.stores.targets.zarr_store import INCOMPLETE, complete, prepare_zarr
from detcal_pipelines.graph import Turns, in_stages, in_turn, windows

FRAMES = "frames"  # the name of the array in the store
COPIES = 4  # of a tile that a task holds: as it is read and decoded, in compressed pieces, and these put together


@dataclass(frozen=True)
class Copy:
    """The copying that a run begins with.

    Attributes
    ----------
    store
        Where it goes.
    frames
        What is copied, lazily, in blocks of some rows (frame, y, x).
    """

    store: Path
    frames: xr.DataArray

    @property
    def nbytes(self) -> int:
        """What it takes on the disk at most: compressed it is less."""
        return int(self.frames.nbytes)

    @property
    def blocks(self) -> int:
        """How many blocks are copied."""
        return int(self.frames.data.npartitions)

    @property
    def task_bytes(self) -> int:
        """What a task holds."""
        return COPIES * int(np.prod(self.frames.data.chunksize)) * self.frames.dtype.itemsize

    def whole(self, depth: int | None) -> xr.DataArray:
        """The frames as a run takes them from the copy, which need not be there yet: whole, so many a block."""
        length, height, width = self.frames.shape
        depth = min(length, depth or frames_a_block(self.frames.dtype.itemsize * height * width))
        stored = ZarrArray(str(self.store), FRAMES, self.frames.shape, self.frames.dtype, self.pieces(depth), uuid4().hex, lacking=False)
        blocks = da.from_array(
            stored, chunks=(depth, height, width), name=f"copied-{stored.version}", meta=np.empty((0, 0, 0), stored.dtype), asarray=False
        )
        return self.frames.copy(data=blocks)

    def make(self, depth: int, begun: int, compute: Callable[[Any, list[Any]], Any]) -> None:
        """Copy, for blocks of `depth` frames, unless it is done.

        Parameters
        ----------
        begun
            How many blocks may be begun at once.
        compute
            Computes some keys of a graph.
        """
        if self.is_made(depth):
            return
        remove(self.store)
        plain = self.frames.drop_attrs(deep=False).reset_coords(drop=True).drop_vars(list(self.frames.coords)).to_dataset(name=FRAMES)
        tile, piece = self.frames.data.chunksize, piece_of(self.frames, depth)
        shards = {"frame": -(-tile[0] // piece) * piece, "y": tile[1]}
        writes = prepare_zarr(stored_form(plain), self.store, chunks={"frame": piece, "y": tile[1]}, shards=shards)
        graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in writes.values()))
        for window in windows(graph, Turns(writes, ())):
            ends = list(window.ends)
            compute(in_turn(in_stages(window.graph, ends), begun), ends)
        sync(self.store)  # whatever becomes of the machine, where it is called whole, it is
        complete(self.store)

    def is_made(self, depth: int) -> bool:
        """Whether the copy is there and whole, of frames of this type, in pieces for such blocks."""
        try:
            group = zarr.open_group(self.store, mode="r")
            array = zarr.open_array(self.store / FRAMES, mode="r")
        except (OSError, *MALFORMED):
            return False
        as_planned = (array.dtype, array.shape, array.chunks) == (self.frames.dtype, self.frames.shape, self.pieces(depth))
        return INCOMPLETE not in group.attrs and as_planned

    def pieces(self, depth: int) -> tuple[int, int, int]:
        """Sizes of a piece."""
        return piece_of(self.frames, depth), self.frames.data.chunksize[1], self.frames.shape[2]


def piece_of(frames: xr.DataArray, depth: int) -> int:
    """Frames a piece: as many as a block has; or, where a chunk of the file does not hold all frames, a whole part of a chunk."""
    length, tile = len(frames), int(frames.data.chunksize[0])
    if tile == length:
        return min(depth, length)
    return max(size for size in range(1, min(depth, tile) + 1) if tile % size == 0)
