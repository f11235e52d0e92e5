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
LESS_DARK_PIXEL = 4 * 4 + 3  # bytes: of a block as reals, its darks, variances, and one of them as it is found, with what is known
COUNTS_PIXEL = 8  # bytes: in how many frames it was read, and an outlier
READ_PIXEL = 12  # bytes of a frame whose readings are found
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


def rejected_bytes(shape: tuple[int, int], frames: int, bins: int) -> Needs:
    """What counting what is left out of profiles holds beside them: one frame's readings, and the profiles once more."""
    return Needs(task=2 * READ_PIXEL * shape[0] * shape[1] + 6 * 4 * frames * bins)


def hot_pixels_bytes(shape: tuple[int, int], frames: int, partial_sums: int | None) -> Needs:
    """What counting the outliers of as many frames holds beside their masks.

    A task holds what each pixel is, one frame's readings, and its counts, twice where it adds to those of the block before. Counts of
    blocks that are done wait to be added to the total, of which there are two meanwhile.
    """
    pixels = shape[0] * shape[1]
    waiting = {"begun": COUNTS_PIXEL * pixels} if partial_sums is None else {}
    kept = (2 + (partial_sums or 0)) * COUNTS_PIXEL * pixels
    return Needs(once=kept, task=(2 * frames + READ_PIXEL + COUNTS_PIXEL) * pixels, **waiting)


def drawn_bytes(shape: tuple[int, int], frames: int) -> Needs:
    """What profiles that are drawn back on as many frames hold beside: the frames, and one of them in float64 while it is made."""
    return Needs(task=(4 * frames + DRAWN_PIXEL) * shape[0] * shape[1])


def rings_bytes(shape: tuple[int, int], entries: int) -> int:
    """Bins as the kernels take them."""
    return ENTRY * entries + DARK_PIXEL * shape[0] * shape[1]


def side_by_side_bytes(rows: int, bins: int) -> int:
    """Likewise, of rings side by side."""
    return LANE_ROW * rows + 2 * 8 * bins
