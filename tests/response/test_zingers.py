"""Zingers: readings that stand out from their neighbours."""

import numpy as np
import pytest
import xarray as xr

from detcal.errors import InputError
from detcal.response import remove_zingers
from tests.reference import response as reference


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 7), (3, 17, 23)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_frames_are_those_of_the_definition_bit_for_bit(shape, kind):
    """Zingers in the middle, at edges and corners, side by side; readings that are missing; ties."""
    rng = np.random.default_rng(3)
    frames = rng.poisson(40, shape).astype(kind)
    frames[rng.random(shape) < 0.05] = 5000
    if kind == np.float32:
        frames[rng.random(shape) < 0.1] = np.nan
    found = remove_zingers(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": 1}), threshold=6.0)
    np.testing.assert_array_equal(found, reference.without_zingers(frames, 6.0, 1.0 if kind == np.uint16 else 0.0))
    assert found.dtype == np.float32


def test_zingers_go_and_the_noise_stays():
    """Of a Poisson frame with 200 zingers none is left; what else was changed lowers the mean by less than 0.01 deviations."""
    rng = np.random.default_rng(0)
    truth = rng.poisson(1000, (4, 256, 256))
    frames = truth.copy()
    where = rng.random(truth.shape) < 2e-4
    frames[where] += rng.integers(2000, 30000, np.count_nonzero(where))
    found = remove_zingers(frames.astype(np.uint16)).values
    assert (found[where] < 1250).all()
    assert abs(found[~where].mean() - truth[~where].mean()) < 0.01 * np.sqrt(1000)


def test_an_edge_in_the_image_stays():
    frames = np.full((1, 20, 20), 100, np.uint16)
    frames[:, :, 10:] = 1000
    frames[:, :, 4:6] = 800  # a line, two pixels wide
    np.testing.assert_array_equal(remove_zingers(frames)[0], frames[0])


def test_blocks_of_rows_are_put_together():
    frames = np.random.default_rng(1).poisson(50, (2, 12, 9))
    frames[:, 5:7] *= 30
    cut = xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"y": 5})
    np.testing.assert_array_equal(remove_zingers(cut), remove_zingers(frames))


@pytest.mark.parametrize("wrong", [0, -3, np.nan, np.inf, "high", True])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="expected a positive threshold"):
        remove_zingers(np.ones((1, 4, 4)), threshold=wrong)


def test_frames_without_neighbours_are_refused():
    with pytest.raises(InputError, match="at least 2 × 2 pixels"):
        remove_zingers(np.ones((2, 1, 5)))
