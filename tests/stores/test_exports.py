"""Outputs as NeXus and TIFF, which other programs open."""

from math import prod
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError
from tests.stores.samples import make_frames


def test_h5_is_nexus(tmp_path: Path) -> None:
    frames = make_frames()
    dataset = frames.to_dataset().assign(mean=frames.mean("frame"), names=("y", list("abcdef"))).assign_attrs(steps=["a", "b"])
    save(dataset, tmp_path / "a.h5", attrs={"detcal_recipe": "{}"})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["default"] == "entry"
        entry = file["entry"]
        assert (entry.attrs["NX_class"], entry.attrs["default"]) == ("NXentry", "frames")
        assert (entry.attrs["detcal_recipe"], entry.attrs["steps"]) == ("{}", '["a", "b"]')
        group = entry["frames"]
        assert (group.attrs["NX_class"], group.attrs["signal"]) == ("NXdata", "frames")
        assert list(group.attrs["axes"]) == ["exposure", ".", "x"]
        assert (group["frames"].dtype, group["frames"].attrs["units"]) == (frames.dtype, "counts")
        np.testing.assert_array_equal(group["frames"][:], frames.values)
        np.testing.assert_array_equal(group["x"][:], frames.x)
        assert group["exposure"].attrs["units"] == "s"
        np.testing.assert_array_equal(entry["mean/mean"][:], dataset["mean"].values)
        assert list(entry["names/names"].asstr()) == list("abcdef")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5").values, frames.values)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_axes_come_back_as_coords_of_the_frames(tmp_path: Path, suffix: str) -> None:
    """Without them, nobody could reconstruct a corrected scan."""
    frames = make_frames()
    save(frames, tmp_path / f"a{suffix}")
    found = open_frames(tmp_path / f"a{suffix}")
    for name in ("exposure", "x"):
        xr.testing.assert_identical(found[name].variable, frames[name].variable)


def test_silx_finds_the_default_plot(tmp_path: Path) -> None:
    nxdata = pytest.importorskip("silx.io.nxdata")
    save(make_frames(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        plot = nxdata.get_default(file)
        assert plot.is_valid
        assert plot.signal.name == "/entry/frames/frames"
        assert plot.axes_dataset_names == ["exposure", None, "x"]


def test_h5_holds_scalars_and_blocks_that_are_split_along_every_dimension(tmp_path: Path) -> None:
    frames = make_frames(blocks=(3, 4, 2))
    save(frames.to_dataset().assign(total=7.5, mask=frames > 100, start=np.datetime64("2020-02-03")), tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        assert file["entry/total/total"][()] == 7.5
        assert file["entry/start/start"].asstr()[()].startswith("2020-02-03")
        np.testing.assert_array_equal(file["entry/mask/mask"][:], (frames > 100).values)
        np.testing.assert_array_equal(file["entry/frames/frames"][:], frames.values)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_tif_has_a_page_for_each_frame(dtype: str, tmp_path: Path) -> None:
    frames = make_frames(dtype, blocks=(3, 4, 2))
    save(frames, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 7
        for page, frame in zip(file.pages, frames.values, strict=True):
            np.testing.assert_array_equal(page.asarray(), frame)
            assert page.dtype == dtype
    assert open_frames(tmp_path / "a.tif").dtype == dtype


@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (4, 1, 5), (3, 6, 3), (2, 1, 1)])
def test_tif_of_an_image_or_of_few_rows_comes_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(prod(shape), dtype="u2").reshape(shape)
    save(values, tmp_path / "a.tiff")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.tiff").values, values.reshape(-1, *shape[-2:]))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            make_frames().to_dataset().assign(mean=1.0),
            "maps of elements, or coefficients of a response, not frames, mean",
        ),
        (make_frames() > 100, r"not \('frame', 'y', 'x'\) \(7, 6, 5\) of bool"),
        (da.zeros((5,)), r"not \('x',\)"),
        (da.zeros((0, 6, 5)), r"\(0, 6, 5\)"),
    ],
    ids=["several", "bool", "line", "no frames"],
)
def test_what_does_not_fit_into_a_tif_is_refused_before_it_is_computed(obj: Any, expected: str, tmp_path: Path) -> None:
    def refuse_to_compute(writes: list[da.Array]) -> None:
        raise AssertionError

    with pytest.raises(InputError, match=expected):
        save(obj, tmp_path / "a.tif", compute=refuse_to_compute)


@pytest.mark.parametrize("suffix", ["tif", "edf"])
@pytest.mark.parametrize(
    ("dtype", "attrs", "flagged"),
    [("i4", {"missing_value": [-2, -1], "valid_max": 500}, [-1, -2, 501]), ("f4", {"recorded_dtype": "<u2"}, [65535]), ("u2", {}, [])],
)
def test_what_attributes_flag_is_nan_in_files_that_keep_none(
    tmp_path: Path, suffix: str, dtype: str, attrs: dict[str, Any], flagged: list[int]
) -> None:
    values = np.full((2, 5, 6), 7, dtype)
    values[1, 0, : len(flagged)] = flagged
    save(xr.DataArray(values, dims=("frame", "y", "x"), attrs=attrs), tmp_path / f"a.{suffix}")
    found = open_frames(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found, np.where(np.isin(values, flagged), np.nan, values))
    assert found.dtype.kind == ("f" if flagged else "u")
