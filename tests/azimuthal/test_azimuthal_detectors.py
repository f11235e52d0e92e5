"""Whole detectors with gaps, spots and hot pixels, tilted: rings as pyFAI's, and where no engine of it is right, as the formulas'.

Of pyFAI's engines the compiled one adds up in float64, and is compared with wherever it has the right formula. Its azimuthal variance
is that of equal norms and shares only (see `compiled_variance`). The one in Python has the right formula for pixels that are not split,
in float32; of split ones it takes the mean of their rings, weighted, for each ring's own. So: counts, intensities and Poisson's errors
are compared with the compiled engine; azimuthal errors with the one in Python, and with full splitting with the slow statistics.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pyFAI
import pytest
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import AzimuthalBins, build_bins, integrate, median_filter, sigma_clip
from tests.reference import azimuthal as reference

NPT = 1000
TOLERANCE = 1e-5
ERRORS = ("sem", "std")
COMPILED, PYTHON = ("csr", "cython"), ("csr", "python")
SOME = range(1, NPT - 1, 7)  # rings that are reckoned slowly
SPOTS, HOT = 400, 2**20  # how many; counts


class Detector(NamedTuple):
    """A geometry; pixels in the rings of their centres; a frame, NaN in the gaps; and as a detector delivers it, −1 there."""

    geometry: AzimuthalIntegrator
    rings: AzimuthalBins
    frame: np.ndarray
    counts: np.ndarray


@pytest.fixture(scope="module", params=["Pilatus 1M", "Eiger 4M", "Pilatus 6M"])
def detector(request):
    logging.disable(logging.WARNING)
    model = pyFAI.detector_factory(request.param)
    height, width = model.shape
    poni = {"poni1": 0.45 * height * model.pixel1, "poni2": 0.55 * width * model.pixel2}
    geometry = AzimuthalIntegrator(dist=0.2, **poni, rot1=0.2, rot2=-0.12, rot3=0.05, detector=model, wavelength=1e-10)
    rings = build_bins(geometry, npt=NPT)
    rng = np.random.default_rng(8)
    expected = (20 + 300 * np.exp(-rings.radius.values / 20)) * rings.norm.values
    spot = 3000 * np.exp(-0.5 * np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2) / 1.5**2)
    for y, x in zip(rng.integers(4, height - 5, SPOTS), rng.integers(4, width - 5, SPOTS), strict=True):
        expected[y - 4 : y + 5, x - 4 : x + 5] += spot
    counts = rng.poisson(expected).astype(np.int32)
    counts.flat[rng.choice(counts.size, counts.size // 5000, replace=False)] = HOT
    gaps = model.mask != 0
    assert 0.05 < gaps.mean() < 0.1
    counts[gaps] = -1
    yield Detector(geometry, rings, np.where(gaps, np.nan, counts), counts)
    logging.disable(logging.NOTSET)


def peers_integral(detector: Detector, split: str, engine: tuple[str, str], model: str) -> Any:
    return detector.geometry.integrate1d_ng(detector.counts, NPT, method=(split, *engine), unit="q_nm^-1", error_model=model)


def peers_clip(detector: Detector, engine: tuple[str, str]) -> Any:
    options = {"unit": "q_nm^-1", "error_model": "azimuthal", "thres": 5.0, "max_iter": 5}
    return detector.geometry.sigma_clip(detector.counts, NPT, method=("no", *engine), **options)


def agree(found: Any, peer: Any, *names: str, but: Any = False, tolerance: float = TOLERANCE) -> None:
    """In every ring of more than three pixels, of which there are few others."""
    several = (peer.count > 3) & ~np.asarray(but)
    assert several.sum() > 0.99 * NPT
    for name in names:
        np.testing.assert_allclose(found[name].values[0][several], getattr(peer, name)[several], rtol=tolerance, err_msg=name)


def agree_with_the_formulas(found: Any, detector: Detector, bins: AzimuthalBins, cycles: int, rings: Any = SOME) -> None:
    """Clipped in float64, ring by ring."""
    for ring in rings:
        entries = reference.entries_of(detector.frame, bins, ring)
        kept = reference.clip(*entries, "azimuthal", 5.0, cycles)
        wanted = reference.statistics(*(values[kept] for values in entries), "azimuthal")
        if wanted[-1] > 3:
            values = [found[name].values[0, ring] for name in ("intensity", "sem", "std", "count")]
            np.testing.assert_allclose(values, wanted, rtol=TOLERANCE, err_msg=f"ring {ring}")


def compiled_variance(detector: Detector, bins: AzimuthalBins, ring: int) -> float:
    """Σω²(I − ⟨I⟩)² as pyFAI's compiled engine adds it up, pixel by pixel: with the means A before and A' after each, ω²·(I − A)·(I − A').

    That is Schubert and Gertz's update of Σω(I − ⟨I⟩)², with ω² in place of ω: right if all ω are equal.
    """
    intensity, share, norm, _ = reference.entries_of(detector.frame, bins, ring)
    weight = share * norm
    means = np.cumsum(weight * intensity) / np.cumsum(weight)
    return float((weight[1:] ** 2 * (intensity[1:] - means[:-1]) * (intensity[1:] - means[1:])).sum())


def test_clipping_is_pyfais(detector):
    """The compiled engine's spread is up to 1e-3 off, and with it its limits: in few rings it keeps a pixel more or less."""
    found = sigma_clip(detector.counts, detector.rings).compute()
    python, compiled = peers_clip(detector, PYTHON), peers_clip(detector, COMPILED)
    np.testing.assert_array_equal(found["count"].values[0], python.count)
    agree(found, python, "intensity", *ERRORS)
    others = found["count"].values[0] != compiled.count
    agree(found, compiled, "intensity", but=others)
    agree_with_the_formulas(found, detector, detector.rings, 5, [*SOME, *np.flatnonzero(others)])
    everything = integrate(detector.counts, detector.rings).compute()
    assert (everything["count"] - found["count"]).sum() > detector.counts.size // 6000 + 20 * SPOTS
    assert (everything.intensity - found.intensity).max() > 1000


def test_medians_are_pyfais(detector):
    found = median_filter(detector.counts, detector.rings).compute()
    options = {"unit": "q_nm^-1", "method": ("no", *COMPILED), "percentile": 50}
    peer, several = detector.geometry.medfilt1d_ng(detector.counts, NPT, **options), found["count"].values[0] > 3
    np.testing.assert_allclose(found.intensity.values[0][several], peer.intensity[several], rtol=TOLERANCE)


def test_integration_is_pyfais(detector):
    """The compiled engine's azimuthal errors are up to 6e-3 off: they are compared with those of the one in Python."""
    found = integrate(detector.counts, detector.rings).compute()
    poisson = peers_integral(detector, "no", COMPILED, "poisson")
    np.testing.assert_array_equal(found["count"].values[0], poisson.count)
    agree(found, poisson, "intensity", *ERRORS)
    found = integrate(detector.counts, detector.rings, error_model="azimuthal").compute()
    agree(found, peers_integral(detector, "no", PYTHON, "azimuthal"), "count", "intensity", *ERRORS)
    agree_with_the_formulas(found, detector, detector.rings, 0)


def test_integration_of_split_pixels_is_pyfais(detector):
    """But for azimuthal errors, in which both its engines are off, some rings by most of their spread.

    Its areas are in float32, some 1e-5 of a pixel off: of a pixel of a million counts that would be seen in the mean of a ring.
    """
    calm = detector._replace(
        **{name: np.where(getattr(detector, name) == HOT, 1000, getattr(detector, name)) for name in ("counts", "frame")}
    )
    bins = build_bins(detector.geometry, npt=NPT, split="full")
    found = integrate(calm.counts, bins).compute()
    agree(found, peers_integral(calm, "full", COMPILED, "poisson"), "count", "intensity", *ERRORS, tolerance=5e-5)
    found = integrate(detector.counts, bins, error_model="azimuthal").compute()
    agree_with_the_formulas(found, detector, bins, 0)
    # what is off is that formula, and not what goes into it
    compiled = peers_integral(calm, "full", COMPILED, "azimuthal")
    wanted = [compiled_variance(calm, bins, ring) for ring in SOME]
    np.testing.assert_allclose(compiled.sum_variance[SOME], wanted, rtol=1e-4)
