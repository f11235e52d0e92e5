"""The pixels of each ring, how they are loaded and gathered: of frames side by side, or of rings. ndarrays in, ndarrays out.

A ring has entries: pixels, each with the share of it that lies in the ring (1, if pixels are not split). Averaged is
I = (raw − dark)/norm with the weight ω = share·norm, so that ⟨I⟩ = Σω·I/Σω = Σshare·(raw − dark)/Σshare·norm. Pixels are loaded in the
order of their rings, LANES frames at a time; what comes after are passes over the rows of one ring (see clipping and quantiles). Of few
frames LANES rings are loaded at a time. The passes are the same, and so are all bits of what they find.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import exact_kernel, kernel
from detcal.frames.lanes import limits_of, lines, read_only, tile_to_lanes
from detcal.frames.readings import Floats, Frames, Valid
from detcal.frames.simd import LANES, gather, load, measured, prefetch, prefetch_scattered, splat, store, stream, where_between

# How the variance of a pixel's reading is known: not, as Poisson's, from the spread in its ring, so while outliers are sought and
# as Poisson's in the end, or given.
NONE, POISSON, AZIMUTHAL, HYBRID, GIVEN = range(5)

WINDOWS = LANES, 16 * LANES, 256 * LANES  # rings of which those of about the same length may lie side by side
GOOD_ROOM = 1.1  # that rings side by side take, by their entries: little is gained by less
MOST_ROOM = 4.0  # likewise: more is too much memory
ONE_BY_ONE = 1.1  # how much longer a frame takes by rings side by side than beside others in full lanes
BATCH = 2**19  # entries of rings that are loaded together: 16 MiB in lanes, if pixels are not split
ROWS_A_SUM = 32  # that are added in float32, before they are added to sums in float64
AHEAD = 4  # tiles that are asked for before they are loaded
ROWS = 2**13  # of rings side by side that are loaded together: 512 KiB, so that threads have about as many of them
ROWS_AHEAD = 32  # rows of pixels, likewise
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

    @property
    def number(self) -> int:
        """Of rings."""
        return len(self.starts) - 1

    @classmethod
    def of(cls, starts: NDArray[np.int64], pixels: NDArray[np.int32], shares: Floats, norms: Floats, dark: Floats) -> "Rings":
        """Rings in batches of about BATCH entries; dark is by pixel."""
        ends = np.searchsorted(starts, np.arange(BATCH, starts[-1], BATCH))
        batches = np.unique(np.concatenate([[0], ends, [len(starts) - 1]]))  # the last one with the empty rings at the end
        rows, slots = np.empty(len(pixels), np.int32), np.full((len(dark) + LANES - 1) // LANES * LANES, -1, np.int32)
        placed = [place_pixels(pixels[first:last], slots, rows[first:last]) for first, last in pairwise(starts[batches])]
        tiles, places = map(np.concatenate, zip(*placed, strict=True))
        tile_starts = np.cumsum([0, *(len(tiles) for tiles, _ in placed)])
        norms, scale = relative(norms)
        weights = whole_weights(starts, shares, norms)
        return cls.from_arrays(starts, rows, shares, norms, dark[pixels], weights, batches, tiles, places, tile_starts, dark, scale)

    @classmethod
    def from_arrays(cls, *arrays: NDArray[Any]) -> "Rings":
        """The same of its arrays, wherever they come from."""
        return cls(*map(read_only, arrays))


class Entries(NamedTuple):
    """What belongs to a ring's entries (entry,), the same in all lanes; or to those of a ring in each lane (entry, lane)."""

    norms: Floats
    shares: Floats
    darks: Floats
    weights: Floats


class RingLanes(NamedTuple):
    """The entries of all rings, LANES rings side by side, each in a lane of its own: for frames that come one at a time.

    Group g has the rings numbers[g] (−1: none) in rows starts[g] to starts[g + 1] of the arrays (row, lane). Where a ring is shorter than
    the longest one of its group, the dark is NaN, so that there is no reading. Batch b begins at group batches[b]. Weights and scale are
    as in `Rings`.
    """

    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    batches: NDArray[np.int64]
    pixels: NDArray[np.uint32]
    norms: Floats
    shares: Floats
    darks: Floats
    weights: Floats
    scale: NDArray[np.float64]

    @property
    def number(self) -> int:
        """Of rings."""
        return int(self.numbers.max()) + 1

    @classmethod
    def of(
        cls, numbers: NDArray[np.int64], starts: NDArray[np.int64], pixels: NDArray[np.int32], shares: Floats, norms: Floats, dark: Floats
    ) -> "RingLanes":
        """As `Rings.of`, with these rings side by side."""
        rows = np.concatenate([[0], np.cumsum(longest_of_groups(np.diff(starts), numbers))])
        ends = np.searchsorted(rows, np.arange(ROWS, rows[-1], ROWS))
        batches = np.unique(np.concatenate([[0], ends, [len(numbers)]]))
        norms, scale = relative(norms)
        values = (pixels.astype(np.uint32), 0), (norms, 1), (shares, 0), (dark[pixels], np.nan), (whole_weights(starts, shares, norms), 0)
        lanes = (spread_out(array, starts, numbers, rows, rest) for array, rest in values)
        return cls.from_arrays(numbers, rows, batches, *lanes, scale)

    @classmethod
    def from_arrays(cls, *arrays: NDArray[Any]) -> "RingLanes":
        """The same of its arrays, wherever they come from."""
        return cls(*map(read_only, arrays))


