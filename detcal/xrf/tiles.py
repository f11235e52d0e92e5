"""Tiles of a map: each from the slice of spectra that it needs, which it reads itself."""

from numbers import Integral
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import scipy.sparse as sp
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.graph import reading_tasks
from detcal.xrf import kernels
from detcal.xrf.calibration import ScanGrid

TILE_BYTES = 2**25  # of a map as float32
PARTS_OF_A_SCAN = 64  # by which its lines are told from its columns
PIXELS_AT_ONCE = 64  # whose sums are held in float64


class Missing(NamedTuple):
    """How what was not measured is made up for in a channel of a pixel: the sum is multiplied by (Σ w·t / Σ w·t of what was)^power.

    Attributes
    ----------
    times : (spectrum,)
        What a pixel's shares w are weighted with: 1 for means, live times for rates.
    power
        2 for variances, of which the matrix's entries are w²; else 1.
    """

    times: NDArray[np.float64]
    power: int = 1


def tiles(
    spectra: da.Array,
    matrix: sp.csr_matrix,
    shape: tuple[int, int],
    tile_rows: int | None = None,
    missing: Missing | None = None,
    *,
    once: bool = False,
) -> da.Array:
    """A task a tile and block of channels; a tile is some whole rows, or some whole columns if the lines of the scan are these.

    Each task reads the spectra that it needs itself, so that none are read ahead: neighbours both read the line between them. With `once`
    they share whole blocks, which is for graphs that need each block for something else too.
    """
    matrix = matrix.sorted_indices()
    if tile_rows is not None and not (isinstance(tile_rows, Integral) and tile_rows >= 1):
        raise InputError(f"expected tile_rows as a whole number of at least 1, got {tile_rows!r}")
    rows, columns = shape
    along_rows = lines_are_rows(matrix, shape)
    length = rows if along_rows else columns
    size = min(length, int(tile_rows) if tile_rows else lines_a_tile(rows * columns // length, max(spectra.chunks[1])))
    parts = tuple(min(size, length - start) for start in range(0, length, size))
    chunks = (parts, (columns,)) if along_rows else ((rows,), parts)
    edges = np.concatenate([[0], np.cumsum(spectra.chunks[0])])
    touched = touched_blocks(matrix, shape, along_rows, size, edges)
    name = f"regrid-{tokenize(spectra.name, matrix.data, matrix.indices, matrix.indptr, missing, shape, size, once)}"
    pixels = np.arange(rows * columns).reshape(rows, columns)
    graph: dict[Any, Any] = {}
    for number, start in enumerate(range(0, length, size)):
        inside = pixels[start : start + size] if along_rows else pixels[:, start : start + size]
        part = matrix[inside.ravel()]
        share = (part.indptr.astype(np.int64), part.indices, part.data)
        rest = None if missing is None or spectra.dtype.kind != "f" else times_of(part, missing)  # whole numbers are all measured
        place = (number, 0) if along_rows else (0, number)
        mine = np.flatnonzero(touched[number]).tolist()  # keys of dask are made of Python's own numbers
        for block, channels in enumerate(spectra.chunks[1]):
            if once:
                blocks = [(spectra.name, each, block) for each in mine]
            else:
                own, blocks = reading_tasks(spectra.blocks[mine, block]) if mine else ({}, [])
                graph |= own
            starts = edges[mine].tolist()
            graph[(name, *place, block)] = (regrid_tile, blocks, starts, share, rest, (*inside.shape, channels))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[spectra] if once else [])  # type: ignore[list-item]
    return da.Array(layers, name, (*chunks, spectra.chunks[1]), meta=np.empty((0, 0, 0), np.float32))


def lines_a_tile(pixels: int, channels: int) -> int:
    """Lines of so many pixels and channels that make a tile."""
    return max(1, TILE_BYTES // (4 * pixels * channels))


def lines_are_rows(matrix: sp.csr_matrix, shape: tuple[int, int]) -> bool:
    """Whether the lines of the scan are rows of the map, or else columns: those were made in fewer parts of the scan's time."""
    edges = np.linspace(0, matrix.shape[1], PARTS_OF_A_SCAN + 1)
    rows, columns = (touched_blocks(matrix, shape, along_rows, 1, edges).sum(axis=1).mean() for along_rows in (True, False))
    return bool(rows <= columns)


def touched_blocks(
    matrix: sp.csr_matrix, shape: tuple[int, int], along_rows: bool, tile_rows: int, edges: NDArray[Any]
) -> NDArray[np.bool_]:
    """Which blocks of spectra, between `edges`, each tile of so many rows or columns of the map has a share of (tile, block)."""
    entries = matrix.tocoo()
    lines = entries.row // shape[1] if along_rows else entries.row % shape[1]
    touched = np.zeros((-(-shape[0 if along_rows else 1] // tile_rows), len(edges) - 1), np.bool_)
    touched[lines // tile_rows, np.searchsorted(edges, entries.col, side="right") - 1] = True
    return touched


def most_spectra(grid: ScanGrid, tile_rows: int, blocks: tuple[int, ...]) -> int:
    """How many spectra, in blocks of so many, a tile of so many lines of the map reads, at most."""
    edges = np.concatenate([[0], np.cumsum(blocks)])
    touched = touched_blocks(grid.to_scipy(), grid.shape, lines_are_rows(grid.to_scipy(), grid.shape), tile_rows, edges)
    return int((touched @ np.array(blocks)).max())


def times_of(part: sp.csr_matrix, missing: Missing) -> tuple[int, NDArray[np.float64], int]:
    """What `missing` says of the spectra of a part of the matrix: the number of the first of these, their times, the power."""
    first, stop = (int(part.indices.min()), int(part.indices.max()) + 1) if part.nnz else (0, 0)
    return first, missing.times[first:stop], missing.power


def regrid_tile(
    blocks: list[NDArray[Any]],
    firsts: list[int],
    share: tuple[NDArray[Any], ...],
    rest: tuple[int, NDArray[np.float64], int] | None,
    shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    """A tile (row, column, energy) from blocks of spectra, and from the parts of the matrix that belong to its pixels."""
    indptr, indices, data = share
    tile = np.empty((shape[0] * shape[1], shape[2]), np.float32)
    for start in range(0, len(tile), PIXELS_AT_ONCE):
        part = tile[start : start + PIXELS_AT_ONCE]
        ends = indptr[start : start + len(part) + 1]
        sums = np.zeros(part.shape)
        for block, first in zip(blocks, firsts, strict=True):
            kernels.add_spectra(np.ascontiguousarray(block), first, ends, indices, data, sums)
        if not np.isfinite(sums).all():
            sums = measured_sums(blocks, firsts, ends, share, rest, shape[2])
        sums[np.diff(ends) == 0] = np.nan
        part[...] = sums
    return tile.reshape(shape)


def measured_sums(
    blocks: list[NDArray[Any]],
    firsts: list[int],
    ends: NDArray[np.int64],
    share: tuple[NDArray[Any], ...],
    rest: tuple[int, NDArray[np.float64], int] | None,
    channels: int,
) -> NDArray[np.float64]:
    """Sums (pixel, energy) of what is finite, and what it makes up for of the rest; NaN where nothing is."""
    _, indices, data = share
    pixels, weights, power = len(ends) - 1, data, 0
    if rest is not None:
        first_time, times, power = rest
        weights = data ** (1 / power) * times[indices - first_time]
    sums, there, whole = np.zeros((pixels, channels)), np.zeros((pixels, channels)), np.zeros(pixels)
    for block, first in zip(blocks, firsts, strict=True):
        kernels.add_measured(np.ascontiguousarray(block), first, ends, indices, data, weights, sums, there, whole)
    parts = np.divide(whole[:, None], there, out=np.full(there.shape, np.nan), where=there > 0)
    return sums * np.where(np.isnan(parts), np.nan, parts**power)
