"""The blur of a thick sensor by brute force: rays from the sample, one by one, pixel by pixel along each. Slow and clear."""

from itertools import pairwise

import numpy as np

PANEL = 250_000  # rays that are walked together


def blur_of_pixel(entry, shape, pixel_size, distance, poni, thickness, mu, n=1000, graded=True):
    """{(row, column): share} of what enters the front of one pixel, evenly lit, and where it is absorbed.

    The pixel is cut into cells, and a ray from the sample goes straight through the middle of each. In a pixel that it
    enters at depth z₀ and leaves at z₁ it leaves exp(−µ·s₀) − exp(−µ·s₁) of itself, s = z·secθ. It ends at the back of the sensor,
    or at the detector's edge: what it still holds is lost.

    n × n cells; `graded` cuts the pixel first where a ray at the back of the sensor just reaches a border, as the strip of
    rays that leave the pixel may be thinner than a cell; then n × n is the number of cells at least, shared out evenly.
    """
    cells = [
        cells_of_axis(entry[axis] * pixel_size[axis] - poni[axis], pixel_size[axis], distance, thickness, n, graded) for axis in (0, 1)
    ]
    (ys, heights), (xs, widths) = cells
    area = pixel_size[0] * pixel_size[1]
    image = np.zeros(shape)
    rows_at_once = max(1, PANEL // len(xs))
    for start in range(0, len(ys), rows_at_once):
        y, x = (a.ravel() for a in np.meshgrid(ys[start : start + rows_at_once], xs, indexing="ij"))
        weight = np.outer(heights[start : start + rows_at_once], widths).ravel() / area
        image += walk(entry, y, x, weight, shape, pixel_size, distance, poni, thickness, mu)
    return {(int(row), int(column)): float(image[row, column]) for row, column in zip(*np.nonzero(image), strict=True)}


def cells_of_axis(low, size, distance, thickness, n, graded):
    """Middles and widths of the cells of [low, low + size], metres from the PONI."""
    cuts = {low, low + size}
    if graded:
        back = 1 + thickness / distance  # the back of the sensor seen from the sample: an entry point u is at u·back there
        furthest = int(np.ceil(max(abs(low), abs(low + size)) * (back - 1) / size)) + 1
        borders = low + size * np.arange(-furthest, furthest + 2)
        least = 1e-9 * size  # a border that misses the pixel but for rounding cuts nothing off
        cuts |= {u for u in (*(borders / back), 0.0) if low + least < u < low + size - least}
    cuts = sorted(cuts)
    parts = -(-n // (len(cuts) - 1))
    edges = np.concatenate([np.linspace(a, b, parts, endpoint=False) for a, b in pairwise(cuts)] + [[low + size]])
    return (edges[1:] + edges[:-1]) / 2, np.diff(edges)


def walk(entry, y, x, weight, shape, pixel_size, distance, poni, thickness, mu):
    """What rays that enter a pixel at (y, x), metres from the PONI, leave in each pixel of the detector."""
    image = np.zeros(shape)
    secant = np.sqrt(1 + (y**2 + x**2) / distance**2)
    row, column = np.full(y.shape, entry[0]), np.full(y.shape, entry[1])
    depth = np.zeros(y.shape)
    while depth.size:
        to_row = depth_of_border(y, row, pixel_size[0], poni[0], distance)
        to_column = depth_of_border(x, column, pixel_size[1], poni[1], distance)
        leaves = np.minimum(np.minimum(to_row, to_column), thickness)
        deposit = weight * (np.exp(-mu * secant * depth) - np.exp(-mu * secant * leaves))
        np.add(image, np.bincount(row * shape[1] + column, deposit, image.size).reshape(shape), out=image)
        row = np.where(to_row == leaves, row + np.sign(y).astype(int), row)
        column = np.where(to_column == leaves, column + np.sign(x).astype(int), column)
        goes_on = (leaves < thickness) & (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        y, x, weight, secant, row, column, depth = (a[goes_on] for a in (y, x, weight, secant, row, column, leaves))
    return image


def depth_of_border(u, pixel, size, poni, distance):
    """Depth at which a ray that entered at u, and is in a pixel, leaves it along this axis: it is at u·(1 + z/L) at depth z."""
    border = np.where(u > 0, pixel + 1, pixel) * size - poni
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(u == 0, np.inf, distance * (border / u - 1))


def absorbed_fraction(entry, pixel_size, distance, poni, thickness, mu, points=24):
    """1 − exp(−µ·t·secθ) averaged over a pixel."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    y, x = ((entry[axis] + 0.5 + nodes / 2) * pixel_size[axis] - poni[axis] for axis in (0, 1))
    secant = np.sqrt(1 + (y[:, None] ** 2 + x**2) / distance**2)
    return float(weights @ -np.expm1(-mu * thickness * secant) @ weights / 4)
