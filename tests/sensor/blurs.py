"""Sensors that blur, and the blur undone by the reference."""

import warnings
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from detcal.sensor import PlanarGeometry, build_psf, deconvolve
from tests.reference import sensor as reference

PITCH = 172e-6
SQUARE = (PITCH, PITCH)
SILICON, CDTE = 1356.0, 3e4  # 1/m
TAN_75 = np.tan(np.radians(75))
METHODS = ("auto", "direct", "lsmr", "mlem")
SOLVERS = ("direct", "lsmr", "mlem")  # whose end is a known one
EXACT = {"direct": {}, "lsmr": {"tolerance": 1e-10}, "mlem": {"tolerance": 1e-6}}  # so tight that their ends can be compared
WANTED = {"direct": reference.exactly, "lsmr": reference.least_squares, "mlem": partial(reference.likeliest, iterations=4000)}


class Case(NamedTuple):
    """A sensor."""

    plane: PlanarGeometry
    thickness: float
    mu: float


def plane(shape, pixel_size, distance, poni_px):
    """The PONI in pixels."""
    return PlanarGeometry(shape, pixel_size, distance, tuple(np.multiply(poni_px, pixel_size).tolist()))


def beyond(shape, pixel_size, distance, tangent_y, tangent_x):
    """A detector whose first corner is seen at these tangents of the incidence: the PONI is outside."""
    return PlanarGeometry(shape, pixel_size, distance, (-distance * tangent_y, -distance * tangent_x))


# whose blur can be undone without much noise
MILD = {
    "PONI inside a pixel": Case(plane((9, 7), SQUARE, 0.02, (4.3, 2.6)), 1e-3, SILICON),
    "PONI on a border": Case(plane((9, 17), SQUARE, 0.01, (4, 8.6)), 450e-6, SILICON),
    "PONI on a corner": Case(plane((16, 16), SQUARE, 0.01, (5, 11)), 450e-6, SILICON),
    "PONI on the detector's corner": Case(plane((12, 13), SQUARE, 0.01, (12, 0)), 450e-6, SILICON),
    "PONI outside": Case(beyond((13, 17), SQUARE, 0.2, 0.45, 0.35), 450e-6, 3e3),
    "PONI outside, other quadrant": Case(plane((12, 14), SQUARE, 0.2, (700.3, -500.2)), 450e-6, 3e3),
    "pixels 172×50 µm": Case(beyond((12, 30), (PITCH, 50e-6), 0.2, 0.5, 0.6), 450e-6, CDTE),
    "75°, many pixels crossed": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, CDTE),
    "one row": Case(plane((1, 40), SQUARE, 0.01, (0.5, 11.2)), 450e-6, SILICON),
    "one column": Case(plane((40, 1), SQUARE, 0.01, (11.2, 0.5)), 450e-6, SILICON),
    "40×50": Case(plane((40, 50), SQUARE, 0.03, (13.1, 28.8)), 450e-6, SILICON),
}  # fmt: skip
# whose inverse amplifies noise
HARSH = {
    "45°": Case(beyond((40, 50), SQUARE, 0.1, 0.7, 0.7), 450e-6, SILICON),
    "60°, pixels 172×75 µm": Case(beyond((30, 24), (PITCH, 75e-6), 0.1, 1.2, 1.2), 450e-6, SILICON),
    "75°": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, SILICON),
}


@cache
def psf_of(name, dead=True):
    """In memory; with dead pixels, among them the middle one."""
    case = {**MILD, **HARSH}[name]
    mask = np.random.default_rng(8).random(case.plane.shape) < (0.06 if dead else 0)
    mask[case.plane.shape[0] // 2, case.plane.shape[1] // 2] = dead
    return build_psf(case.plane, thickness_m=case.thickness, attenuation_per_m=case.mu, mask=mask).compute()


@cache
def dense(psf):
    return psf.to_scipy().toarray().astype(float)


def frames_of(psf, count=3, mean=1000, seed=0):
    """Counts of frames that are lit unevenly, blurred, in float32."""
    rng = np.random.default_rng(seed)
    lit = mean * rng.uniform(0.3, 1.7, (count, *psf.shape))
    return rng.poisson(np.nan_to_num(psf.apply(lit).values)).astype(np.float32)


def solved(frames, psf, method="direct", max_iterations=None, tolerance=None, **options):
    """The values of what deconvolve finds, without its warnings of noise, of hot pixels and of iterations that end early."""
    options |= {"method": method, "max_iterations": max_iterations, "tolerance": tolerance}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the exact solution amplifies noise")
        warnings.filterwarnings("ignore", ".* pixels are hot")
        warnings.filterwarnings("ignore", "some frames ended at the largest number of iterations")
        return deconvolve(frames, psf, **options).compute(scheduler="synchronous")


def furthest(psf):
    """How far its rays go, in pixels."""
    return reference.furthest_of(psf.shape, psf.pixel_size_m, psf.distance_m, psf.poni_m, psf.thickness_m)


def undone(psf, frames, method=reference.exactly):
    """The same by the reference."""
    found = []
    for frame in frames.reshape(len(frames), -1).astype(float):
        light = reference.light_of(dense(psf), frame, psf.shape, furthest(psf))
        found.append(reference.undo(dense(psf), frame, method, light))
    return np.reshape(found, frames.shape)


def propagated(psf, frames, variances):
    """Variances of exact solutions by the reference."""
    found = []
    for frame, variance in zip(*(stack.reshape(len(stack), -1).astype(float) for stack in (frames, variances)), strict=True):
        light = reference.light_of(dense(psf), frame, psf.shape, furthest(psf), variance, power=2)
        measured = np.isfinite(frame) & dense(psf).any(axis=1)
        found.append(reference.propagated(dense(psf), variance, measured, light))
    return np.reshape(found, frames.shape)


def assert_near(found, wanted, share):
    """To this share of the largest."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * np.nanmax(np.abs(wanted)))


def with_gaps(frames, seed=1):
    """Here and there NaN and ±inf, in each frame elsewhere."""
    rng = np.random.default_rng(seed)
    holes = rng.choice([np.nan, np.inf, -np.inf], frames.shape)
    return np.where(rng.random(frames.shape) < 0.08, holes, frames).astype(np.float32)
