"""Frames of other programs whose dimensions lie otherwise: names decide, where they say for sure which of them counts frames."""

from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest

from detcal import open_frames

SIZES = {"rotation_angle": 6, "y": 4, "x": 5}
STACK = np.arange(120, dtype=np.uint16).reshape(6, 4, 5)
ANGLES = np.arange(6) * 30.0


def lying(dims: tuple[str, ...]) -> np.ndarray:
    """The stack with its dimensions in another order."""
    return STACK.transpose([[*SIZES].index(dim) for dim in dims])


def write_nexus(path: Path, dims: tuple[str, ...], names: dict[str, str] | None = None, *, of_data: bool = False) -> Path:
    """An NXdata of the stack, its axes named in the group, or in the dataset as older files have it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("entry/data")
        file["entry"].attrs["NX_class"], data.attrs["NX_class"] = "NXentry", "NXdata"
        data["data"] = lying(dims)
        called = [(names or {}).get(dim, dim) for dim in dims]
        if of_data:
            data["data"].attrs.update({"signal": 1, "axes": ":".join(called)})
        else:
            data.attrs.update({"signal": "data", "axes": called})
        data[(names or {}).get("rotation_angle", "rotation_angle")] = ANGLES
        file["entry/instrument/detector/data"] = data["data"]
    return path


@pytest.mark.parametrize("of_data", [False, True], ids=["group", "dataset"])
@pytest.mark.parametrize("dims", list(permutations(SIZES)))
def test_axes_of_nexus_tell_which_dimension_counts_frames(dims: tuple[str, ...], of_data: bool, tmp_path: Path) -> None:
    frames = open_frames(write_nexus(tmp_path / "a.nxs", dims, of_data=of_data))
    np.testing.assert_array_equal(frames, STACK)
    np.testing.assert_array_equal(frames.rotation_angle, ANGLES)
    assert frames.rotation_angle.dims == ("frame",)
    np.testing.assert_array_equal(open_frames(tmp_path / "a.nxs", frames=[1, 4]), STACK[[1, 4]])


@pytest.mark.parametrize("names", [{"rotation_angle": "frame_number"}, {"rotation_angle": "Time", "y": "detector_y", "x": "detector_x"}])
def test_other_names_of_frames_and_pixels(names: dict[str, str], tmp_path: Path) -> None:
    np.testing.assert_array_equal(open_frames(write_nexus(tmp_path / "a.nxs", ("y", "x", "rotation_angle"), names)), STACK)


def test_the_detectors_own_name_of_the_same_data(tmp_path: Path) -> None:
    path = write_nexus(tmp_path / "a.nxs", ("y", "x", "rotation_angle"))
    np.testing.assert_array_equal(open_frames(path, "entry/instrument/detector/data"), STACK)


@pytest.mark.parametrize("scales", [False, True], ids=["labels", "scales"])
def test_labels_of_hdf5_and_lines_along_its_dimensions_as_netcdf_has_them(scales: bool, tmp_path: Path) -> None:
    dims = ("y", "x", "rotation_angle")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = lying(dims)
        for dim, name in zip(file["frames"].dims, dims, strict=True):
            if scales:
                file[name] = ANGLES if name == "rotation_angle" else np.arange(SIZES[name])
                file[name].make_scale(name)
                dim.attach_scale(file[name])
            else:
                dim.label = name
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", "frames"), STACK)


@pytest.mark.parametrize(
    "names", [{"rotation_angle": "energy"}, {"rotation_angle": "sample_z"}, {"x": "time"}, {"y": "samy"}], ids=lambda each: str(each)
)
def test_where_names_do_not_say_for_sure_the_first_dimension_counts_frames(names: dict[str, str], tmp_path: Path) -> None:
    """y and x may be motors of the sample, beside a dimension that is no one's frames."""
    dims = ("y", "x", "rotation_angle")
    np.testing.assert_array_equal(open_frames(write_nexus(tmp_path / "a.nxs", dims, names)), lying(dims))


def test_names_that_their_own_lines_contradict_do_not_count(tmp_path: Path) -> None:
    path = write_nexus(tmp_path / "a.nxs", ("rotation_angle", "y", "x"))
    with h5py.File(path, "r+") as file:
        file["entry/data"].attrs["axes"] = ["y", "x", "rotation_angle"]
    np.testing.assert_array_equal(open_frames(path), STACK)
