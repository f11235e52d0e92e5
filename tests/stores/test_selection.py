"""Which frames of a file are taken, in which order, and turned over how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detcal import load, open_frames, response, save
from detcal.errors import InputError, MissingWarning
from detcal.frames.selection import parse_frames
from detcal.stores.sources.readers import NpyReader
from detcal.stores.sources.selected import Selected

KEY = np.array([2, 2, 1, 1, 1, 0, 0, 2, 0, 0, 3, 0, 1, 1, 2])
SHAPE = (len(KEY), 5, 6)
STACK = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
ANGLES = np.arange(len(KEY)) * 1.5


def write_tomo(path: Path, *, stack: Any = STACK, key: Any = KEY, angles: Any = ANGLES, entry: str = "entry", **options: Any) -> Path:
    """An NXtomo file: data, keys and angles where they belong, and links to them in an NXdata."""
    with h5py.File(path, "a") as file:
        group = file.create_group(entry)
        group.attrs["NX_class"] = "NXentry"
        detector = group.create_group("instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        detector.create_dataset("data", data=stack, **options)
        detector["image_key"] = key
        group["sample/rotation_angle"] = angles
        group["sample/rotation_angle"].attrs["units"] = "degree"
        data = group.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "data"})
        data["data"] = h5py.SoftLink(f"/{entry}/instrument/detector/data")
    return path


def taken(numbers: NDArray[np.intp], frames: Any) -> None:
    """The frames of these numbers, and their angles."""
    np.testing.assert_array_equal(frames.values, STACK[numbers])
    np.testing.assert_array_equal(frames.rotation_angle, ANGLES[numbers])
    assert frames.rotation_angle.dims == ("frame",)
    assert frames.rotation_angle.units == "degree"


# --------------------------------------------------------------------------------------------------- numbers and slices

CHOICES: list[Any] = [
    0, -1, np.int64(3), slice(2, 9), slice(None, None, 3), slice(None, None, -1), slice(-4, None),
    [5, 0, 2], [1, 1, 1], np.array([3, 4, 8]), range(2, 7, 2), [-1, 0],
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES, ids=repr)
@pytest.mark.parametrize("chunks", [None, (4, 5, 6)], ids=["contiguous", "chunked"])
def test_chosen_frames_are_those_of_numpy(choice: Any, chunks: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=STACK, chunks=chunks)
    expected = STACK[np.atleast_1d(np.arange(len(STACK))[choice])]
    frames = open_frames(tmp_path / "a.h5", frames=choice, chunks={"frame": 3})
    np.testing.assert_array_equal(frames.values, expected)
    np.testing.assert_array_equal(frames[-1:].values, expected[-1:])


@pytest.mark.parametrize(
    ("text", "part"),
    [(":", slice(None)), ("2:9", slice(2, 9)), ("::2", slice(None, None, 2)), ("-3:", slice(-3, None)), (" 9 : 2 : -1", slice(9, 2, -1))],
)
def test_a_text_says_what_a_slice_says(text: str, part: slice, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    np.testing.assert_array_equal(open_frames(tmp_path / "a.npy", frames=text).values, STACK[part])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (15, r"expected frames from 0 to 14, as .*a\.npy has, got 15"),
        ([0, -16], r"expected frames from 0 to 14, as .*a\.npy has, got -16"),
        (slice(20, None), 'frames = "20:" means none of the 15 frames'),
        ("::0", "steps"),
        ([], "empty"),
        ("projektions", r"expected frames: .*got 'projektions'"),
        (1.5, "expected frames"),
        (KEY == 0, "flatnonzero"),
        ("flats", r"expected an image_key that names the flats in .*a\.npy, got none"),
    ],
)
def test_frames_that_cannot_be_are_refused(choice: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(InputError, match=message):
        open_frames(tmp_path / "a.npy", frames=choice)


@given(numbers=st.lists(st.integers(0, 59), min_size=1, max_size=60), chunk=st.integers(1, 9), frame_bytes=st.sampled_from([2, 2**19]))
@settings(max_examples=60, deadline=None)
def test_few_reads_give_any_frames_and_hold_little(numbers: list[int], chunk: int, frame_bytes: int) -> None:
    reads: list[tuple[int, int]] = []

    class Counting:
        shape, dtype, chunk_frames, version = (60, 1, frame_bytes // 2), np.dtype("u2"), chunk, ""

        def read(self, start: int, stop: int) -> NDArray[np.uint16]:
            reads.append((start, stop))
            return np.broadcast_to(np.arange(start, stop, dtype="u2")[:, None, None], (stop - start, 1, frame_bytes // 2))

    numbers = sorted(numbers) if len(numbers) % 2 else numbers
    chosen = Selected(Counting(), tuple(range(number, number + 1) for number in numbers))  # type: ignore[arg-type]
    np.testing.assert_array_equal(chosen.read(0, len(numbers))[:, 0, 0], numbers)
    longest = max(stop - start for start, stop in reads)
    assert longest <= max(len(numbers) // 8 + chunk, 2**22 // frame_bytes + chunk) or (len(reads) == 1 and longest == len(numbers))
    assert len(reads) <= len(numbers)


def test_darks_between_the_projections_cost_one_read_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = np.zeros((40, 600, 1000), np.uint16)  # 1.2 MB each: too much to be read over
    np.save(tmp_path / "a.npy", stack)
    reads: list[tuple[int, int]] = []
    read = NpyReader.read
    monkeypatch.setattr(NpyReader, "read", lambda self, start, stop: reads.append((start, stop)) or read(self, start, stop))
    wanted = [number for number in range(40) if number % 4 != 3]
    assert open_frames(tmp_path / "a.npy", frames=wanted, chunks={"frame": 15}).values.shape == (30, 600, 1000)
    assert sorted(reads) == [(start, start + 3) for start in range(0, 40, 4)]


# ------------------------------------------------------------------------------------------------------------ image keys


@pytest.mark.parametrize("dataset", [None, "/entry/data/data", "entry/instrument/detector/data"])
@pytest.mark.parametrize("chunks", [None, (4, 5, 6)], ids=["contiguous", "chunked"])
def test_a_file_with_an_image_key_gives_its_projections(dataset: str | None, chunks: Any, tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs", chunks=chunks)
    with pytest.warns(UserWarning, match=r"image_key: of its 15 frames \(5 projections, 5 flats, 4 darks, 1 other\)") as warned:
        frames = open_frames(path, dataset, chunks={"frame": 2})
    assert len(warned) == 1
    taken(np.flatnonzero(KEY == 0), frames)
    taken(np.flatnonzero(KEY == 0), open_frames(path, dataset, frames="projections"))
    taken(np.flatnonzero(KEY == 1), open_frames(path, dataset, frames="flats"))
    taken(np.flatnonzero(KEY == 2), open_frames(path, dataset, frames="darks"))
    taken(np.arange(len(KEY)), open_frames(path, dataset, frames=":"))
    taken(np.array([7]), open_frames(path, dataset, frames=7))


def test_the_key_is_that_of_the_chosen_entry(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs", entry="first")
    write_tomo(path, entry="second", key=1 - np.minimum(KEY, 1))
    np.testing.assert_array_equal(open_frames(path, "second/data/data", frames="projections").values, STACK[KEY != 0])
    np.testing.assert_array_equal(open_frames(path, "first/data/data", frames="projections").values, STACK[KEY == 0])


def test_an_entry_may_keep_its_data_behind_a_virtual_dataset(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs")
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout(SHAPE, "u2")
        layout[:] = h5py.VirtualSource(".", "entry/instrument/detector/data", SHAPE)
        file["entry"].create_virtual_dataset("joined/data", layout)
        file["entry/mean"] = STACK.mean(axis=0)
        file["entry/volume"] = np.zeros((4, 5, 6))
    taken(np.flatnonzero(KEY == 1), open_frames(path, "entry/joined/data", frames="flats"))
    assert open_frames(path, "entry/mean").shape == (1, 5, 6)  # no key is meant for it
    assert open_frames(path, "entry/volume").shape == (4, 5, 6)


def test_the_key_of_a_subentry_is_found_from_wherever_its_data_are_linked(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs", entry="entry1/tomo_entry")
    with h5py.File(path, "a") as file:
        file["entry1/pco/data"] = h5py.SoftLink("/entry1/tomo_entry/instrument/detector/data")
    for dataset in (None, "entry1/pco/data", "entry1/tomo_entry/data/data"):
        taken(np.flatnonzero(KEY == 1), open_frames(path, dataset, frames="flats"))


def test_projections_at_alignment_positions_are_none(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs")
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/image_key_control"] = np.where(np.arange(len(KEY)) == 11, -1, KEY)
    taken(np.array([5, 6, 8, 9]), open_frames(path, frames="projections"))


def test_alignment_is_known_where_its_key_is_in_another_group(tmp_path: Path) -> None:
    with h5py.File(write_tomo(tmp_path / "a.nxs"), "r+") as file:
        file["entry/data/image_key"] = h5py.SoftLink("/entry/instrument/detector/image_key")
        file["entry/instrument/detector/image_key_control"] = np.where(np.arange(len(KEY)) == 11, -1, KEY)
    wanted = np.flatnonzero(KEY == 0)
    taken(wanted[wanted != 11], open_frames(tmp_path / "a.nxs", frames="projections"))


def test_a_control_key_alone_is_a_key(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs")
    with h5py.File(path, "a") as file:
        detector = file["entry/instrument/detector"]
        detector["image_key_control"] = np.where(np.arange(len(KEY)) == 11, -1, KEY)
        del detector["image_key"]
    for dataset in ("entry/data/data", "entry/instrument/detector/data"):
        taken(np.array([5, 6, 8, 9]), open_frames(path, dataset, frames="projections"))
        taken(np.flatnonzero(KEY == 2), open_frames(path, dataset, frames="darks"))


def test_a_list_of_files_with_keys_is_as_one(tmp_path: Path) -> None:
    parts = [slice(0, 6), slice(6, 15)]
    for name, part in zip("ab", parts, strict=True):
        write_tomo(tmp_path / f"{name}.nxs", stack=STACK[part], key=KEY[part], angles=ANGLES[part])
    both = [tmp_path / "a.nxs", tmp_path / "b.nxs"]
    taken(np.flatnonzero(KEY == 0), open_frames(both, frames="projections", chunks={"frame": 2}))
    taken(np.flatnonzero(KEY == 2), open_frames(tmp_path / "*.nxs", frames="darks"))
    with h5py.File(tmp_path / "b.nxs", "a") as file:
        del file["entry/instrument/detector/image_key"]
    with pytest.raises(InputError, match=r"expected an image_key in every file, as in .*a\.nxs.*, got none in .*b\.nxs"):
        open_frames(both)
    with pytest.warns(MissingWarning, match=r"rotation_angle of .*a\.nxs::\S+ is NaN"):
        np.testing.assert_array_equal(open_frames(both, frames=":").values, STACK)


def test_keys_that_cannot_be_are_refused(tmp_path: Path) -> None:
    short = write_tomo(tmp_path / "short.nxs", key=KEY[:-1])
    with pytest.raises(InputError, match=r"expected .*image_key to have a key for each of the 15 frames, got shape \(14,\)"):
        open_frames(short)
    np.testing.assert_array_equal(open_frames(short, frames=":").values, STACK)
    with pytest.raises(InputError, match=r"expected keys 0 .* got 7"):
        open_frames(write_tomo(tmp_path / "other.nxs", key=np.where(KEY == 3, 7, KEY)))
    flats = write_tomo(tmp_path / "flats.nxs", key=np.ones(15, int))
    for frames, role in ((None, "projections"), ("darks", "darks")):
        with pytest.raises(InputError, match=f"image_key names no {role}: it has 15 flats"):
            open_frames(flats, frames=frames)


def test_angles_of_another_number_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_tomo(tmp_path / "a.nxs", angles=ANGLES[:4])
    with pytest.warns(UserWarning, match="rotation_angle is left out: expected an angle for each of the 15 frames"):
        frames = open_frames(path, frames="projections")
    assert "rotation_angle" not in frames.coords


# ------------------------------------------------------------------------------------------------------------------ flip


@pytest.mark.parametrize(("flip", "expected"), [("ud", STACK[:, ::-1]), ("lr", STACK[..., ::-1]), ("both", STACK[:, ::-1, ::-1])])
@pytest.mark.parametrize("height", [1, 4, 5, 200])
def test_frames_are_turned_over_with_their_axes(flip: Any, expected: Any, height: int, tmp_path: Path) -> None:
    stack = np.random.default_rng(3).integers(0, 9999, (3, height, 7)).astype(np.uint16)
    axes = (slice(None), slice(None, None, -1 if flip != "lr" else 1), slice(None, None, -1 if flip != "ud" else 1))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("entry/data")
        group["data"], group["angle"], group["row_m"], group["column_m"] = (
            stack,
            np.arange(3.0),
            np.arange(height) * 2.0,
            np.arange(7) * 3.0,
        )
        group.attrs["axes"] = ["angle", "row_m", "column_m"]
    frames = open_frames(tmp_path / "a.h5", flip=flip, chunks={"frame": 2})
    np.testing.assert_array_equal(frames.values, stack[axes])
    np.testing.assert_array_equal(frames.angle, np.arange(3.0))
    np.testing.assert_array_equal(frames.row_m, (np.arange(height) * 2.0)[axes[1]])
    np.testing.assert_array_equal(frames.column_m, (np.arange(7) * 3.0)[axes[2]])
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", flip=flip, frames=[2, 0]).values, stack[axes][[2, 0]])
    assert expected.shape == STACK.shape


def test_another_flip_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(InputError, match=r"expected flip to be .*got 'down'"):
        open_frames(tmp_path / "a.npy", flip="down")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- order of names


def write_numbered(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(folder / name, np.full((2, 3), number, np.uint16))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("img_*.tif", [f"img_{number}.tif" for number in range(12)]),
        ("img_*.tif", ["img_1.tif", "img_002.tif", "img_03.tif", "img_10.tif"]),
        ("*.tif", ["run2_9.tif", "run2_10.tif", "run10_1.tif", "run10_02.tif"]),
        ("scan_*/a*.tif", ["scan_1/a2.tif", "scan_1/a10.tif", "scan_2/a1.tif", "scan_10/a1.tif"]),
        ("*.tif", ["1.tif", "2.tif", "a.tif", "b1.tif"]),
        ("a*.tif", [f"angle_{number}.tif" for number in range(-11, 12)]),
        ("*.tif", [f"{number}.tif" for number in range(-11, 12)]),
        ("run-*.tif", [f"run-{number}.tif" for number in range(1, 12)]),
        ("*.tif", ["2026-9-30_-2.tif", "2026-9-30_-1.tif", "2026-9-30_0.tif", "2026-10-1_-1.tif"]),
        ("x*.tif", ["x1²2.tif", "x1²10.tif"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.* takes several series of files")
def test_numbers_in_names_sort_as_numbers(pattern: str, names: list[str], tmp_path: Path) -> None:
    write_numbered(tmp_path, names)
    np.testing.assert_array_equal(open_frames(tmp_path / pattern).values[:, 0, 0], np.arange(len(names)))


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["a1.tif", "a2.tif", "a10.tif"])
    found = open_frames([tmp_path / "a10.tif", tmp_path / "a1.tif", tmp_path / "a2.tif"])
    np.testing.assert_array_equal(found.values[:, 0, 0], [2, 0, 1])


# --------------------------------------------------------------------------------------------------------- several files


def write_h5(path: Path, stack: Any) -> None:
    with h5py.File(path, "w") as file:
        file["frames"] = stack


def write_zarr(path: Path, stack: Any) -> None:
    zarr.open_group(path, mode="w").create_array("frames", data=stack, chunks=(2, 5, 6))


@pytest.mark.parametrize(
    ("suffix", "write"), [(".h5", write_h5), (".npy", np.save), (".zarr", write_zarr)], ids=["hdf5", "npy", "zarr"]
)  # fmt: skip
def test_stacks_in_several_files_follow_each_other(suffix: str, write: Callable[..., None], tmp_path: Path) -> None:
    for number, part in ((2, slice(0, 4)), (9, slice(4, 5)), (10, slice(5, 15))):
        write(tmp_path / f"part_{number}{suffix}", STACK[part])
    frames = open_frames(tmp_path / f"part_*{suffix}", chunks={"frame": 7})
    np.testing.assert_array_equal(frames.values, STACK)
    np.testing.assert_array_equal(frames[3:6].values, STACK[3:6])
    write(tmp_path / f"part_11{suffix}", STACK.astype("f4"))
    with pytest.raises(InputError, match=r"expected frames of shape \(5, 6\) and type uint16, as in .*part_2.*got \(5, 6\) and float32 in"):
        open_frames(tmp_path / f"part_*{suffix}")


# ------------------------------------------------------------------------------------------------------------------- zip


def test_frames_in_a_zip_that_save_wrote_are_opened(tmp_path: Path) -> None:
    frames = open_frames(write_tomo(tmp_path / "a.nxs"), frames=":")
    save(frames, tmp_path / "a.zip", chunks={"frame": 4})
    opened = open_frames(tmp_path / "a.zip", chunks={"frame": 4})
    np.testing.assert_array_equal(opened.values, STACK)
    np.testing.assert_array_equal(opened.rotation_angle, ANGLES)
    assert opened.chunks[0] == (4, 4, 4, 3)
    save(response.Response.from_gain(np.ones((5, 6))), tmp_path / "response.zip")
    assert load(tmp_path / "response.zip").shape == (5, 6)
    np.savez(tmp_path / "other.zip", STACK)
    (tmp_path / "other.zip.npz").rename(tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"expected a zarr store in .*other\.zip, but it has no zarr\.json.* at its top"):
        open_frames(tmp_path / "other.zip")


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    whole = save(response.Response.from_gain(np.ones((5, 6))), tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"expected a zarr store in .*cut\.zip, but it is no whole zip file"):
        open_frames(tmp_path / "cut.zip")
    directory = whole.rindex(b"PK\x01\x02")
    (tmp_path / "flipped.zip").write_bytes(whole[:directory] + b"Q" + whole[directory + 1 :])
    for opening in (load, open_frames):
        with pytest.raises(InputError, match=r"cannot read .*flipped\.zip"):
            opening(tmp_path / "flipped.zip")


def test_plain_forms_of_choices() -> None:
    assert parse_frames(3) == (3,)
    assert parse_frames("flats") == "flats"
    assert parse_frames("1:") == slice(1, None)


def test_the_key_beside_a_link_to_the_same_frames_in_another_file_is_theirs(tmp_path: Path) -> None:
    """As of Diamond's DIAD: two detectors with keys, the frames of each in a file of its own, and linked twice."""
    for name, stack in (("imaging", STACK), ("diffraction", STACK[:, ::-1])):
        with h5py.File(tmp_path / f"scan-{name}.h5", "w") as file:
            file["entry/detector/frames"] = stack
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        for name, key in (("imaging", KEY), ("diffraction", KEY[::-1])):
            link = h5py.ExternalLink(f"scan-{name}.h5", "entry/detector/frames")
            file[f"entry/instrument/{name}/data"] = file[f"entry/{name}/data"] = link
            file[f"entry/instrument/{name}/image_key"] = key
    for dataset, stack, key in (("/entry/imaging/data", STACK, KEY), ("/entry/diffraction/data", STACK[:, ::-1], KEY[::-1])):
        for role, number in (("projections", 0), ("flats", 1), ("darks", 2)):
            np.testing.assert_array_equal(open_frames(tmp_path / "scan.nxs", dataset, frames=role).values, stack[key == number])
