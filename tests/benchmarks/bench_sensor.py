"""The point-spread matrix beside pyFAI's ray tracing, and its inverses beside scipy's: python -m tests.benchmarks.bench_sensor

The detector is a Pilatus 1M without its gaps, at the geometry of pyFAI's tutorial (ID28).
"""

import logging
from functools import partial
from time import perf_counter

import dask
import numpy as np
import pyFAI
from pyFAI.ext.parallax_raytracing import Raytracing
from scipy.sparse.linalg import lsmr

from detcal.frames.simd import LANES
from detcal.sensor import PlanarGeometry, build_psf, deconvolve, stopping
from detcal.sensor import inversion as kernels
from tests.benchmarks.timing import in_turn, report

SHAPE, PITCH, DISTANCE, PONI, WAVELENGTH, THICKNESS = (1043, 981), 172e-6, 0.2845, (0.08865, 0.08931), 0.6968e-10, 450e-6
PLANE = PlanarGeometry(SHAPE, (PITCH, PITCH), DISTANCE, PONI)
ALL_NUMBERS = kernels.ALL_NUMBERS


def ray_tracing() -> Raytracing:
    """pyFAI's, at the same geometry."""
    logging.disable(logging.WARNING)  # of rays that its buffer does not hold
    sensor = {"material": "Si", "thickness": THICKNESS}
    geometry = pyFAI.load(
        {"detector": "Pilatus 1M", "detector_config": {"sensor": sensor}, "distance": DISTANCE, "poni1": PONI[0], "poni2": PONI[1],
         "wavelength": WAVELENGTH}
    )  # fmt: skip
    geometry.enable_parallax(True)
    return Raytracing(geometry)


def bench_matrix(mu: float) -> None:
    """The whole matrix."""
    peer_rays = ray_tracing()

    def build() -> None:
        psf = build_psf(PLANE, thickness_m=THICKNESS, attenuation_per_m=mu)
        dask.compute(psf.data, psf.indices, psf.indptr)

    ours, peer = in_turn(build, lambda: peer_rays.calc_csr(1))
    report("point-spread matrix, beside 1 ray a pixel", ours, peer, 1)
    with dask.config.set(scheduler="synchronous"):
        alone, _ = in_turn(build, lambda: None)
    report("  the same, one thread", alone, peer, 1)
    start = perf_counter()
    peer_rays.calc_csr(16)
    report("  beside 64 × 64 rays a pixel (16 × the time of 16 × 16)", ours, 16 * (perf_counter() - start), 400)


def bench_inverses(mu: float) -> None:
    """Blocks of 16 frames on one thread, and the error against the truth or the peer's answer."""
    psf = build_psf(PLANE, thickness_m=THICKNESS, attenuation_per_m=mu)
    scipys, matrix = psf.to_scipy(), psf.in_memory.compute()
    truth = np.ones(SHAPE, np.float32)
    truth[::5, ::5] = 10  # the tutorial's image
    recorded = (scipys.astype(float) @ truth.ravel()).astype(np.float32).reshape(SHAPE)
    block = np.repeat(recorded[None], LANES, axis=0)

    ours, peer = in_turn(lambda: kernels.solve_frames(block, matrix, ALL_NUMBERS), lambda: lsmr(scipys, recorded.ravel()), rounds=7)
    report("direct solution of a frame, beside scipy's lsmr", ours / len(block), peer, 100)
    error = np.abs(kernels.solve_frames(block, matrix, ALL_NUMBERS) - truth).max()
    print(f"  largest error {error:.1e} (aim: 1e-05), lsmr's {np.abs(lsmr(scipys, recorded.ravel())[0] - truth.ravel()).max():.1e}")

    noisy = np.random.default_rng(0).poisson(100 * recorded).astype(np.float32) / 100
    for name, image in (("without noise", recorded), ("100 counts a pixel", noisy)):
        block = np.repeat(image[None], LANES, axis=0)
        slow, steps = scipys_mlem(scipys, image.ravel(), 1e-4)
        fast = kernels.mlem_frames(block, matrix, ALL_NUMBERS, None, MLEM_TOLERANCE)[0].ravel()
        ours, peer = in_turn(
            lambda: kernels.mlem_frames(block, matrix, ALL_NUMBERS, None, MLEM_TOLERANCE),  # noqa: B023
            lambda: scipys_mlem(scipys, image.ravel(), 1e-4), rounds=2,  # noqa: B023
        )  # fmt: skip
        report(f"MLEM of a frame {name}, beside scipy's form", ours / len(block), peer, 10)
        converged = scipys_mlem(scipys, image.ravel(), 1e-6, 3000)[0]
        furthest = np.abs(fast - converged).max() / converged.max(), np.abs(slow - converged).max() / converged.max()
        print(
            f"  answers differ by {np.abs(fast - slow).max() / slow.max():.1e} of the largest value (aim: 0.001);"
            f" from the converged one by {furthest[0]:.1e}, the peer's ({steps} iterations) by {furthest[1]:.1e}"
        )


def bench_one_frame(mu: float) -> None:
    """One frame beside a block of sixteen, on one thread: the kernels alone, and all of deconvolve."""
    psf = build_psf(PLANE, thickness_m=THICKNESS, attenuation_per_m=mu).compute()
    psf.conditioning  # noqa: B018 - found once, in no call that is timed
    matrix = psf.in_memory.compute()
    block = np.random.default_rng(0).poisson(psf.apply(100 * np.ones((LANES, *SHAPE), np.float32)).values).astype(np.float32)
    inverses = {
        "direct": partial(kernels.solve_frames, matrix=matrix),
        "mlem": partial(kernels.mlem_frames, matrix=matrix, valid=ALL_NUMBERS, iterations=5, tolerance=None),
        "auto": partial(stopping.auto_frames, matrix=matrix, valid=ALL_NUMBERS, most=None),
    }
    for method, inverse in inverses.items():
        one, sixteen = in_turn(lambda: inverse(block[:1]), lambda: inverse(block))  # noqa: B023
        report(f"one frame beside sixteen, {method}", one, sixteen, 3)
        whole = partial(deconvolve, psf=psf, method=method, max_iterations=5 if method == "mlem" else None)
        one, sixteen = in_turn(*(lambda some=some: whole(some).compute(scheduler="synchronous") for some in (block[:1], block)))  # noqa: B023
        report("  all of deconvolve", one, sixteen, 3)


MLEM_TOLERANCE = 1e-4  # of the pixel's value and the mean; the peer's 1e-4 is an absolute change


def scipys_mlem(matrix, recorded, tolerance, most=100_000):
    """MLEM in float32, as the tutorial has it: to a largest change of any pixel."""
    back = matrix.T.tocsr()
    sensitivity = back @ np.ones_like(recorded)
    now = np.full_like(recorded, recorded.sum() / sensitivity.sum())
    for iterations in range(1, most + 1):
        before, now = now, now * (back @ (recorded / (matrix @ now))) / sensitivity
        if iterations == most or np.abs(now - before).max() < tolerance:
            return now, iterations


if __name__ == "__main__":
    attenuation = float(ray_tracing().mu)
    bench_matrix(attenuation)
    bench_inverses(attenuation)
    bench_one_frame(attenuation)
