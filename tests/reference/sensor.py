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


# ------------------------------------------------------------------------------------------------------ the blur undone


def furthest_of(shape, pixel_size, distance, poni, thickness):
    """How many pixels further out, in rows or columns, a ray may be when it leaves the back of the sensor; at least 1."""
    most = 1
    for size, pitch, foot in zip(shape, pixel_size, poni, strict=True):
        for pixel in range(size):
            for edge, outwards in ((pixel, -1), (pixel + 1, 1)):
                u = edge * pitch - foot
                if u * outwards > 0:
                    reached = (u * (1 + thickness / distance) + foot) / pitch
                    last = int(np.ceil(reached)) - 1 if outwards > 0 else int(np.floor(reached))
                    most = max(most, abs(min(max(last, 0), size - 1) - pixel))
    return most


def light_of(matrix, recorded, shape, furthest, values=None, power=1):
    """The light (pixel,) that entered unmeasured pixels: the sum of what the nearest measured ones recorded over that of M·1.

    The nearest ones are those of the smallest square that holds three, up to `furthest` pixels away. With `values` and power 2 it is
    the light's variance, of the variances of readings. 0 in measured pixels, and where there is none so near.
    """
    response = matrix.sum(axis=1)
    measured = (np.isfinite(recorded) & (response > 0)).reshape(shape)
    values = (recorded if values is None else values).reshape(shape)
    found = np.zeros(shape)
    for row, column in np.argwhere(~measured):
        for radius in range(1, furthest + 1):
            square = slice(max(row - radius, 0), row + radius + 1), slice(max(column - radius, 0), column + radius + 1)
            there = measured[square]
            if there.sum() >= 3 or (radius == furthest and there.any()):
                found[row, column] = values[square][there].sum() / response.reshape(shape)[square][there].sum() ** power
                break
    return found.ravel()


def exactly(matrix, recorded, background, response):
    """The a for which M·a + background = b."""
    return np.linalg.solve(matrix, recorded - background)


def undo(matrix, recorded, method=exactly, light=0.0):
    """What entered the pixels (pixel,), of a dense matrix M and of what they recorded; NaN where nothing was measured.

    There `recorded` is no number, or M's row is empty: those pixels' rows are taken out of the problem, and `light` (pixel,) entered
    there. A method takes M, b, what b holds of that light, and what pixels record of uniform light.
    """
    measured = np.isfinite(recorded) & matrix.any(axis=1)
    entered = np.full(len(recorded), np.nan)
    background = matrix[measured] @ np.where(measured, 0, light)
    entered[measured] = method(matrix[np.ix_(measured, measured)], recorded[measured], background, matrix[measured].sum(axis=1))
    return entered


def least_squares(matrix, recorded, background, response):
    """The a for which |M·a + background − b|² is least."""
    return np.linalg.lstsq(matrix, recorded - background)[0]


def likeliest(matrix, recorded, background, response, iterations):
    """Plain MLEM (Shepp and Vardi 1982) with light that is known, from a start that is even in all pixels, where that light is too."""
    sensitivity = matrix.sum(axis=0)
    even = recorded.sum() / response.sum()
    entered = np.full(len(recorded), even)
    for number in range(iterations):
        expected = matrix @ entered + background if number else even * response
        ratio = np.divide(recorded, expected, out=np.zeros_like(expected), where=expected > 0)
        entered = entered * (matrix.T @ ratio) / sensitivity
    return entered


def propagated(matrix, variance, measured, light_variance=0.0):
    """Variance of the exact solution (pixel,) from those of b and of the light in pixels that were not measured, all independent."""
    inverse = np.linalg.inv(matrix[np.ix_(measured, measured)])
    found = np.full(len(variance), np.nan)
    of_light = inverse @ matrix[measured]
    found[measured] = inverse**2 @ variance[measured] + of_light**2 @ np.where(measured, 0, light_variance)
    return found


def influence(matrix):
    """|M⁻¹|: how much a recorded pixel (column) moves a solved one (row), of what its own does; 0 of pixels that record nothing."""
    records = np.flatnonzero(matrix.any(axis=1))
    inverse = np.linalg.inv(matrix[np.ix_(records, records)])
    found = np.zeros_like(matrix)
    found[np.ix_(records, records)] = np.abs(inverse / inverse.diagonal()[:, None])
    return found


def noise_amplification(matrix, efficiency, side=8):
    """Noise of M⁻¹·b over that of b / efficiency, for white noise b: the largest over squares of side × side pixels, on average."""
    records = matrix.any(axis=1)
    power = propagated(matrix, np.ones(len(matrix)), records).reshape(efficiency.shape) * efficiency**2
    squares = (power[y : y + side, x : x + side] for y in range(0, efficiency.shape[0], side) for x in range(0, efficiency.shape[1], side))
    return float(np.sqrt(max(np.nanmean(square) for square in squares if np.isfinite(square).any())))
