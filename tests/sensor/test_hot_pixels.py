"""Hot pixels do not spread in silence, and spots are none."""

import warnings

import numpy as np
import pytest

from detcal import open_frames
from detcal.errors import InputError
from detcal.frames.readings import ALL_NUMBERS
from detcal.sensor import PlanarGeometry, build_psf, deconvolve, hot
from tests.sensor.blurs import METHODS

SIZE, PITCH, DISTANCE, FINE = 61, 172e-6, 0.351, 8
SILICON = {"thickness_m": 450e-6, "material": "Si", "energy_kev": 12.8}
FOOT = SIZE / 2 * PITCH - DISTANCE * np.tan(np.radians(30)) / np.sqrt(2)


def sensor_of(pieces=1):
    """At 30°, in pixels of so many pieces a side."""
    plane = PlanarGeometry((SIZE * pieces,) * 2, (PITCH / pieces,) * 2, DISTANCE, (FOOT, FOOT))
    return build_psf(plane, **SILICON).compute()


PSF = sensor_of()


def counts(seed=0, mean=20):
    return np.random.default_rng(seed).poisson(mean * PSF.apply(np.ones(PSF.shape)).values)


def with_hot():
    frames = counts()
    frames[0, 20, 20], frames[0, 40, 15] = 90_000, 3000
    return frames


@pytest.mark.parametrize("method", METHODS)
def test_hot_pixels_are_warned_of_with_what_they_do(method):
    frames, mask = with_hot(), np.zeros(PSF.shape, bool)
    mask[20, 20] = mask[40, 15] = True
    options = {"max_iterations": 5} if method in ("lsmr", "mlem") else {}
    with pytest.warns(UserWarning, match="^2 pixels are hot: .* the exact solution has .* others wrong, up to .* px away: mask them"):
        deconvolve(frames, PSF, method=method, **options).compute()
    masked = deconvolve(frames, PSF, method=method, mask=mask, **options).compute()  # warnings are errors here
    assert np.isnan(masked.values[0, mask]).all()
    assert abs(masked.values[0, ~mask] - 20).max() < 200


def test_what_is_said_of_their_spread_is_so():
    frames = with_hot()
    number, wrong, away = hot.spread_of_hot(frames, PSF.in_memory.compute(), ALL_NUMBERS)
    clean = counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        off = abs(deconvolve(frames, PSF, method="direct").values - deconvolve(clean, PSF, method="direct").values)[0]
    places = np.array([(20, 20), (40, 15)])
    off[tuple(places.T)] = 0
    noise = np.sqrt(clean.mean() + 1)
    y, x = np.nonzero(off > noise)
    assert number == 2
    assert wrong == pytest.approx(len(y), abs=3)
    assert away == pytest.approx(np.min([np.maximum(abs(y - row), abs(x - column)) for row, column in places], axis=0).max(), abs=1)


@pytest.mark.parametrize("width", [0.5, 0.7, 1.0, 1.5])
def test_spots_are_not_hot(width):
    """However they lie on the pixels."""
    fine, matrix = sensor_of(FINE), PSF.in_memory.compute()
    rng = np.random.default_rng(0)
    y, x = (np.indices((SIZE * FINE,) * 2) + 0.5) / FINE
    for _ in range(6):
        centre = SIZE / 2 + rng.uniform(-0.5, 0.5, 2)
        spot = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * width**2))
        recorded = fine.apply(50_000 * spot / spot.sum()).values[0].reshape(SIZE, FINE, SIZE, FINE).sum(axis=(1, 3))
        assert hot.spread_of_hot(rng.poisson(recorded + 1)[None], matrix, ALL_NUMBERS) is None


def test_no_pixel_of_measured_spots_is_hot(shared_data):
    path = shared_data / "sensor" / "thau_3_2_0010.cbf.bz2"
    if not path.exists():
        pytest.skip(f"no measured frame: {path.name} is not there")
    frames = open_frames(path).compute()
    plane = PlanarGeometry(frames.shape[1:], (PITCH, PITCH), DISTANCE, (PITCH * 1306.96, PITCH * 1261.61))
    psf = build_psf(plane, frames=frames, mask=frames.values[0] < 0)
    assert hot.spread_of_hot(frames.values, psf.in_memory.compute(), ALL_NUMBERS.within(0, 1e9)) is None


def test_masks_that_leave_no_pixel_are_refused():
    upper = np.broadcast_to(np.arange(SIZE)[:, None] < 30, PSF.shape)
    masked = build_psf(PSF.geometry, mask=upper, **SILICON)
    with pytest.raises(InputError, match="with what the matrix masks, leaves no pixel"):
        deconvolve(with_hot(), masked, mask=~upper)
    deconvolve(with_hot(), PSF, mask=~upper)
