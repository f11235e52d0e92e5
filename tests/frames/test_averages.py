"""Averages of darks and flats: the mean of what belongs together, whatever the blocks."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal.errors import InputError
from detcal.frames.averages import average_frames
from detcal.frames.readings import ALL_NUMBERS
from tests.reference import averages as reference


def average(values, how="clipped", chunks=(4, -1, -1)):
    frames = xr.DataArray(da.from_array(values, chunks=chunks), dims=("frame", "y", "x"))
    return average_frames(frames, ALL_NUMBERS, how).compute()


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9, 20])
def test_clipped_means_are_those_of_the_definition(number, kind):
    """Zingers, two of them in a pixel, dropped readings, and in reals frames without a reading."""
    rng = np.random.default_rng(number)
    values = rng.poisson(300, (number, 12, 12)).astype(kind)
    for lowest, highest in ((0, 1), (20000, 60000), (20000, 60000)):
        frame, row, column = rng.integers(0, (number, 12, 12), (40, 3)).T
        values[frame, row, column] = rng.integers(lowest, highest, 40)
    if kind == np.float32:
        values[rng.random(values.shape) < 0.2] = np.nan
    rounding = 1 / 12 if kind == np.uint16 else 0
    wanted = reference.clipped_mean_of_three(values) if number == 3 else reference.clipped_mean(values, rounding)
    np.testing.assert_allclose(average(values), wanted, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(average(values, "median"), np.ma.median(np.ma.masked_invalid(values), axis=0).filled(np.nan), rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("level", [0.2, 5, 300, 20000])
def test_of_three_frames_what_strays_is_left_out(level, kind):
    """A zinger, a dropped reading, both in one pixel; the other pixels' means are those of all readings, bit for bit."""
    rng = np.random.default_rng(3)
    values = rng.poisson(level * np.linspace(0.5, 2, 40)[:, None], (3, 40, 50)).astype(kind)
    clean = values.astype(np.float64)
    values[0, 3, 4] = values[2, 10, 10] = values[1, 30, 7] = 60000
    values[1, 10, 10] = 0
    if kind == np.float32:
        values[1, 20] = np.nan
        clean[1, 20] = np.nan
    wanted = np.nanmean(clean, axis=0).astype(np.float32)
    wanted[3, 4], wanted[30, 7] = clean[1:, 3, 4].mean(), clean[::2, 30, 7].mean()
    wanted[10, 10] = clean[0, 10, 10] if level > 100 else (clean[0, 10, 10] + 0) / 2  # of few counts none is too few
    np.testing.assert_array_equal(average(values), wanted)
    np.testing.assert_allclose(average(values), reference.clipped_mean_of_three(values), rtol=1e-6)


def test_noise_of_three_frames_is_hardly_ever_left_out():
    """Photons, few and many, hot pixels of a dark among them: of 3 million readings of which one in 10⁵ may look so."""
    rng = np.random.default_rng(0)
    for level, gain in ((0.05, 1), (1, 1), (10, 1), (1000, 1), (1000, 30)):
        light = np.where(rng.random((1000, 1000)) < 0.01, 50 * level, level)
        values = (gain * rng.poisson(light, (3, 1000, 1000))).astype(np.float32)
        changed = np.count_nonzero(average(values) != values.mean(axis=0, dtype=np.float64).astype(np.float32))
        assert changed <= 30, (level, gain, changed)


@pytest.mark.parametrize("edge", [0, 1, 3, 12, 20, 40], ids="{} rows are lit".format)
def test_three_flats_between_which_the_beam_changed_are_averaged_whole(edge):
    values = np.random.default_rng(0).poisson(20000, (3, 40, 40)).astype(np.uint16)
    values[2] = values[2] * 0.8
    values[:, edge:] = np.random.default_rng(1).poisson(20, (3, 40 - edge, 40))
    np.testing.assert_allclose(average(values), values.mean(axis=0), rtol=1e-6)


def test_of_two_frames_a_zinger_is_told():
    values = np.random.default_rng(0).poisson(300, (2, 40, 50)).astype(np.uint16)
    np.testing.assert_allclose(average(values), values.mean(axis=0), rtol=1e-6)  # without a warning, which is an error in tests
    values[1, 5, 5] = values[0, 8, 30] = 60000
    with pytest.warns(UserWarning, match="two frames that are averaged differ in 2 pixels by far more than noise"):
        np.testing.assert_allclose(average(values), values.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("chunks", [(1, -1, -1), (7, -1, -1), (-1, 3, -1), (40, 5, -1)])
@pytest.mark.parametrize("how", ["clipped", "mean", "median"])
def test_averages_do_not_depend_on_blocks(how, chunks):
    values = np.random.default_rng(0).poisson(1000, (40, 8, 9)).astype(np.float32)
    values[3, 2, 2] = values[30, 2, 2] = 50000
    np.testing.assert_allclose(average(values, how, chunks), average(values, how, (-1, -1, -1)), rtol=1e-7)


def test_noise_alone_is_hardly_ever_left_out():
    """Once in 10⁵ readings: of normal ones, expected 10 of a million; a mean without its largest differs by a tenth of a deviation."""
    values = np.random.default_rng(0).normal(1000, 10, (10, 320, 320)).astype(np.float32)
    changed = np.count_nonzero(np.abs(average(values) - values.mean(axis=0, dtype=np.float64)) > 0.01)
    assert changed <= 30


def test_a_beam_that_changed_is_averaged_whole():
    """Flats before and after a scan: none of them is a zinger."""
    values = np.random.default_rng(0).poisson(20000, (20, 30, 30)).astype(np.uint16)
    values[16:] = values[16:] * 0.8
    np.testing.assert_allclose(average(values), values.mean(axis=0), rtol=1e-6)


def test_integers_that_are_all_alike_may_differ_by_rounding():
    values = np.full((10, 4, 4), 100, np.uint16)
    values[4, 1, 1], values[5, 2, 2] = 101, 40000
    assert average(values)[1, 1] == pytest.approx(100.1)
    assert average(values)[2, 2] == 100


def test_an_unknown_average_is_refused():
    with pytest.raises(InputError, match="average to be one of clipped, mean, median, got 'mode'"):
        average(np.ones((3, 2, 2), np.float32), "mode")
