"""Frames in many files: in the order of their numbers, with NaN for those that are missing; and files listed in a text or a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError, MissingWarning
from detcal.stores.sources.names import gaps_in
from tests.stores.kinds import write_edf
from tests.stores.test_eiger import write_master

SHAPE = (4, 5)


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.full(SHAPE, number, np.uint16)


def write_numbered(folder: Path, numbers: Any, name: str = "scan_{:04}.tif") -> None:
    for number in numbers:
        tifffile.imwrite(folder / name.format(number), frame(number))


def level_of(frames: Any) -> Any:
    return frames.values[:, 0, 0]


# --------------------------------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize(
    ("name", "numbers", "expected", "lost"),
    [
        ("scan_{:04}.tif", [0, 1, 3, 4], [0, 1, np.nan, 3, 4], "scan_0002.tif"),
        ("scan_{}.tif", [7, 9, 10, 11], [7, np.nan, 9, 10, 11], "scan_8.tif"),
        ("scan_{}.tif", [0, 10, 20, 50, 60], [0, 10, 20, np.nan, np.nan, 50, 60], "scan_30.tif, .*scan_40.tif"),
        ("s2_{:03}_a1.tif", [1, 2, 3, 5, 6, 8], [1, 2, 3, np.nan, 5, 6, np.nan, 8], "s2_004_a1.tif, .*s2_007_a1.tif"),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True], ids=["glob", "folder"])
def test_a_number_that_is_missing_is_nan_and_named(
    name: str, numbers: list[int], expected: list[float], lost: str, as_folder: bool, tmp_path: Path
) -> None:
    write_numbered(tmp_path, numbers, name)
    missing = sum(np.isnan(expected))
    with pytest.warns(MissingWarning, match=rf"lacks {missing} of {len(expected)} frames .* files that are not there: .*{lost}\. If"):
        frames = open_frames(tmp_path if as_folder else tmp_path / "*.tif", chunks={"frame": 2})
    assert frames.dtype == np.float32
    assert frames.recorded_dtype == "<u2"
    np.testing.assert_array_equal(level_of(frames), expected)
    np.testing.assert_array_equal(level_of(open_frames([tmp_path / name.format(number) for number in numbers])), numbers)


@pytest.mark.parametrize(
    "names",
    [
        ["a1", "a2", "a3"], ["a1", "a3", "a5"], ["a1", "a2", "a10"], ["a1", "a2", "a4", "a8"], ["a1", "b2", "b4", "b5"], ["a1"], ["a", "b"],
        ["run1_1", "run1_2", "run2_1", "run2_2"], ["a1", "a01", "a2", "a4"], ["a_-2", "a_-1", "a_0", "a_1"],
    ],
)  # fmt: skip
def test_names_without_gaps_or_of_no_series_have_none(names: list[str]) -> None:
    assert gaps_in(names) == {}


def test_gaps_below_zero_are_found() -> None:
    assert gaps_in(["a_-3.tif", "a_-2.tif", "a_0.tif", "a_1.tif"]) == {2: ["a_-1.tif"]}


def test_a_missing_file_of_a_series_of_stacks_is_as_long_as_the_first(tmp_path: Path) -> None:
    for number in (1, 2, 4, 5):
        with h5py.File(tmp_path / f"part_{number}.h5", "w") as file:
            file["data"] = np.stack([frame(2 * number), frame(2 * number + 1)])
    with pytest.warns(MissingWarning, match=r"lacks 2 of 10 frames \(4–5\).*part_3\.h5"):
        frames = open_frames(tmp_path / "part_*.h5")
    np.testing.assert_array_equal(level_of(frames), [2, 3, 4, 5, np.nan, np.nan, 8, 9, 10, 11])


def test_a_missing_file_of_a_series_of_several_pages_is_as_long_as_the_first(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        tifffile.imwrite(tmp_path / f"a{number}.tif", np.stack([frame(number)] * 2), photometric="minisblack")
    with pytest.warns(MissingWarning, match="lacks 2 of 8 frames"):
        np.testing.assert_array_equal(level_of(open_frames(tmp_path / "a*.tif")), [1, 1, 2, 2, np.nan, np.nan, 4, 4])


# ------------------------------------------------------------------------------------------------------ texts and folders


@pytest.mark.parametrize("name", ["list.txt", "list.LST"])
def test_a_text_names_files_one_a_line(name: str, tmp_path: Path) -> None:
    write_numbered(tmp_path, range(3))
    (tmp_path / name).write_text(f"# of the second run\nscan_0002.tif\n\n  {tmp_path / 'scan_0000.tif'}\r\n")
    np.testing.assert_array_equal(level_of(open_frames(tmp_path / name)), [2, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"gone.tif\n", r"no such file: .*gone\.tif$"), (b"# none\n", "expected the names of files in .*, one a line, got none"),
     (b"\xff\xfe\x00", "expected the names of files")],
)  # fmt: skip
def test_a_text_without_files_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_frames(tmp_path / "list.txt")


def test_a_folder_is_a_series_beside_other_files(tmp_path: Path) -> None:
    write_numbered(tmp_path, range(12), "scan_{}.tif")
    for other in ("scan.log", ".hidden_3.tif", "notes.txt", "a.poni"):
        (tmp_path / other).write_text("no image")
    np.testing.assert_array_equal(level_of(open_frames(tmp_path)), np.arange(12))


def test_a_folder_of_several_kinds_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: it is a folder without image files, and no zarr store"):
        open_frames(tmp_path)
    write_numbered(tmp_path, range(2))
    write_edf(tmp_path, frame(1)[None])
    with pytest.raises(InputError, match=r"expected files of one kind in .*, got 2 \.tif, 1 \.edf: .*\*\.tif$"):
        open_frames(tmp_path)


@pytest.mark.parametrize("others", [["dark.tif", "flat.tif"], ["dark_1.tif", "dark_2.tif"]])
def test_a_folder_of_several_series_is_refused(others: list[str], tmp_path: Path) -> None:
    """Flats and darks beside projections are no projections."""
    write_numbered(tmp_path, range(4), "proj_{}.tif")
    for name in others:
        (tmp_path / name).write_bytes((tmp_path / "proj_0.tif").read_bytes())
    with pytest.raises(InputError, match=r"expected one series of files in .*, got 4 proj_\*\.tif, .* dark.*: .*/proj_\*\.tif$"):
        open_frames(tmp_path)
    with pytest.warns(UserWarning, match=r"\*\.tif takes several series of files, one after the other: 4 proj_\*\.tif"):
        assert open_frames(tmp_path / "*.tif").shape == (6, *SHAPE)


@pytest.mark.parametrize("pattern", ["t_*.tif", ""])
def test_decimals_in_another_order_are_told(pattern: str, tmp_path: Path) -> None:
    """Whether 0.25 is a quarter, or the 25th of something, nobody can tell."""
    for name, level in (("t_0.5.tif", 5), ("t_0.25.tif", 25), ("t_1.0.tif", 10)):
        tifffile.imwrite(tmp_path / name, np.full((4, 5), level, np.uint16))
    with pytest.warns(UserWarning, match=r"whole ones: t_0\.5\.tif comes before t_0\.25\.tif; if they are decimals, give a list"):
        frames = open_frames(tmp_path / pattern)
    np.testing.assert_array_equal(frames.values[:, 0, 0], [5, 25, 10])


def test_decimals_of_as_many_digits_need_no_word(tmp_path: Path) -> None:
    for degrees in (0.0, 0.5, 9.5, 10.0):
        tifffile.imwrite(tmp_path / f"t_{degrees}_1.2.3.tif", np.full((4, 5), 10 * degrees, np.uint16))
    np.testing.assert_array_equal(open_frames(tmp_path / "*.tif").values[:, 0, 0], [0, 5, 95, 100])


def test_of_a_folder_with_a_master_file_that_is_taken(tmp_path: Path) -> None:
    write_master(tmp_path, (2, 2))
    assert open_frames(tmp_path).shape == (4, 20, 30)


# ------------------------------------------------------------------------------------------------------------- overlaps


def test_a_master_and_its_parts_together_are_refused(tmp_path: Path) -> None:
    write_master(tmp_path, (2, 2))
    with pytest.raises(InputError, match=r"e_master\.h5 takes its own from .*e_data_000001\.h5, which is listed too"):
        open_frames(tmp_path / "*.h5")


@pytest.mark.parametrize(
    "write", [write_edf, lambda folder, stack: np.save(folder / "a.npy", stack) or folder / "a.npy"], ids=["edf", "npy"]
)
def test_a_file_that_is_listed_twice_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path, frame(1)[None])
    with pytest.raises(InputError, match=f"expected each file once, got {path} 2 times"):
        open_frames([path, path])


def test_angles_of_a_missing_file_of_a_series_are_nan(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        write_angles(tmp_path / f"part_{number}.h5", number)
    with pytest.warns(MissingWarning, match=r"lacks 2 of 8 frames \(4–5\).*part_3\.h5"):
        frames = open_frames(tmp_path / "part_*.h5")
    np.testing.assert_array_equal(frames.angle, [1, 1.5, 2, 2.5, np.nan, np.nan, 4, 4.5])
    assert frames.angle.attrs["units"] == "degree"
    np.testing.assert_array_equal(frames.y, np.arange(4))
    np.testing.assert_array_equal(frames.isel(frame=slice(6, None)), np.stack([frame(4), frame(4)]))


def write_angles(path: Path, number: int) -> None:
    stack = xr.DataArray(np.stack([frame(number)] * 2), dims=("frame", "y", "x"), name="data")
    save(stack.assign_coords(angle=("frame", [number, number + 0.5], {"units": "degree"}), y=np.arange(4.0)), path)


def test_each_file_is_opened_once_for_all_that_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames, axes, mask, detector and beam: to open a file takes longer than to read its header."""
    masks = [np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8), np.eye(*SHAPE, dtype=np.uint8)]
    for number, mask in enumerate(masks):
        with h5py.File(tmp_path / f"part_{number}.nxs", "w") as file:
            entry = file.create_group("entry")
            entry.attrs["NX_class"] = "NXentry"
            data = entry.create_group("data")
            data.attrs.update(NX_class="NXdata", signal="data", axes=["time", ".", "."])
            data["data"] = np.stack([frame(2 * number), frame(2 * number + 1)])
            data["time"] = [2.0 * number, 2 * number + 1.0]
            detector = entry.create_group("instrument/detector")
            detector.update({"data": h5py.SoftLink("/entry/data/data"), "pixel_mask": mask, "x_pixel_size": 1e-4, "saturation_value": 9})
            entry["instrument/beam/incident_wavelength"] = 1.0
    opened: list[str] = []
    own = h5py.File

    def counting(name: Any, *args: Any, **kwargs: Any) -> h5py.File:
        opened.append(Path(name).name)
        return own(name, *args, **kwargs)

    monkeypatch.setattr(h5py, "File", counting)
    with pytest.warns(UserWarning, match=r"part_0\.nxs::\S+ and .*part_2\.nxs::\S+ mask different pixels: .* in the frames of all"):
        frames = open_frames([tmp_path / f"part_{number}.nxs" for number in range(3)])
    assert sorted(opened) == [f"part_{number}.nxs" for number in range(3)]
    monkeypatch.undo()
    bad = np.eye(*SHAPE, dtype=bool)
    np.testing.assert_array_equal(frames, np.where(bad, np.nan, np.arange(6)[:, None, None]))
    np.testing.assert_array_equal(frames.time, np.arange(6))
    assert (frames.valid_max, frames.pixel_size_x_m, frames.wavelength_m) == (9, 1e-4, pytest.approx(1e-10))
