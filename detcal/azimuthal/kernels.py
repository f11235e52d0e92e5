"""The pixels of each ring, of frames side by side: how they are loaded and gathered. ndarrays in, ndarrays out.

A ring has entries: pixels, each with the share of it that lies in the ring (1, if pixels are not split). Averaged is
I = (raw − dark)/norm with the weight ω = share·norm, so that ⟨I⟩ = Σω·I/Σω = Σshare·(raw − dark)/Σshare·norm. A ring is gathered
once, LANES frames at a time, into a buffer that stays in the cache; what comes after are passes over its rows (see clipping and quantiles).
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.jit import kernel
from detcal.lanes import Floats, Frames, Valid, read_only, tile_to_lanes
from detcal.simd import LANES, load, prefetch, splat, store, where_between

# How the variance of a pixel's reading is known: not, as Poisson's, from the spread in its ring, so while outliers are sought and
# as Poisson's in the end, or given.
NONE, POISSON, AZIMUTHAL, HYBRID, GIVEN = range(5)

BATCH = 2**15  # entries of rings that are treated together: 2 MiB in lanes
ROWS_A_SUM = 32  # that are added in float32, before they are added to sums in float64
AHEAD = 8  # tiles that are asked for before they are loaded
DIGITS = 24  # binary ones of a float32


class Rings(NamedTuple):
    """The entries of all rings: those of ring r are from starts[r] to starts[r + 1].

    Rings go in batches, whose pixels are few enough for the cache: batch b begins at ring batches[b]. Its pixels are loaded by tiles
    of LANES neighbours, tiles[tile_starts[b] : tile_starts[b + 1]]; rows says where an entry's pixel then lies. Weights are for
    quantiles, see `whole_weights`.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    shares: Floats
    norms: Floats
    darks: Floats
    weights: Floats
    batches: NDArray[np.int64]
    tiles: NDArray[np.int64]
    tile_starts: NDArray[np.int64]

    @classmethod
    def of(cls, starts: NDArray[np.int64], pixels: NDArray[np.int32], shares: Floats, norms: Floats, darks: Floats) -> "Rings":
        """Rings in batches of about BATCH entries."""
        ends = np.searchsorted(starts, np.arange(BATCH, starts[-1], BATCH))
        batches = np.unique(np.concatenate([[0], ends, [len(starts) - 1]]))  # the last one with the empty rings at the end
        rows, slots = np.empty(len(pixels), np.int32), np.zeros(pixels.max() // LANES + 1, np.int32)
        tiles = [place_tiles(pixels[first:last], slots, rows[first:last]) for first, last in pairwise(starts[batches])]
        tile_starts = np.cumsum([0, *map(len, tiles)])
        weights = whole_weights(starts, shares, norms)
        return cls.from_arrays(starts, rows, shares, norms, darks, weights, batches, np.concatenate(tiles), tile_starts)

    @classmethod
    def from_arrays(cls, *arrays: NDArray[Any]) -> "Rings":
        """The same of its arrays, wherever they come from."""
        return cls(*map(read_only, arrays))


@kernel
def whole_weights(starts, shares, norms):  # type: ignore[no-untyped-def]
    """share·norm by ring in whole numbers, so small that as many as are added in float32 add up without rounding.

    Where pixels weigh the same, a quantile then is on their border exactly.
    """
    weights = shares * norms
    for ring in range(len(starts) - 1):
        entries = weights[starts[ring] : starts[ring + 1]]
        if entries.size:
            bits = DIGITS - math.ceil(math.log2(min(entries.size, ROWS_A_SUM)))
            scale = 2.0 ** (bits - math.frexp(entries.max())[1])
            for k in range(entries.size):
                entries[k] = max(1.0, np.rint(entries[k] * scale))
    return weights


@kernel
def place_tiles(pixels, slots, rows):  # type: ignore[no-untyped-def]
    """The tiles in which the pixels lie, rising, and where each pixel lies if they are put one behind the other."""
    tiles = np.empty(pixels.size, np.int64)
    count = 0
    for pixel in pixels:
        tile = pixel // LANES
        if slots[tile] == 0:
            slots[tile], tiles[count] = 1, tile
            count += 1
    tiles = np.sort(tiles[:count])
    slots[tiles] = np.arange(count)
    for k in range(pixels.size):
        rows[k] = slots[pixels[k] // LANES] * LANES + pixels[k] % LANES
    slots[tiles] = 0
    return tiles


def room(rings: Rings) -> Floats:
    """For the pixels of any one batch (row, lane)."""
    return np.empty((LANES * int(np.diff(rings.tile_starts).max()), LANES), np.float32)


def load_batch(frames: Frames, valid: Valid, rings: Rings, batch: int, into: Floats) -> Floats:
    """The pixels of a batch (row, lane), of up to LANES frames (frame, pixel)."""
    tiles = rings.tiles[rings.tile_starts[batch] : rings.tile_starts[batch + 1]]
    load_tiles(frames, valid, tiles, into)
    return into[: LANES * len(tiles)]


@kernel
def load_tiles(frames, valid, tiles, lanes):  # type: ignore[no-untyped-def]
    """Tiles of LANES neighbouring pixels, one after the other, as (pixel, lane)."""
    scratch, pixels = np.zeros((LANES, LANES), np.float32), frames.shape[1]
    for k in range(tiles.size):
        if k + AHEAD < tiles.size:
            prefetch(frames, tiles[k + AHEAD] * LANES)
        start = tiles[k] * LANES
        tile_to_lanes(frames, valid, start, min(LANES, pixels - start), scratch, lanes, k * LANES)


@kernel
def gather(image, noise, rings, ring, model, buffer):  # type: ignore[no-untyped-def]
    """raw − dark of the ring's pixels (entry, lane), from those of its batch; how many entries there are.

    NaN where there is no reading, or no variance for it.
    """
    begin = rings.starts[ring]
    size = rings.starts[ring + 1] - begin
    for k in range(size):
        store(buffer, k, reading(image, noise, rings, begin + k, model))
    return size


@kernel
def reading(image, noise, rings, entry, model):  # type: ignore[no-untyped-def]
    """raw − dark of an entry's pixel, NaN without a reading or a variance for it."""
    row = rings.rows[entry]
    value = load(image, row) - splat(rings.darks[entry])
    if model == GIVEN:
        return where_between(load(noise, row), splat(np.float32(0)), splat(np.float32(np.inf)), value, splat(np.float32(np.nan)))
    return value
