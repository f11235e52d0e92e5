"""Pixels that are split, on five detectors of pyFAI, tilted: profiles are those of areas cut one by one in float64."""

import logging

import numpy as np
import pytest
from pyFAI.detectors import Aarhus, detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import build_bins, integrate
from tests.reference import bins as reference
from tests.reference.azimuthal import statistics
from tests.reference.directions import from_sample, two_theta_and_azimuth

NPT, PARTS = 3, 2
DETECTORS = "Pilatus 100k", "Lambda 60k", "imXPAD S140", "Jungfrau", "curved"  # the third and fourth with wide pixels
QUANTITIES = "intensity", "sem", "std", "count"


def detector_of(name):
    if name != "curved":
        return detector_factory(name)
    detector = Aarhus(1e-4, 1e-4, radius=0.05)
    detector.shape = 60, 90
    return detector


def cut_out(detector):
    """Some rows in the middle, where chips meet, of some columns."""
    row, column = detector.shape[0] // 2, detector.shape[1] // 4
    return slice(row - 7, row + 7), slice(column - 9, column + 9)


def points(detector):
    """Corners of the pixels of the cut-out (axis, pixel, corner), m: y, x, and z, behind the plane."""
    corners = detector.get_pixel_corners()[cut_out(detector)].astype(float)
    z, y, x = np.moveaxis(corners.reshape(-1, 4, 3), -1, 0)
    return y, x, z


def place_of(detector):
    """Tilted, azimuths of the cut-out around ±180°, the beam beside it."""
    y, x, _ = points(detector)
    return AzimuthalIntegrator(0.04, y.mean() + 1.6e-3, x.mean() + 3.5e-3, 0.02, -0.03, 0.1, detector=detector, wavelength=1e-10)


def outlines(place, vectors):
    """Radius q in 1/nm and azimuth (..., 2), those below 0 a turn further."""
    angle, azimuth = two_theta_and_azimuth(place, vectors)
    return np.stack([40 * np.pi * np.sin(angle / 2), azimuth % (2 * np.pi)], axis=-1)


def polygon(split, corners, centre):
    """What a pixel is split as: its outline, or the box around its centre, as far as the furthest corner either way."""
    half, half_azimuth = abs(corners - centre).max(axis=0)
    return reference.outline(corners) if split == "full" else reference.box(centre[0], half, centre[1], half_azimuth)


def norm_of(place, vectors):
    """cos α·(dist/r)² of the pixels, α between the ray to the centre and the pixel's normal."""
    first, second, third, fourth = np.moveaxis(vectors, 2, 0)
    ray, normal = vectors.mean(axis=2), np.cross(third - first, fourth - second, axis=0)
    away = np.linalg.norm(ray, axis=0)
    return abs((ray * normal).sum(axis=0)) / away / np.linalg.norm(normal, axis=0) * (place.dist / away) ** 2


@pytest.mark.parametrize("name", DETECTORS)
def test_profiles_of_split_pixels_are_of_areas_cut_one_by_one(name):
    logging.disable(logging.WARNING)
    detector = detector_of(name)
    mask = np.ones(detector.shape, bool)
    mask[cut_out(detector)] = False
    place = place_of(detector)
    vectors = from_sample(place, *points(detector))
    corners, centres, norm = outlines(place, vectors), outlines(place, vectors.mean(axis=2)), norm_of(place, vectors)
    frame = np.random.default_rng(0).poisson(200, detector.shape).astype(np.float32)
    counts = frame[cut_out(detector)].ravel().astype(float)
    limits, azimuths = np.quantile(corners[..., 0], (0.2, 0.9)), np.rad2deg(np.quantile(corners[..., 1], (0.1, 0.8)))
    assert azimuths[0] < 180 < azimuths[1]
    rings, parts = np.linspace(*limits, NPT + 1), np.deg2rad(np.linspace(*azimuths, PARTS + 1))
    for split in ("bbox", "full"):
        bins = build_bins(
            place, npt=NPT, split=split, mask=mask, radial_range=tuple(limits), azimuth_range=tuple(azimuths), npt_azimuth=PARTS
        )
        found = integrate(frame, bins, dummy=-1).compute()
        shares = [reference.shares(polygon(split, *pixel), rings, parts) for pixel in zip(corners, centres, strict=True)]
        for ring, part in np.ndindex(NPT, PARTS):
            share = np.array([each[ring, part] for each in shares])
            wanted = statistics(counts / norm, share, norm, counts, "poisson")
            assert wanted[-1] > 3
            values = [found[quantity].values[0, part, ring] for quantity in QUANTITIES]
            np.testing.assert_allclose(values, wanted, rtol=1e-5, err_msg=f"{name}, {split}, ring {ring}, part {part}")
    logging.disable(logging.NOTSET)
