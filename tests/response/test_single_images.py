"""An image (y, x) gives an image, what its frame gives in a stack."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal.response import Response, correct_response, crop, minus_log, rebin, remove_zingers

IMAGE = np.random.default_rng(1).uniform(0.2, 0.9, (6, 8))
MASK = np.arange(48).reshape(6, 8) == 13
OPERATIONS = {
    "correct_response": lambda frames: correct_response(frames, dark=0.1, flat=np.full((6, 8), 2.0)),
    "with gains": lambda frames: correct_response(frames, Response.from_gain(np.full((6, 8), 1.5)), mask=MASK, fill="interpolate"),
    "by name": lambda frames: correct_response(frames=frames, dark=0.1),
    "minus_log": lambda frames: minus_log(frames, floor=0.5),
    "crop": lambda frames: crop(frames, "1:4, 2:7"),
    "rebin": lambda frames: rebin(frames, 2),
    "remove_zingers": remove_zingers,
}


@pytest.mark.parametrize("given", [np.asarray, da.from_array, lambda image: xr.DataArray(image, dims=("y", "x"))])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_image_gives_what_its_frame_gives(name, given):
    found, stacked = OPERATIONS[name](given(IMAGE)), OPERATIONS[name](IMAGE[None])
    assert found.dims == ("y", "x")
    assert isinstance(found.data, da.Array)
    assert stacked.dims == ("frame", "y", "x")
    np.testing.assert_array_equal(found.values, stacked.values[0])
    assert set(found.coords) == set(stacked.coords)


def test_what_is_counted_of_an_image_is_a_number():
    assert int(minus_log(IMAGE, floor=0.5).floored) == np.count_nonzero(IMAGE < 0.5)
