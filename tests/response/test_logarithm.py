"""Attenuation from transmission."""

import dask.array as da
import numpy as np
import pytest

from detcal.errors import InputError
from detcal.response import correct_response, minus_log


def test_attenuations_are_logarithms():
    values = np.random.default_rng(0).uniform(-0.2, 1.2, (3, 7, 9)).astype(np.float32)
    values[0, 0, :3] = 0, np.nan, np.inf
    known = np.where(np.isfinite(values) & (values > 0), values.astype(float), np.nan)
    np.testing.assert_allclose(minus_log(values), -np.log(known), rtol=1e-6, atol=1e-7)
    floored = np.where(np.isfinite(values), np.maximum(values, 0.05), np.nan)
    np.testing.assert_allclose(minus_log(values, floor=0.05), -np.log(floored), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunks", [(1, -1, -1), (2, 3, 4)])
def test_what_was_floored_is_counted(chunks):
    """Of blocks of rows, too; what was not measured is none."""
    values = np.random.default_rng(1).uniform(-0.2, 1.2, (5, 7, 9)).astype(np.float32)
    values[0, 0], values[4] = np.nan, 1
    found = minus_log(da.from_array(values, chunks=chunks), floor=0.05)
    np.testing.assert_array_equal(found.floored, [np.count_nonzero(frame < 0.05) for frame in values])
    assert found.floored.dtype == np.int64
    assert "floored" not in minus_log(values).coords


def test_counts_are_refused_and_transmissions_are_not():
    frames, flat = np.full((2, 4, 4), 500.0), np.full((4, 4), 1000.0)
    np.testing.assert_allclose(minus_log(correct_response(frames, flat=flat)), np.log(2), rtol=1e-6)
    with pytest.raises(InputError, match="got frames of counts: divide by a flat first"):
        minus_log(correct_response(frames, dark=flat / 10))
    with pytest.raises(InputError, match="got frames of counts"):
        minus_log(frames.astype(np.uint16))


@pytest.mark.parametrize("wrong", [0, -1e-3, np.nan, np.inf, "small", True])
def test_a_floor_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="a floor above 0"):
        minus_log(np.ones((1, 2, 2)), floor=wrong)
