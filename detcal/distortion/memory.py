"""Bytes that each operation holds at its peak: pure functions of shapes, for planning a run before it."""

from detcal.distortion.resampling import TILE_COLUMNS, TILE_ROWS
from detcal.frames.needs import Needs
from detcal.frames.simd import LANES

REGULAR_VECTORS, CAMERA_VECTORS = 9, 7  # float64 images of the regular grid, and of the camera, that LSMR and what it calls hold


def fit_distortion_bytes(shape: tuple[int, int], frames: int, itemsize: int) -> Needs:
    """Fitting the mean of blocks of `frames` frames (y, x) of `itemsize` bytes a pixel.

    While they are averaged: a block as it is read and as it is decoded, sums that came in and go out, and a few images. Later:
    displacements of the corners, of polynomials and of local cubics, and what these are computed from, seven pairs of numbers in all.
    """
    return Needs(prepared=max(2 * frames * itemsize + 2 * 16 + 3 * 8, 7 * 16) * (shape[0] + 1) * (shape[1] + 1))


def build_overlaps_bytes(shape: tuple[int, int], coefficients: int, bands: int) -> int:
    """Building bands of the matrix for a camera of a shape, and writing them.

    The driver holds the corners as the map has them, in pixels of the grid, and twice while these are computed. A worker holds the band
    that it fills beside three that are not written yet, since a chunk of the store is cut from several.
    """
    corners = 3 * 16 * (shape[0] + 1) * (shape[1] + 1)
    return corners + 4 * 8 * -(-coefficients // bands) + 12 * shape[0] * shape[1]


def correct_distortion_bytes(
    shape: tuple[int, int], output: tuple[int, int], frames: int, itemsize: int, coefficients: int, variance: bool
) -> Needs:
    """Correcting blocks of `frames` frames (y, x) of `itemsize` bytes a pixel, without what is needed to write them.

    All tasks share the matrix, which is put in order from the one that is stored. A task holds its block twice, as it is
    read and as it is decoded, values, coverage and variance of the result, and a tile of lanes.
    """
    pixels, even = shape[0] * shape[1], output[0] * output[1]
    matrix = matrix_bytes(pixels, even, coefficients)
    block = frames * ((2 * itemsize + (8 if variance else 0)) * pixels + 4 * (3 if variance else 2) * even)
    lanes = 16 * 4 * LANES * TILE_ROWS * TILE_COLUMNS
    return Needs(prepared=2 * matrix, once=matrix, task=block + (4 * coefficients if variance else 0) + lanes)


def uncorrect_bytes(shape: tuple[int, int], camera: tuple[int, int], frames: int, itemsize: int, coefficients: int) -> Needs:
    """Taking blocks of `frames` frames (y, x) of the regular grid, of `itemsize` bytes a pixel, back to a camera of a shape.

    A task holds its block twice, as it is read and as it is decoded, the result, the matrix in the order in which scipy takes it, once more
    as float64 while it is applied, and what LSMR keeps of one frame.
    """
    even, pixels = shape[0] * shape[1], camera[0] * camera[1]
    matrix = matrix_bytes(pixels, even, coefficients)
    block = frames * (2 * itemsize * even + 4 * pixels)
    return Needs(prepared=2 * matrix, once=matrix, task=block + 16 * coefficients + 8 * (REGULAR_VECTORS * even + CAMERA_VECTORS * pixels))


def matrix_bytes(pixels: int, even: int, coefficients: int) -> int:
    """The matrix as kernels take it."""
    return 8 * coefficients + 8 * even + 4 * pixels
