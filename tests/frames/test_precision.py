"""Frames rounded to a fraction of their noise: never too coarsely, and so that they compress."""

import numpy as np
import pytest
import xarray as xr

import detcal
from detcal.errors import InputError
from detcal.frames.precision import with_precision
from detcal.frames.rounding import round_to_noise
from detcal.response import Response
from tests.reference import precision as reference

SHAPE = (8, 96, 128)


def scene(frames: int = SHAPE[0]) -> np.ndarray:
    """Expected counts: bright and dark halves with a slanted edge, a disc that moves 3 pixels a frame, a bright square, a slope."""
    frame, y, x = np.mgrid[:frames, : SHAPE[1], : SHAPE[2]]
    counts = np.where(x + 0.4 * y > 70, 2000.0, 60.0) + 3.0 * x
    counts[(y - 40) ** 2 + (x - 30 - 3 * frame) ** 2 < 400] = 15
    counts[:, 70:90, 100:120] = 30000
    return counts


def measured(expected: np.ndarray, seed: int = 0) -> np.ndarray:
    """Poisson counts of pixels of different gain, corrected: float32 with random mantissas."""
    gain = gains(expected.shape[1:])
    return (np.random.default_rng(seed).poisson(expected * gain) / gain / 10000).astype(np.float32)


def gains(shape: tuple[int, ...]) -> np.ndarray:
    """Of pixels."""
    return np.random.default_rng(5).normal(1, 0.03, shape)


