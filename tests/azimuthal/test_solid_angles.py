"""Solid angles of flat, cylindrical and modular curved detectors, by the corners of their pixels."""

import numpy as np
import pytest
from pyFAI.detectors import Aarhus, Cirpad, Detector, Rapid
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import build_bins, integrate
from detcal.azimuthal.solid_angle import rays_of, solid_angle_of
from tests.reference.solid_angle import of_pixels

COARSER = 40  # pixels of cylinders, so that there are few


def cylinder(kind, orientation=3):
    """With the rays along its axis, at about the middle of its height."""
    own = kind()
    found = kind(pixel1=own.pixel1 * COARSER, pixel2=own.pixel2 * COARSER, radius=own.radius, orientation=orientation)
    found.max_shape = found.shape = tuple(size // COARSER for size in own.max_shape)
    return found


def relative_by_corners(place):
    """To one at the PONI. pyFAI has the corners as for orientation 3; in others the rows, the columns or both are turned over."""
    detector = place.detector
    corners = detector.get_pixel_corners() + np.array([place.dist, -place.poni1, -place.poni2])
    turned = {1: np.s_[::-1, ::-1], 2: np.s_[::-1], 3: np.s_[:], 4: np.s_[:, ::-1]}[detector.orientation]
    return of_pixels(corners[turned]) * place.dist**2 / (detector.pixel1 * detector.pixel2)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
@pytest.mark.parametrize("away", [0.7, 1.0, 1.4])  # of the cylinder's radius
@pytest.mark.parametrize("kind", [Aarhus, Rapid])
def test_cylinders_with_the_sample_on_their_axis_and_beside_it(kind, away, orientation):
    """Second differences across a coarse pixel are what is left; where the sample is beside the axis, cos³ is off by a factor of 3."""
    detector = cylinder(kind, orientation)
    height = detector.shape[0] * detector.pixel1
    place = AzimuthalIntegrator(away * detector.radius, 0.4 * height, 0.01, 0.1, 0.2, detector=detector)
    wanted = relative_by_corners(place)
    np.testing.assert_allclose(abs(solid_angle_of(place, detector.shape)), wanted, rtol=2e-3)
    y, x = np.indices(detector.shape, float)
    away_from = np.stack(place.calc_pos_zyx(d1=y, d2=x, corners=False, do_parallax=False)).reshape(3, *detector.shape)
    direction = np.concatenate([ray for _, ray, _ in rays_of(place)])
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), np.linalg.norm(away_from, axis=0), rtol=1e-6)
    if away != 1 and orientation == 3:
        assert abs(place.solidAngleArray(detector.shape) / wanted - 1).max() > 0.2


def test_modules_on_an_arc():
    """Those at the edges of modules are wider than the others: as on flat detectors, the flat has that in it."""
    detector = Cirpad()
    place = AzimuthalIntegrator(0.5, 0.0, 0.0, detector=detector)
    found, wanted = abs(solid_angle_of(place, detector.shape)), relative_by_corners(place)
    near = abs(found / wanted - 1) < 1e-3
    assert near.mean() > 0.9
    np.testing.assert_allclose(wanted[~near] / found[~near], 2.5, rtol=0.1)


def test_flat_ones_tilted():
    place = AzimuthalIntegrator(0.02, 0.001, 0.002, 0.3, -0.2, detector=Detector(1e-4, 2e-4, max_shape=(60, 50), orientation=3))
    np.testing.assert_allclose(solid_angle_of(place, (60, 50)), relative_by_corners(place), rtol=1e-4)


def test_an_evenly_lit_cylinder_is_flat_in_rings():
    """What each of its pixels sees of a source that is the same all around, with the sample far beside its axis."""
    detector = cylinder(Aarhus)
    place = AzimuthalIntegrator(0.2, 0.01, 0.01, detector=detector, wavelength=1e-10)
    found = integrate(1e4 * relative_by_corners(place), build_bins(place, npt=50, unit="2th_deg"), error_model="no").compute()
    np.testing.assert_allclose(found.intensity, 1e4, rtol=1e-3)
