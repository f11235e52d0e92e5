"""Bytes that each operation holds at its peak: pure functions of shapes, for planning a run before it.

A block counts twice, as it is read and as it is decoded from the file's chunks.
"""

from typing import NamedTuple

from detcal.frames.graph import FRAMES_A_PART
from detcal.frames.needs import Needs
from detcal.response.eigenflats import COARSE_PIXELS, STRIP_BYTES, piece_rows, strip_rows
from detcal.response.filling import MOST
from detcal.response.kernels import FRAMES_A_BATCH, count_planes
from detcal.response.solving import rows_a_tile


class Flats(NamedTuple):
    """How many flats there are, of so many bytes a pixel, and the bytes of a block in which they are read."""

    number: int
    itemsize: int
    block: int


def fit_response_bytes(shape: tuple[int, int], frames: int, itemsize: int, order: int) -> Needs:
    """Fitting blocks of `frames` frames (y, x) of `itemsize` bytes a pixel.

    A task holds its block, a batch of signals and smoothed frames, and what one smoothing needs; and its sums, twice where it adds to
    those of the block before. Or it adds a tile of sums that are done, and waited for that, to the total: there are two of it meanwhile.
    """
    pixels = shape[0] * shape[1]
    sums = 8 * count_planes(order)
    batch = 8 * FRAMES_A_BATCH + 16  # two float32 images a frame, and four more while one is smoothed
    copied = sums if frames < FRAMES_A_PART else 0
    dark, tile = 4, rows_a_tile(shape) * shape[1]
    adding, merging = (2 * frames * itemsize + batch + copied) * pixels, sums * min(tile, pixels)
    return Needs(once=(dark + sums) * pixels, task=max(adding, merging), begun=sums * pixels)


def sample_pixels_bytes(shape: tuple[int, int], frames: int, itemsize: int) -> Needs:
    """Sampling blocks of `frames` frames (y, x) of `itemsize` bytes a pixel: the block, and the images that smoothing one needs."""
    pixels = shape[0] * shape[1]
    return Needs(once=4 * pixels, task=(2 * frames * itemsize + 2 * 4 + 16) * pixels)


def correct_response_bytes(shape: tuple[int, int], frames: int, itemsize: int, order: int, flats: int = 1) -> Needs:
    """Correcting blocks of `frames` frames (y, x) of `itemsize` bytes a pixel by so many flats, without what is needed to write them.

    A task holds its block and the float32 result. The dark and the terms are made before, from about 16 float32 images.
    """
    pixels = shape[0] * shape[1]
    return Needs(prepared=16 * 4 * pixels, once=4 * (order + 1 + flats) * pixels, task=frames * (2 * itemsize + 4) * pixels)


def eigenflats_bytes(shape: tuple[int, int], frames: int, itemsize: int, flats: Flats, components: int) -> Needs:
    """Finding so many eigenflats (y, x), and their weights in blocks of `frames` frames of `itemsize` bytes a pixel.

    A strip of all flats is held, twice as blocks are joined to it, beside a block of them, and what a piece of it takes; eigenflats in
    strips and whole, and what one takes to be looked at. A task has its frames in groups of pixels, and two images of such groups.
    """
    pixels, stack = shape[0] * shape[1], (flats.number, *shape)
    strip = flats.itemsize * flats.number * shape[1] * strip_rows(stack, flats.itemsize, max(STRIP_BYTES, frames * itemsize * pixels))
    piece = 4 * flats.number * shape[1] * piece_rows(stack)
    groups = min(pixels, COARSE_PIXELS)
    kept = 4 * components * (pixels + groups)
    found = 2 * strip + 6 * piece + 2 * flats.block + 8 * 8 * flats.number**2
    return Needs(prepared=found + 2 * kept + 4 * 4 * pixels, once=kept, task=groups * (4 * frames + 2 * 8))


def fill_bytes(shape: tuple[int, int], frames: int, bad: int) -> Needs:
    """Filling so many bad pixels of blocks of `frames` frames (y, x): the block and its copy, and the neighbours of each pixel.

    These are held twice as they are found, with an image of what is good; an image says which pixels are filled.
    """
    pixels, neighbours = shape[0] * shape[1], (8 + 12 * MOST) * bad
    return Needs(prepared=2 * neighbours + 2 * pixels, once=neighbours + pixels, task=2 * 4 * frames * pixels)


def divided_bytes(shape: tuple[int, int], frames: int) -> Needs:
    """Dividing blocks of `frames` corrected frames (y, x) by a number each, or by their means in a region: the block and its copy."""
    return Needs(task=2 * 4 * frames * shape[0] * shape[1])


def remove_zingers_bytes(shape: tuple[int, int], frames: int, itemsize: int, *, in_time: bool) -> Needs:
    """Cleaning blocks of `frames` frames (y, x) of `itemsize` bytes a pixel: the block, the float32 result, and a frame with its edge.

    Beside it lies what a frame is compared with. In time, a block waits until the next one is read; of each a frame is copied.
    """
    pixels, room = shape[0] * shape[1], 4 * (shape[0] + 4) * (shape[1] + 4)
    waits, copied = (frames * itemsize, 2 * itemsize) if in_time else (0, 0)
    return Needs(task=(frames * (2 * itemsize + 4) + 4 + copied) * pixels + room, begun=(waits + copied) * pixels)


def resized_bytes(shape: tuple[int, int], frames: int, itemsize: int, result: int) -> Needs:
    """Cropping or binning blocks of `frames` frames (y, x) of `itemsize` bytes a pixel: the block, and its result of so many bytes."""
    return Needs(task=2 * frames * itemsize * shape[0] * shape[1] + result)


def minus_log_bytes(shape: tuple[int, int], frames: int, itemsize: int) -> Needs:
    """Logarithms of blocks of `frames` frames (y, x) of `itemsize` bytes a pixel: the block, its readings, and two masks of them."""
    return Needs(task=frames * (2 * itemsize + 2 * 4 + 2) * shape[0] * shape[1])


def mean_image_bytes(shape: tuple[int, int], frames: int, itemsize: int) -> int:
    """Averaging dark or flat frames in blocks of `frames`: the block, sums that came in and go out and their total, and two images."""
    sums = 6 * 8
    return (2 * frames * itemsize + 4 * sums + 2 * 4) * shape[0] * shape[1]
