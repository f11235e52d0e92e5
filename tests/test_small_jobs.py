"""A small job of each subject, against what numpy and scipy say: compiled, and as plain Python with NUMBA_DISABLE_JIT=1.

No job loads the stores: whoever has arrays needs no files.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry
from scipy.ndimage import gaussian_filter

from detcal import azimuthal, distortion, response, sensor, simulate, xrf

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(1)


def test_response():
    pixels = RNG.uniform(0.8, 1.2, (8, 8))
    sweep = (np.linspace(1000, 9000, 5)[:, None, None] * pixels).astype(np.float32)
    found = response.fit_response(sweep, sigma=1.0, truncate=2.0)
    wanted = gaussian_filter(pixels, 1.0, truncate=2.0, mode="nearest") / pixels
    np.testing.assert_allclose(found.gain, wanted, rtol=1e-5)
    corrected = response.correct_response(sweep[1:3], found, flat=sweep[4])
    np.testing.assert_allclose(corrected, np.broadcast_to((np.arange(1, 3) / 4 * 8 / 9 + 1 / 9)[:, None, None], (2, 8, 8)), rtol=1e-4)


@pytest.mark.parametrize(("method", "within"), [("direct", 1e-4), ("lsmr", 1e-3), ("mlem", 0.1)])
def test_sensor(method, within):
    plane = sensor.PlanarGeometry((6, 5), (1e-4, 1e-4), 0.1, (-0.03, 0.0))
    psf = sensor.build_psf(plane, thickness_m=4.5e-4, attenuation_per_m=1500.0)
    entered = RNG.uniform(50, 100, (2, 6, 5)).astype(np.float32)
    recorded = np.stack([(psf.to_scipy() @ frame.ravel()).reshape(6, 5) for frame in entered])
    np.testing.assert_allclose(psf.apply(entered), recorded, rtol=1e-5)
    np.testing.assert_allclose(sensor.deconvolve(recorded.astype(np.float32), psf, method=method), entered, rtol=within)


def test_azimuthal():
    geometry = Geometry(1.0, 4e-4, 4e-4, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    bins = azimuthal.build_bins(geometry, npt=3, unit="r_mm", solid_angle=False)
    frames = RNG.normal(100, 3, (2, 20, 20)).astype(np.float32)
    rings = [row.indices for row in bins.to_scipy()]
    means, medians = ([[of(frame.ravel()[ring]) for ring in rings] for frame in frames] for of in (np.mean, np.median))
    np.testing.assert_allclose(azimuthal.integrate(frames, bins).intensity, means, rtol=1e-5)
    np.testing.assert_allclose(azimuthal.median_filter(frames, bins).intensity, medians, rtol=1e-5)
    frames[0].flat[rings[2][0]] = 1e5
    assert abs(azimuthal.integrate(frames, bins).intensity[0, 2] - 100) > 100
    assert abs(azimuthal.sigma_clip(frames, bins).intensity[0, 2] - 100) < 2


def test_distortion():
    corners = np.stack(np.meshgrid(np.arange(21.0), np.arange(23.0), indexing="ij"), -1) * (1.0, 1.1) + (0.3, 0.0)
    warp = distortion.DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((20, 22), np.bool_))
    overlaps = distortion.build_overlaps(warp)
    frames = RNG.uniform(10, 20, (2, 20, 22)).astype(np.float32)
    found = distortion.correct_distortion(frames, overlaps)
    matrix = overlaps.to_scipy()
    covered = matrix @ overlaps.areas.values.ravel() > 0.999
    for image, frame in zip(found.values, frames, strict=True):
        np.testing.assert_allclose(image.ravel()[covered], (matrix @ frame.ravel())[covered], rtol=1e-5)


def test_xrf():
    scan = simulate.maxrf_scan(4, 5, channels=512, counts=0.5, seed=3).compute()
    smoothed = xrf.smooth_spectra(scan.spectra, sigma_channels=1.0)
    np.testing.assert_allclose(smoothed, gaussian_filter(scan.spectra.values.astype(float), (0, 1), mode="reflect"), rtol=1e-5, atol=1e-5)
    grid = xrf.build_scan_grid(scan)
    cube = xrf.regrid(scan.spectra, grid)
    np.testing.assert_allclose(np.nansum(cube, axis=(0, 1)), scan.spectra.values[grid.used].sum(axis=0), rtol=1e-5)
    maps = xrf.element_maps(scan, grid, elements=["Fe", "Cu"])
    assert np.isfinite(maps.rate.values).any()


@pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="this is the run that it starts")
def test_small_jobs_run_as_plain_python_and_load_no_stores():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_small_jobs.py"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif("NUMBA_DISABLE_JIT" not in os.environ, reason="other tests of this process load the stores")
def test_none_has_loaded_the_stores():
    assert not [name for name in sys.modules if name.startswith("detcal.stores")]
