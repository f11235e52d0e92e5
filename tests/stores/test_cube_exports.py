"""Cubes of spectra as numbers beside a header, and distortion maps as splines."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from pyFAI.spline import Spline

import detcal
from detcal.distortion.calibration import DistortionMap
from detcal.errors import InputError, OutputError
from detcal.stores.targets import splines

SHAPE = (4, 6, 8)


def cube(dtype: str = "float32", blocks: Any = (3, 4, -1), **coords: Any) -> xr.DataArray:
    values = da.from_array(np.arange(192).reshape(SHAPE).astype(dtype), chunks=blocks)
    known = {
        "energy": ("energy", 0.5 + 0.02 * np.arange(8), {"units": "keV"}),
        "y": ("row", 100 + 500.0 * np.arange(4), {"units": "um"}),
        "x": ("column", 250.0 * np.arange(6), {"units": "um"}),
    }
    return xr.DataArray(values, known | coords, ("row", "column", "energy"), "counts")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def numbers(path: Path, dtype: str) -> np.ndarray[Any, Any]:
    return np.fromfile(path, np.dtype(dtype).newbyteorder("<")).reshape(SHAPE)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_a_rpl_says_what_its_raw_holds(tmp_path: Path, dtype: str) -> None:
    detcal.save(cube(dtype), tmp_path / "a.rpl")
    assert names_in(tmp_path) == ["a.raw", "a.rpl"]
    np.testing.assert_array_equal(numbers(tmp_path / "a.raw", dtype), cube(dtype))
    first, *lines = (tmp_path / "a.rpl").read_text().splitlines()
    known = dict(line.split("\t") for line in lines)
    assert first == "key\tvalue"
    assert [known[name] for name in ("width", "height", "depth", "offset", "record-by")] == ["6", "4", "8", "0", "vector"]
    assert (known["data-length"], known["byte-order"]) == (str(np.dtype(dtype).itemsize), "little-endian")
    assert known["data-type"] == {"u": "unsigned", "i": "signed", "f": "float"}[np.dtype(dtype).kind]
    assert [float(known[f"depth-{name}"]) for name in ("origin", "scale")] == pytest.approx([0.5, 0.02])
    assert float(known["ev-per-chan"]) == pytest.approx(20)
    assert [known[f"{axis}-{name}"] for axis in ("height", "width") for name in ("origin", "scale", "units")] == [
        "100", "500", "um", "0", "250", "um",
    ]  # fmt: skip


def test_rosettasciio_reads_a_rpl(tmp_path: Path) -> None:
    ripple = pytest.importorskip("rsciio.ripple")
    detcal.save(cube(), tmp_path / "a.rpl")
    (found,) = ripple.file_reader(str(tmp_path / "a.rpl"))
    np.testing.assert_array_equal(found["data"], cube())
    axes = {axis["name"]: (axis["offset"], axis["scale"], axis["units"]) for axis in found["axes"]}
    assert axes["Energy"][:2] == pytest.approx((0.5, 0.02))
    assert axes["x"][:2] == pytest.approx((0, 250))
    assert (axes["Energy"][2], axes["x"][2]) == ("keV", "um")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_hdr_says_what_its_img_holds(tmp_path: Path, dtype: str) -> None:
    detcal.save(cube(dtype), tmp_path / "a.hdr")
    assert names_in(tmp_path) == ["a.hdr", "a.img"]
    np.testing.assert_array_equal(numbers(tmp_path / "a.img", dtype), cube(dtype))
    first, *lines = (tmp_path / "a.hdr").read_text().splitlines()
    known = dict(line.split(" = ") for line in lines)
    assert first == "ENVI"
    assert [known[name] for name in ("samples", "lines", "bands", "interleave", "byte order")] == ["6", "4", "8", "bip", "0"]
    assert known["data type"] == {"uint16": "12", "float32": "4"}[dtype]
    np.testing.assert_allclose([float(each) for each in known["wavelength"].strip("{}").split(",")], cube().energy)


def test_a_pair_of_files_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("somebody's")
    with pytest.raises(OutputError, match=r"a\.raw exists already"):
        detcal.save(cube(), tmp_path / "a.rpl")
    assert (tmp_path / "a.raw").read_text() == "somebody's"
    detcal.save(cube(), tmp_path / "b.rpl")
    detcal.save(cube() + 1, tmp_path / "b.rpl", overwrite=True)
    np.testing.assert_array_equal(numbers(tmp_path / "b.raw", "float32"), cube() + 1)


def test_one_cube_among_other_things_is_taken_and_several_are_not(tmp_path: Path) -> None:
    found = cube().to_dataset().assign(coverage=(("row", "column"), np.ones(SHAPE[:2])))
    detcal.save(found, tmp_path / "a.rpl")
    np.testing.assert_array_equal(numbers(tmp_path / "a.raw", "float32"), cube())
    for wrong in (found.assign(other=found.counts), found.coverage):
        with pytest.raises(InputError, match=r"a \.rpl holds one cube \(row, column, energy\) of numbers"):
            detcal.save(wrong, tmp_path / "b.rpl")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_rosettasciio_reads_a_hspy(tmp_path: Path, dtype: str) -> None:
    hspy = pytest.importorskip("rsciio.hspy")
    detcal.save(cube(dtype), tmp_path / "a.hspy")
    (found,) = hspy.file_reader(str(tmp_path / "a.hspy"))
    np.testing.assert_array_equal(found["data"], cube(dtype))
    assert found["data"].dtype == dtype
    assert [(axis["name"], axis["units"], axis["size"], axis["navigate"]) for axis in found["axes"]] == [
        ("y", "um", 4, True), ("x", "um", 6, True), ("Energy", "keV", 8, False),
    ]  # fmt: skip
    assert [axis[key] for axis in found["axes"] for key in ("offset", "scale")] == pytest.approx([100, 500, 0, 250, 0.5, 0.02])
    assert found["metadata"]["General"]["title"] == "counts"
    assert found["original_metadata"]["detcal"]["detcal_version"] == detcal.__version__


def test_a_hspy_of_unequal_steps_and_of_unknown_places(tmp_path: Path) -> None:
    hspy = pytest.importorskip("rsciio.hspy")
    energies = 0.5 * 1.1 ** np.arange(8)
    detcal.save(cube(energy=("energy", energies, {"units": "keV"})).drop_vars(["x", "y"]), tmp_path / "a.hspy")
    (found,) = hspy.file_reader(str(tmp_path / "a.hspy"))
    np.testing.assert_allclose(found["axes"][2]["axis"], energies)
    assert [(axis["name"], axis["offset"], axis["scale"]) for axis in found["axes"][:2]] == [("", 0, 1)] * 2


def test_a_hspy_opens_as_a_scan_again(tmp_path: Path) -> None:
    pytest.importorskip("rsciio.hspy")
    detcal.save(cube(), tmp_path / "a.hspy")
    scan = detcal.open_scan(tmp_path / "a.hspy")
    np.testing.assert_array_equal(scan.spectra, np.asarray(cube()).reshape(24, 8))
    np.testing.assert_allclose(scan.energy, cube().energy)
    np.testing.assert_allclose(scan.positions[:2], [[0, 100], [250, 100]])


# --------------------------------------------------------------------------------------------------------- splines


def distorted(kink: float = 0.0) -> DistortionMap:
    """A pincushion of some pixels, and a step."""
    y, x = np.indices((121, 161)).astype(float)
    far = ((y - 60) ** 2 + (x - 80) ** 2) / 80**2
    moved = np.stack([y + 0.02 * (y - 60) * far, x + 0.03 * (x - 80) * far + kink * (x > 70)], axis=-1)
    return DistortionMap.of_corners(moved * np.array([50e-6, 40e-6]), (50e-6, 40e-6), np.zeros((120, 160), bool))


def test_a_map_comes_back_from_its_spline(tmp_path: Path) -> None:
    detcal.save(distorted(), tmp_path / "a.spline")
    found = detcal.load(tmp_path / "a.spline")
    np.testing.assert_allclose(found.corners_m, distorted().corners_m, atol=0.005 * 40e-6)
    assert found.pixel_size_m == pytest.approx((50e-6, 40e-6))


def test_pyfai_reads_the_same_from_a_spline(tmp_path: Path) -> None:
    detcal.save(distorted(), tmp_path / "a.spline")
    spline = Spline(str(tmp_path / "a.spline"))
    y, x = np.indices((121, 161)).astype(float)
    moved = np.asarray(distorted().corners_m) / np.array([50e-6, 40e-6]) - np.stack([y, x], axis=-1)
    np.testing.assert_allclose(spline.splineFuncX(x, y), moved[..., 1], atol=0.005)
    np.testing.assert_allclose(spline.splineFuncY(x, y), moved[..., 0], atol=0.005)
    assert spline.getPixelSize() == pytest.approx((40e-6, 50e-6))  # x first


def test_a_map_that_no_spline_follows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splines, "MOST_CORNERS", 60)
    with pytest.raises(OutputError, match=r"a bicubic spline misses the map by up to .* save it to \.nxs"):
        detcal.save(distorted(kink=3.0), tmp_path / "a.spline")
    assert names_in(tmp_path) == []
    with pytest.raises(InputError, match=r"a \.spline holds a DistortionMap"):
        detcal.save(np.ones((4, 4)), tmp_path / "a.spline")
