"""What a NeXus file says of its data, in old and new spellings: which dataset is meant, and what its axes are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from detcal import open_frames
from detcal.errors import InputError, MissingWarning

STACK = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5)
THETA = np.arange(6.0) * 3


def write(path: Path, data_attrs: dict[str, Any] | None = None, theta_attrs: dict[str, Any] | None = None, **attrs: Any) -> Path:
    """A file with data and angles in an NXdata to which @default leads."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data.attrs.update(attrs)
        data["data"], data["theta"] = STACK, THETA
        data["data"].attrs.update(data_attrs or {})
        data["theta"].attrs.update({"units": "degree", **(theta_attrs or {})})
    return path


SPELLINGS: dict[str, dict[str, Any]] = {
    "texts": {"signal": "data", "axes": ["theta", ".", "."]},
    "bytes of a fixed length": {"signal": np.bytes_("data"), "axes": np.array([b"theta", b".", b"."])},
    "one text": {"signal": "data", "axes": "theta"},
    "with indices": {"signal": "data", "axes": ["theta", ".", "."], "theta_indices": np.array([0])},
    "indices alone": {"signal": "data", "theta_indices": 0},
    "colons, of the data": {"data_attrs": {"signal": 1, "axes": "theta:y:x"}},
    "commas and brackets, of the data": {"data_attrs": {"signal": "1", "axes": "[theta,y,x]"}},
    "colons, of the group": {"signal": "data", "axes": "theta:y:x"},
    "bytes with colons": {"data_attrs": {"signal": 1, "axes": np.bytes_("theta:y:x")}},
    "of the axis": {"data_attrs": {"signal": 1}, "theta_attrs": {"axis": 1}},
    "of the axis, as text": {"data_attrs": {"signal": 1}, "theta_attrs": {"axis": "1", "primary": 1}},
    "of the axis, counted from the last": {"data_attrs": {"signal": 1}, "theta_attrs": {"axis": 3}},
}


