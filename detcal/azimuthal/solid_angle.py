"""Under which angle rays meet pixels, and the solid angle of these, relative to one at the PONI that rays meet along its normal."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pyFAI.geometry import Geometry

Doubles = NDArray[np.float64]

ROWS = 64  # of pixels whose corners are looked at together
UPSIDE_DOWN, MIRRORED = (1, 2), (1, 4)  # orientations of which the first pixel is the last one of the detector's rows, or columns


def solid_angle_of(geometry: Geometry, shape: tuple[int, int]) -> Doubles:
    """cos α·(dist/r)² of pixels (y, x) at a distance r, α between the ray and the pixel's normal; negative where rays come from behind.

    On a plane that is cos³ α, which pyFAI takes for curved detectors too: true of those only along the axis of a cylinder.
    """
    if geometry.detector.IS_FLAT:
        return np.asarray(geometry.solidAngleArray(shape), float)
    found = np.empty(shape)
    for rows, ray, cosine in rays_of(geometry):
        found[rows] = cosine * geometry.dist**2 / (ray * ray).sum(axis=-1)
    return found


def cosine_of_incidence(geometry: Geometry, shape: tuple[int, int]) -> Doubles:
    """Between each ray and the normal of its pixel (y, x). Of curved detectors that are turned over pyFAI takes other pixels' normals."""
    if geometry.detector.IS_FLAT:
        return np.asarray(np.fromfunction(geometry.cos_incidence, shape, dtype=np.float64), float)
    found = np.empty(shape)
    for rows, _, cosine in rays_of(geometry):
        found[rows] = cosine
    return found


def rays_of(geometry: Geometry) -> Iterator[tuple[slice, Doubles, Doubles]]:
    """Some rows of pixels at a time: vectors (y, x, axis) from the sample to their centres, m, and the cosines with their normals."""
    corners = geometry.detector.get_pixel_corners()
    orientation = int(geometry.detector.orientation)
    corners = corners[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]
    sample = -geometry.dist, geometry.poni1, geometry.poni2  # before the plane of the PONI; rotations turn all alike
    for start in range(0, len(corners), ROWS):
        rows = slice(start, min(start + ROWS, len(corners)))
        first, second, third, fourth = np.moveaxis(corners[rows].astype(float) - sample, 2, 0)
        normal = np.cross(third - first, fourth - second)
        ray = (first + second + third + fourth) / 4
        lengths = np.sqrt((ray * ray).sum(axis=-1) * (normal * normal).sum(axis=-1))
        yield rows, ray, (ray * normal).sum(axis=-1) / lengths
