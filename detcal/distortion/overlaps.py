"""Areas in which distorted pixels overlap ideal ones, as a sparse matrix. ndarrays in, ndarrays out.

A row is an ideal pixel, its coefficients the fractions of the distorted pixels' areas that lie in it.
"""

from math import floor

import numpy as np
from numpy.typing import NDArray

from detcal.frames.jit import kernel
from detcal.frames.lanes import Floats

RUN = 128  # pixels whose overlaps are computed together
WIDEST = 64  # output pixels that a distorted one may be wide or high
Corners = tuple[NDArray[np.float64], NDArray[np.float64]]  # y and x


@kernel
def mask_unknown(corners, masked):  # type: ignore[no-untyped-def]
    """Mask the pixels that have a corner that is not known."""
    for i in range(corners.shape[0]):
        for j in range(corners.shape[1]):
            if not (np.isfinite(corners[i, j, 0]) and np.isfinite(corners[i, j, 1])):
                masked[max(0, i - 1) : i + 1, max(0, j - 1) : j + 1] = True


@kernel
def scale_corners(corners, origin, size, scaled, spans):  # type: ignore[no-untyped-def]
    """Corners in pixels of the output, as y and x, 0 where they are not known, and least and largest y of each row of them (row, 2)."""
    for i in range(len(corners)):
        least, most = np.inf, -np.inf
        for j in range(corners.shape[1]):
            y, x = (corners[i, j, 0] - origin[0]) / size[0], (corners[i, j, 1] - origin[1]) / size[1]
            known = np.isfinite(y) and np.isfinite(x)
            y, x = y if known else 0.0, x if known else 0.0
            scaled[0][i, j], scaled[1][i, j] = y, x
            least, most = min(least, y), max(most, y)
        spans[i, 0], spans[i, 1] = least, most


@kernel
def boxes_of_row(corners, i, boxes):  # type: ignore[no-untyped-def]
    """First and last row and column of the output (4, pixel) that the pixels of row i reach into."""
    y, x = corners[0], corners[1]
    for j in range(boxes.shape[1]):
        top = np.floor(min(min(y[i, j], y[i, j + 1]), min(y[i + 1, j], y[i + 1, j + 1])))
        left = np.floor(min(min(x[i, j], x[i, j + 1]), min(x[i + 1, j], x[i + 1, j + 1])))
        bottom = np.ceil(max(max(y[i, j], y[i, j + 1]), max(y[i + 1, j], y[i + 1, j + 1]))) - 1
        right = np.ceil(max(max(x[i, j], x[i, j + 1]), max(x[i + 1, j], x[i + 1, j + 1]))) - 1
        boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j] = top, max(top, bottom), left, max(left, right)


@kernel
def quadrilateral_area(corners, i, j):  # type: ignore[no-untyped-def]
    """Area of pixel (i, j), by its diagonals; negative if it is turned over."""
    y, x = corners[0], corners[1]
    dy, dx = y[i + 1, j + 1] - y[i, j], x[i + 1, j + 1] - x[i, j]
    ey, ex = y[i + 1, j] - y[i, j + 1], x[i + 1, j] - x[i, j + 1]
    return (ey * dx - ex * dy) / 2


@kernel
def corner_area(corners, i, j, k, m):  # type: ignore[no-untyped-def]
    """Twice the area of the triangle at corner (i + k, j + m) of pixel (i, j), with the sign that a pixel has."""
    y, x = corners[0], corners[1]
    dy, dx = y[i + 1 - k, j + m] - y[i + k, j + m], x[i + 1 - k, j + m] - x[i + k, j + m]
    ey, ex = y[i + k, j + 1 - m] - y[i + k, j + m], x[i + k, j + 1 - m] - x[i + k, j + m]
    return dy * ex - dx * ey if k == m else dx * ey - dy * ex


@kernel
def add_edge(y0, x0, y1, x1, top, left, areas):  # type: ignore[no-untyped-def]
    """Add what lies to the right of an edge to the areas of a box's cells: the sum over all edges is what lies inside.

    Cell by cell along the edge; the area between a piece of height h and the cell's right border is a trapezoid, and all cells to
    the right of it get h.
    """
    dy, dx = y1 - y0, x1 - x0
    if dy == 0:
        return
    width = areas.shape[1]
    at_y, at_x, part = y0, x0, 0.0
    while part < 1:
        # the next border that the edge comes to
        row = floor(at_y) if dy > 0 else -floor(-at_y) - 1
        column = floor(at_x) if dx >= 0 else -floor(-at_x) - 1
        to_y = ((row + 1 if dy > 0 else row) - y0) / dy
        to_x = ((column + 1 if dx > 0 else column) - x0) / dx if dx != 0 else 2.0
        part = min(1.0, max(part, min(to_y, to_x)))
        next_y = y1 if part == 1 else (float(row + 1 if dy > 0 else row) if to_y <= to_x else y0 + part * dy)
        next_x = x1 if part == 1 else (float(column + 1 if dx > 0 else column) if to_x <= to_y else x0 + part * dx)
        height = next_y - at_y
        i, j = row - top, column - left
        if 0 <= i < areas.shape[0]:
            j = min(max(j, 0), width - 1)
            areas[i, j] += height * (left + j + 1 - (at_x + next_x) / 2)
            for k in range(j + 1, width):
                areas[i, k] += height
        if next_y == at_y and next_x == at_x and part < 1:  # on a border already: step over it
            part = min(1.0, part + 1e-12)
        at_y, at_x = next_y, next_x


