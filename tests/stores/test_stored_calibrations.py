"""Calibrations and datasets that were saved are loaded as what they were."""

import shutil
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal import azimuthal, load, save
from detcal.errors import InputError
from detcal.response import Response
from detcal.stores.calibrations import as_tuples
from tests.stores.samples import make_frames, make_response


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ".tif"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_response_comes_back_as_its_own_type(order: int, suffix: str, tmp_path: Path) -> None:
    response = make_response(order)
    save(response, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert isinstance(loaded, Response)
    for field in fields(Response):
        expected, found = getattr(response, field.name), getattr(loaded, field.name)
        if isinstance(expected, xr.DataArray):
            assert found.chunks is not None
            assert found.dtype == expected.dtype
            xr.testing.assert_identical(found.compute().rename(expected.name), expected.compute())
        else:
            assert (found, type(found)) == (expected, type(expected)), field.name


def test_coefficients_are_pages_with_names(tmp_path: Path) -> None:
    """Which other programs read; the flags that a fit gives reasons by are there again."""
    response = make_response(2)
    reasons = response.mask.astype(np.uint8).assign_attrs(flag_masks=[1, 2], flag_meanings="never_lit dead")
    save(replace(response, reasons=reasons), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        names = [page.description.partition("\n")[0] for page in file.pages]
        gain = file.pages[names.index("gain")].asarray()
    assert names[:2] == ["gain", "offset"]
    np.testing.assert_array_equal(gain, response.gain)
    assert load(tmp_path / "a.tif").reasons.attrs == reasons.attrs


def test_a_tif_that_lacks_a_coefficient_or_is_another_is_refused(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file, tifffile.TiffWriter(tmp_path / "part.tif") as part:
        for page in file.pages[:3]:
            part.write(page.asarray(), description=page.description, metadata=None)
    with pytest.raises(InputError, match=r"expected 6 pages in .*part.tif, it lacks r_squared, frames_used, mask: save"):
        load(tmp_path / "part.tif")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.tif"):
        load(tmp_path / "cut.tif")
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    whole[whole.index(make_response(1).gain.values.tobytes()) + 5] ^= 1
    (tmp_path / "flipped.tif").write_bytes(whole)
    with pytest.raises(InputError, match=r"gain in .*flipped\.tif is damaged: its checksum is wrong"):
        load(tmp_path / "flipped.tif")
    save(make_frames(), tmp_path / "frames.tif")
    with pytest.raises(InputError, match=r"coefficients that detcal.save wrote, got .*frames.tif: open its images with open_frames"):
        load(tmp_path / "frames.tif")


def test_a_response_without_curvature_stores_none(tmp_path: Path) -> None:
    for order in (1, 2):
        save(make_response(order), tmp_path / f"{order}.zarr")
        stored = zarr.open_group(tmp_path / f"{order}.zarr", mode="r")
        assert ("curvature" in stored) == (order == 2)
        assert "curvature" not in stored.attrs


def test_options_that_are_tuples_come_back_as_such() -> None:
    assert as_tuples([1, [2.5, "a"]]) == (1, (2.5, "a"))
    assert as_tuples("text") == "text"


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_dataset_comes_back_from_either_kind_of_store(suffix: str, tmp_path: Path) -> None:
    dataset = make_frames().to_dataset().assign(
        total=7.5, mask=make_frames() > 100, empty=(("frame", "peak"), np.zeros((7, 0))), note=("frame", list("abcdefg")),
        start=("frame", np.arange(7).astype("datetime64[s]")), wave=("y", np.arange(6) * 1j),
    )  # fmt: skip
    dataset = dataset.assign_coords(element=("y", ["Fe", "Cu", "Au", "Pb", "Hg", "Sn"]), run=3)
    dataset.frames.attrs |= {"flags": [True, 2, "three", None], "gain": np.float32(0.5), "axis": np.array([0, 1]), "on": True}
    dataset = dataset.assign_attrs(text="[1, 2]", steps=["a", "b"], number=4, real=4.0, off=False)
    save(dataset, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert loaded.frames.chunks is not None
    assert loaded.frames.attrs == {"units": "counts", "flags": [True, 2, "three", None], "gain": 0.5, "axis": [0, 1], "on": True}
    assert {name: (value, type(value)) for name, value in loaded.attrs.items() if name != "detcal_version"} == {
        name: (value, type(value)) for name, value in dataset.attrs.items()
    }
    xr.testing.assert_equal(loaded.compute(), dataset.compute())
    xr.testing.assert_equal(loaded.frames[::-2, [4, 1], 2].compute(), dataset.frames[::-2, [4, 1], 2].compute())
    save(loaded, tmp_path / f"b{suffix}")  # a file that is read while another is written
    xr.testing.assert_identical(load(tmp_path / f"b{suffix}").compute(), loaded.compute())


def test_a_file_of_another_program_is_not_loaded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = np.zeros((3, 6, 5))
    (tmp_path / "b.h5").write_text("nonsense")
    (tmp_path / "folder").mkdir()
    for name in ("a.h5", "b.h5", "folder"):
        with pytest.raises(InputError, match=rf"^expected a zarr store or an HDF5 file that detcal wrote, got .*{name}") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_damaged_h5_is_not_loaded(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read .*a\.h5"):
        load(tmp_path / "a.h5")


def test_a_response_in_h5_shows_its_gain_first(tmp_path: Path) -> None:
    save(make_response(2), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry"].attrs["default"] == "gain"
        assert file["entry"].attrs["sigma"] == 12.5
        np.testing.assert_array_equal(file["entry/curvature/curvature"], make_response(2).curvature)


def test_a_dataset_is_loaded_lazily_as_such(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr")
    loaded = load(tmp_path / "a.zarr")
    assert isinstance(loaded, xr.Dataset)
    assert loaded.frames.chunks[0] == (2, 2, 2, 1)


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr/gain")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zarr").write_text("nonsense")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr/zarr.json").write_text("{")
    for name in ("gone.zarr", "folder", "file.zarr", "broken.zarr"):
        with pytest.raises(InputError, match=name) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["unit", "corrections"])
def test_a_calibration_without_an_option_is_refused(option: str, tmp_path: Path) -> None:
    """What is left out where a user gives it may not be left out of a file: corrections would be applied twice, say."""
    bins = azimuthal.build_bins(Geometry(0.1, detector=Detector(1e-4, 1e-4, max_shape=(8, 8)), wavelength=1e-10), npt=4)
    path = save(bins, tmp_path / "bins.zarr")
    group = zarr.open_group(path, mode="r+")
    del group.attrs[option]
    with pytest.raises(InputError, match=rf"cannot read .*bins\.zarr: it does not say the {option} of its AzimuthalBins\."):
        load(path)


def test_a_calibration_without_an_image_is_refused(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.zarr")
    with xr.open_zarr(tmp_path / "a.zarr") as opened:
        save(opened.drop_vars("gain"), tmp_path / "b.zarr")
    with pytest.raises(InputError, match=r"cannot read .*b\.zarr: .*gain"):
        load(tmp_path / "b.zarr")