def relative(norms: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Norms of up to 1, and by what they were multiplied (1,): a power of two, so that nothing is rounded."""
    exponent = int(np.frexp(norms.max(initial=0))[1])
    return np.ldexp(norms, -exponent), np.array([2.0**-exponent])


def side_by_side(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which rings lie side by side (group, lane), −1 for none: neighbours, which share lines of the cache, as far as they are about as
    long; else those of about the same length within a range of rings, the smallest range that will do."""
    for window in WINDOWS:
        numbers = groups_of(lengths, window)
        if longest_of_groups(lengths, numbers).sum() * LANES <= GOOD_ROOM * lengths.sum():
            break
    return numbers


def groups_of(lengths: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Rings by length within windows of so many rings (group, lane), −1 for none."""
    order = np.lexsort((lengths, np.arange(len(lengths)) // window)) if window > LANES else np.arange(len(lengths))
    return np.pad(order, (0, -len(order) % LANES), constant_values=-1).reshape(-1, LANES)


def longest_of_groups(lengths: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each group of rings the largest length."""
    longest: NDArray[np.int64] = np.where(numbers < 0, 0, lengths[numbers]).max(axis=1)
    return longest


def room_for_frames(frames: int) -> float:
    """The most that rings side by side may take, by their entries, to be faster than frames side by side in such blocks."""
    lanes = -(-frames // LANES) * LANES
    return min(MOST_ROOM, lanes / (ONE_BY_ONE * frames))


@kernel
def spread_out(values, starts, numbers, rows, rest):  # type: ignore[no-untyped-def]
    """Values of the entries of rings side by side (row, lane), `rest` where there are none."""
    found = np.full((rows[-1], LANES), rest, values.dtype)
    for group in range(len(numbers)):
        for lane in range(LANES):
            ring = numbers[group, lane]
            for k in range(starts[ring + 1] - starts[ring] if ring >= 0 else 0):
                found[rows[group] + k, lane] = values[starts[ring] + k]
    return found


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
    held = np.zeros(slots.size // LANES, np.bool_)
    for pixel in pixels:
        held[pixel // LANES] = True
    tiles = np.flatnonzero(held)
    places = np.empty((tiles.size, LANES), np.int32)
    for k in range(tiles.size):
        for e in range(LANES):
            places[k, e] = slots[tiles[k] * LANES + e]
    for pixel in pixels:
        slots[pixel] = -1
    return tiles, places


def rows_of(lined: RingLanes, batch: int) -> slice:
    """The rows of a batch."""
    return slice(*lined.starts[lined.batches[batch : batch + 2]])


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


@kernel
def entries_of(rings, ring):  # type: ignore[no-untyped-def]
    """What belongs to the entries of a ring."""
    begin, end = rings.starts[ring], rings.starts[ring + 1]
    return Entries(rings.norms[begin:end], rings.shares[begin:end], rings.darks[begin:end], rings.weights[begin:end])


@kernel
def group_of(lined, group):  # type: ignore[no-untyped-def]
    """What belongs to the entries of a group of rings."""
    begin, end = lined.starts[group], lined.starts[group + 1]
    return Entries(lined.norms[begin:end], lined.shares[begin:end], lined.darks[begin:end], lined.weights[begin:end])


@kernel
def load_rows(frame, valid, darks, pixels, into):  # type: ignore[no-untyped-def]
    """raw − dark of pixels (row, lane) of one frame (pixel,); NaN where there is no reading."""
    least, most, flag, more = limits_of(valid)
    for row in range(len(pixels)):
        prefetch_scattered(frame, pixels, min(row + ROWS_AHEAD, len(pixels) - 1))
        value = measured(gather(frame, pixels, row), least, most, flag, more)
        store(into, row, value if darks is None else value - load(darks, row))


@exact_kernel
def add_to(sums, part):  # type: ignore[no-untyped-def]
    """Add sums in float32 (n, lane) to those in float64.

    Number by number, as all kernels assign to rows: `sums += part` has an error for arrays that do not fit, whose words take seconds to
    compile.
    """
    for k in range(len(sums)):
        for lane in range(LANES):
            sums[k, lane] += part[k, lane]


@kernel
def longest_step(starts, first, last):  # type: ignore[no-untyped-def]
    """The largest step from starts[first] to starts[last]: np.diff and max take several seconds to compile."""
    most = 0
    for k in range(first, last):
        most = max(most, starts[k + 1] - starts[k])
    return most


@kernel
def room_for(entries):  # type: ignore[no-untyped-def]
    """For three values of so many entries in lanes (3, entry, lane)."""
    return np.empty((3, entries, LANES), np.float32)
