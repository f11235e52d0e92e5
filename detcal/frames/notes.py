"""What results note: blocks of their frames, which become coordinates; and attributes that files keep for the next step."""

from collections.abc import Mapping
from operator import itemgetter

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

RESIZED = "resized"  # attribute: a list of how frames were cropped and rebinned, in this order, and of which shape they were before
REGION = "region"  # attribute: which part of the frames before was taken
# Attributes that say what was done to frames, beside what was corrected: later steps, and people, need them
KEPT = (RESIZED, "resized_alike", REGION, "binning", "fill", "flats", "normalized_by", "precision", "rounded_to")


def with_notes(pairs: xr.DataArray, kinds: Mapping[str, DTypeLike]) -> xr.DataArray:
    """Frames, of blocks that are frames and notes on each (frame, note, 1), by the names and types of `kinds`; the notes as coordinates.

    What blocks that lie side by side note of a frame is added up.
    """
    blocks = pairs.data
    frames = blocks.map_blocks(itemgetter(0), dtype=pairs.dtype, meta=np.empty((0, 0, 0), pairs.dtype))
    beside = tuple(len(sizes) for sizes in blocks.chunks[1:])
    sizes = blocks.chunks[0], (len(kinds),) * beside[0], (1,) * beside[1]
    notes = blocks.map_blocks(itemgetter(1), dtype=float, meta=np.empty((0, 0, 0)), chunks=sizes)
    if beside != (1, 1):
        notes = notes.reshape(len(pairs), beside[0], len(kinds), beside[1]).sum(axis=(1, 3))[:, :, None]
    return pairs.copy(data=frames).assign_coords(
        {name: ("frame", notes[:, number, 0].astype(kind)) for number, (name, kind) in enumerate(kinds.items())}
    )
