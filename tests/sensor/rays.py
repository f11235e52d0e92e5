"""Small detectors, their point-spread matrices, and brute-force rays through them."""

from functools import cache
from typing import NamedTuple

import numpy as np

from detcal.sensor import PlanarGeometry, build_psf
from tests.reference import sensor as reference

PITCH = 172e-6
SQUARE = (PITCH, PITCH)
SILICON = 1356.0  # µ_en at 17.793 keV, 1/m
SENSOR = {"thickness_m": 450e-6, "material": "Si"}
TAN_75 = np.tan(np.radians(75))


class Case(NamedTuple):
    """A detector, its sensor, and the entry pixels whose columns are compared."""

    plane: PlanarGeometry
    thickness: float
    mu: float
    entries: list[tuple[int, int]]
    cells: int = 1000

    @property
    def matrix(self):
        return matrix(self.plane, self.thickness, self.mu)


def plane(shape, pixel_size, distance, poni_px):
    """The PONI in pixels."""
    return PlanarGeometry(shape, pixel_size, distance, tuple(np.multiply(poni_px, pixel_size).tolist()))


def beyond(shape, pixel_size, distance, tangent_y, tangent_x):
    """A detector whose first corner is seen at these tangents of the incidence: the PONI is outside."""
    return PlanarGeometry(shape, pixel_size, distance, (-distance * tangent_y, -distance * tangent_x))


CASES = {
    "PONI inside a pixel": Case(plane((9, 9), SQUARE, 0.2845, (4.3, 4.6)), 450e-6, SILICON, [(4, 4), (4, 5), (3, 5), (6, 7)]),
    "PONI inside a pixel, near": Case(plane((9, 9), SQUARE, 0.02, (4.3, 4.6)), 1e-3, 3e3, [(4, 4), (4, 5), (5, 3), (2, 6)]),
    "PONI on a border": Case(plane((9, 9), SQUARE, 0.1, (4, 4.6)), 450e-6, SILICON, [(4, 4), (3, 4), (5, 5)]),
    "PONI on a corner": Case(plane((9, 9), SQUARE, 0.01, (4, 4)), 450e-6, SILICON, [(4, 4), (3, 3), (3, 4), (5, 6)]),
    "far from the PONI": Case(plane((1043, 60), SQUARE, 0.2845, (515.41, 519.24)), 450e-6, SILICON, [(3, 8), (515, 20), (1030, 40)]),
    "PONI outside": Case(beyond((12, 12), SQUARE, 0.2, 0.75, 0.65), 450e-6, SILICON, [(2, 2), (5, 3)]),
    "PONI outside, other quadrant": Case(plane((12, 12), SQUARE, 0.2, (900.3, -700.2)), 450e-6, SILICON, [(9, 2), (5, 3)]),
    "pixels 172×50 µm": Case(beyond((12, 30), (PITCH, 50e-6), 0.2, 0.5, 0.6), 450e-6, SILICON, [(2, 3), (5, 8)]),
    "pixels 50×172 µm": Case(beyond((30, 12), (50e-6, PITCH), 0.2, 0.5, 0.6), 450e-6, SILICON, [(2, 3), (9, 5)]),
    "pixels 172×50 µm, PONI inside": Case(plane((9, 9), (PITCH, 50e-6), 0.05, (4.3, 4.6)), 450e-6, SILICON, [(4, 4), (5, 7)]),
    "1 mm CdTe, µ 3000/m": Case(beyond((12, 12), SQUARE, 0.1, 0.5, 0.2), 1e-3, 3e3, [(2, 2), (3, 3)]),
    "1 mm CdTe, µ 30000/m": Case(beyond((12, 12), SQUARE, 0.1, 0.5, 0.2), 1e-3, 3e4, [(2, 2), (3, 3)], 1600),
    "75°": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, SILICON, [(2, 2)], 500),
    "75°, 1 mm CdTe": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, 3e4, [(2, 2)]),
    "75° along a row": Case(
        PlanarGeometry((4, 40), SQUARE, 0.1, (2.5 * PITCH, -0.1 * TAN_75)), 1e-3, SILICON, [(2, 2), (1, 1)], 500
    ),
    "edge": Case(beyond((6, 6), SQUARE, 0.1, 1.5, 1.0), 1e-3, SILICON, [(5, 5), (4, 5), (5, 0)]),
}  # fmt: skip


@cache
def matrix(geometry, thickness, mu):
    """In CSC, from which columns are cheap."""
    return build_psf(geometry, thickness_m=thickness, attenuation_per_m=mu).to_scipy().tocsc()


def column(found, entry, shape):
    """What enters one pixel, where it is recorded (y, x)."""
    return found[:, entry[0] * shape[1] + entry[1]].toarray().reshape(shape)


def rays(case, entry, **options):
    """The same by the reference."""
    image = np.zeros(case.plane.shape)
    shares = reference.blur_of_pixel(
        entry, case.plane.shape, case.plane.pixel_size_m, case.plane.distance_m, case.plane.poni_m, case.thickness, case.mu, **options
    )
    for pixel, share in shares.items():
        image[pixel] = share
    return image


def absorbed(geometry, entry, thickness, mu):
    return reference.absorbed_fraction(entry, geometry.pixel_size_m, geometry.distance_m, geometry.poni_m, thickness, mu)


def assert_same_bits(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
