"""Calibrations on one screen: nothing is computed to show them."""

import re
import struct
import zlib
from base64 import b64decode

import dask.array as da
import numpy as np
import pytest
from dask import delayed
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal import simulate
from detcal.azimuthal import build_bins
from detcal.distortion import DistortionMap, build_overlaps
from detcal.response import Response, fit_response
from detcal.sensor import PlanarGeometry, build_psf
from detcal.xrf import build_scan_grid

GEOMETRY = Geometry(1.0, 4e-4, 4e-4, detector=Detector(1e-4, 1e-4, max_shape=(20, 30)))


def lazy(shape, dtype=np.float32):
    """An array that may not be computed."""
    return da.from_delayed(delayed(pytest.fail)("computed in order to be shown"), shape, dtype)


def warp():
    corners = np.stack(np.meshgrid(np.arange(21.0), np.arange(31.0), indexing="ij"), -1)
    return DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((20, 30), np.bool_))


CALIBRATIONS = {
    "response": lambda: Response.from_gain(np.ones((20, 30))),
    "lazy response": lambda: fit_response(lazy((5, 20, 30)), sigma=1.0),
    "psf": lambda: build_psf(PlanarGeometry((20, 30), (1e-4, 1e-4), 0.1, (0.0, 0.0)), thickness_m=4e-4, attenuation_per_m=1e3),
    "map": warp,
    "overlaps": lambda: build_overlaps(warp()),
    "bins": lambda: build_bins(GEOMETRY, npt=5, unit="r_mm"),
    "lazy bins": lambda: build_bins(GEOMETRY, npt=5, unit="r_mm", flat=lazy((20, 30))),
    "grid": lambda: build_scan_grid(simulate.maxrf_scan(20, 30, channels=8, turn=0.0)),
}


@pytest.mark.filterwarnings("ignore:of .* spectra")
@pytest.mark.parametrize("name", CALIBRATIONS)
def test_a_calibration_shows_its_kind_shape_and_fields(name):
    calibration = CALIBRATIONS[name]()
    text, page = repr(calibration), calibration._repr_html_()
    assert text.splitlines()[0].startswith(f"{type(calibration).__name__}, ")
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) < 140
    for line in text.splitlines()[1:]:
        assert f">{line.split()[0]}</th>" in page
    assert len(page) < 100_000


def test_what_is_lazy_says_so():
    assert "lazy: compute() or detcal.save computes it" in repr(CALIBRATIONS["lazy response"]())
    assert "found on first use" in repr(CALIBRATIONS["lazy bins"]())
    assert "lazy" not in repr(CALIBRATIONS["response"]())


def test_images_in_memory_are_drawn():
    gain = np.linspace(0.5, 1.5, 600).reshape(20, 30)
    gain[3, 4] = np.nan
    page = Response.from_gain(gain)._repr_html_()
    body = b64decode(re.findall("base64,([^']*)", page)[0])
    assert struct.unpack(">II", body[16:24]) == (30, 20)
    length = struct.unpack(">I", body[33:37])[0]
    lines = np.frombuffer(zlib.decompress(body[41 : 41 + length]), np.uint8).reshape(20, 91)[:, 1:].reshape(20, 30, 3)
    assert lines[3, 4].tolist() == [200, 30, 30]
    assert (np.diff(lines[10, :, 0].astype(int)) >= 0).all()
