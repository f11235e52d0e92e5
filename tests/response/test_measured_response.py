"""The correction on measured frames (skipped where the data is not there)."""

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detcal import open_frames
from detcal.response import Response, correct_response
from tests.reference import response as reference


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "response"


def pattern(image: np.ndarray) -> np.ndarray:
    """Differences between neighbouring pixels."""
    return (image - gaussian_filter(image, 5)).ravel()


def share_of(one: np.ndarray, other: np.ndarray) -> float:
    """How much of the second image's pattern is in the first: the slope of the regression."""
    return float(pattern(one) @ pattern(other) / (pattern(other) @ pattern(other)))


def test_ct_crop_with_its_dark_flat_and_published_gains(folder):
    frames, dark, flat, gain = (open_frames(folder / f"physlin_{name}.tif") for name in ("CT", "dark", "flat", "coeff_dkrm"))
    assert frames.shape == (10, 300, 300)
    cal = Response.from_gain(gain[0])
    assert not cal.mask.any()
    found = correct_response(frames, cal, dark=dark, flat=flat, residual_sigma=3).values
    wanted = reference.correct(frames.values, gain.values[0], dark.values[0], flat.values[0], 50.0, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    raw, dark = frames.values.mean(axis=0), dark.values[0].astype(float)
    assert share_of(raw, dark) > 0.9
    assert abs(share_of(found.mean(axis=0), dark) / share_of(raw / (flat.values[0] - dark), dark)) < 0.05


def test_the_crops_flat_still_holds_its_dark(folder):
    """So it is to be given as it is, and not as flat_is_dark_subtracted."""
    dark, flat = (open_frames(folder / f"physlin_{name}.tif").values[0].astype(float) for name in ("dark", "flat"))
    assert share_of(flat, dark) == pytest.approx(1, abs=0.05)


def test_tooth_with_its_flats_and_darks(folder):
    """There is no sweep: with unit gains, and every residual of the flat kept, what is left is the usual flat field."""
    path = folder / "tomopy_tooth.h5"
    frames, darks, flats = (open_frames(path, f"/exchange/{name}") for name in ("data", "data_dark", "data_white"))
    unit = Response.from_gain(np.ones((2, 640)))
    found = correct_response(frames, unit, dark=darks, flat=flats, residual_sigma=0, average="mean").values
    with h5py.File(path) as file:
        raw, dark, flat = (file[f"exchange/{name}"][...].astype(float) for name in ("data", "data_dark", "data_white"))
    wanted = (raw - dark.mean(axis=0)) / (flat.mean(axis=0) - dark.mean(axis=0))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(correct_response(frames, dark=darks, flat=flats, average="mean"), wanted, rtol=1e-5)
    assert found[:, :, :20].mean() == pytest.approx(1, abs=0.01)  # beside the tooth there is air
