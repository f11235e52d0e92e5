"""Bytes that one task of each operation holds at its peak: pure functions of shapes, for planning a run before it.

A block counts twice, as it is read and as it is decoded from the file's chunks. For each spectrum of the scan the driver holds its
position, live time and entries of the matrix besides.
"""

from detcal.xrf.operations import PIXELS_AT_ONCE, TILE_BYTES

BYTES_A_SPECTRUM = 150  # that the driver holds


def smooth_spectra_bytes(spectra: int, channels: int, itemsize: int) -> int:
    """Smoothing blocks of so many spectra: as they are read, and the float32 result, which is also encoded."""
    return spectra * channels * (2 * itemsize + 2 * 4)


def regrid_bytes(columns: int, spectra_a_row: int, channels: int, itemsize: int) -> int:
    """A tile of whole rows of a map with so many columns, from so many spectra a row of the scan.

    A task holds the tile, which is also encoded, the spectra of its rows and of a line on each side, and the sums of some pixels.
    """
    rows = max(1, TILE_BYTES // (4 * columns * channels))
    tile = 2 * 4 * rows * columns * channels
    spectra = 2 * (rows + 3) * spectra_a_row * channels * itemsize
    return tile + spectra + 8 * PIXELS_AT_ONCE * channels
