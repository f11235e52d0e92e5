"""Bytes that one task of each operation holds at its peak: pure functions of shapes, for planning a run before it.

A block counts twice, as it is read and as it is decoded from the file's chunks. For each spectrum of the scan the driver holds its
position, live time and entries of the matrix besides; a worker keeps the entries of the tiles that it has made until the run ends.
"""

from detcal.xrf.operations import PIXELS_AT_ONCE

BYTES_A_SPECTRUM = 150  # that the driver holds


def smooth_spectra_bytes(spectra: int, channels: int, itemsize: int) -> int:
    """Smoothing blocks of so many spectra: as they are read, and the float32 result, which is also encoded."""
    return spectra * channels * (2 * itemsize + 2 * 4)


def regrid_bytes(pixels: int, spectra: int, channels: int, itemsize: int, *, smoothed: bool = False) -> int:
    """A tile of so many pixels of a map, from so many spectra: without its encoded copy.

    A task holds the tile, all blocks of which it has a spectrum, and the sums of some pixels; and the tile and the spectra as float32
    again, if it smooths.
    """
    tile = 4 * pixels * channels
    read = 2 * spectra * channels * itemsize
    return tile + read + 8 * PIXELS_AT_ONCE * channels + smoothed * (tile + 4 * spectra * channels)


def fit_bytes(pixels: int, channels: int) -> int:
    """What a fit of elements holds beside a tile: the channels that it is of, again and in float64."""
    return 12 * pixels * channels


def convert_scan_bytes(block: int, pixels: int, spectra: int, channels: int, itemsize: int) -> int:
    """A block of so many spectra, and a tile of so many pixels of the cube from smoothed blocks that hold so many spectra."""
    kept = 4 * (spectra + block) * channels
    return smooth_spectra_bytes(block, channels, itemsize) + kept + 4 * pixels * channels + 8 * PIXELS_AT_ONCE * channels


def matrix_bytes(entries: int, pixels: int) -> int:
    """A matrix, all tiles of which one worker may make: shares, spectra, and where each pixel begins."""
    return 12 * entries + 8 * pixels
