"""MLEM of as many iterations as counts are worth, against the best number of iterations and against the other ways to treat a frame."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import lsmr

from detcal.frames.lanes import read_only
from detcal.sensor import PlanarGeometry, build_psf, deconvolve, stopping
from tests.sensor.blurs import frames_of, psf_of, solved, with_gaps

SIZE, PITCH, DISTANCE = 96, 172e-6, 0.3
INSIDE = slice(None), slice(10, -10), slice(10, -10)
SENSORS = {
    "Si, 10°": (10, 450e-6, "Si", 12.4, PITCH),
    "Si, 30°": (30, 450e-6, "Si", 17.8, PITCH),
    "thick Si, 30°": (30, 1e-3, "Si", 25.0, PITCH),
    "CdTe, 35°": (35, 1e-3, "CdTe", 60.0, PITCH),
}


@cache
def sensor(name):
    degrees, thickness, material, energy, pitch = SENSORS[name]
    foot = SIZE / 2 * pitch - DISTANCE * np.tan(np.radians(degrees)) / np.sqrt(2)
    plane = PlanarGeometry((SIZE, SIZE), (pitch, pitch), DISTANCE, (foot, foot))
    return build_psf(plane, thickness_m=thickness, material=material, energy_kev=energy).compute()


def spots(number, width, seed):
    """The same number of spots, each of height 1 or less, at random."""
    image = np.zeros((SIZE, SIZE))
    image[tuple(np.random.default_rng(seed).integers(8, SIZE - 8, (2, number)))] = 1
    image = gaussian_filter(image, width)
    return image / image.max()


def rings(psf):
    y, x = ((np.arange(SIZE) + 0.5) * PITCH - foot for foot in psf.poni_m)
    radius = np.hypot(y[:, None], x) / PITCH
    return 1 + 8 * np.exp(-0.5 * (((radius % 25) - 12) / 1.5) ** 2)


SCENES = {
    "uniform": lambda psf: np.ones((SIZE, SIZE)),
    "spots on a background": lambda psf: 1 + 10 * spots(60, 1.2, 3),
    "spots in the dark": lambda psf: 0.01 + 10 * spots(40, 1.2, 4),
    "narrow spots": lambda psf: 0.1 + 20 * spots(40, 0.6, 5),
    "rings": rings,
}


def rms(found, truth):
    """Of all frames."""
    return np.sqrt(((found - truth)[INSIDE] ** 2).mean())


@pytest.mark.parametrize("counts", [1, 20, 1000, 100_000])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", SENSORS)
def test_auto_is_near_the_best_of_all_methods(name, scene, counts):
    """Each at its best number of iterations, which only the truth tells."""
    psf = sensor(name)
    truth = counts * SCENES[scene](psf)
    frames = np.random.default_rng(6).poisson(psf.apply(truth).values[0], (4, SIZE, SIZE)).astype(np.float32)
    matrix = psf.to_scipy().astype(float)
    others = [frames / psf.efficiency.values, solved(frames, psf, "direct").values]
    others += [solved(frames, psf, "mlem", number).values for number in stopping.numbers_up_to(150)]
    linear = [[lsmr(matrix, frame.ravel(), maxiter=number)[0].reshape(frame.shape) for frame in frames] for number in (1, 2, 3, 5, 10)]
    best = min(rms(np.asarray(other), truth) for other in [*others, *linear])
    assert rms(deconvolve(frames, psf).values, truth) < 1.2 * best


@pytest.mark.parametrize("name", SENSORS)
def test_spots_come_back_to_where_they_were_with_their_counts(name):
    """A spot of 36 000 photons on a small background, in many frames."""
    psf = sensor(name)
    y, x = np.indices((SIZE, SIZE))
    truth = 0.01 + 4000 * np.exp(-((y - 47.3) ** 2 + (x - 48.6) ** 2) / (2 * 1.2**2))
    frames = np.random.default_rng(1).poisson(psf.apply(truth).values[0], (32, SIZE, SIZE))
    found = deconvolve(frames, psf).values.mean(axis=0)
    box = slice(36, 60), slice(36, 60)

    def centre(image):
        weights = (image - 0.01)[box]
        return np.array([(weights * place[box]).sum() for place in (y, x)]) / weights.sum()

    noise = 1.2 / np.sqrt(psf.efficiency.values.mean() * truth[box].sum() * 32)  # of a mean of so many photons' places
    assert abs(centre(found) - centre(truth)).max() < 0.02 + 2 * noise
    recorded = frames.sum() / 32
    assert (found * psf.efficiency.values).sum() == pytest.approx(recorded, rel=1e-3)


# -------------------------------------------------------------------------------------------------------------- its end


def test_auto_is_mlem_of_some_number_of_iterations():
    psf = psf_of("75°")
    for mean in (3, 300):
        frames = frames_of(psf, 1, mean)
        found = solved(frames, psf, "auto").values
        assert any(
            np.array_equal(found, solved(frames, psf, "mlem", number).values, equal_nan=True) for number in stopping.numbers_up_to(211)
        )


def test_more_counts_are_worth_more_iterations():
    psf = sensor("Si, 30°")
    truth = SCENES["narrow spots"](psf)
    used = [chosen(np.random.default_rng(0).poisson(psf.apply(rate * truth).values), psf)[0] for rate in (5, 100, 2000)]
    assert used == sorted(set(used))


def chosen(frames, psf, most=211):
    """How many iterations each frame is worth."""
    matrix = psf.in_memory.compute()
    counts = stopping.Counts.of(read_only(frames.reshape(len(frames), -1).astype(np.float32)), matrix, stopping.Valid())
    return np.atleast_1d(stopping.find_end(counts, matrix, most, len(frames), lambda: True)[0])[: len(frames)].tolist()


def test_a_frame_is_worth_the_same_whatever_goes_beside_it():
    psf = psf_of("PONI outside")
    frames = with_gaps(np.concatenate([frames_of(psf, 2, 3), frames_of(psf, 2, 10_000)]))
    together = solved(frames, psf, "auto").values
    for number in range(4):
        np.testing.assert_array_equal(solved(frames[number : number + 1], psf, "auto").values[0], together[number])


def test_auto_takes_no_more_iterations_than_it_may():
    psf = sensor("thick Si, 30°")
    frames = np.random.default_rng(0).poisson(psf.apply(2000 * SCENES["narrow spots"](psf)).values)
    assert chosen(frames, psf)[0] > 9
    assert chosen(frames, psf, 5) == [4]
    np.testing.assert_array_equal(deconvolve(frames, psf, max_iterations=5), solved(frames, psf, "mlem", 4))


def test_spots_that_iterations_do_not_come_to_are_solved_exactly():
    """Single pixels of many counts, where the exact solution amplifies little noise."""
    psf = sensor("CdTe, 35°")
    truth = 1e6 * (0.1 + 20 * (spots(40, 0.1, 5) > 0.5))
    frames = np.random.default_rng(0).poisson(psf.apply(truth).values)
    found = deconvolve(frames, psf).compute()
    np.testing.assert_allclose(found, solved(frames, psf, "direct"), rtol=1e-5, atol=1)
    assert (found.iterations.item(), found.converged.item()) == (0, True)
    assert rms(found.values, truth) < 0.5 * rms(solved(frames, psf, "mlem", stopping.MOST).values, truth)


def test_each_frame_says_how_it_was_found():
    psf = sensor("Si, 30°")
    truth = SCENES["narrow spots"](psf)
    frames = np.concatenate([np.random.default_rng(0).poisson(psf.apply(rate * truth).values) for rate in (5, 2000)])
    found = deconvolve(frames, psf).compute()
    assert found.iterations.values.tolist() == [chosen(frames[:1], psf)[0], chosen(frames[1:], psf)[0]]
    recorded = psf.apply(found.drop_attrs()).values
    wanted = [np.linalg.norm(recorded[k] - frames[k]) / np.linalg.norm(frames[k]) for k in (0, 1)]
    np.testing.assert_allclose(found.residual, wanted, rtol=1e-3)
    assert found.converged.values.all()


def test_auto_with_a_variance_is_direct():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2)
    found = deconvolve(frames, psf, variance=frames)
    np.testing.assert_array_equal(found.deconvolved, solved(frames, psf, "direct"))
    assert found.deconvolved.method == "direct"


@pytest.mark.parametrize("mean", [0.3, 3, 38, 45, 1000, 1e6])
def test_counts_are_parted_as_by_chance(mean):
    """The parts of Poisson counts are Poisson counts, and know nothing of each other."""
    counts = np.random.default_rng(0).poisson(mean, (40_000, 16)).astype(np.float32)
    train, held = np.empty_like(counts), np.empty_like(counts)
    stopping.thin(counts, np.ones(16, np.float32), train, held)
    parts = {0.75: train.astype(float), 0.25: held.astype(float) / 3}
    np.testing.assert_allclose(train + held / 3, counts, rtol=1e-6)
    for share, part in parts.items():
        error = np.sqrt(share * mean / 40_000)  # the pixels' chances are the same in all lanes
        assert part.mean() == pytest.approx(share * mean, abs=4 * error)
        assert part.var() == pytest.approx(share * mean, rel=0.04 + 4 / np.sqrt(40_000 * share * mean))
    assert abs(np.mean([np.corrcoef(*(part[:, lane] for part in parts.values()))[0, 1] for lane in range(16)])) < 0.02


def test_the_gain_of_a_prediction_is_that_of_its_squares():
    psf = psf_of("75°")
    matrix = psf.in_memory.compute()
    rng = np.random.default_rng(0)
    held, before, now = (rng.uniform(0, 10, (len(matrix.response), 16)).astype(np.float32) for _ in range(3))
    held[rng.random(held.shape) < 0.1] = np.nan
    expected = psf.to_scipy().astype(float) @ now
    last = before.astype(float)
    wanted = np.nansum((held - before) ** 2.0 - (held - expected) ** 2, axis=0)
    gains = np.empty((2, 16))
    stopping.gain_of_prediction(matrix, ((0, psf.shape[0]), (0, psf.shape[1])), now, held, before, gains)
    np.testing.assert_allclose(gains[0], wanted, rtol=1e-4)
    np.testing.assert_allclose(gains[1], ((expected - last) ** 2 * expected).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(before, expected, rtol=1e-5)
