"""What the files of a list say of their frames, each of its own: flags, units, axes, and how they were recorded."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe

from detcal import open_frames
from detcal.errors import InputError, MissingWarning

SHAPE = (2, 4, 6)


def write(path: Path, dtype: Any = np.int32, *, axes: dict[str, tuple[Any, str]] | None = None, chunks: Any = None, **attrs: Any) -> Path:
    """Frames that hold 7, and in one row -2, -1, 5, 50 and 90, or what these are in an unsigned type."""
    frames = np.full(SHAPE, 7, dtype)
    frames[:, 1, :5] = np.array([-2, -1, 5, 50, 90]).astype(dtype)
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group.attrs.update(NX_class="NXdata", signal="data", axes=[*(axes or {"": 0}), ".", "."][:3])
        group.create_dataset("data", data=frames, chunks=chunks).attrs.update(attrs)
        for name, (values, units) in (axes or {}).items():
            group[name] = values
            group[name].attrs["units"] = units
    return path


def readings(frames: Any) -> list[list[float]]:
    """What is left of the row, in each frame: by the rule of all operations."""
    from detcal.frames.stack import as_stack
    from detcal.frames.valid import find_readings, without

    found = without(*find_readings(as_stack(frames))).values[:, 1, :5]
    return [[float(number) for number in row if np.isfinite(number)] for row in found]


# ----------------------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("chunks", [None, (2, 1, 6)], ids=["whole", "by rows"])
@pytest.mark.parametrize(
    ("first", "second", "own"),
    [
        ({"missing_value": -1}, {"missing_value": -2}, ([-2, 5, 50, 90], [-1, 5, 50, 90])),
        ({"valid_max": 60}, {"valid_max": 20}, ([-2, -1, 5, 50], [-2, -1, 5])),
        ({"missing_value": [-1, -2, 50]}, {"missing_value": [-1, -2]}, ([5, 90], [5, 50, 90])),
        ({"valid_min": 0}, {"missing_value": np.nan}, ([5, 50, 90], [-2, -1, 5, 50, 90])),
    ],
)
def test_each_files_flags_hold_for_its_own_frames(first: Any, second: Any, own: Any, chunks: Any, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", chunks=chunks, **first), write(tmp_path / "b.h5", chunks=chunks, **second)]
    with pytest.warns(UserWarning, match=r"a\.h5::.* and .*b\.h5::.* different numbers are no readings \(.* = .*; .* = "):
        frames = open_frames(files, chunks={"frame": 3} if chunks is None else {"y": 1})
    assert frames.dtype == np.float64
    assert readings(frames) == [own[0]] * 2 + [own[1]] * 2
    with pytest.warns(UserWarning, match="different numbers"):
        assert readings(open_frames(files[::-1], frames=[3, 0], flip="lr", chunks=None).isel(x=slice(None, None, -1))) == [own[0], own[1]]


def test_flags_that_are_the_same_stay_attributes(tmp_path: Path) -> None:
    frames = open_frames([write(tmp_path / f"{name}.h5", missing_value=[-1, -2]) for name in "ab"])
    assert frames.dtype == np.int32
    np.testing.assert_array_equal(frames.missing_value, [-1, -2])


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_that_says_nothing_has_the_flags_of_the_others(order: int, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", missing_value=[-1, -2]), write(tmp_path / "b.h5")]
    with pytest.warns(MissingWarning, match=r"b\.h5::\S+ does not say .*: what .*a\.h5::\S+ says holds \(missing_value = \[-1 -2\]\)"):
        frames = open_frames(files[::order])
    assert readings(frames) == [[5, 50, 90]] * 4


def test_what_the_caller_says_holds_for_all_files(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", missing_value=-1), write(tmp_path / "b.h5", valid_max=20)]
    assert readings(open_frames(files, dummy=[-2, 5])) == [[-1, 50, 90]] * 4


def test_the_limit_of_each_files_detector_holds_for_its_frames(tmp_path: Path) -> None:
    for name, limit in (("a", 60), ("b", 20)):
        with h5py.File(write(tmp_path / f"{name}.h5", np.uint16), "r+") as file:
            file["entry/data/saturation_value"] = limit
    with pytest.warns(UserWarning, match=r"different numbers are no readings \(valid_max = 60; valid_max = 20\)"):
        frames = open_frames([tmp_path / "a.h5", tmp_path / "b.h5"], dataset="/entry/data/data")
    assert frames.dtype == np.float32
    assert readings(frames) == [[5, 50]] * 2 + [[5]] * 2


def test_files_that_are_missing_beside_such_are_nan(tmp_path: Path) -> None:
    for number, flag in ((1, -1), (2, -1), (4, -2)):
        write(tmp_path / f"part_{number}.h5", missing_value=flag)
    with pytest.warns(UserWarning, match="different numbers"), pytest.warns(MissingWarning, match=r"lacks 2 of 8 frames"):
        frames = open_frames(tmp_path / "part_*.h5")
    assert readings(frames) == [[-2, 5, 50, 90]] * 4 + [[]] * 2 + [[-1, 5, 50, 90]] * 2


@pytest.mark.parametrize("path", ['["a_1.h5", "a_2.h5"]', '"a_*.h5"'], ids=["list", "glob"])
def test_so_they_do_in_a_recipe(path: str, tmp_path: Path) -> None:
    for number, flag in ((1, -1), (2, -2)):
        write(tmp_path / f"a_{number}.h5", missing_value=flag)
    text = f'[input]\npath = {path}\n[[steps]]\noperation = "crop"\nregion = "1:2, 0:5"\n[output]\npath = "out.zarr"\n'
    (tmp_path / "r.toml").write_text(text)
    with pytest.warns(UserWarning, match="different numbers"):
        found = build(read_recipe(tmp_path / "r.toml"))
    expected = [[-2, np.nan, 5, 50, 90]] * 2 + [[np.nan, -1, 5, 50, 90]] * 2
    np.testing.assert_array_equal(found.values[:, 0], expected)


# ----------------------------------------------------------------------------------------------------------------- units


def test_other_units_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", units="counts"), write(tmp_path / "b.h5", units="photons/s")]
    with pytest.raises(InputError, match=r"same units in all files, got 'counts' in .*a\.h5::\S+ and 'photons/s' in .*b\.h5::\S+: work on"):
        open_frames(files)
    assert open_frames([files[0], write(tmp_path / "c.h5", units="Count")]).units == "counts"
    assert open_frames([files[0], write(tmp_path / "d.h5")]).units == "counts"
    with pytest.warns(MissingWarning, match=r"d\.h5::\S+ does not name units: they are taken as photons/s, as in .*b\.h5"):
        assert open_frames([tmp_path / "d.h5", files[1]]).units == "photons/s"


def test_frames_to_which_other_things_were_done_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5"), write(tmp_path / "b.h5", corrections=["dark"])]
    with pytest.raises(InputError, match=r"same was done in all files .*, got nothing in .*a\.h5\S* and \['dark'\] in .*b\.h5"):
        open_frames(files)


def test_frames_that_one_file_packs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="same scale_factor and add_offset in all files"):
        open_frames([write(tmp_path / "a.h5"), write(tmp_path / "b.h5", scale_factor=2.0)])


def test_facts_that_differ_are_coordinates(tmp_path: Path) -> None:
    for name, said in (
        ("a", {"count_time": 1.0, "x_pixel_size": 1e-4}),
        ("b", {"count_time": 2.0, "x_pixel_size": 1e-4, "sensor_material": "Si"}),
        ("c", {"count_time": 3.0, "x_pixel_size": 1e-4, "sensor_material": "Si", "distance": 0.2}),
    ):
        with h5py.File(write(tmp_path / f"{name}.h5"), "r+") as file:
            file["entry/data"].update(said)
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    told = pytest.warns(MissingWarning, match=r"sensor_material is left out: it is not said in .*a\.h5::\S+ and Si in .*b\.h5::\S+$")
    with told:
        frames = open_frames([a, b], dataset="/entry/data/data", frames=[3, 0, 1])
    np.testing.assert_array_equal(frames.coords["exposure_time_s"], [2, 1, 1])
    assert not {"exposure_time_s", "sensor_material"} & set(frames.attrs)
    assert frames.attrs["pixel_size_x_m"] == 1e-4
    with pytest.warns(MissingWarning, match=r"detector_distance_m is NaN where it is not said: it is not said in .*b\.h5::\S+ and 0\.2 in"):
        frames = open_frames([b, c], dataset="/entry/data/data")
    np.testing.assert_array_equal(frames.coords["detector_distance_m"], [np.nan, np.nan, 0.2, 0.2])
    assert frames.sensor_material == "Si"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"missing_value": -1}, {"missing_value": [-1, -2]}, "missing_value = -1 in /a and [-1, -2] in /b"),
        ({}, {"valid_max": 20}, "valid_max = nothing in /a and 20 in /b"),
        ({"units": "counts"}, {"units": "1/s", "missing_value": np.nan}, "missing_value = nothing in /a and nan in /b"),
        ({"units": "counts"}, {"units": "1/s"}, "units = counts in /a and 1/s in /b"),
        ({"scale_factor": 1.0}, {"scale_factor": 2.0}, "scale_factor = 1.0 in /a and 2.0 in /b"),
    ],
)
def test_datasets_of_one_file_that_say_different_things_are_refused(first: Any, second: Any, said: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, attrs in (("a", first), ("b", second), ("c", second)):
            file[name] = np.full(SHAPE, 7, np.int32)
            file[name].attrs.update(attrs)
    with pytest.raises(InputError, match=re.escape(f'say the same, got {said}: work on each alone (dataset = "/b")')):
        open_frames(tmp_path / "a.h5", ["/a", "/b"])
    assert open_frames(tmp_path / "a.h5", ["/b", "/c"]).shape == (4, *SHAPE[1:])
    assert open_frames(tmp_path / "a.h5", "/b").shape == SHAPE


# ------------------------------------------------------------------------------------------------------------------ axes


@pytest.mark.parametrize("order", [1, -1])
def test_an_axis_that_one_file_lacks_is_nan_there(order: int, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", axes={"angle": ([1.0, 2.0], "deg")}), write(tmp_path / "b.h5")]
    with pytest.warns(MissingWarning, match=r"angle of .*a\.h5::\S+ is NaN, .* the frames of .*b\.h5::\S+$"):
        frames = open_frames(files[::order])
    np.testing.assert_array_equal(frames.angle, np.reshape([1, 2, np.nan, np.nan], (2, 2))[::order].ravel())
    assert frames.angle.units == "deg"


@pytest.mark.parametrize(("units", "factor"), [("s", 1.0), ("second", 1.0), ("ms", 1e-3), ("us", 1e-6), ("", 1.0)])
def test_an_axis_in_other_units_is_converted(units: str, factor: float, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", axes={"time": ([1.0, 2.0], "s")}), write(tmp_path / "b.h5", axes={"time": ([3.0, 4.0], units)})]
    frames = open_frames(files)
    np.testing.assert_allclose(frames.time, [1, 2, 3 * factor, 4 * factor])


def test_an_axis_in_units_of_something_else_is_nan(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.h5", axes={"x1": ([1, 2], "mm")}), write(tmp_path / "b.h5", axes={"x1": ([3, 4], "deg")})]
    with pytest.warns(MissingWarning, match=r"x1 of .*a\.h5::\S+ is NaN, as it is not said, or in other units, for the frames of .*b\.h5"):
        np.testing.assert_array_equal(open_frames(files).x1, [1, 2, np.nan, np.nan])
