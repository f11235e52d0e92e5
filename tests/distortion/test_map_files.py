"""Maps in files of ours and of other programs."""

import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyFAI
import pytest
from pyFAI.spline import Spline

import detcal
from detcal.distortion import DistortionMap, fit_distortion
from detcal.errors import InputError
from detcal.simulate import hole_grid
from detcal.stores.sources.detector_files import find_detector
from tests.distortion.grids import PITCH_M, SMALL


@pytest.fixture(scope="module")
def warp():
    return fit_distortion(hole_grid(**SMALL).image, PITCH_M)


@pytest.mark.parametrize("name", ["warp.zarr", "warp.h5"])
def test_maps_come_back_as_they_were(warp, tmp_path, name):
    back = detcal.load(detcal.save(warp, tmp_path / name)).compute()
    assert isinstance(back, DistortionMap)
    np.testing.assert_array_equal(back.corners_m, warp.corners_m)
    np.testing.assert_array_equal(back.points.to_array(), warp.points.to_array())
    assert (back.pixel_size_m, back.pitch_m, back.method, back.order) == (warp.pixel_size_m, warp.pitch_m, warp.method, warp.order)


def quads_of(corners):
    return np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=2)


def test_pyfai_opens_a_saved_map_and_its_own_files_open_here(warp, tmp_path):
    detector = pyFAI.detector_factory(str(detcal.save(warp, tmp_path / "warp.h5")))
    np.testing.assert_allclose(detector.get_pixel_corners()[..., 1:], quads_of(warp.corners_m.values), atol=1e-7)
    np.testing.assert_array_equal(detector.mask != 0, warp.mask)
    np.testing.assert_allclose((detector.pixel1, detector.pixel2), warp.pixel_size_m)
    detector.save(str(tmp_path / "pyfai.h5"))
    back = detcal.load(tmp_path / "pyfai.h5")
    np.testing.assert_allclose(back.corners_m, warp.corners_m, atol=1e-7)
    np.testing.assert_array_equal(back.mask, warp.mask)
    assert back.cross_validated_rms_px is None


def test_fit2d_splines_are_read_as_pyfai_reads_them(tmp_path):
    spline = Spline()
    spline.grid, spline.pixelSize = 100.0, (50.0, 48.0)
    y, x = np.mgrid[:121, :161]
    spline.xDispArray, spline.yDispArray = 3 * np.sin(x / 40) * np.cos(y / 50), 2 * np.sin(x / 50 + y / 30)
    with warnings.catch_warnings():  # of how pyFAI calls scipy
        warnings.simplefilter("ignore", DeprecationWarning)
        spline.array2spline(smoothing=1)
    spline.write(str(tmp_path / "fit2d.spline"))
    found = detcal.load(tmp_path / "fit2d.spline")
    peer = pyFAI.detectors.Detector(splinefile=str(tmp_path / "fit2d.spline"))
    assert found.shape == peer.shape
    np.testing.assert_allclose(quads_of(found.corners_m.values), peer.get_pixel_corners()[..., 1:], atol=1e-7)


def test_damaged_map_files_are_refused(warp, tmp_path):
    path = tmp_path / "cut.spline"
    path.write_text("SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS\n\n  VALID REGION\n")
    with pytest.raises(InputError, match=r"cut\.spline"):
        detcal.load(path)
    whole = detcal.save(warp, tmp_path / "warp.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.h5"):
        detcal.load(tmp_path / "cut.h5")
    with pytest.raises(InputError, match="DistortionMap"):
        detcal.distortion.correct_distortion(
            np.zeros((1, 400, 480)), detcal.load(detcal.save(np.zeros((2, 3, 3)), tmp_path / "other.zarr"))
        )


def a_chunk(store, name):
    return next(path for path in sorted((store / name).rglob("*")) if path.is_file() and path.name != "zarr.json")


def flip_a_byte(store):
    path = a_chunk(store, "corners_m")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_the_size(store):
    with open(store / "zarr.json") as file:
        described = json.load(file)
    del described["attributes"]["pixel_size_m"]
    (store / "zarr.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: shutil.rmtree(store / "mask"), "all of mask"),
        (lambda store: a_chunk(store, "corners_m").unlink(), "all of corners_m"),
        (flip_a_byte, "cannot read"), (drop_the_size, "zarr.json is not as it was written"),
    ],
)  # fmt: skip
def test_damaged_zarr_maps_are_refused(warp, tmp_path, damage, message):
    store = Path(detcal.save(warp, tmp_path / "warp.zarr"))
    damage(store)
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(store).compute()
    assert "\n" not in str(caught.value)
    assert "warp.zarr" in str(caught.value)


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory):
    """An NXdetector with corners, as pyFAI writes it."""
    detector = pyFAI.detectors.Detector(1e-4, 1e-4, max_shape=(4, 5))
    detector.uniform_pixel, detector.IS_FLAT, detector.mask = False, True, np.zeros((4, 5), np.int8)
    even = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij"), axis=-1) * 1e-4
    quads = np.zeros((4, 5, 4, 3), np.float32)
    quads[..., 1:] = quads_of(even)
    detector.set_pixel_corners(quads)
    path = tmp_path_factory.mktemp("detector") / "detector.h5"
    detector.save(str(path))
    return path


