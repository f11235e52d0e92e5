"""Bytes that each operation holds at its peak: pure functions of shapes, for planning a run before it."""

from detcal.frames.needs import Needs
from detcal.frames.simd import LANES
from detcal.sensor.groups import MOST_ALONE, is_kept
from detcal.sensor.noise import BAND_ROWS


def build_psf_bytes(pixels: int, coefficients: int) -> Needs:
    """Building tiles of so many pixels and coefficients, and writing them.

    A tile that is filled is kept until the chunks of the store that it has a part in are written. A task holds the tile that it fills,
    what it counts, and a chunk of the store with its encoded copy and checksum.
    """
    tile = 8 * coefficients + 8 * pixels
    counts = 2 * 8 * pixels
    chunk = 3 * 4 * coefficients
    return Needs(once=2 * tile, task=tile + counts + chunk, begun=tile)


def deconvolve_bytes(shape: tuple[int, int], frames: int, itemsize: int, coefficients: int, method: str) -> Needs:
    """Deconvolving blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, without what is needed to write them.

    All tasks share the matrix, which is put together from the parts that it is stored in. A task holds its block twice, as it is read
    and as it is decoded from the file's chunks, the float32 result and a mask of it, and what the method needs, whatever the number of
    frames, but that a few go one by one: with those of a group as float32, if kernels do not take their type.
    """
    pixels = shape[0] * shape[1]
    few = MOST_ALONE if method in ("auto", "mlem") else 1
    lanes = LANES if frames > few else 1
    image = 4 * lanes  # bytes a pixel of the frames that are solved together
    copied = 0 if is_kept(itemsize) else image * pixels
    matrix = 8 * coefficients + 16 * pixels  # with the sums of its rows and columns
    block = frames * (2 * itemsize + 4 + 1) * pixels
    # what mlem and lsmr solved before is there until the next frames are
    before = image if frames > lanes else 0
    conditioning = 0
    match method:
        case "direct":
            # found beside the matrix: a band of it, lanes of a band, and images
            band = BAND_ROWS * shape[1]
            conditioning = 16 * coefficients * band // pixels + 13 * LANES * band + 24 * pixels
            own = image * shape[1] * (4 * coefficients // pixels + 2)  # rows of lanes, at most as many as rays may cross
        case "lsmr":
            own = 24 * coefficients + (before + 2 * image + 112) * pixels
        case _:  # auto finds the number of iterations before, and holds as much
            own = (before + 7 * image + lanes + 5) * pixels
    return Needs(prepared=2 * matrix + conditioning, once=matrix, task=block + copied + own)
