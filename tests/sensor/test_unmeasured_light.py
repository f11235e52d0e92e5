"""Light that entered pixels which were not measured is unknown, and not dark: uniform light stays uniform beside them.

What is recorded there comes from a larger detector, lit beyond the edges too.
"""

from functools import cache

import numpy as np
import pytest
from pyFAI.geometry import Geometry
from scipy.ndimage import binary_dilation

from detcal.sensor import PlanarGeometry, build_psf, deconvolve
from tests.sensor.blurs import METHODS
from tests.sensor.geometries import refused

SIZE, BEYOND, PITCH, DISTANCE = 120, 40, 172e-6, 0.351
SENSORS = {
    "Si": {"thickness_m": 450e-6, "material": "Si", "energy_kev": 12.8},
    "CdTe": {"thickness_m": 1e-3, "material": "CdTe", "energy_kev": 60.0},
}
FEW = {"auto": {}, "direct": {}, "lsmr": {}, "mlem": {}, "mlem, 5": {"max_iterations": 5}}


def holes():
    """Dead pixels, a hot square and a border between modules."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[40, 40] = mask[80, 30] = mask[60:77] = mask[35:39, 90:93] = True
    return mask


@cache
def scene(sensor, degrees, pitch=PITCH):
    """The matrix with whole silicon, that with the mask, and what pixels record of uniform light of 1."""
    foot = SIZE / 2 * pitch - DISTANCE * np.tan(np.radians(degrees)) / np.sqrt(2)
    plane = PlanarGeometry((SIZE, SIZE), (pitch, pitch), DISTANCE, (foot, foot))
    larger = PlanarGeometry((SIZE + BEYOND, SIZE + BEYOND), (pitch, pitch), DISTANCE, (foot + BEYOND * pitch,) * 2)
    recorded = build_psf(larger, **SENSORS[sensor]).apply(np.ones(larger.shape)).values[0, BEYOND:, BEYOND:]
    return build_psf(plane, **SENSORS[sensor]).compute(), build_psf(plane, mask=holes(), **SENSORS[sensor]).compute(), recorded


def near_and_far(reach=10):
    """Pixels beside unmeasured ones, and far from them; not at the detector's edges."""
    inside = np.zeros((SIZE, SIZE), bool)
    inside[20:-10, 20:-10] = True
    return binary_dilation(holes(), iterations=reach) & ~holes() & inside, ~binary_dilation(holes(), iterations=2 * reach) & inside


@pytest.mark.parametrize("known_to", ["the matrix", "the frame"])
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("sensor", "degrees"), [("Si", 10), ("Si", 35), ("CdTe", 35)])
def test_uniform_light_stays_uniform_beside_unmeasured_pixels(sensor, degrees, name, known_to):
    whole, holed, recorded = scene(sensor, degrees)
    method = name.partition(",")[0]
    psf, frame = (holed, recorded) if known_to == "the matrix" else (whole, np.where(holes(), np.nan, recorded))
    found = deconvolve(frame, psf, method=method, **FEW[name]).values[0]
    near, far = near_and_far()
    assert abs(found[near | far] - 1).max() < 0.01
    assert np.isnan(found[holes()]).all()


