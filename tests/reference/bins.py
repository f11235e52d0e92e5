"""Shares of pixels in rings and their parts, a pixel and a bin at a time. Slow and clear."""

import numpy as np

TURN = 2 * np.pi


def polygon_area(points):
    """The shoelace formula, without a sign."""
    x, y = np.asarray(points, float).reshape(-1, 2).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def beyond(points, axis, border, sign):
    """What of a convex polygon lies on one side of a border."""
    kept = []
    for here, there in zip(points, points[1:] + points[:1], strict=True):
        a, b = sign * (here[axis] - border), sign * (there[axis] - border)
        if a >= 0:
            kept.append(here)
        if (a > 0 > b) or (a < 0 < b):
            kept.append(tuple(np.asarray(here) + (np.asarray(there) - np.asarray(here)) * a / (a - b)))
    return kept


def within(points, rings, parts):
    """The area of a polygon in one bin, from (low, high) to (left, right)."""
    for axis, border, sign in ((0, rings[0], 1), (0, rings[1], -1), (1, parts[0], 1), (1, parts[1], -1)):
        if points:
            points = beyond(points, axis, border, sign)
    return polygon_area(points) if len(points) > 2 else 0.0


def shares(polygon, rings, parts):
    """Of a convex polygon (radius, azimuth) in each (ring, part), wherever in the turns it lies."""
    found = np.zeros((len(rings) - 1, len(parts) - 1))
    for ring, part in np.ndindex(found.shape):
        for turn in (-TURN, 0, TURN):
            moved = [(radius, azimuth + turn) for radius, azimuth in polygon]
            found[ring, part] += within(moved, rings[ring : ring + 2], parts[part : part + 2])
    return found / polygon_area(polygon)


def outline(corners):
    """Corners (4, 2) of a pixel that the beam is not in, azimuths without a jump."""
    return list(zip(corners[:, 0].astype(float), np.unwrap(corners[:, 1].astype(float)), strict=True))


def box(radius, half, azimuth, half_azimuth):
    """The corners of the box around a pixel's centre."""
    low, high, left, right = radius - half, radius + half, azimuth - half_azimuth, azimuth + half_azimuth
    return [(low, left), (low, right), (high, right), (high, left)]