def steps(frames: np.ndarray, precision: float) -> np.ndarray:
    """What numbers were rounded to in each cell, at least: the lowest bit that is set in any of its numbers."""
    whole = (round_to_noise(frames, precision).astype(np.float64) * 2.0**60).astype(np.int64)
    cells = whole.reshape(len(frames), frames.shape[1] // 8, 8, frames.shape[2] // 8, 8)
    bits = np.bitwise_or.reduce(np.bitwise_or.reduce(cells, axis=4), axis=2)
    return (bits & -bits).astype(np.float64).repeat(8, axis=1).repeat(8, axis=2) / 2.0**60


def wires(frames: int) -> np.ndarray:
    """Expected counts: dark wires of one to four pixels in a bright field, upright, level, slanted, and moving by a pixel a frame."""
    frame, y, x = np.mgrid[:frames, : SHAPE[1], : SHAPE[2]]
    counts = np.where(y < 48, 5000.0, 5000.0 * np.exp(-x / 60))
    for width, start in ((1, 5), (2, 25), (3, 45), (4, 68)):
        counts[:, :, start : start + width] = 100
        counts[:, start : start + width, :] = 60
        counts[(x + y // 3 - frame - start - 30 >= 0) & (x + y // 3 - frame - start - 30 < width)] = 30
    return counts


@pytest.mark.parametrize("shape", [(1, 17, 30), (2, 5, 40), (3, 24, 8), (5, 33, 41), (4, 1, 64), (9, 2, 2), (1, 1, 1), (3, 8, 2)])
@pytest.mark.parametrize("precision", [0.125, 0.7])
def test_numbers_are_those_of_the_definition_bit_for_bit(shape, precision):
    rng = np.random.default_rng(2)
    frames = (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-3, 4, shape[-1]) + rng.integers(-2, 3) * 1000).astype(np.float32)
    frames[rng.random(shape) < 0.02] = np.nan
    frames[rng.random(shape) < 0.01] = np.inf
    np.testing.assert_array_equal(round_to_noise(frames, precision), reference.round_to_noise(frames, precision))


@pytest.mark.parametrize("frames", [1, 2, 8])
@pytest.mark.parametrize(("seen", "seed"), [(scene, 0), (scene, 1), (wires, 2), (wires, 3)])
def test_no_error_is_above_half_of_the_precision_of_the_true_noise(frames, seen, seed):
    expected = seen(frames)
    values = measured(expected, seed)
    noise = np.sqrt(expected / gains(expected.shape[1:])) / 10000
    error = np.abs(round_to_noise(values, 0.125).astype(np.float64) - values) / noise
    assert error.max() <= 0.125 / 2
    assert np.median(error) > 0.125 / 32  # nor is it needlessly fine


def test_errors_are_within_half_a_step_and_have_no_mean():
    values = measured(np.full((16, 96, 128), 900.0))
    errors = round_to_noise(values, 0.125).astype(np.float64) - values
    sizes = steps(values, 0.125)
    assert (np.abs(errors) <= sizes / 2).all()
    assert abs((errors / sizes).mean()) < 4 / np.sqrt(12 * errors.size)


def test_what_is_no_number_stays_and_spoils_no_neighbour():
    values = measured(np.full(SHAPE, 900.0))
    values[:, 10, 10], values[:, 50, 60:90], values[3] = np.nan, np.inf, np.nan
    found = round_to_noise(values, 0.125)
    np.testing.assert_array_equal(found[~np.isfinite(values)], values[~np.isfinite(values)])
    touched = (found != values)[np.isfinite(values)]
    assert touched.mean() > 0.9


def test_what_has_no_noise_stays():
    """Constants, ramps, whole numbers below the noise, few counts, and numbers so large that they are no finer than a step."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, SHAPE).astype(np.float32)
    x = np.arange(SHAPE[2])
    for frames in (np.full(SHAPE, 0.1), np.broadcast_to(x / 7, SHAPE), counts, rng.poisson(0.01, SHAPE) * 0.97, 1e30 + 0 * counts):
        frames = np.ascontiguousarray(frames, np.float32)
        np.testing.assert_array_equal(round_to_noise(frames, 0.125), frames)


def test_a_store_says_its_precision_and_is_smaller(tmp_path):
    frames = xr.DataArray(measured(np.full((16, 128, 128), 900.0)), dims=("frame", "y", "x"), attrs={"units": "1"}).chunk({"frame": 8})
    before = frames.values.copy()
    plain = detcal.save(frames, tmp_path / "plain.zarr")
    path = detcal.save(frames, tmp_path / "rounded.zarr", precision=0.125)
    found = detcal.load(path).data
    assert found.attrs["precision"] == 0.125
    assert "power of two" in found.attrs["rounded_to"]
    assert found.attrs["units"] == "1"
    np.testing.assert_array_equal(found[8:], round_to_noise(before[8:], 0.125))
    np.testing.assert_array_equal(frames, before)
    sizes = [sum(file.stat().st_size for file in store.rglob("c/*/*/*")) for store in (plain, path)]
    assert sizes[1] < 0.6 * sizes[0]


def test_an_array_in_memory_is_rounded_to_any_file_and_stays_as_it_is(tmp_path):
    values = measured(np.full((5, 32, 32), 900.0))
    before = values.copy()
    path = detcal.save(values, tmp_path / "a.h5", precision=0.5)
    np.testing.assert_array_equal(detcal.open_frames(path), round_to_noise(before, 0.5))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("wrong", [0, -0.125, 1.5, np.nan, "0.125", True])
def test_a_precision_that_is_no_fraction_is_refused(wrong, tmp_path):
    with pytest.raises(InputError, match=r"expected precision above 0 and up to 1.*got") as caught:
        detcal.save(np.ones((3, 8, 8), np.float32), tmp_path / "a.zarr", precision=wrong)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (np.ones((3, 8, 8), np.uint16), r"data uint16 \(frame, y, x\)"),
        (np.ones((3, 8, 8)), "float64"),
        (Response.from_gain(np.ones((8, 8))), r"gain float32 \(y, x\)"),
    ],
)
def test_what_is_no_frames_of_float32_has_no_precision(result, said, tmp_path):
    with pytest.raises(InputError, match=f"float32 .*{said}.*leave precision out"):
        detcal.save(result, tmp_path / "a.zarr", precision=0.125)
    assert not list(tmp_path.iterdir())


def test_nothing_is_read_while_the_graph_is_built():
    frames = xr.DataArray(measured(np.full(SHAPE, 900.0)), dims=("frame", "y", "x")).chunk({"frame": 4})
    lazy = frames.copy(data=frames.data.map_blocks(lambda block: 1 / 0, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)))
    assert with_precision(lazy, 0.125).chunks == frames.chunks