@pytest.mark.parametrize("known_to", ["the matrix", "the frame"])
@pytest.mark.parametrize("name", FEW)
def test_light_that_falls_off_is_that_beside_unmeasured_pixels_too(name, known_to):
    """It falls by 1.3 % a pixel; a few iterations of MLEM, which start from uniform light, would mix that into what is beside."""
    whole, holed, _ = scene("Si", 35)
    y, x = np.indices((SIZE + BEYOND,) * 2) - BEYOND
    light = np.exp(-(y + x) / 80)
    plane = whole.geometry
    larger = PlanarGeometry(light.shape, plane.pixel_size_m, DISTANCE, tuple(foot + BEYOND * PITCH for foot in plane.poni_m))
    recorded = build_psf(larger, **SENSORS["Si"]).apply(1000 * light).values[0, BEYOND:, BEYOND:]
    psf, frame = (holed, recorded) if known_to == "the matrix" else (whole, np.where(holes(), np.nan, recorded))
    found = deconvolve(frame, psf, method=name.partition(",")[0], **FEW[name]).values[0] / (1000 * light[BEYOND:, BEYOND:])
    near, far = near_and_far()
    assert abs(found[near | far] - 1).max() < 0.04


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("sensor", SENSORS)
def test_noise_beside_unmeasured_pixels_is_no_more_than_elsewhere(sensor, name):
    _, holed, recorded = scene(sensor, 35)
    frames = np.random.default_rng(0).poisson(1000 * recorded, (16, SIZE, SIZE))
    found = deconvolve(frames, holed, method=name.partition(",")[0], **FEW[name]).values / 1000 - 1
    near, far = (np.sqrt((found[:, some] ** 2).mean()) for some in near_and_far(5))
    assert near < 1.3 * far


def test_variance_beside_unmeasured_pixels_is_that_of_the_scatter():
    _, holed, recorded = scene("Si", 35)
    mean = np.nan_to_num(1000 * recorded)
    frames = np.random.default_rng(0).poisson(mean, (200, SIZE, SIZE))
    found = deconvolve(frames, holed, method="direct").values.var(axis=0)
    variance = deconvolve(frames[:1], holed, variance=mean[None]).variance.values[0]
    near, far = near_and_far(3)
    for some in (near, far):
        assert np.mean(found[some] / variance[some]) == pytest.approx(1, abs=0.05)


def test_blurring_what_was_found_gives_what_was_recorded():
    """Both take light in unmeasured pixels to be as around it."""
    _, holed, recorded = scene("Si", 35)
    found = deconvolve(recorded, holed, method="direct")
    near, far = near_and_far()
    again = holed.apply(found).values[0]
    np.testing.assert_allclose(again[near | far], recorded[near | far], rtol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_module_that_is_masked_altogether_spoils_no_other(method):
    whole, _, recorded = scene("Si", 35)
    found = deconvolve(np.where(np.arange(SIZE)[:, None] < 70, np.nan, recorded), whole, method=method).values[0]
    assert np.isnan(found[:70]).all()
    assert abs(found[75:-10, 20:-10] - 1).max() < 0.01


# ---------------------------------------------------------------------------------------------------------------- gaps


def test_gaps_have_neither_rows_nor_columns():
    whole, _, _ = scene("Si", 35)
    found = build_psf(whole.geometry, gaps=holes(), **SENSORS["Si"])
    wanted = whole.to_scipy().tolil()
    empty = np.flatnonzero(holes())
    wanted[empty], wanted[:, empty] = 0, 0
    assert abs(found.to_scipy() - wanted.tocsr()).max() == 0
    assert (found.efficiency.values[holes()] == 0).all()
    np.testing.assert_array_equal(found.mask, holes())


def test_the_gaps_of_a_model_are_those_between_its_modules():
    geometry = Geometry(0.2, 0.04, 0.04, detector="Pilatus1M", wavelength=1e-10)
    dead = geometry.detector.mask.copy()
    dead[10, 10] = 1
    geometry.detector.mask = dead
    psf = build_psf(geometry, thickness_m=450e-6, gaps="modules")
    efficiency = psf.efficiency.values
    assert (efficiency[200, 100:400] == 0).all()  # between the first two rows of modules
    assert efficiency[10, 10] > 0
    assert psf.mask.values[10, 10]


def test_gaps_that_the_mask_says_record_are_refused():
    plane = scene("Si", 35)[0].geometry
    message = f"expected gaps that the mask masks too, got {holes().sum()} pixels"
    refused(message, build_psf, plane, mask=np.zeros((SIZE, SIZE)), gaps=holes(), **SENSORS["Si"])
    refused("does not tell where the gaps between modules are", build_psf, plane, gaps="modules", **SENSORS["Si"])
    refused("expected a mask of shape", build_psf, plane, gaps=np.zeros((3, 3)), **SENSORS["Si"])
