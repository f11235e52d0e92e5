"""Where points of a detector lie as seen from the sample: by three rotations of vectors. Slow and clear."""

import numpy as np


def turn(one, other, angle):
    """A point of a plane turned about its origin."""
    return np.cos(angle) * one - np.sin(angle) * other, np.sin(angle) * one + np.cos(angle) * other


def from_sample(place, y, x, z):
    """Vectors (axis, ...) from the sample to points of a detector that is not turned yet, m; z is how far they lie behind its plane."""
    return np.stack([y - place.poni1, x - place.poni2, np.broadcast_to(z, y.shape) + place.dist])


def two_theta_and_azimuth(place, vectors):
    """Angles (radians) of such vectors from the beam, and about it, as the detector is turned by rot1, rot2 and rot3."""
    up, left, along = vectors
    left, along = turn(left, along, -place.rot1)
    along, up = turn(along, up, -place.rot2)
    up, left = turn(up, left, place.rot3)
    return np.arctan2(np.hypot(up, left), along), np.arctan2(up, left)
