"""Bytes that one task of each operation holds at its peak: pure functions of shapes, for planning a run before it."""

from detcal.simd import LANES

LANE_IMAGE = 4 * LANES  # bytes a pixel of LANES float32 images
TASKS_OF_A_BAND = 100_000  # bytes that a worker holds of them, their results aside, until the run ends


def build_psf_bytes(pixels: int, coefficients: int, bands: int) -> int:
    """Building bands of so many pixels and coefficients, and writing them.

    A worker holds the band that it fills beside three that are not written yet, since a chunk of the store is cut from
    several, and such a chunk with its encoded copy and checksum.
    """
    band = 8 * coefficients + 8 * pixels
    filling = 2 * 8 * pixels
    chunk = 3 * 4 * coefficients
    return 4 * band + filling + chunk + TASKS_OF_A_BAND * bands


def deconvolve_bytes(shape: tuple[int, int], frames: int, itemsize: int, coefficients: int, method: str) -> int:
    """Deconvolving blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, without what is needed to write them.

    All tasks of a worker share the matrix, which is put together from the parts that it is stored in. A task holds its block
    twice, as it is read and as it is decoded from the file's chunks, the float32 result and a mask of it, and what the method
    needs, whatever the number of frames.
    """
    pixels = shape[0] * shape[1]
    matrix = 8 * coefficients + 8 * pixels
    block = frames * (2 * itemsize + 4 + 1) * pixels
    # what mlem and lsmr solved before is there until the next LANES frames are
    before = LANE_IMAGE if frames > LANES else 0
    match method:
        case "direct":
            own = LANE_IMAGE * shape[1] * (4 * coefficients // pixels + 2)  # rows of lanes, at most as many as rays may cross
        case "lsmr":
            own = 24 * coefficients + (before + LANE_IMAGE + 112) * pixels
        case _:
            own = (before + 6 * LANE_IMAGE + LANES + 5) * pixels
    return matrix + max(matrix, block + own)
