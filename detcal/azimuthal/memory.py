"""Bytes that one task holds at its peak: a pure function of shapes, for planning a run before it."""

from detcal.azimuthal.kernels import BATCH
from detcal.simd import LANES

ENTRY = 22  # bytes: row, share, norm, dark, weight, and its part of the tiles
LANE_PIXEL = 4 * LANES  # bytes of a pixel of LANES frames
PIXELS_AN_ENTRY = 3  # that are loaded with a batch, since they come by tiles


def profiles_bytes(shape: tuple[int, int], frames: int, itemsize: int, entries: int, longest: int, bins: int) -> int:
    """Profiles of blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, in `bins` bins of so many entries, `longest` the most.

    All tasks of a worker share the bins, which come to it in a message. A task holds its block twice, as it is read and as it is
    decoded from the file's chunks, a batch of pixels, one ring twice, and what it finds, also as it is written.
    """
    rings = 2 * ENTRY * entries
    block = 2 * frames * itemsize * shape[0] * shape[1]
    batch = LANE_PIXEL * (PIXELS_AN_ENTRY * (BATCH + longest) + 2 * longest)
    profiles = 3 * 6 * 4 * frames * bins
    return rings + block + batch + profiles
