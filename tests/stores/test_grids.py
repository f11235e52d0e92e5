"""Which datasets are maps of frames or frames one by one, and what files say of them beside their numbers."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from detcal import open_frames
from detcal.errors import InputError, MissingWarning

GRID = (3, 4, 9, 10)
STACK = np.arange(np.prod(GRID), dtype=np.uint16).reshape(GRID)
FRAMES = STACK.reshape(12, 9, 10)


def write(path: Path, values: Any = STACK, name: str = "entry/detector/data", **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, **options)
    return path


def test_maps_of_more_dimensions(tmp_path: Path) -> None:
    deep = np.arange(2 * 3 * 2 * 8 * 8, dtype=np.uint16).reshape(2, 3, 2, 8, 8)
    found = open_frames(write(tmp_path / "a.h5", deep), chunks={"frame": 5})
    assert found.dims == ("scan_0", "scan_1", "scan_2", "y", "x")
    np.testing.assert_array_equal(found, deep)


def test_frames_of_colours_are_no_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 20, 30, 3)))
    with pytest.raises(InputError, match="images of 3 colours; save one or the mean"):
        open_frames(tmp_path / "a.npy")


def test_axes_of_a_grid_are_known_for_each_frame(tmp_path: Path) -> None:
    """Places called x and y are no rows and columns of the detector."""
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        data = file.create_group("entry/map")
        file["entry"].attrs["NX_class"] = "NXentry"
        data.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["stage", "x", ".", "column"]})
        data.update({"data": STACK, "stage": [1.0, 2.0, 3.0], "x": [5.0, 6.0, 7.0, 8.0], "column": np.arange(10.0)})
    assert open_frames(tmp_path / "a.nxs").x_position.dims == ("column",)
    frames = open_frames(tmp_path / "a.nxs", frames=slice(3, 6))
    np.testing.assert_array_equal(frames.stage, [1, 2, 2])
    np.testing.assert_array_equal(frames.x_position, [8, 5, 6])
    assert frames.column.dims == ("x",)


def test_a_line_scan_along_x_opens(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/data"], file["entry/x"] = FRAMES, np.arange(12.0)
        file["entry"].attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["x", ".", "."]})
    np.testing.assert_array_equal(open_frames(tmp_path / "a.nxs").x_position, np.arange(12))


def test_what_was_never_written_of_a_grid_is_nan(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("data", GRID, np.uint16, chunks=(1, 1, 9, 10))
        stored[:2] = STACK[:2]
    with pytest.warns(MissingWarning, match=r"lacks 4 of 12 frames \(8–11\)"):
        frames = open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames, np.where(np.arange(3)[:, None, None, None] < 2, STACK, np.nan))


def test_a_grid_of_images_is_taken_before_an_image_and_no_spectra_are(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["detector/data"], file["sum"] = STACK, STACK.sum((0, 1))
        file["fluorescence"] = np.ones((3, 4, 4096), np.float32)
        file["fluorescence"].attrs["interpretation"] = "spectrum"
        file["elements"] = np.ones((3, 4, 2, 4096), np.float32)  # of a detector of two, which says nothing
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5"), STACK)
    assert open_frames(tmp_path / "a.h5", "fluorescence").shape == (3, 4, 4096)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["fluorescence"].attrs["interpretation"]
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5"), STACK)
    write(tmp_path / "b.h5", np.ones((2, 3)), "a")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["b"], file["c"] = np.ones((2, 3)), np.ones((2, 2, 2, 3))
    with pytest.raises(InputError, match="several datasets"):
        open_frames(tmp_path / "b.h5")


def test_spectra_that_are_taken_for_frames_are_told(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", FRAMES, "spectra"), "a") as file:
        file["spectra"].attrs["interpretation"] = np.bytes_("spectrum")
    with pytest.warns(UserWarning, match=r"a\.h5::/spectra says that it is spectra, which detcal\.open_scan opens"):
        open_frames(tmp_path / "a.h5")


def test_a_copy_in_the_instrument_is_no_other_stack(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", FRAMES, "entry/camera/data")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/instrument/camera/data"] = FRAMES
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5"), FRAMES)


def test_datasets_called_as_files_are_projections_flats_and_darks(tmp_path: Path) -> None:
    """As beamline 8.3.2 of the ALS writes them, a frame each."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in (*range(12), 4):
            file.require_dataset(f"run/run_0000_{number:04}.tif", (1, 9, 10), np.uint16)[0] = FRAMES[number]
        for number, name in enumerate(("runbak_0000_0000", "runbak_0001_0000", "rundrk_0000_0000")):
            file[f"run/{name}.tif"] = FRAMES[number : number + 1]
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5"), FRAMES)
    for role, wanted in (("projections", FRAMES), ("flats", FRAMES[:2]), ("darks", FRAMES[2:3])):
        np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", frames=role), wanted)