@kernel
def overlaps(corners, i, j, top, left, areas):  # type: ignore[no-untyped-def]
    """Areas of the cells of a box, which begins at (top, left), that pixel (i, j) covers."""
    areas[:] = 0
    y, x = corners[0], corners[1]
    place = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
    for k in range(4):
        a, b = place[k], place[(k + 1) % 4]
        add_edge(y[a[0], a[1]], x[a[0], a[1]], y[b[0], b[1]], x[b[0], b[1]], top, left, areas)


@kernel
def positive_part(start, stop, height):  # type: ignore[no-untyped-def]
    """Integral over a height of what goes evenly from start to stop, where that is positive."""
    a, b = max(start, 0.0), max(stop, 0.0)
    return height * (a + b) / 2 * min(1.0, max(a, b) / max(abs(start - stop), 1e-300))


@kernel
def beside_edge(y0, x0, y1, x1):  # type: ignore[no-untyped-def]
    """What lies right of an edge above a node, of that what is left of the node, and what lies so below.

    y is down from the node, x left of it; to the right, it is counted up to 1. Without branches, so that it runs in SIMD lanes.
    """
    rise = y1 - y0
    middle = x0 + (x1 - x0) * min(1.0, max(0.0, -y0 / (rise if rise != 0 else 1.0)))  # at the node's height, or an end
    first, last = (x0 if rise > 0 else x1), (x1 if rise > 0 else x0)  # from above downwards
    above, below = min(y1, 0.0) - min(y0, 0.0), max(y1, 0.0) - max(y0, 0.0)
    return above * (1 + (first + middle) / 2), positive_part(first, middle, above), positive_part(middle, last, below)


@kernel
def quarters_of_row(corners, i, boxes, quarters):  # type: ignore[no-untyped-def]
    """`overlaps` of the pixels of row i with the four cells about a node, right for those that lie in these, and areas (5, pixel).

    By runs of pixels in one small array: of several, a compiler cannot know that they do not overlap, and uses no SIMD lanes.
    """
    y, x = corners[0], corners[1]
    work = np.empty((13, RUN))
    for start in range(0, boxes.shape[1], RUN):
        count = min(RUN, boxes.shape[1] - start)
        for k in range(count):
            j = start + k
            row, column = boxes[0, j] + 1, boxes[2, j] + 1
            work[0, k], work[1, k], work[2, k], work[3, k] = y[i, j + 1] - row, column - x[i, j + 1], y[i, j] - row, column - x[i, j]
            work[4, k], work[5, k] = y[i + 1, j] - row, column - x[i + 1, j]
            work[6, k], work[7, k] = y[i + 1, j + 1] - row, column - x[i + 1, j + 1]
        for k in range(RUN):
            y0, x0, y1, x1, y2, x2, y3, x3 = (
                work[0, k], work[1, k], work[2, k], work[3, k], work[4, k], work[5, k], work[6, k], work[7, k]
            )  # fmt: skip
            a0, b0, c0 = beside_edge(y0, x0, y1, x1)
            a1, b1, c1 = beside_edge(y1, x1, y2, x2)
            a2, b2, c2 = beside_edge(y2, x2, y3, x3)
            a3, b3, c3 = beside_edge(y3, x3, y0, x0)
            above, left_above, left_below = a0 + a1 + a2 + a3, b0 + b1 + b2 + b3, c0 + c1 + c2 + c3
            area = ((y2 - y0) * (x1 - x3) - (x0 - x2) * (y3 - y1)) / 2
            work[8, k], work[9, k], work[10, k] = left_above, above - left_above, left_below
            work[11, k], work[12, k] = area - above - left_below, area
        for m in range(5):
            for k in range(count):
                quarters[m, start + k] = work[8 + m, k]


