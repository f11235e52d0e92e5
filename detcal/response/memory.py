"""Bytes that one task of each operation holds at its peak: pure functions of shapes, for planning a run before it.

A block counts twice, as it is read and as it is decoded from the file's chunks.
"""

from detcal.response.kernels import FRAMES_A_BATCH, count_planes


def fit_response_bytes(shape: tuple[int, int], frames: int, itemsize: int, order: int) -> int:
    """Fitting blocks of `frames` frames (y, x) of `itemsize` bytes a pixel.

    A task holds its block, the sums that came in and those that go out, a batch of signals and smoothed frames, and what
    one smoothing needs. Later, adding two lanes holds three sums, and solving two sums and the results, which are also
    encoded.
    """
    pixels = shape[0] * shape[1]
    sums = 8 * count_planes(order)
    block = 2 * frames * itemsize
    batch = 8 * FRAMES_A_BATCH + 16  # two float32 images a frame, and four more while one is smoothed
    results = 2 * 29  # five float32 images, an int32 and a bool one, and as much again while they are written
    dark = 4
    return (dark + max(2 * sums + block + batch, 3 * sums, 2 * sums + results)) * pixels


def correct_response_bytes(shape: tuple[int, int], frames: int, itemsize: int, order: int) -> int:
    """Correcting blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, without what is needed to write them.

    A task holds its block and the float32 result beside the dark and the terms; the terms themselves are computed once,
    from about 16 float32 images.
    """
    pixels = shape[0] * shape[1]
    terms = 4 * (order + 2)
    return max(frames * (2 * itemsize + 4) + terms, 16 * 4) * pixels


def mean_image_bytes(shape: tuple[int, int], frames: int, itemsize: int) -> int:
    """Averaging dark or flat frames in blocks of `frames`: the block, the sums that came in and go out, and two images."""
    sums = 2 * 8
    return (2 * frames * itemsize + 2 * sums + 2 * 4) * shape[0] * shape[1]
