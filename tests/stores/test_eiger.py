"""Master files of Eiger detectors, whose frames lie in files beside them, and other stacks in several datasets: each is one stack."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from detcal_pipelines.cli import main

from detcal import open_frames, save
from detcal.errors import InputError, MissingWarning
from detcal.response import Response, correct_response
from detcal.stores import roles_in
from tests.stores.kinds import Stack
from tests.stores.recipes import refused, write

SHAPE = (20, 30)
ENTRY = "entry/data"


def make_frames(count: int) -> Stack:
    return np.arange(count * SHAPE[0] * SHAPE[1], dtype=np.uint32).reshape(count, *SHAPE)


def write_master(
    folder: Path, lengths: Sequence[int], *, lost: Sequence[int] = (), name: Callable[[int], str] = "data_{:06d}".format, **said: Any
) -> Path:
    """A master file whose links lead to files of so many frames each; of some nothing is there. `said`: detectorSpecific."""
    ends = np.cumsum(lengths)
    frames = make_frames(ends[-1])
    for number, (length, end) in enumerate(zip(lengths, ends, strict=True), 1):
        if number in lost:
            continue
        with h5py.File(folder / f"e_data_{number:06d}.h5", "w") as file:
            options = {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")}
            file.create_dataset(f"{ENTRY}/data", data=frames[end - length : end], **options)
    with h5py.File(folder / "e_master.h5", "w") as file:
        file.create_group(ENTRY).attrs["NX_class"] = "NXdata"
        for number in range(1, len(lengths) + 1):
            file[f"{ENTRY}/{name(number)}"] = h5py.ExternalLink(f"e_data_{number:06d}.h5", f"{ENTRY}/data")
        special = file.create_group("entry/instrument/detector/detectorSpecific")
        for key, value in said.items():
            special[key] = value
    return folder / "e_master.h5"


@pytest.mark.parametrize("lengths", [(2, 2, 2), (5,), (3, 3, 1), (1,) * 12])
def test_a_master_file_is_one_stack(tmp_path: Path, lengths: Sequence[int]) -> None:
    frames = open_frames(write_master(tmp_path, lengths), chunks={"frame": 2})
    assert frames.dtype == np.uint32
    np.testing.assert_array_equal(frames.values, make_frames(sum(lengths)))
    np.testing.assert_array_equal(frames[sum(lengths) - 1].values, make_frames(sum(lengths))[-1])


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = open_frames(write_master(tmp_path, (1,) * 12, name="data_{}".format))
    np.testing.assert_array_equal(frames.values, make_frames(12))


@pytest.mark.parametrize("lost", [[1], [2], [3], [1, 3]])
def test_a_part_that_is_missing_is_nan_and_named(tmp_path: Path, lost: list[int]) -> None:
    path = write_master(tmp_path, (2, 2, 2), lost=lost)
    expected = make_frames(6).astype(float)
    for number in lost:
        expected[2 * number - 2 : 2 * number] = np.nan
    named = ", ".join(f"/entry/data/data_{number:06d} → e_data_{number:06d}.h5" for number in lost)
    with pytest.warns(MissingWarning, match=f"lacks {2 * len(lost)} of 6 frames .*; parts that are not there: {named}$"):
        frames = open_frames(path, chunks={"frame": 4})
    assert frames.dtype == np.float64
    assert frames.recorded_dtype == "<u4"
    np.testing.assert_array_equal(frames.values, expected)


def test_the_last_part_has_as_many_frames_as_the_file_says_were_wanted(tmp_path: Path) -> None:
    path = write_master(tmp_path, (3, 3, 2), lost=[3], nimages=4, ntrigger=2)
    with pytest.warns(MissingWarning, match="lacks 2 of 8 frames"):
        assert open_frames(path).shape == (8, *SHAPE)


def test_how_many_frames_come_before_a_short_part_is_known_from_its_numbers(tmp_path: Path) -> None:
    path = write_master(tmp_path, (3, 3, 1), lost=[1, 2])
    with h5py.File(tmp_path / "e_data_000003.h5", "a") as file:
        file[f"{ENTRY}/data"].attrs.update({"image_nr_low": 7, "image_nr_high": 7})
    with pytest.warns(MissingWarning, match="lacks 6 of 7 frames"):
        frames = open_frames(path)
    np.testing.assert_array_equal(frames[6].values, make_frames(7)[6])


def number_parts(folder: Path, firsts: dict[int, int]) -> None:
    """Let parts say the numbers of their first frames, as Dectris writes them."""
    for part, first in firsts.items():
        with h5py.File(folder / f"e_data_{part:06d}.h5", "a") as file:
            file[f"{ENTRY}/data"].attrs["image_nr_low"] = first


@pytest.mark.parametrize("source", ["e_master.h5", "e_data_*.h5"])
@pytest.mark.parametrize("left_out", [2, 3])
def test_frames_of_a_part_that_nothing_names_are_known_from_numbers(tmp_path: Path, source: str, left_out: int) -> None:
    """Neither the part nor a link to it is left: the frames behind it do not move up."""
    path = write_master(tmp_path, (3, 2, 2, 1))
    number_parts(tmp_path, {1: 1, 2: 4, 3: 6, 4: 8})
    (tmp_path / f"e_data_{left_out:06d}.h5").unlink()
    with h5py.File(path, "a") as file:
        del file[f"{ENTRY}/data_{left_out:06d}"]
    expected = make_frames(8).astype(float)
    expected[{2: slice(3, 5), 3: slice(5, 7)}[left_out]] = np.nan
    with pytest.warns(MissingWarning, match="lacks 2 of 8 frames"):
        frames = open_frames(tmp_path / source)
    np.testing.assert_array_equal(frames.values, expected)


def test_numbers_tell_what_names_cannot(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2))
    number_parts(tmp_path, {1: 1, 2: 6})
    with pytest.warns(MissingWarning, match=r"lacks 3 of 7 frames \(2–4\).*by image_nr_low of .*, images 3 to 5 are not$"):
        frames = open_frames(path)
    np.testing.assert_array_equal(np.isnan(frames.values).all(axis=(1, 2)), [False, False, True, True, True, False, False])
    listed = open_frames(path, [f"{ENTRY}/data_000001", f"{ENTRY}/data_000002"])  # by someone who knows
    np.testing.assert_array_equal(listed.values, make_frames(4))


def test_numbers_that_begin_anew_tell_nothing(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2, 2))
    number_parts(tmp_path, {1: 1, 2: 1, 3: 5})
    np.testing.assert_array_equal(open_frames(path).values, make_frames(6))


@pytest.mark.parametrize("dataset", [None, f"{ENTRY}/data_*"])
def test_a_gap_in_the_numbers_of_datasets_is_one_in_the_stack(tmp_path: Path, dataset: str | None) -> None:
    with h5py.File(tmp_path / "parts.h5", "w") as file:
        for number in (1, 2, 4):
            file[f"{ENTRY}/data_{number:06d}"] = make_frames(number)[-1:]
    with pytest.warns(MissingWarning, match=r"lacks 1 of 4 frames \(2\).*parts that are not there: /entry/data/data_000003$"):
        frames = open_frames(tmp_path / "parts.h5", dataset)
    np.testing.assert_array_equal(frames[3].values, make_frames(4)[3])


def test_a_part_that_is_there_but_damaged_is_told_from_one_that_is_lost(tmp_path: Path) -> None:
    path, part = write_master(tmp_path, (2, 2)), tmp_path / "e_data_000002.h5"
    part.write_bytes(part.read_bytes()[:-200])
    with pytest.warns(MissingWarning, match=r"data_000002 → e_data_000002\.h5 \(which is damaged, or has no entry/data/data\)"):
        open_frames(path)


def test_what_the_parts_say_of_their_numbers_holds_where_the_first_is_lost(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2), lost=[1])
    with h5py.File(tmp_path / "e_data_000002.h5", "a") as file:
        file[f"{ENTRY}/data"].attrs["missing_value"] = 7
    with pytest.warns(MissingWarning):
        assert open_frames(path).missing_value == 7


def test_a_master_without_any_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset .*e_master\.h5; links .*: /entry/data/data_000001 → e_data_000001\.h5, "):
        open_frames(write_master(tmp_path, (2, 2), lost=[1, 2], pixel_mask=np.zeros(SHAPE, np.uint32)))


def test_listed_parts_of_which_none_is_there_are_refused(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2), lost=[1, 2])
    with pytest.raises(InputError, match=r"none of the parts of .*e_master\.h5 is there: entry/data/data_000001 → e_data_000001\.h5, "):
        open_frames(path, [f"{ENTRY}/data_000001", f"{ENTRY}/data_000002"])


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2))
    with h5py.File(tmp_path / "e_data_000002.h5", "w") as file:
        file[f"{ENTRY}/data"] = np.zeros((2, 5, 5), np.uint32)
    with pytest.raises(InputError, match=r"several datasets .*:\n  /entry/data/data_000001 .*\n  /entry/data/data_000002"):
        open_frames(path)
    with pytest.raises(InputError, match=r"expected frames of shape \(20, 30\) .*data_000001, got \(5, 5\) .*data_000002"):
        open_frames(path, [f"{ENTRY}/data_000001", f"{ENTRY}/data_000002"])


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE)], ids=["image", "stack of one"])
def test_mask_and_limits_are_those_of_the_master(tmp_path: Path, shape: tuple[int, ...]) -> None:
    mask = np.zeros(SHAPE, np.uint32)
    mask[3, 4] = 8
    said = {"pixel_mask": mask.reshape(shape), "countrate_correction_count_cutoff": 1000, "flatfield": np.ones(shape, np.float32)}
    frames = open_frames(write_master(tmp_path, (2, 2), **said))
    assert frames.valid_max == 1000
    np.testing.assert_array_equal(frames.values, np.where(mask, np.nan, make_frames(4)))


def test_limits_of_the_detector_hold_where_a_part_is_missing(tmp_path: Path) -> None:
    with pytest.warns(MissingWarning, match="lacks 2 of 4 frames"):
        frames = open_frames(write_master(tmp_path, (2, 2), lost=[1], countrate_correction_count_cutoff=1500))
    assert frames.valid_max == 1500
    expected = make_frames(4).astype(float)
    expected[:2] = np.nan
    np.testing.assert_array_equal(correct_response(frames, dark=0.0).values, np.where(expected > 1500, np.nan, expected))


def test_a_master_may_be_moved_with_its_parts(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    path = write_master(tmp_path / "before", (2, 2))
    with h5py.File(path, "a") as file:
        for number in (1, 2):
            del file[f"{ENTRY}/data_{number:06d}"]
            file[f"{ENTRY}/data_{number:06d}"] = h5py.ExternalLink(path.with_name(f"e_data_{number:06d}.h5"), f"{ENTRY}/data")
    (tmp_path / "before").rename(tmp_path / "after")
    np.testing.assert_array_equal(open_frames(tmp_path / "after" / path.name).values, make_frames(4))


def test_a_virtual_dataset_over_the_parts_is_the_stack(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2, 2))
    layout = h5py.VirtualLayout((6, *SHAPE), np.uint32)
    for number in range(3):
        layout[2 * number : 2 * number + 2] = h5py.VirtualSource(f"e_data_{number + 1:06d}.h5", f"{ENTRY}/data", (2, *SHAPE))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(f"{ENTRY}/all", layout)
    frames = open_frames(path)
    assert frames.source.endswith("/entry/data/all")
    np.testing.assert_array_equal(frames.values, make_frames(6))


@pytest.mark.parametrize(
    ("dataset", "numbers"),
    [
        (["scan/part_2", "scan/part_10"], [1, 9]),
        (["scan/part_10", "scan/part_2"], [9, 1]),
        ("scan/part_*", range(12)),
        ("/scan/part_1?", [9, 10, 11]),
        (["scan/part_3"], [2]),
    ],
    ids=repr,
)
def test_datasets_of_a_file_join_as_they_are_named(tmp_path: Path, dataset: Any, numbers: Sequence[int]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, frame in enumerate(make_frames(12), 1):
            file[f"scan/part_{number}"] = frame[None]
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", dataset).values, make_frames(12)[list(numbers)])


def test_numbered_detectors_are_not_joined(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["detector1"] = file["detector2"] = make_frames(3)
        file["detector2_again"] = make_frames(3)
    with pytest.raises(InputError, match="several datasets"):
        open_frames(tmp_path / "a.h5")


def test_keys_and_axes_of_a_master_are_those_of_all_parts(tmp_path: Path) -> None:
    path = write_master(tmp_path, (2, 2, 2), lost=[3])
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/image_key"] = [2, 1, 0, 0, 0, 1]
        file["entry/sample/rotation_angle"] = np.arange(6.0)
        file[f"{ENTRY}/omega"] = np.arange(6.0) / 2
        file[ENTRY].attrs["omega_indices"] = 0
    assert roles_in(path) == ("projections", "flats", "darks")
    with pytest.warns(MissingWarning, match=r"lacks 1 of 3 frames \(2\)"):
        frames = open_frames(path, frames="projections")
    np.testing.assert_array_equal(frames[:2].values, make_frames(6)[2:4])
    np.testing.assert_array_equal(frames.rotation_angle, [2, 3, 4])
    np.testing.assert_array_equal(frames.omega, [1, 1.5, 2])


def test_masters_in_a_list_follow_each_other(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(write_master(tmp_path / name, (2, 1)))
    np.testing.assert_array_equal(open_frames(paths).values, np.concatenate([make_frames(3)] * 2))


def test_arrays_of_a_zarr_store_join_by_a_list(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for number in (1, 2):
        group.create_array(f"part_{number}", data=make_frames(2) + number)
    frames = open_frames(tmp_path / "a.zarr", ["part_2", "part_1"])
    np.testing.assert_array_equal(frames.values, np.concatenate([make_frames(2) + 2, make_frames(2) + 1]))


def test_a_group_may_be_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["first/data"], file["second/data"] = make_frames(2), make_frames(3)
    assert open_frames(tmp_path / "a.h5", "second").shape == (3, *SHAPE)


@pytest.mark.parametrize("dataset", [[], [1]])
def test_names_that_are_none_are_refused(tmp_path: Path, dataset: Any) -> None:
    with pytest.raises(InputError, match="expected the name of a dataset"):
        open_frames(write_master(tmp_path, (2,)), dataset)


def test_many_parts_make_a_small_graph(tmp_path: Path) -> None:
    frames = open_frames(write_master(tmp_path, (1,) * 300), chunks={"frame": 1})
    assert len(pickle.dumps(frames.data.dask)) < 300_000


def test_parts_are_opened_through_their_master_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_file = h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, *how, **options: opened.append(path) or open_file(path, *how, **options))
    counts = []
    for parts in (3, 30):
        folder = tmp_path / str(parts)
        folder.mkdir()
        path = write_master(folder, (1,) * parts, nimages=parts)
        opened.clear()
        open_frames(path)
        counts.append(len(opened))
    assert counts[0] == counts[1]


CORRECT = 'operation = "correct_response"\nresponse = "gain.zarr"'


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ('path = "e_master.h5"', range(6)),
        ('path = "e_master.h5"\ndataset = ["entry/data/data_000003", "/entry/data/data_000001"]', [4, 5, 0, 1]),
        ('path = "e_master.h5"\ndataset = "/entry/data/data_00000[12]"\nframes = "1:"', [1, 2, 3]),
        ('path = "e_data_*.h5"', range(6)),
        ('path = ["e_data_000002.h5", "e_data_000001.h5"]', [2, 3, 0, 1]),
        ('path = "list.txt"', [0, 1, 4, 5]),
    ],
)
def test_a_recipe_joins_what_open_frames_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, numbers: Sequence[int]) -> None:
    monkeypatch.chdir(tmp_path)
    write_master(tmp_path, (2, 2, 2))
    (tmp_path / "list.txt").write_text("e_data_000001.h5\ne_data_000003.h5\n")
    save(Response.from_gain(np.full(SHAPE, 2.0)), "gain.zarr")
    write(CORRECT, source=source)
    done = CliRunner().invoke(main, ["run", "r.toml", "--memory", "4GiB"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(open_frames("out.zarr").values, 2.0 * make_frames(6)[list(numbers)], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
def test_a_run_gives_nan_for_a_part_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_master(tmp_path, (2, 2, 2), lost=[2])
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    done = CliRunner().invoke(main, ["run", str(write(CORRECT, source='path = "e_master.h5"')), "--memory", "4GiB"])
    assert done.exit_code in (0, 3), done.output
    expected = make_frames(6).astype(np.float32)
    expected[2:4] = np.nan
    np.testing.assert_allclose(open_frames("out.zarr").values, expected, rtol=1e-6)


@pytest.mark.parametrize("dataset", ["[]", "5", '["a", 3]'])
def test_a_recipe_refuses_what_names_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_master(tmp_path, (2,))
    save(Response.from_gain(np.ones(SHAPE)), "gain.zarr")
    said = refused(write(CORRECT, source=f'path = "e_master.h5"\ndataset = {dataset}'))
    assert len(said) == 1
    assert "input.dataset (line 3): expected the name of a dataset, or a list of names, got " in said.pop()
