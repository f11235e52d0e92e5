"""The ring amplitude, from simulated pixels and from plain numpy."""

import dask.array as da
import numpy as np
import pytest

from detcal.errors import InputError
from detcal.response import minus_log, ring_amplitude

RNG = np.random.default_rng(5)
SHAPE = (60, 200)


def pixels(scatter):
    return RNG.normal(1, scatter, SHAPE)


def plainly(frames, reach):
    """By loops, of relative differences."""
    sides = []
    for half in (frames[::2], frames[1::2]):
        with np.errstate(invalid="ignore"):
            mean = np.nansum(half, axis=0) / np.isfinite(half).sum(axis=0)
        found = np.full(mean.shape, np.nan)
        for (y, x), value in np.ndenumerate(mean):
            beside = np.concatenate([mean[y, max(0, x - reach) : x], mean[y, x + 1 : x + 1 + reach]])
            number = np.isfinite(beside).sum()
            found[y, x] = (value / np.nanmean(beside) - 1) * np.sqrt(number / (number + 1))
        sides.append(found)
    scatters = [1.4826 * np.nanmedian(np.abs(each - np.nanmedian(each))) for each in (sides[0] + sides[1], sides[0] - sides[1])]
    return np.sqrt(scatters[0] ** 2 - scatters[1] ** 2) / 2


@pytest.mark.parametrize("chunks", [(1, -1, -1), (4, 5, 20), (9, -1, -1)])
@pytest.mark.parametrize("reach", [1, 5])
def test_as_plain_numpy_has_it(reach, chunks):
    frames = RNG.normal(1000, 20, (9, 20, 40)) * RNG.normal(1, 0.05, (20, 40))
    frames[:, 3, 7], frames[2, :5] = np.nan, np.nan
    found = ring_amplitude(da.from_array(frames, chunks=chunks), reach=reach)
    assert found.shape == ()
    np.testing.assert_allclose(found, plainly(frames, reach), rtol=1e-5)


@pytest.mark.parametrize("scatter", [0.03, 0.003])
def test_what_was_simulated_is_found_beneath_the_noise(scatter):
    """In 16 frames of 2000 counts the mean of a pixel is off by 6 ‰."""
    frames = RNG.poisson(2000 * pixels(scatter), (16, *SHAPE))
    assert float(ring_amplitude(frames)) == pytest.approx(scatter, rel=0.15)
    assert float(ring_amplitude(frames[:, :, :2], reach=1)) == pytest.approx(scatter, rel=0.6)


def test_without_rings_little_is_left_beside_a_sample_that_turns():
    angles = np.linspace(0, np.pi, 20)[:, None, None]
    x = np.arange(SHAPE[1]) - 100 - 30 * np.cos(angles)
    sample = np.exp(-np.sqrt(np.maximum(1 - (x / 40) ** 2, 0))) * np.ones((1, SHAPE[0], 1))
    frames = RNG.poisson(5000 * sample)
    assert float(ring_amplitude(frames)) < 1e-3
    assert float(ring_amplitude(frames * pixels(0.02))) == pytest.approx(0.02, rel=0.05)


def test_attenuations_have_the_amplitude_of_their_transmissions():
    transmission = 0.4 * pixels(0.01) * np.ones((4, 1, 1))
    found = ring_amplitude(minus_log(transmission), quantity="attenuation")
    np.testing.assert_allclose(found, ring_amplitude(transmission), rtol=0.01)


def test_bad_pixels_and_flags_take_no_part():
    frames = (1000 * pixels(0.02) * np.ones((4, 1, 1))).astype(np.uint16)
    alone = ring_amplitude(frames)
    mask = RNG.random(SHAPE) < 0.3
    frames[:, mask] = 65535
    assert float(ring_amplitude(frames)) == pytest.approx(float(alone), rel=0.05)
    marked = np.where(mask, 7, frames).astype(np.int32)
    for options in ({"mask": mask}, {"dummy": 7}):
        np.testing.assert_allclose(ring_amplitude(marked, **options), ring_amplitude(frames), rtol=1e-6)
    assert np.isnan(ring_amplitude(np.full((2, 4, 4), np.nan)))


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.ones((1, 4, 4)), {}, "two frames or more, got one"),
        (np.ones((2, 4, 4)), {"quantity": "counts"}, "quantity to be one of intensity, attenuation"),
        (np.ones((2, 4, 4)), {"reach": 0}, "reach as a whole number of pixels from 1"),
        (np.ones((2, 4, 4)), {"reach": True}, "reach as a whole number"),
    ],
)
def test_what_cannot_be_measured_is_refused(frames, options, message):
    with pytest.raises(InputError, match=message):
        ring_amplitude(frames, **options)
