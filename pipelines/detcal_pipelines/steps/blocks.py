"""What a run is cut into: a block that one task takes, and the work of a whole run in blocks."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from detcal.frames.maps import cut_by_rows


@dataclass(frozen=True)
class Block:
    """What one task takes.

    Attributes
    ----------
    depth
        How many frames, rows, lines or spectra, whatever the step cuts.
    data
        All that the step takes, lazily: frames (frame, y, x), a scan, or None.
    result
        All that it gives, lazily.
    """

    depth: int
    data: Any
    result: Any = None

    @property
    def source(self) -> xr.DataArray:
        """The array that is cut: frames or spectra."""
        found = self.data.spectra if isinstance(self.data, xr.Dataset) else self.data
        assert found is not None, "a step that takes nothing has no array to cut"
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the block: (depth, y, x) of frames, (depth, energy) of spectra."""
        return (self.depth, *self.source.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the frames."""
        height, width = self.source.shape[1:]
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the frames or spectra."""
        return self.source.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of a reading."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the block as it is taken."""
        return int(np.prod(self.shape)) * self.itemsize


@dataclass(frozen=True)
class Work:
    """What there is to do, and the sizes of a block to try.

    Attributes
    ----------
    unit
        What is cut: frames, rows, lines, spectra.
    setting
        Key of a recipe that says how many a task takes.
    length, smallest
        How many there are, and fewest in a block.
    sizes
        Of blocks that are tried, the largest first.
    across
        Blocks that lie side by side where not all frames are in one: of rows alone.
    map_sizes
        Of a map its rows, columns, …: its blocks are of whole rows, or of parts of one.
    """

    unit: str
    setting: str
    length: int
    smallest: int
    sizes: list[int]
    across: int = 1
    map_sizes: tuple[int, ...] = ()

    def blocks(self, depth: int) -> int:
        """How many blocks of so many there are."""
        if self.map_sizes:
            return len(cut_by_rows(depth, self.map_sizes))
        return ceil(self.length / depth) * self.across


def halvings(largest: int, smallest: int) -> list[int]:
    """largest, a half, a quarter … smallest."""
    sizes = [largest]
    while sizes[-1] > smallest:
        sizes.append(max(smallest, sizes[-1] // 2))
    return sizes


def rounded(depth: int, unit: int, length: int) -> int:
    """Frames or rows a task: whole chunks of the file, and no more than there are."""
    return min(length, ceil(depth / unit) * unit)
