"""Pictures of large data read little of it."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.pictures import SIDE, pictures_of


def test_large_frames_are_read_one_at_a_time_and_thinned():
    read = []

    def frame(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.full((1, 1500, 40), 7, np.uint16)

    frames = da.map_blocks(frame, dtype=np.uint16, chunks=((1,) * 1000, (1500,), (40,)), meta=np.empty((0, 0, 0), np.uint16))
    pictures = pictures_of(xr.DataArray(frames, dims=("frame", "y", "x")))
    assert sorted(read) == [0, 500]
    assert [picture.shape for picture in pictures] == [(1500, 40)] * 2
    assert max(pictures[0].values.shape) <= SIDE


def test_flagged_numbers_and_masks_are_counted():
    frames = np.zeros((1, 4, 5), np.uint32)
    frames[0, 1, :3] = 2**32 - 1
    mask = np.zeros((4, 5), bool)
    mask[2] = True
    data = xr.Dataset({"frames": (("frame", "y", "x"), da.from_array(frames)), "mask": (("y", "x"), mask)})
    assert [picture.missing for picture in pictures_of(data)] == [3, 5]


@pytest.mark.parametrize("kind", [bool, float])
@pytest.mark.parametrize("rows", [1, 7, 500, 1300])
def test_blocks_of_rows_make_the_same_image_as_all_at_once(kind, rows):
    """Every third row is kept, wherever blocks begin."""
    values = np.random.default_rng(0).random((1300, 600))
    values = values > 0.9 if kind is bool else np.where(values > 0.9, np.nan, values)
    (found,) = pictures_of(xr.DataArray(da.from_array(values, chunks=(rows, -1)), dims=("y", "x")))
    np.testing.assert_array_equal(found.values, (np.where(values, np.nan, 0) if kind is bool else values).astype(np.float32)[::3, ::2])
    assert found.missing == np.count_nonzero(values if kind is bool else np.isnan(values))


def test_of_a_large_cube_some_rows_are_read(monkeypatch):
    read = []

    def tile(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.full((4, 6, 8), block_info[None]["chunk-location"][0], np.float32)

    cube = da.map_blocks(tile, dtype=np.float32, chunks=((4,) * 100, (6,), (8,)), meta=np.empty((0, 0, 0), np.float32))
    rate = xr.DataArray(cube, dims=("row", "column", "energy"), coords={"energy": np.linspace(0, 20, 8)}, name="rate")
    whole, spectrum = pictures_of(rate)
    assert whole.values.shape == (400, 6)
    np.testing.assert_allclose(spectrum.lines["mean"], 49.5)
    read.clear()
    monkeypatch.setattr("detcal_pipelines.pictures.MAP_BYTES", 20 * 4 * 6 * 8 * 4)
    some, spectrum = pictures_of(rate)
    assert len(set(read)) == 20
    assert some.shape == (400, 6)
    np.testing.assert_array_equal(some.values[[0, -1], 0], [0, 99])
    assert "(20 of its 400 rows)" in some.title