@pytest.mark.parametrize("errors", [(), ("errors",), ("data_errors", "data_std")], ids=["alone", "errors", "data_errors"])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_axes_are_found_however_they_are_written(tmp_path: Path, spelling: dict[str, Any], errors: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.nxs", **spelling)
    with h5py.File(path, "a") as file:
        for name in errors:
            file[f"entry/data/{name}"] = np.sqrt(STACK)
    frames = open_frames(path)
    np.testing.assert_array_equal(frames.values, STACK)
    assert list(frames.coords) == ["theta"]
    np.testing.assert_array_equal(frames.theta, THETA)
    assert (frames.theta.dims, frames.theta.units) == (("frame",), "degree")


def test_each_axis_lies_where_its_index_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", signal="data", axes=["theta", "row", "column"], height_indices=1, both_indices=[1, 2])
    with h5py.File(path, "a") as file:
        data = file["entry/data"]
        data["row"], data["column"], data["height"], data["both"] = np.arange(4), np.arange(5), np.arange(4) + 0.5, np.zeros((4, 5))
    frames = open_frames(path)
    assert {name: line.dims for name, line in frames.coords.items()} == {
        "theta": ("frame",), "row": ("y",), "column": ("x",), "height": ("y",),
    }  # fmt: skip


def test_axes_are_found_from_the_detectors_dataset_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", signal="data", axes=["theta", ".", "."])
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/data"] = file["entry/data/data"]
    np.testing.assert_array_equal(open_frames(path, "entry/instrument/detector/data").theta, THETA)


@pytest.mark.parametrize("axes", [["theta", ".", "."], ["gone", ".", "."], [".", "theta", "."]])
def test_axes_of_another_length_or_none_are_left_out(tmp_path: Path, axes: list[str]) -> None:
    path = write(tmp_path / "a.nxs", signal="data", axes=axes)
    with h5py.File(path, "a") as file:
        del file["entry/data/theta"]
        file["entry/data/theta"] = np.arange(7.0)
    assert not open_frames(path).coords


def two_entries(file: h5py.File) -> None:
    file["entry2/data/data"] = STACK[:2]
    file["entry2/data"].attrs["signal"] = "data"


def raw_beside(file: h5py.File) -> None:
    file["entry/processed/volume"] = STACK[:2].astype(np.float32)
    file["entry/processed"].attrs.update({"NX_class": "NXdata", "signal": "volume"})


@pytest.mark.parametrize("add", [two_entries, raw_beside], ids=lambda add: add.__name__)
@pytest.mark.parametrize("default", ["names", "paths", "only one entry"])
def test_the_default_settles_which_stack_is_meant(tmp_path: Path, add: Callable[[h5py.File], None], default: str) -> None:
    path = write(tmp_path / "a.nxs", signal="data")
    with h5py.File(path, "a") as file:
        add(file)
        if default == "paths":
            file.attrs["default"] = "/entry/data"
        elif default == "only one entry":
            del file.attrs["default"]
    np.testing.assert_array_equal(open_frames(path).values, STACK)


def test_a_signal_settles_it_without_a_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", signal="data")
    with h5py.File(path, "a") as file:
        del file.attrs["default"], file["entry"].attrs["default"]
        file["entry/other/volume"] = STACK[:2]
    np.testing.assert_array_equal(open_frames(path).values, STACK)


def test_stacks_that_are_equally_likely_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", signal="data")
    with h5py.File(path, "a") as file:
        del file.attrs["default"], file["entry"].attrs["default"]
        other = file.create_group("entry/other")
        other.attrs.update({"NX_class": "NXdata", "signal": "volume"})
        other["volume"] = STACK[:2]
    with pytest.raises(InputError, match=r"several datasets .*:\n  /entry/data/data .*\n  /entry/other/volume"):
        open_frames(path)


def test_a_default_that_leads_in_a_circle_or_nowhere_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    with h5py.File(path, "a") as file:
        file["entry/data"].attrs["default"] = "again"
        file["entry/data/again"] = h5py.SoftLink("/entry/data")
        file["entry/second"] = STACK
    with pytest.raises(InputError, match="several datasets"):
        open_frames(path)


@pytest.mark.parametrize("kind", ["NXmonitor", "NXsample", "NXpositioner"])
def test_what_was_measured_beside_the_frames_is_no_frames(tmp_path: Path, kind: str) -> None:
    """A monitor that counted at each point of a map is a stack of numbers too."""
    with h5py.File(tmp_path / "map.nxs", "w") as file:
        beside = file.create_group("entry/beside")
        beside.attrs["NX_class"] = kind
        beside["inner/data"] = np.ones((2, 2, 2))
        file["entry/frames/data"] = STACK
    np.testing.assert_array_equal(open_frames(tmp_path / "map.nxs").values, STACK)
    with h5py.File(tmp_path / "map.nxs", "a") as file:
        del file["entry/frames/data"]
    with pytest.raises(InputError, match="no dataset of shape"):
        open_frames(tmp_path / "map.nxs")


def test_links_in_a_circle_are_broken_ones(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.ones((3, 4, 5))
        file["there"], file["back"] = h5py.SoftLink("/back"), h5py.SoftLink("/there")
    with pytest.warns(UserWarning, match="/back → /there, /there → /back"):
        assert open_frames(tmp_path / "a.h5").shape == (3, 4, 5)
    with pytest.raises(InputError, match="there links to /back, which is not there"):
        open_frames(tmp_path / "a.h5", dataset="/there")


def test_of_many_broken_links_a_few_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["entry/data"] = STACK
        for number in range(30):
            file[f"entry/link{number:02}"] = h5py.ExternalLink(f"lost{number}.h5", "/data")
    with pytest.warns(MissingWarning, match=r"are left out: /entry/link00 → lost0.h5, \S+ → \S+, \S+ → lost2.h5 and 27 more$"):
        open_frames(tmp_path / "scan.nxs")
