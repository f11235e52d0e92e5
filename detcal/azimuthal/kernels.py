"""The pixels of each ring, of frames side by side: how they are loaded and gathered. ndarrays in, ndarrays out.

A ring has entries: pixels, each with the share of it that lies in the ring (1, if pixels are not split). Averaged is
I = (raw − dark)/norm with the weight ω = share·norm, so that ⟨I⟩ = Σω·I/Σω = Σshare·(raw − dark)/Σshare·norm. Pixels are loaded in the
order of their rings, LANES frames at a time; what comes after are passes over the rows of one ring (see clipping and quantiles).
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.frames.lanes import lines, read_only, tile_to_lanes
from detcal.frames.readings import Floats, Frames, Valid
from detcal.frames.simd import LANES, load, prefetch, splat, store, stream, where_between

# How the variance of a pixel's reading is known: not, as Poisson's, from the spread in its ring, so while outliers are sought and
# as Poisson's in the end, or given.
NONE, POISSON, AZIMUTHAL, HYBRID, GIVEN = range(5)

BATCH = 2**19  # entries of rings that are loaded together: 16 MiB in lanes, if pixels are not split
ROWS_A_SUM = 32  # that are added in float32, before they are added to sums in float64
AHEAD = 4  # tiles that are asked for before they are loaded
DIGITS = 24  # binary ones of a float32


class Rings(NamedTuple):
    """The entries of all rings: those of ring r are from starts[r] to starts[r + 1].

    Rings go in batches: batch b begins at ring batches[b]. Its pixels are read by tiles of LANES neighbours, tiles[tile_starts[b] :
    tile_starts[b + 1]], and come to lie in the order in which rings first have them: rows says where, by entry, and places by pixel of
    a tile (−1 if no ring of the batch has it). Weights are for quantiles, see `whole_weights`. Norms are relative, so that their squares
    are numbers of float32, whatever a flat's unit: I·scale are intensities, Σω/scale sums of norms.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    shares: Floats
    norms: Floats
    darks: Floats
    weights: Floats
    batches: NDArray[np.int64]
    tiles: NDArray[np.int64]
    places: NDArray[np.int32]
    tile_starts: NDArray[np.int64]
    dark: Floats
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, starts: NDArray[np.int64], pixels: NDArray[np.int32], shares: Floats, norms: Floats, dark: Floats) -> "Rings":
        """Rings in batches of about BATCH entries; dark is by pixel."""
        ends = np.searchsorted(starts, np.arange(BATCH, starts[-1], BATCH))
        batches = np.unique(np.concatenate([[0], ends, [len(starts) - 1]]))  # the last one with the empty rings at the end
        rows, slots = np.empty(len(pixels), np.int32), np.full((len(dark) + LANES - 1) // LANES * LANES, -1, np.int32)
        placed = [place_pixels(pixels[first:last], slots, rows[first:last]) for first, last in pairwise(starts[batches])]
        tiles, places = map(np.concatenate, zip(*placed, strict=True))
        tile_starts = np.cumsum([0, *(len(tiles) for tiles, _ in placed)])
        scale = np.exp2(-float(np.frexp(norms.max(initial=0))[1]))  # a power of two: nothing is rounded
        norms = (norms * scale).astype(np.float32)
        weights = whole_weights(starts, shares, norms)
        return cls.from_arrays(
            starts, rows, shares, norms, dark[pixels], weights, batches, tiles, places, tile_starts, dark, np.array([scale])
        )  # fmt: skip

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
def place_pixels(pixels, slots, rows):  # type: ignore[no-untyped-def]
    """Number pixels in the order in which they come first, in rows; and the tiles that they lie in, rising, with the numbers of all
    their pixels: those that do not come have −1. `slots` (pixel,) is −1, before and after."""
    count = 0
    for k in range(pixels.size):
        if slots[pixels[k]] < 0:
            slots[pixels[k]] = count
            count += 1
        rows[k] = slots[pixels[k]]
    tiles = np.unique(pixels // LANES).astype(np.int64)
    places = np.empty((tiles.size, LANES), np.int32)
    for k in range(tiles.size):
        for e in range(LANES):
            places[k, e] = slots[tiles[k] * LANES + e]
    slots[pixels] = -1
    return tiles, places


def room(rings: Rings) -> Floats:
    """For the pixels of any one batch (row, lane)."""
    return lines(int(rings.places.max(initial=0)) + 1)


def load_batch(frames: Frames, valid: Valid, dark: Floats | None, rings: Rings, batch: int, into: Floats) -> None:
    """raw − dark of the pixels of a batch (row, lane), of up to LANES frames (frame, pixel); NaN where there is no reading."""
    mine = slice(rings.tile_starts[batch], rings.tile_starts[batch + 1])
    load_tiles(frames, valid, dark, rings.tiles[mine], rings.places[mine], into)


@kernel
def load_tiles(frames, valid, dark, tiles, places, lanes):  # type: ignore[no-untyped-def]
    """The pixels of tiles as (row, lane), in their places."""
    scratch, turned, pixels = np.zeros((LANES, LANES), np.float32), np.empty((LANES, LANES), np.float32), frames.shape[1]
    for k in range(tiles.size):
        if k + AHEAD < tiles.size:
            prefetch(frames, tiles[k + AHEAD] * LANES)
        start = tiles[k] * LANES
        size = min(LANES, pixels - start)
        tile_to_lanes(frames, valid, start, size, scratch, turned, 0)
        for e in range(size):
            if places[k, e] >= 0:
                value = load(turned, e)
                stream(lanes, places[k, e], value if dark is None else value - splat(dark[start + e]))


@kernel
def leave_out(image, noise):  # type: ignore[no-untyped-def]
    """Set to NaN what has no variance."""
    least, most, nothing = splat(np.float32(0)), splat(np.float32(np.inf)), splat(np.float32(np.nan))
    for row in range(len(image)):
        store(image, row, where_between(load(noise, row), least, most, load(image, row), nothing))


@kernel
def pixels_of(image, rings, batch, ring, gathered):  # type: ignore[no-untyped-def]
    """raw − dark of a ring's entries (entry, lane): as they lie in the batch or, if rings of the batch share pixels, gathered."""
    first, last = rings.starts[rings.batches[batch]], rings.starts[rings.batches[batch + 1]]
    begin, end = rings.starts[ring], rings.starts[ring + 1]
    if last > first and rings.rows[last - 1] == last - 1 - first:  # no pixel of the batch came twice
        return image[begin - first : end - first]
    for k in range(end - begin):
        store(gathered, k, load(image, rings.rows[begin + k]))
    return gathered[: end - begin]
