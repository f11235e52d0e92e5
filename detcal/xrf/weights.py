"""Which share of which spectrum a pixel gets: by drizzling, linearly, from the nearest, or by a gaussian."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree

from detcal.errors import InputError
from detcal.xrf import kernels
from detcal.xrf.path import Places, swept

ENTRIES_AT_ONCE = 2**20  # of a matrix, before they are packed
LONGEST_EDGE = 3.0  # distances of the lines, and of the spectra along them: of a triangle between neighbours
# In pixels, or in distances of the spectra where these are larger:
FARTHEST = 1.0  # from a pixel's centre to the nearest spectrum
GAUSSIAN_SIGMA = 0.5


class Frame(NamedTuple):
    """A grid's place. Pairs are (across, along) the scan lines; `order` takes them to (y, x) and back."""

    corner: Places
    step: Places
    shape: tuple[int, int]
    order: tuple[int, int]

    def pixels(self, places: Places) -> Places:
        """Places (…, (across, along)) in pixels from the corner."""
        return (places - self.corner) / self.step


def drizzle(places: Places, measured: NDArray[np.int64], own: Places, frame: Frame) -> sp.csr_matrix:
    """Swept boxes over the grid: columns add up to 1."""
    starts, ends = (ends_of_boxes[measured] for ends_of_boxes in swept(places, own))
    # lines may lie closer than the grid's rows, or further: a box is as high as they are apart
    height = float(own[0])
    found, first, room = [], 0, ENTRIES_AT_ONCE
    while first < len(measured):
        entries, shares = np.empty((room, 3), np.int32), np.empty(room)
        count, reached = kernels.lay_boxes(starts, ends, height, frame.shape, first, entries, shares)
        room = 2 * room if reached == first else room
        first = reached
        pixels = pixel_numbers(entries[:count, 1:], frame).astype(np.int32)
        found.append((pixels, measured[entries[:count, 0]].astype(np.int32), shares[:count].astype(np.float32)))
    pixels, numbers, shares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return entries_matrix(pixels, numbers, shares, frame, len(places))


def linear(places: Places, measured: NDArray[np.int64], own: Places, frame: Frame) -> sp.csr_matrix:
    """Barycentric weights in the triangle around each pixel's centre; spectra at one place are averaged."""
    merged, belongs = np.unique(places[measured] / own, axis=0, return_inverse=True)
    try:
        triangles = Delaunay(merged)
    except QhullError:
        raise InputError('all positions lie on one line, between which there are no triangles: take "drizzle" or "nearest"') from None
    corners = merged[triangles.simplices]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    centres = pixel_centres(frame) / own
    triangle = triangles.find_simplex(centres)
    inside = np.flatnonzero(triangle >= 0)
    inside = inside[edges[triangle[inside]] <= LONGEST_EDGE]
    chosen = triangle[inside]
    offsets = centres[inside] - triangles.transform[chosen, 2]
    weights = np.einsum("ijk,ik->ij", triangles.transform[chosen, :2], offsets)
    weights = np.column_stack([weights, 1 - weights.sum(axis=1)]).clip(0)
    vertices = sp.csr_matrix(
        (weights.ravel(), triangles.simplices[chosen].ravel(), np.arange(0, weights.size + 1, 3)), shape=(len(inside), len(merged))
    )
    shared = 1 / np.bincount(belongs.ravel())
    spread = sp.csr_matrix((shared[belongs.ravel()], (belongs.ravel(), measured)), shape=(len(merged), len(places)))
    entries = (vertices @ spread).tocoo()
    return entries_matrix(centre_numbers(inside[entries.row], frame), entries.col, entries.data, frame, len(places))


def nearest(places: Places, measured: NDArray[np.int64], own: Places, frame: Frame) -> sp.csr_matrix:
    """The spectrum nearest to each pixel's centre."""
    unit = np.maximum(own, 1)
    distance, number = cKDTree(places[measured] / unit).query(pixel_centres(frame) / unit, distance_upper_bound=FARTHEST)
    there = np.flatnonzero(np.isfinite(distance))
    return entries_matrix(centre_numbers(there, frame), measured[number[there]], np.ones(len(there)), frame, len(places))


def gaussian(places: Places, measured: NDArray[np.int64], own: Places, frame: Frame) -> sp.csr_matrix:
    """Weights that fall with the distance from each pixel's centre, to 4 sigma."""
    reach = 4 * GAUSSIAN_SIGMA
    unit = np.maximum(own, 1)
    centres = pixel_centres(frame) / unit
    distances = cKDTree(centres).sparse_distance_matrix(cKDTree(places[measured] / unit), reach, output_type="coo_matrix")
    weights = np.exp(-0.5 * (distances.data / GAUSSIAN_SIGMA) ** 2)
    sums = np.bincount(distances.row, weights, minlength=len(centres))
    near = np.bincount(distances.row, distances.data <= FARTHEST, minlength=len(centres))[distances.row] > 0
    pixels = centre_numbers(distances.row[near], frame)
    return entries_matrix(pixels, measured[distances.col[near]], (weights / sums[distances.row])[near], frame, len(places))


def pixel_centres(frame: Frame) -> Places:
    """Centres (pixel, (across, along)) in pixels from the corner."""
    across, along = np.indices(frame.shape)
    return np.asarray(np.stack([across.ravel(), along.ravel()], axis=1) + 0.5, np.float64)


def pixel_numbers(places: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Numbers of pixels at (across, along) in the map: row·columns + column."""
    row, column = (places[:, axis] for axis in frame.order)
    return np.asarray(row * frame.shape[frame.order[1]] + column)


def centre_numbers(centres: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """As `pixel_numbers`, of some of the `pixel_centres`."""
    return pixel_numbers(np.stack(np.divmod(centres, frame.shape[1]), axis=1), frame)


def entries_matrix(pixels: NDArray[Any], numbers: NDArray[Any], shares: NDArray[Any], frame: Frame, spectra: int) -> sp.csr_matrix:
    """The matrix (pixels × spectra) from its entries."""
    matrix = sp.csr_matrix((shares, (pixels, numbers)), shape=(frame.shape[0] * frame.shape[1], spectra))
    matrix.sort_indices()
    return matrix
