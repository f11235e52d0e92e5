"""Bytes that profiles hold at their peak: pure functions of shapes, for planning a run before it."""

from detcal.azimuthal.kernels import BATCH, ROWS
from detcal.frames.needs import Needs
from detcal.frames.simd import LANES

ENTRY = 26  # bytes: row, share, norm, dark, weight, and its part of the tiles
DARK_PIXEL = 4  # bytes
LANE_ROW = 5 * 4 * LANES  # bytes, of rings side by side: pixel, share, norm, dark, weight
LANE_PIXEL = 4 * LANES  # bytes of a pixel of LANES frames
SCRATCH = 2**14  # bytes
BUILT_ENTRY, BUILT_PIXEL = 8, 12  # bytes of bins as they are built: pixel and share; norm, dark and radius
DRAWN_PIXEL = 3 * 8  # bytes of a frame that is drawn, before it is rounded to float32
GEOMETRY_PIXEL = 128  # bytes, of what pyFAI holds while it builds them


def profiles_bytes(shape: tuple[int, int], frames: int, itemsize: int, entries: int, longest: int, bins: int, rows: int = 0) -> Needs:
    """Profiles of blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, in `bins` bins of so many entries, `longest` the most.

    All tasks share the bins, as they are built and as the kernels take them. A task holds its block twice, as it is read and as it is
    decoded from the file's chunks, a batch of pixels, one ring four times, and what it finds, also as it is written. `rows` are those of
    rings that lie side by side; 0 where frames do.
    """
    block = 2 * frames * itemsize * shape[0] * shape[1]
    work = 4 * LANE_PIXEL * longest
    profiles = 3 * 8 * 4 * frames * bins
    built = BUILT_ENTRY * entries + BUILT_PIXEL * shape[0] * shape[1]
    rings = side_by_side_bytes(rows, bins) if rows else rings_bytes(shape, entries)
    return Needs(
        prepared=GEOMETRY_PIXEL * shape[0] * shape[1] + built + rings,
        once=built + rings,
        task=block + batch_bytes(entries, longest, rows) + work + profiles + SCRATCH,
    )


def batch_bytes(entries: int, longest: int, rows: int = 0) -> int:
    """The pixels of a batch of rings, or their variances."""
    return LANE_PIXEL * (min(ROWS + longest, rows) if rows else min(BATCH + longest, entries))


def outlier_bytes(shape: tuple[int, int], frames: int, entries: int, longest: int, bins: int, rows: int = 0) -> Needs:
    """What the masks of outliers of as many frames hold beside profiles: the masks, what is kept of each ring, and a batch of marks."""
    marks = 0 if rows else batch_bytes(entries, longest)
    return Needs(task=frames * (shape[0] * shape[1] + 2 * 4 * bins) + marks)


def drawn_bytes(shape: tuple[int, int], frames: int) -> Needs:
    """What profiles that are drawn back on as many frames hold beside: the frames, and one of them in float64 while it is made."""
    return Needs(task=(4 * frames + DRAWN_PIXEL) * shape[0] * shape[1])


def rings_bytes(shape: tuple[int, int], entries: int) -> int:
    """Bins as the kernels take them."""
    return ENTRY * entries + DARK_PIXEL * shape[0] * shape[1]


def side_by_side_bytes(rows: int, bins: int) -> int:
    """Likewise, of rings side by side."""
    return LANE_ROW * rows + 2 * 8 * bins
