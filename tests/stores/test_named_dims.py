"""Arrays that name their dimensions: names alone say what is frames, and where these have their rows and columns, whatever the shape."""

from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from detcal import load, open_frames, preview, save
from detcal.errors import InputError

SMALL = {"row": 2, "column": 3, "y": 4, "x": 5}
LARGE = {"row": 9, "column": 3, "y": 12, "x": 8}
SUFFIXES = ["zarr", "zip", "h5", "nxs"]


def numbered(dims: tuple[str, ...], sizes: dict[str, int]) -> xr.DataArray:
    """A number of its own at each place."""
    shape = [sizes[dim] for dim in dims]
    coords = {dim: (dim, np.arange(sizes[dim]) * 2.0 + 1) for dim in dims}
    return xr.DataArray(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), coords, dims, "frames")


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("dims", list(permutations(SMALL)))
def test_a_map_is_one_whatever_the_order_of_its_dimensions_and_its_size(dims: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    given = numbered(dims, SMALL)
    found = open_frames(save(given, tmp_path / f"a.{suffix}"))
    wanted = given.transpose(*(dim for dim in dims if dim in ("row", "column")), "y", "x")
    assert found.dims == wanted.dims
    np.testing.assert_array_equal(found, wanted)
    for dim in dims:
        np.testing.assert_array_equal(found.coords[dim], given.coords[dim])


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("dims", [("y", "x", "row"), ("x", "row", "y"), ("x", "y"), ("y", "x")])
def test_stacks_and_images_too(dims: tuple[str, ...], sizes: dict[str, int], suffix: str, tmp_path: Path) -> None:
    given = numbered(dims, sizes).rename({"row": "frame"} if "row" in dims else {})
    found = open_frames(save(given, tmp_path / f"a.{suffix}"))
    assert found.dims == ("frame", "y", "x")
    wanted = given if "frame" in given.dims else given.expand_dims("frame")
    np.testing.assert_array_equal(found, wanted.transpose("frame", "y", "x"))
    np.testing.assert_array_equal(found.isel(y=slice(1, 3))[:, :, ::2], found.values[:, 1:3, ::2])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_some_frames_turned_over_of_a_map_that_lies_otherwise(suffix: str, tmp_path: Path) -> None:
    given = numbered(("y", "row", "x", "column"), LARGE)
    found = open_frames(save(given, tmp_path / f"a.{suffix}"), frames=[20, 4, 5], flip="ud", chunks={"frame": 2})
    stack = given.transpose("row", "column", "y", "x").values.reshape(-1, LARGE["y"], LARGE["x"])
    np.testing.assert_array_equal(found, stack[[20, 4, 5], ::-1])
    np.testing.assert_array_equal(found.row_number, [6, 1, 1])


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_map_of_names_of_its_own_keeps_them(suffix: str, tmp_path: Path) -> None:
    given = numbered(("x", "row", "y", "column"), SMALL).rename(row="line", column="point")
    found = open_frames(save(given, tmp_path / f"a.{suffix}"))
    assert found.dims == ("line", "point", "y", "x")


def test_rows_that_a_file_lacks_of_frames_that_lie_otherwise_are_nan(tmp_path: Path) -> None:
    path = save(numbered(("y", "x", "row"), SMALL).rename(row="frame"), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group, attrs = file["entry/frames"], dict(file["entry/frames/frames"].attrs)
        values = group["frames"][()]
        del group["frames"]
        made = group.create_dataset("frames", values.shape, np.float32, chunks=(1, *values.shape[1:]))
        made[:3] = values[:3]
        made.attrs.update(attrs)
    with pytest.warns(UserWarning, match=r"lacks parts of 2 of 2 frames \(0–1\)"):
        found = open_frames(path)
    np.testing.assert_array_equal(found[:, :3], values.transpose(2, 0, 1)[:, :3])
    assert found[:, 3].isnull().all()


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize(
    ("dims", "what"),
    [(("row", "column", "radial"), "profiles"), (("frame", "radial"), "profiles"), (("frame", "azimuthal"), "profiles"),
     (("row", "column", "energy"), "spectra"), (("spectrum", "energy"), "spectra"), (("frame", "pixel"), "a table")],
)  # fmt: skip
def test_what_is_no_frames_is_refused_in_words(dims: tuple[str, ...], what: str, suffix: str, tmp_path: Path) -> None:
    """Of any size: 20 of 30 profiles, of 40 bins, would pass for 20 frames of 30 × 40 pixels."""
    given = numbered(dims, dict(zip(dims, (20, 30, 40), strict=False))).rename("intensity")
    path = save(given, tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=rf"which holds {what} \S*intensity \({dims[0]}: 20, .*detcal\.load\(.*\) opens them"):
        open_frames(path)
    with pytest.raises(InputError, match=rf"expected frames, got {what} \({', '.join(dims)}\) in .*detcal\.load\(.*\) opens them"):
        open_frames(path, "intensity" if suffix == "zarr" else "/entry/intensity/intensity")
    with pytest.raises(InputError, match=what):
        preview(path)
    assert load(path).intensity.dims == dims


def test_without_names_the_shape_decides_as_before(tmp_path: Path) -> None:
    """Fewer than 8 pixels along a side are elements of a detector, and no frames."""
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.ones((3, 4, 5, 64)))
    with pytest.raises(InputError, match="no dataset of shape"):
        open_frames(tmp_path / "a.zarr")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["spectra"] = np.ones((3, 4, 5, 64))
    with pytest.raises(InputError, match="no dataset of shape"):
        open_frames(tmp_path / "b.h5")


def test_a_named_map_is_chosen_beside_spectra_of_its_points(tmp_path: Path) -> None:
    """Which have no names, as of another program."""
    path = save(numbered(("y", "x", "row", "column"), SMALL), tmp_path / "a.zarr")
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.create_array("spectra", data=np.ones((2, 3, 64)))
    assert open_frames(path).sizes == SMALL
