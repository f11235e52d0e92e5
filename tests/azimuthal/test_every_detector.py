"""Every small detector of pyFAI, tilted, in all orientations: rings in parts across both seams are numpy's, each in another unit."""

import logging

import numpy as np
import pytest
from pyFAI.detectors import ALL_DETECTORS
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import build_bins, integrate
from tests.reference.directions import from_sample, two_theta_and_azimuth

LARGEST = 100_000  # pixels
TIMES = {  # q in 1/nm
    "q_nm^-1": lambda q: q, "q_A^-1": lambda q: q / 10, "s_nm^-1": lambda q: q / 2 / np.pi, "s_A^-1": lambda q: q / 20 / np.pi,
    "2th_deg": lambda q: np.degrees(2 * np.arcsin(q / 40 / np.pi)), "2th_rad": lambda q: 2 * np.arcsin(q / 40 / np.pi),
    "d_nm": lambda q: 2 * np.pi / q, "d_A": lambda q: 20 * np.pi / q, "d*2_nm^-2": lambda q: (q / 2 / np.pi) ** 2,
    "d*2_A^-2": lambda q: (q / 20 / np.pi) ** 2, "log10(q.m)_None": lambda q: np.log10(1e9 * q), "log(q.nm)_None": np.log,
    "log(1+q.nm)_None": np.log1p, "log(1+q.A)_None": lambda q: np.log1p(q / 10), "arcsinh(q.nm)_None": np.arcsinh,
    "arcsinh(q.A)_None": lambda q: np.arcsinh(q / 10),
}  # fmt: skip


def small_detectors(orientation):
    """One of each kind that can be made."""
    for kind in sorted(set(ALL_DETECTORS.values()), key=lambda kind: kind.__name__):
        detector = kind(orientation=orientation)
        if detector.shape is not None and np.prod(detector.shape) <= LARGEST:
            yield detector


def place_of(geometry):
    """q (1/nm), azimuth (°) and the way from the sample in units of the distance."""
    y, x, z = geometry.detector.calc_cartesian_positions(*np.indices(geometry.detector.shape).astype(float), center=True)
    vectors = from_sample(geometry, y, x, 0.0 if z is None else z)
    away, azimuth = two_theta_and_azimuth(geometry, vectors)
    return 40 * np.pi * np.sin(away / 2), np.degrees(azimuth), np.sqrt((vectors**2).sum(axis=0)) / geometry.dist


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_rings_in_parts_are_numpys(orientation):
    logging.disable(logging.WARNING)
    rng = np.random.default_rng(orientation)
    detectors = list(small_detectors(orientation))
    assert len(detectors) > 6
    for number, detector in enumerate(detectors):
        unit, (height, width) = [*TIMES][(4 * number + orientation) % len(TIMES)], detector.shape
        beam = 0.45 * height * detector.pixel1, 0.6 * width * detector.pixel2
        place = AzimuthalIntegrator(0.1, *beam, 0.02, -0.03, 0.1, detector=detector, wavelength=1e-10)
        q, turned, way = place_of(place)
        azimuth = np.degrees(place.array_from_unit(detector.shape, "center", "chi_rad", scale=False))
        assert np.abs((azimuth - turned + 180) % 360 - 180).max() < 1e-7
        good = np.ones(detector.shape, bool) if detector.mask is None else detector.mask == 0
        radius = TIMES[unit](q)
        limits = tuple(np.quantile(radius[good], (0.1, 0.9)) * (1 + 1e-9))
        bins = build_bins(place, npt=20, unit=unit, radial_range=limits, azimuth_range=(-5, 355), npt_azimuth=4)
        frame = rng.poisson(200, detector.shape)
        found = integrate(frame, bins, dummy=-1).compute()

        edges = np.linspace(*limits, 21), np.linspace(-5, 355, 5)
        around = np.where(azimuth < -5, azimuth + 360, azimuth)
        count, signal, norm = (
            np.histogram2d(radius[good], around[good], edges, weights=image[good])[0].T for image in (np.ones_like(q), frame, way**-3)
        )
        np.testing.assert_array_equal(found["count"][0], count, err_msg=f"{detector.name} {unit}")
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(found.intensity[0], signal / norm, rtol=1e-6, err_msg=f"{detector.name} {unit}")
            np.testing.assert_allclose(found.sem[0], np.sqrt(signal) / norm, rtol=2e-6, err_msg=f"{detector.name} {unit}")
    logging.disable(logging.NOTSET)