def changed(path, copy, **datasets):
    """A copy of a detector file with other datasets, or without those that are None."""
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        detector = find_detector(file)
        for name, value in datasets.items():
            if name in detector:
                del detector[name]
            if value is not None:
                detector[name] = value
    return copy


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"pixel_size": 1e-4}, "two positive numbers"), ({"pixel_size": np.ones(3)}, "two positive numbers"),
        ({"pixel_size": np.array([-1e-4, 1e-4])}, "two positive numbers"), ({"pixel_size": np.zeros(2)}, "two positive numbers"),
        ({"pixel_corners": None}, "without distortion"), ({"pixel_corners": "abc"}, "numbers as pixel_corners"),
        ({"pixel_corners": np.zeros((0, 5, 4, 3))}, "of shape"), ({"pixel_corners": np.zeros((4, 5, 4, 3))}, "every pixel"),
        ({"pixel_corners": np.full((4, 5, 4, 3), np.nan)}, "all masked"), ({"mask": np.zeros((3, 3))}, "a mask of shape"),
    ],
)  # fmt: skip
def test_damaged_detector_files_are_refused(detector_file, tmp_path, datasets, message):
    path = changed(detector_file, tmp_path / "damaged.h5", **datasets)
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(path)
    assert "\n" not in str(caught.value)
    assert "damaged.h5" in str(caught.value)


def test_units_of_detector_files_are_honoured(detector_file, tmp_path):
    wanted = detcal.load(detector_file)
    with h5py.File(changed(detector_file, tmp_path / "mm.h5"), "r+") as file:
        for name in ("pixel_corners", "pixel_size"):
            stored = find_detector(file)[name]
            stored[...] = stored[()] * 1e3
            stored.attrs["units"] = "mm"
    found = detcal.load(tmp_path / "mm.h5")
    np.testing.assert_allclose(found.corners_m, wanted.corners_m, rtol=1e-6)
    np.testing.assert_allclose(found.pixel_size_m, wanted.pixel_size_m)
    with h5py.File(tmp_path / "mm.h5", "r+") as file:
        find_detector(file)["pixel_corners"].attrs["units"] = "inch"
    with pytest.raises(InputError, match="got 'inch'"):
        detcal.load(tmp_path / "mm.h5")


def spline_text(region=(0.0, 0.0, 100.0, 80.0), knots_y=(0, 0, 0, 0, 80, 80, 80, 80), coefficient=0.7):
    def rows(values):
        numbers = [f"{value:14.7E}" for value in values]
        return "\n".join("".join(numbers[start : start + 5]) for start in range(0, len(numbers), 5)) + "\n"

    spline = "     8     8\n" + rows((0, 0, 0, 0, 100, 100, 100, 100)) + rows(knots_y) + rows([0.1] * 7 + [coefficient] + [0.1] * 8) + "\n"
    return (
        f"SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS\n\n  VALID REGION\n{rows(region)}\n"
        f"  GRID SPACING, X-PIXEL SIZE, Y-PIXEL SIZE\n{rows((1000, 50, 48))}\n  X-DISTORTION\n{spline}\n  Y-DISTORTION\n{spline}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficient": np.nan}, "NaN or infinity"), ({"coefficient": 1e30}, "displacements of less than"),
        ({"knots_y": (0, 0, 0, 0, 80, -80, 80, 80)}, "rising knots"), ({"region": (0, 0, 1e7, 8e7)}, r"a camera in .* of up to \d+ pixels"),
        ({"region": (0, 0, np.nan, 80)}, "cannot read"),
    ],
)  # fmt: skip
def test_damaged_splines_are_refused(tmp_path, options, message):
    path = tmp_path / "fit2d.spline"
    path.write_text(spline_text())
    assert detcal.load(path).shape == (80, 100)
    path.write_text(spline_text(**options))
    with pytest.raises(InputError, match=message) as caught:
        detcal.load(path)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        detcal.load(path)
