"""Zingers: readings that stand out from their neighbours."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import remove_zingers
from tests.pipelines.commands import change, detcal
from tests.reference import response as reference


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 7), (3, 17, 23)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_frames_are_those_of_the_definition_bit_for_bit(shape, kind):
    """Zingers in the middle, at edges and corners, side by side; readings that are missing; ties."""
    rng = np.random.default_rng(3)
    frames = (rng.poisson(40, shape) * (1.25 if kind == np.float32 else 1)).astype(kind)
    frames[rng.random(shape) < 0.05] = 5000
    if kind == np.float32:
        frames[rng.random(shape) < 0.1] = np.nan
    found = remove_zingers(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": 1}), threshold=6.0)
    np.testing.assert_array_equal(found, reference.without_zingers(frames, 6.0))
    assert found.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 3, 7), (7, 17, 23)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("depth", [1, 3])
def test_frames_in_time_are_those_of_the_definition_bit_for_bit(shape, kind, depth):
    """As above, with what is bright from frame to frame; in blocks of one frame, and of several."""
    rng = np.random.default_rng(4)
    frames = (rng.poisson(40, shape) * (1.25 if kind == np.float32 else 1) * rng.integers(1, 4, shape[-1])).astype(kind)
    frames[rng.random(shape) < 0.05] = 5000
    if kind == np.float32:
        frames[rng.random(shape) < 0.2] = np.nan
    found = remove_zingers(xr.DataArray(frames, dims=("frame", "y", "x")).chunk({"frame": depth}), method="temporal", threshold=6.0)
    np.testing.assert_array_equal(found, reference.without_zingers_in_time(frames, 6.0))
    assert found.dtype == np.float32


def test_hits_of_several_pixels_go_and_what_stands_still_or_passes_stays():
    """Of 3 × 3 pixels in noise; a line that is one pixel wide; an edge that moves; a beam that flickers by a tenth."""
    rng = np.random.default_rng(2)
    beam = rng.uniform(0.95, 1.05, 12)[:, None, None]
    expected = np.full((12, 128, 128), 1000.0)
    expected[:, :, 40] = 4000
    expected[:, 100:, :] = 300
    expected[np.arange(128) - 60 < 3 * np.arange(12)[:, None, None] + np.zeros((1, 128, 1))] += 1500
    truth = rng.poisson(expected * beam)
    frames = truth.copy()
    hits = [(frame, *rng.integers(2, 123, 2)) for frame in range(1, 11) for _ in range(5)]
    for frame, row, column in hits:
        frames[frame, row : row + 3, column : column + 3] += 20000
    hit = frames != truth
    found = remove_zingers(frames.astype(np.uint16), method="temporal").values
    noise = np.sqrt(expected * beam)
    assert (found < expected.max() * 1.1).all()
    assert np.median(np.abs((found - expected * beam) / noise)[hit]) < 1.5
    within = np.s_[1:-1, 2:-2, 2:-2]
    changed = (found != truth)[within] & ~hit[within]
    assert changed.mean() < 0.004
    assert abs(((found - truth) / noise)[within][~hit[within]].mean()) < 0.01
    assert (remove_zingers(frames.astype(np.uint16)).values[hit] > 15000).mean() > 0.4  # what "temporal" is for


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


@pytest.mark.parametrize("rate", [0.1, 0.3, 1, 3])
def test_few_counts_stay_whatever_type_they_have(rate):
    """Where most pixels count nothing, neighbours are alike, and tell nothing of the noise."""
    counts = np.random.default_rng(1).poisson(rate, (10, 100, 100))
    for kind in (np.uint16, np.float32):
        assert remove_zingers(counts.astype(kind)).values.mean() == pytest.approx(counts.mean(), rel=2e-3)


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


def test_a_recipe_compares_frames_after_another_step(tmp_path):
    """Blocks of frames that a step has made are joined to those beside them."""
    frames = np.random.default_rng(5).poisson(500, (11, 30, 40)).astype(np.uint16)
    frames[[0, 3, 4, 10], [5, 6, 20, 7], [8, 9, 30, 10]] = 9000
    save(frames, tmp_path / "ct.h5")
    crop = '[[steps]]\noperation = "crop"\nregion = "2:, 3:"\n\n[[steps]]'
    (tmp_path / "r.toml").write_text(render("remove_zingers").replace("[[steps]]", crop))
    change(tmp_path, "r.toml", "# chunk_frames = 16", "chunk_frames = 3")
    change(tmp_path, "r.toml", '# method = "spatial"', 'method = "temporal"')
    detcal(tmp_path, "run", "r.toml", "--workers", "2")
    found = open_frames(tmp_path / "cleaned.zarr", chunks={"frame": 1})
    assert found.data.chunksize[0] == 3  # whole chunks of the file
    np.testing.assert_array_equal(found, reference.without_zingers_in_time(frames[:, 2:, 3:], 8.0))
    assert found.max() < 1000


@pytest.mark.parametrize("wrong", [0, -3, np.nan, np.inf, "high", True])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="expected a positive threshold"):
        remove_zingers(np.ones((1, 4, 4)), threshold=wrong)


def test_frames_without_neighbours_are_refused():
    with pytest.raises(InputError, match="at least 2 frames, of which readings can be compared, got 1"):
        remove_zingers(np.ones((1, 5, 5)), method="temporal")
    with pytest.raises(InputError, match="expected method to be one of spatial, temporal, got 'time'"):
        remove_zingers(np.ones((2, 5, 5)), method="time")
    with pytest.raises(InputError, match="at least 2 × 2 pixels"):
        remove_zingers(np.ones((2, 1, 5)))
