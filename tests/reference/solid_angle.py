"""Solid angles of pixels by their corners: two triangles each (van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30, 125, 1983)."""

import numpy as np


def of_triangle(a, b, c):
    """Seen from the origin, sr."""
    lengths = [np.linalg.norm(each, axis=-1) for each in (a, b, c)]
    volume = np.einsum("...i,...i", a, np.cross(b, c))
    dots = [np.einsum("...i,...i", one, other) for one, other in ((b, c), (a, c), (a, b))]
    return 2 * np.arctan2(abs(volume), np.prod(lengths, axis=0) + sum(dot * length for dot, length in zip(dots, lengths, strict=True)))


def of_pixels(corners):
    """Of quadrilaterals (..., corner, axis)."""
    a, b, c, d = np.moveaxis(corners, -2, 0)
    return of_triangle(a, b, c) + of_triangle(a, c, d)
