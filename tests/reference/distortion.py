"""Overlaps of polygons and resampling, one pixel at a time, in float64. Slow and clear."""

import numpy as np


def clip_half_plane(polygon, axis, border, keep_above):
    """The part of a polygon [(y, x), …] on one side of a line along an axis (Sutherland and Hodgman 1974)."""
    sign = 1 if keep_above else -1
    found = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        inside_a, inside_b = sign * (a[axis] - border) >= 0, sign * (b[axis] - border) >= 0
        if inside_a:
            found.append(a)
        if inside_a != inside_b:
            part = (border - a[axis]) / (b[axis] - a[axis])
            found.append(tuple(a[k] + part * (b[k] - a[k]) for k in (0, 1)))
    return found


def area(polygon):
    """Of a polygon, by the shoelace formula."""
    if len(polygon) < 3:
        return 0.0
    y, x = np.transpose(polygon)
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def overlap_matrix(corners, masked, shape):
    """Dense (output pixel, pixel) shares of pixels' areas, and the areas."""
    height, width = masked.shape
    shares, areas = np.zeros((shape[0] * shape[1], height * width)), np.zeros(height * width)
    for i, j in np.argwhere(~masked):
        quad = [tuple(corners[i + a, j + b]) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        areas[i * width + j] = area(quad)
        low, high = np.floor(np.min(quad, axis=0)).astype(int), np.ceil(np.max(quad, axis=0)).astype(int)
        for row in range(max(low[0], 0), min(high[0], shape[0])):
            for column in range(max(low[1], 0), min(high[1], shape[1])):
                piece = quad
                for axis, border, above in ((0, row, True), (0, row + 1, False), (1, column, True), (1, column + 1, False)):
                    piece = clip_half_plane(piece, axis, border, above) if piece else piece
                shares[row * shape[1] + column, i * width + j] = area(piece) / areas[i * width + j]
    return shares, areas


def resample(frame, variance, shares, areas, conserve):
    """Values, variance and coverage of one frame (pixel,)."""
    known = np.isfinite(frame) & np.isfinite(variance) & (areas > 0)
    weights = (shares * areas if conserve == "mean" else shares)[:, known]
    coverage = (shares * areas)[:, known].sum(axis=1)
    norm = np.where(coverage > 1e-4, coverage, np.nan)
    scale = norm if conserve == "mean" else np.where(np.isnan(norm), np.nan, 1.0)
    return weights @ frame[known] / scale, weights**2 @ variance[known] / scale**2, coverage
