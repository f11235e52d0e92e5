"""Bytes that each operation holds at its peak: pure functions of shapes, for planning a run before it.

A block counts twice, as it is read and as it is decoded from the file's chunks. For each spectrum of the scan its
position, live time and entries of the matrix are held besides.
"""

from detcal.frames.needs import Needs
from detcal.xrf.tiles import PIXELS_AT_ONCE

BYTES_A_SPECTRUM = 150  # of a scan, beside the spectrum itself
SUMMARY_CHANNEL = 3 * 8  # bytes


def smooth_spectra_bytes(spectra: int, channels: int, itemsize: int) -> int:
    """Smoothing blocks of so many spectra: as they are read, and the float32 result, which is also encoded."""
    return spectra * channels * (2 * itemsize + 2 * 4)


def summary_bytes(spectra: int, channels: int, itemsize: int) -> Needs:
    """Sums, maxima and numbers of blocks of so many spectra, which are kept until they are merged."""
    return Needs(task=2 * spectra * channels * itemsize + SUMMARY_CHANNEL * channels, begun=SUMMARY_CHANNEL * channels)


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


def convert_scan_bytes(block: int, pixels: int, spectra: int, channels: int, itemsize: int) -> Needs:
    """A block of so many spectra, and a tile of so many pixels of the cube from smoothed blocks that hold so many spectra.

    A smoothed block is kept until it is written and the tiles that have a spectrum of it are made.
    """
    smoothed = 4 * block * channels
    tile = 4 * pixels * channels + 8 * PIXELS_AT_ONCE * channels
    return Needs(once=4 * spectra * channels, task=smooth_spectra_bytes(block, channels, itemsize) + tile, begun=smoothed)


def matrix_bytes(entries: int, pixels: int) -> int:
    """A matrix: shares, spectra, and where each pixel begins."""
    return 12 * entries + 8 * pixels
