"""The point-spread matrix in memory, as kernels take it, and the blur that it is. ndarrays in, ndarrays out."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from detcal.frames.jit import exact_kernel, kernel
from detcal.frames.lanes import all_in_lanes, from_lanes, lanes_for, read_only
from detcal.frames.readings import ALL_NUMBERS, Floats, Frames, Valid
from detcal.frames.simd import load, plus_product, splat_for, store
from detcal.sensor.groups import MOST_ALONE, groups_of
from detcal.sensor.kernels import Slab, spans
from detcal.sensor.unmeasured import put_all_light


class Matrix(NamedTuple):
    """M in CSR, and what is often asked of it.

    Attributes
    ----------
    shape, origin
        The detector, and the pixel from which rays go outwards.
    reach, furthest
        How many rows away an entry pixel may be; how many rows or columns.
    sensitivity : (pixel,)
        Column sums: what of each pixel's light is recorded anywhere.
    response : (pixel,)
        Row sums: what each pixel records of uniform light of 1; 0 if it records nothing.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: Floats
    shape: tuple[int, int]
    origin: tuple[int, int]
    reach: int
    furthest: int
    sensitivity: Floats
    response: Floats

    @classmethod
    def of(cls, indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Floats, slab: Slab) -> "Matrix":
        """The matrix of a slab."""
        row, column = (min(max(int(slab.poni[k] // slab.pitch[k]), 0), slab.shape[k] - 1) for k in (0, 1))
        reach, across = (reach_of(slab, axis) for axis in (0, 1))
        sensitivity, response = np.zeros(slab.shape[0] * slab.shape[1], np.float32), np.zeros(len(indptr[1:]), np.float32)
        sum_both(indptr, indices, data, sensitivity, response)
        furthest = max(reach, across, 1)
        parts = read_only(indptr), read_only(indices), read_only(data)
        return cls(*parts, slab.shape, (row, column), reach, furthest, sensitivity, response)


def reach_of(slab: Slab, axis: int) -> int:
    """How many pixels away along an axis the light of a pixel is recorded."""
    first, last = (np.empty(slab.shape[axis], np.int64) for _ in range(2))
    spans(slab.shape[axis], slab.pitch[axis], slab.poni[axis], slab.distance, slab.thickness, first, last)
    pixels = np.arange(slab.shape[axis])
    return int(max((pixels - first).max(), (last - pixels).max()))


@kernel
def goes_outwards(matrix):  # type: ignore[no-untyped-def]
    """Whether each coefficient is a share of what enters a pixel as far inwards as rays reach, in rising order."""
    (height, width), origin = matrix.shape, matrix.origin
    for pixel in range(height * width):
        row, column = pixel // width, pixel % width
        last = -1
        for k in range(matrix.indptr[pixel], matrix.indptr[pixel + 1]):
            entry, share = matrix.indices[k], matrix.data[k]
            if not (last < entry < height * width and 0 <= share <= 1):
                return False
            inwards = (
                (row - entry // width) * (1 if row >= origin[0] else -1),
                (column - entry % width) * (1 if column >= origin[1] else -1),
            )
            if not (0 <= inwards[0] <= matrix.reach and 0 <= inwards[1] <= matrix.furthest):
                return False
            last = entry
    return True


@kernel
def sum_both(indptr, indices, data, columns, rows):  # type: ignore[no-untyped-def]
    """Add each coefficient to the sum of its column, and of its row."""
    for pixel in range(len(rows)):
        for k in range(indptr[pixel], indptr[pixel + 1]):
            if 0 <= indices[k] < len(columns):  # of a matrix by hand too, which is not checked yet
                columns[indices[k]] += data[k]
            rows[pixel] += data[k]


@kernel
def row_ends(matrix, pixel):  # type: ignore[no-untyped-def]
    """Where the coefficients of a row begin and end; unsigned, as numba would look at each index whether it counts from an array's end."""
    return np.uint64(matrix.indptr[pixel]), np.uint64(matrix.indptr[pixel + 1])


@exact_kernel
def expected_of(matrix, entered, pixel):  # type: ignore[no-untyped-def]
    """What a pixel records: its row of M times what entered (pixel, lane)."""
    total = splat_for(entered, np.float32(0))
    begin, end = row_ends(matrix, pixel)
    for k in range(begin, end):
        total = plus_product(total, splat_for(entered, matrix.data[k]), load(entered, matrix.indices[k]))
    return total


@exact_kernel
def blur_lanes(matrix, entered, recorded):  # type: ignore[no-untyped-def]
    """recorded = M·entered, both (pixel, lane), NaN in a row that is empty."""
    nowhere = splat_for(entered, np.float32(np.nan))
    for pixel in range(len(recorded)):
        empty = matrix.indptr[pixel] == matrix.indptr[pixel + 1]
        store(recorded, pixel, nowhere if empty else expected_of(matrix, entered, pixel))


def blur_frames(frames: Frames, matrix: Matrix, valid: Valid = ALL_NUMBERS) -> Floats:
    """M·a for a block of frames (frame, y, x): NaN where nothing is recorded, or where too little is known of what entered."""
    pixels = frames[0].size
    blurred = np.empty((len(frames), pixels), np.float32)
    entering = matrix._replace(response=np.ones(pixels, np.float32))  # these frames are the light itself
    for some, group in groups_of(frames, MOST_ALONE):
        entered, recorded = all_in_lanes(some, valid), lanes_for(some, pixels)
        put_all_light(some, valid, entering, entered, entered)
        blur_lanes(matrix, entered, recorded)
        from_lanes(recorded, 0, len(recorded), blurred[group])
    return blurred.reshape(frames.shape)


def diagonal_of(matrix: Matrix) -> Floats:
    """What each pixel records of what enters it."""
    return np.asarray(in_scipy(matrix).diagonal())


def in_scipy(matrix: Matrix) -> Any:
    """M for scipy."""
    pixels = matrix.shape[0] * matrix.shape[1]
    return sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(pixels, pixels))