@kernel
def count_band(corners, masked, rows, width, counts):  # type: ignore[no-untyped-def]
    """How many pixels' boxes reach each output pixel of the rows from rows[0] up to rows[1] (row · width + column)."""
    boxes = np.empty((4, masked.shape[1]), np.int32)
    for i in range(masked.shape[0]):
        boxes_of_row(corners, i, boxes)
        for j in range(masked.shape[1]):
            if masked[i, j]:
                continue
            for row in range(max(boxes[0, j], rows[0]), min(boxes[1, j] + 1, rows[1])):
                for column in range(max(boxes[2, j], 0), min(boxes[3, j] + 1, width)):
                    counts[(row - rows[0]) * width + column] += 1


@kernel
def fill_band(corners, masked, first_row, rows, width, offset, indices, data):  # type: ignore[no-untyped-def]
    """The coefficients of a band of output rows, of the distorted pixels of these corners, which begin at `first_row`.

    offset (pixel,): where each row of the matrix begins; it is moved to where it ends.
    """
    space = np.empty((WIDEST + 2) ** 2)
    boxes, quarters = np.empty((4, masked.shape[1]), np.int32), np.empty((5, masked.shape[1]))
    for i in range(masked.shape[0]):
        boxes_of_row(corners, i, boxes)
        quarters_of_row(corners, i, boxes, quarters)
        for j in range(masked.shape[1]):
            top, bottom, left, right = boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j]
            if masked[i, j] or bottom < rows[0] or top >= rows[1] or right < 0 or left >= width:
                continue
            pixel, scale = (first_row + i) * masked.shape[1] + j, 1 / quarters[4, j]
            if bottom == top + 1 and right == left + 1 and top >= rows[0] and bottom < rows[1] and left >= 0 and right < width:
                place = (top - rows[0]) * width + left
                put(place, pixel, quarters[0, j] * scale, offset, indices, data)
                put(place + 1, pixel, quarters[1, j] * scale, offset, indices, data)
                put(place + width, pixel, quarters[2, j] * scale, offset, indices, data)
                put(place + width + 1, pixel, quarters[3, j] * scale, offset, indices, data)
                continue
            shape, columns = (bottom + 1 - top, right + 1 - left), max(2, right + 1 - left)
            if shape[0] <= 2 and shape[1] <= 2:
                for k in range(4):
                    space[k] = quarters[k, j]
            else:
                overlaps(corners, i, j, top, left, space[: shape[0] * columns].reshape((shape[0], columns)))
            for row in range(max(top, rows[0]), min(bottom + 1, rows[1])):
                for column in range(max(left, 0), min(right + 1, width)):
                    share = space[(row - top) * columns + column - left] * scale
                    put((row - rows[0]) * width + column, pixel, share, offset, indices, data)


@kernel
def put(place, pixel, share, offset, indices, data):  # type: ignore[no-untyped-def]
    """Append a coefficient to a row of the matrix."""
    at = offset[place]
    indices[at], data[at] = pixel, max(0.0, share)
    offset[place] = at + 1


def count_rows(corners: Corners, masked: NDArray[np.bool_], rows: tuple[int, int], width: int, ends: NDArray[np.int64]) -> None:
    """Where each row of the matrix ends in a band of output rows, put into zeros (pixel,)."""
    count_band(corners, masked, rows, width, ends)
    np.cumsum(ends, out=ends)


def fill_rows(
    corners: Corners, masked: NDArray[np.bool_], begins: NDArray[np.int64], first_row: int, rows: tuple[int, int], width: int
) -> tuple[Floats, NDArray[np.int32]]:
    """Coefficients and pixels of a band of output rows; `begins` (pixel + 1,) says where each row of the matrix does."""
    offset = begins - begins[0]
    data, indices = np.empty(offset[-1], np.float32), np.empty(offset[-1], np.int32)
    fill_band(corners, masked, first_row, rows, width, offset, indices, data)
    return data, indices


@kernel
def signed_areas(corners, masked, areas):  # type: ignore[no-untyped-def]
    """Area of each pixel, negative if it is turned over, 0 if it is masked or its edges cross, and the largest side of a box."""
    widest = 0
    boxes = np.empty((4, masked.shape[1]), np.int32)
    for i in range(areas.shape[0]):
        boxes_of_row(corners, i, boxes)
        for j in range(areas.shape[1]):
            area = quadrilateral_area(corners, i, j)
            turned = 0  # corners against the pixel's sense: two, where edges cross, and one, if it is not convex
            for k in range(2):
                for m in range(2):
                    turned += corner_area(corners, i, j, k, m) * area < 0
            areas[i, j] = 0.0 if masked[i, j] or turned > 1 else area
            if areas[i, j] != 0:
                widest = max(widest, boxes[1, j] + 1 - boxes[0, j], boxes[3, j] + 1 - boxes[2, j])
    return widest
