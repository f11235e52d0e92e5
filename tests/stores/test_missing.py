"""What a file lacks is NaN with a warning that counts it, or an error where all results rest on it: never a number."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from detcal_pipelines.cli import main
from h5py import h5s

import detcal
from detcal import get_array, load, open_frames, response, save
from detcal.distortion import DistortionMap
from detcal.errors import InputError, MissingWarning
from detcal.frames.stack import as_image

SHAPE = (6, 20, 30)
STACK = np.random.default_rng(1).integers(1, 60000, SHAPE, np.uint16)


def without(*frames: int) -> np.ndarray[Any, Any]:
    """The stack as it is to be read where some of its frames are missing."""
    stack = STACK.astype(np.float32)
    stack[list(frames)] = np.nan
    return stack


def check_frames(path: Path, wanted: np.ndarray[Any, Any], told: str, dataset: str | None = None) -> None:
    """Each way to read it gives NaN where something is missing, and says so once."""
    with pytest.warns(MissingWarning, match=told) as warned:
        frames = open_frames(path, dataset)
    assert len(warned) == 1
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames.values, wanted)
    np.testing.assert_array_equal(frames[4, 3:7].values, wanted[4, 3:7])
    name = frames.source.partition("::")[2]
    for compute in (True, False):
        with pytest.warns(MissingWarning, match=told.replace("frames", "rows")):
            found = get_array(path, name, compute=compute)
        np.testing.assert_array_equal(np.asarray(found), wanted)


# -------------------------------------------------------------------------------------------------------------------- zarr


def save_frames(path: Path, **options: Any) -> Path:
    return save(da.from_array(STACK, chunks=(2, 20, 30)), path, **options)


def test_a_chunk_of_our_own_store_that_is_lost(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    (path / "data/c/1/0/0").unlink()
    check_frames(path, without(2, 3), r"f\.zarr(::data)? lacks 2 of 6 frames \(2–3\): never written, or lost; what is missing is NaN$")
    with pytest.warns(MissingWarning, match=r"f\.zarr lacks 2 of 6 rows \(2–3\) of data"):
        loaded = load(path)
    np.testing.assert_array_equal(loaded.data.values, without(2, 3))


def test_a_chunk_in_a_shard_that_is_lost(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr", shards={"frame": 4})  # with a chunk for each frame
    shard = path / "data/c/1/0/0"
    content = bytearray(shard.read_bytes())
    # the index of four chunks, of an offset and a size each, and its checksum; the last two lie behind the end of the stack
    index = np.frombuffer(content[-68:-4], "<u8").reshape(4, 2).copy()
    assert (index[2:] == 2**64 - 1).all()
    array = zarr.open_array(path / "data", mode="r+", config={"write_empty_chunks": False})
    del array
    index[1] = 2**64 - 1
    from google_crc32c import value

    content[-68:-4] = index.tobytes()
    content[-4:] = value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(content)
    check_frames(path, without(5), r"lacks 1 of 6 frames \(5\)")
    shard.write_bytes(b"")
    with pytest.raises(InputError, match=r"the shard data/c/1/0/0 in .*f\.zarr is cut short"):
        open_frames(path)
    shard.unlink()
    check_frames(path, without(4, 5), r"lacks 2 of 6 frames \(4–5\)")


def test_a_chunk_in_a_zip_that_is_lost(tmp_path: Path) -> None:
    whole = save_frames(tmp_path / "whole.zip")
    np.testing.assert_array_equal(load(whole).data.values, STACK)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "f.zip", "w") as target:
        for name in source.namelist():
            if name != "data/c/2/0/0":
                target.writestr(name, source.read(name))
    with pytest.warns(MissingWarning, match=r"f\.zip lacks 2 of 6 rows \(4–5\) of data"):
        np.testing.assert_array_equal(load(tmp_path / "f.zip").data.values, without(4, 5))
    with pytest.warns(MissingWarning, match=r"f\.zip::data lacks 2 of 6 rows"):
        np.testing.assert_array_equal(get_array(tmp_path / "f.zip", "data"), without(4, 5))


@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (2, 20, 30)}, {"chunks": (1, 7, 11)}])
def test_chunks_of_nothing_but_fill_values_that_another_program_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    stack = STACK.copy()
    stack[3] = 0
    zarr.create_array(tmp_path / "a.zarr", data=stack, **{"chunks": (1, 20, 30), **options})
    with pytest.warns(MissingWarning, match=r"lacks 1 of 6 frames \(3\).*fill value 0: if these were, use fillna\(0\)"):
        frames = open_frames(tmp_path / "a.zarr")
    np.testing.assert_array_equal(frames.values, without(3))
    np.testing.assert_array_equal(frames.fillna(0).values, stack)


def test_parts_of_frames_that_are_lost(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=STACK, chunks=(2, 7, 11))
    for lost in ("1/0/0", "1/2/2", "2/1/0"):
        (tmp_path / "a.zarr/c" / lost).unlink()
    wanted = STACK.astype(np.float32)
    wanted[2:4, :7, :11] = wanted[2:4, 14:, 22:] = wanted[4:, 7:14, :11] = np.nan
    check = r"lacks parts of 4 of 6 frames \(2–5\)"
    with pytest.warns(MissingWarning, match=check):
        np.testing.assert_array_equal(open_frames(tmp_path / "a.zarr").values, wanted)


def test_a_chunk_that_is_lost_after_the_store_was_opened_is_an_error(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    frames, loaded = open_frames(path, chunks={"frame": 2}), load(path)
    (path / "data/c/1/0/0").unlink()
    np.testing.assert_array_equal(frames[:2].values, STACK[:2])
    for stack in (frames, loaded.data):
        with pytest.raises(InputError, match=r"cannot read data in .*f\.zarr: 1 chunks are not there, and were when it was opened"):
            stack[2:4].compute()


def test_a_damaged_chunk_of_frames_is_an_error_that_names_them(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "f.zarr")
    flip_a_byte(path / "data/c/1/0/0")
    for stack in (open_frames(path), load(path).data, get_array(path, "data", compute=False)):
        with pytest.raises(InputError, match=r"cannot read data in .*f\.zarr: .*checksum"):
            stack.compute()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_coords_of_nothing_but_zero_are_written(tmp_path: Path) -> None:
    stack = xr.DataArray(STACK[:1], dims=("frame", "y", "x"), coords={"angle": ("frame", [0.0]), "x": np.zeros(30)}, name="data")
    save(stack, tmp_path / "f.zarr")
    assert (tmp_path / "f.zarr/angle/c/0").exists()
    np.testing.assert_array_equal(open_frames(tmp_path / "f.zarr").angle, [0])
    np.testing.assert_array_equal(load(tmp_path / "f.zarr").x, np.zeros(30))


# -------------------------------------------------------------------------------------------------------------------- HDF5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "lzf"},  # which HDF5 decodes
        {**hdf5plugin.Bitshuffle(cname="lz4")},
    ],
    ids=["plain", "gzip", "lzf", "bitshuffle"],
)
def test_frames_of_a_scan_that_was_aborted(options: dict[str, Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", SHAPE, "u2", chunks=(1, 20, 30), fillvalue=7, **options)
        data[:2], data[3] = STACK[:2], STACK[3]
    check_frames(tmp_path / "a.h5", without(2, 4, 5), r"a\.h5::/?d lacks 3 of 6 frames \(2, 4–5\): never written, or lost")


def test_frames_that_were_written_in_part(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", chunks=(2, 20, 10), compression="gzip")[:3, :, :20] = STACK[:3, :, :20]
    wanted = without(4, 5)
    wanted[:, :, 20:] = np.nan
    wanted[3, :, :20] = 0  # in a chunk that was written: HDF5 keeps no note of what of it was
    check_frames(tmp_path / "a.h5", wanted, r"lacks 2 of 6 frames \(4–5\) and parts of 4 of 6 frames \(0–3\)")


def test_an_image_of_which_a_part_is_missing_is_one_frame(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE[1:], "u2", chunks=(5, 30))[:5] = STACK[0, :5]
    with pytest.warns(MissingWarning, match=r"lacks parts of 1 of 1 frames \(0\)"):
        frames = open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames[0, :5].values, STACK[0, :5])
    assert np.isnan(frames[0, 5:].values).all()


def test_a_dataset_in_one_piece_that_was_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2")
        file["scalar"] = 4
    check_frames(tmp_path / "a.h5", without(*range(6)), r"lacks 6 of 6 frames \(0–5\)")
    assert get_array(tmp_path / "a.h5", "scalar") == 4


def test_a_file_of_raw_numbers_that_is_too_short(tmp_path: Path) -> None:
    STACK.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", external=[(str(tmp_path / "raw.bin"), 0, STACK.nbytes)])
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5").values, STACK)
    os.truncate(tmp_path / "raw.bin", STACK.nbytes // 2 + 100)
    check_frames(tmp_path / "a.h5", without(3, 4, 5), r"lacks 3 of 6 frames \(3–5\)")


@pytest.mark.parametrize(("stored", "read"), [("u1", "f4"), ("u2", "f4"), ("i4", "f8"), ("u8", "f8"), (">f4", ">f4"), ("?", "f4")])
def test_types_take_nan(stored: str, read: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", SHAPE, stored, chunks=(1, 20, 30))[1:] = 1
    with pytest.warns(MissingWarning, match="lacks 1 of 6 frames"):
        frames = open_frames(tmp_path / "a.h5")
    assert frames.dtype == frames.values.dtype == np.dtype(read)
    assert np.isnan(frames.values).sum() == 600


# ------------------------------------------------------------------------------------------------------- virtual datasets


def write(path: Path, values: Any, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=values, **options)


def write_virtual(path: Path, parts: list[tuple[Any, str, tuple[int, ...]]], shape: tuple[int, ...] = SHAPE) -> Path:
    """A virtual dataset of parts: where in it, from which file beside it, of which shape there."""
    layout = h5py.VirtualLayout(shape, "u2")
    for place, name, source in parts:
        layout[place] = h5py.VirtualSource(name, "d", source)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=5)
    return path


def test_frames_that_a_virtual_dataset_takes_from_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[:4], chunks=(2, 20, 30), compression="gzip")
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:4], "part.h5", (4, 20, 30))])
    check_frames(path, without(4, 5), r"v\.h5::/?d lacks 2 of 6 frames \(4–5\)")


def test_gaps_between_modules(tmp_path: Path) -> None:
    for number in (0, 1):
        write(tmp_path / f"m{number}.h5", STACK[:, :, 16 * number : 16 * number + 14])
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:, :, 16 * n : 16 * n + 14], f"m{n}.h5", (6, 20, 14)) for n in (0, 1)])
    wanted = STACK.astype(np.float32)
    wanted[:, :, 14:16] = np.nan
    check_frames(path, wanted, r"lacks parts of 6 of 6 frames \(0–5\)")
    (tmp_path / "m1.h5").unlink()
    wanted[:, :, 14:] = np.nan
    check_frames(path, wanted, r"lacks parts of 6 of 6 frames \(0–5\).*; sources that are not there: m1\.h5::d$")


def test_frames_in_turn_from_several_files_of_which_one_is_shorter(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"q{number}.h5", STACK[number::3])
    path = write_virtual(tmp_path / "v.h5", [(np.s_[n::3], f"q{n}.h5", (2, 20, 30)) for n in range(3)])
    np.testing.assert_array_equal(open_frames(path).values, STACK)
    write(tmp_path / "q1.h5", STACK[1:2])
    check_frames(path, without(4), r"lacks 1 of 6 frames \(4\)")


def test_chunks_that_were_never_written_in_the_source_of_a_virtual_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", (8, 20, 30), "u2", chunks=(2, 20, 15))[:4] = np.concatenate([STACK[:1], STACK[:3]])
    path = write_virtual(tmp_path / "inner.h5", [(np.s_[:], "raw.h5", (8, 20, 30))], (8, 20, 30))
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("inner.h5", "d", (8, 20, 30))[1:7]
    path = tmp_path / "outer.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout)
    check_frames(path, without(3, 4, 5), r"lacks 3 of 6 frames \(3–5\)")


def test_images_as_frames_of_a_virtual_dataset(tmp_path: Path) -> None:
    for number, frame in enumerate(STACK):
        write(tmp_path / f"i{number}.h5", frame)
    path = write_virtual(tmp_path / "v.h5", [(n, f"i{n}.h5", SHAPE[1:]) for n in range(6)])
    np.testing.assert_array_equal(open_frames(path).values, STACK)
    (tmp_path / "i2.h5").unlink()
    check_frames(path, without(2), r"lacks 1 of 6 frames \(2\).*i2\.h5::d")


def test_numbered_files_of_a_virtual_dataset_of_which_one_is_missing(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"p_{number}.h5", STACK[2 * number : 2 * number + 2])
    space = h5s.create_simple(SHAPE, (h5s.UNLIMITED, 20, 30))
    space.select_hyperslab((0, 0, 0), (h5s.UNLIMITED, 1, 1), (2, 1, 1), (2, 20, 30))
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_virtual(space, b"p_%b.h5", b"d", h5s.create_simple((2, 20, 30)))
    with h5py.File(tmp_path / "v.h5", "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_UINT16, h5s.create_simple((0, 20, 30), (h5s.UNLIMITED, 20, 30)), created)
    np.testing.assert_array_equal(open_frames(tmp_path / "v.h5").values, STACK)
    (tmp_path / "p_1.h5").unlink()
    check_frames(tmp_path / "v.h5", without(2, 3), r"lacks 2 of 6 frames \(2–3\).* not there: p_1\.h5::d")
    (tmp_path / "p_0.h5").unlink()
    check_frames(tmp_path / "v.h5", without(0, 1, 2, 3), r"lacks 4 of 6 frames \(0–3\)")


def test_a_virtual_dataset_of_which_nothing_is_there(tmp_path: Path) -> None:
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:], "gone.h5", SHAPE)])
    check_frames(path, without(*range(6)), r"lacks 6 of 6 frames \(0–5\).* not there: gone\.h5::d")


def test_a_source_of_another_type_is_converted_by_hdf5(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[:4].astype(np.float64) + 0.5)
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:4], "part.h5", (4, 20, 30))])
    check_frames(path, without(4, 5), r"lacks 2 of 6 frames \(4–5\)")
    with pytest.warns(MissingWarning):
        frames = open_frames(path)
    (tmp_path / "part.h5").unlink()
    with pytest.raises(InputError, match=r"no such file: .*part\.h5"):
        frames.compute()


def test_values_along_one_dimension_of_a_virtual_dataset(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[0, 0, :20])
    layout = h5py.VirtualLayout((30,), "u2")
    layout[5:25] = h5py.VirtualSource("part.h5", "d", (20,))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    with pytest.warns(MissingWarning, match=r"lacks 10 of 30 rows \(0–4, 25–29\)"):
        found = get_array(tmp_path / "v.h5", "d")
    np.testing.assert_array_equal(found, [*[np.nan] * 5, *STACK[0, 0, :20], *[np.nan] * 5])


def test_a_source_that_goes_after_the_virtual_dataset_was_opened_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK)
    frames = open_frames(write_virtual(tmp_path / "v.h5", [(np.s_[:], "part.h5", SHAPE)]))
    (tmp_path / "part.h5").unlink()
    with pytest.raises(InputError, match=r"no such file: .*part\.h5"):
        frames.compute()


# ------------------------------------------------------------------------------------------- calibrations, darks and masks


def make_map() -> DistortionMap:
    corners = np.stack(np.meshgrid(np.arange(21.0), np.arange(31.0), indexing="ij"), axis=-1)
    return DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((20, 30), np.bool_))


CALIBRATIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: response.Response.from_gain(np.ones((20, 30))), "gain"),
    (lambda: response.Response.from_gain(np.ones((20, 30))), "mask"),
    (make_map, "corners_m"),
]


@pytest.mark.parametrize("suffix", ["zarr", "zip"])
@pytest.mark.parametrize(("make", "image"), CALIBRATIONS)
def test_a_calibration_of_which_a_chunk_is_lost(make: Callable[[], Any], image: str, suffix: str, tmp_path: Path) -> None:
    path = save(make(), tmp_path / f"c.{suffix}")
    if suffix == "zarr":
        next(file for file in (path / image).rglob("0") if file.is_file()).unlink()
    else:
        with zipfile.ZipFile(path) as source:
            kept = {name: source.read(name) for name in source.namelist() if not name.startswith(f"{image}/c/")}
        with zipfile.ZipFile(path, "w") as target:
            for name, content in kept.items():
                target.writestr(name, content)
    with pytest.raises(
        InputError, match=rf"all of {image} in .*c\.{suffix}, but it is damaged: of {image} .* are not there; copy or write it again"
    ):
        load(path)


def test_a_calibration_in_hdf5_of_which_an_image_was_never_written(tmp_path: Path) -> None:
    path = save(response.Response.from_gain(np.ones((20, 30))), tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        group = file["entry/gain"]
        attributes = dict(group["gain"].attrs)
        del group["gain"]
        group.create_dataset("gain", (20, 30), "f4").attrs.update(attributes)
    with pytest.raises(InputError, match=r"all of gain in .*c\.h5, but it is damaged: of gain 20 of 20 rows \(0–19\) are not there"):
        load(path)


def test_a_detector_in_nexus_of_which_the_mask_was_never_written(tmp_path: Path) -> None:
    path = save(make_map(), tmp_path / "c.nxs")
    with h5py.File(path, "r+") as file:
        del file["entry"].attrs["detcal_version"]  # as of another program
        detector = file["entry/instrument/detector"]
        del detector["mask"]
        detector.create_dataset("mask", (20, 30), "u4")
    with pytest.raises(InputError, match=r"all of mask in .*c\.nxs, but it is damaged: of mask 20 of 20 rows \(0–19\) are not there"):
        load(path)


def test_a_flipped_byte_in_a_calibration_is_named_when_it_is_computed(tmp_path: Path) -> None:
    path = save(response.Response.from_gain(np.ones((20, 30))), tmp_path / "response.zarr")
    flip_a_byte(path / "gain/c/0/0")
    corrected = response.correct_response(STACK, load(path))
    with pytest.raises(
        InputError, match=r"^cannot read gain in .*response\.zarr: .*checksum.* It may be damaged: copy or write it again\.$"
    ):
        corrected.compute()


def test_a_dark_of_which_frames_are_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file.create_dataset("d", SHAPE, "u2", chunks=(1, 20, 30))[:4] = STACK[:4]
    with pytest.warns(MissingWarning, match="lacks 2 of 6 frames"):
        dark = open_frames(tmp_path / "dark.h5")
    with pytest.raises(InputError, match=r"expected a dark of which nothing is missing, but .*dark\.h5::/d lacks 2 of 6 frames \(4–5\)"):
        response.correct_response(STACK, response.Response.from_gain(np.ones((20, 30))), dark=dark)
    chosen = dark[:4].drop_attrs()  # as the message says
    np.testing.assert_allclose(as_image(chosen, SHAPE[1:], "a dark").compute(), STACK[:4].mean(axis=0), rtol=1e-6)


RECIPE = """
[input]
path = "frames.npy"
[[steps]]
operation = "correct_response"
response = "{response}"
{more}
[output]
path = "out.zarr"
"""


@pytest.mark.parametrize(
    ("response", "more"),
    [("lost.h5", ""), ("gain.npy", 'dark = "lost.h5"'), ("gain.npy", 'flat = "lost.h5"'), ("lost.zarr", "")],
)
@pytest.mark.filterwarnings("default::detcal.errors.MissingWarning")
def test_a_recipe_with_an_image_of_which_parts_are_missing(
    response: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", STACK)
    np.save("gain.npy", np.ones((20, 30), np.float32))
    with h5py.File("lost.h5", "w") as file:
        file.create_dataset("d", (1, 20, 30), "u2", chunks=(1, 10, 30))[:, :10] = 1
    save(detcal.response.Response.from_gain(np.ones((20, 30))), "lost.zarr")
    Path("lost.zarr/gain/c/0/0").unlink()
    Path("r.toml").write_text(RECIPE.format(response=response, more=more))
    result = CliRunner().invoke(main, ["check", "r.toml"])
    assert result.exit_code == 2, result.output
    assert "lost." in result.output.splitlines()[-1]


@pytest.mark.parametrize("command", ["check", "plan", "run"])
@pytest.mark.parametrize("key", ["response", "mask"])
@pytest.mark.parametrize("image", ["gain", "mask"])
def test_a_flipped_byte_in_a_response_is_told_by_every_command(
    command: str, key: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", STACK)
    np.save("gain.npy", np.ones((20, 30), np.float32))
    save(response.Response.from_gain(np.ones((20, 30))), "response.zarr")
    flip_a_byte(Path("response.zarr", image, "c/0/0"))
    text = RECIPE.format(response="response.zarr" if key == "response" else "gain.npy", more="")
    Path("r.toml").write_text(text if key == "response" else text.replace("[[steps]]", 'mask = "response.zarr"\n[[steps]]'))
    result = CliRunner().invoke(main, [command, "r.toml"])
    assert result.exit_code == 2, result.output
    assert re.search(rf"cannot read {image} in .*response\.zarr: .*checksum", result.output.splitlines()[-1])
    assert not Path("out.zarr").exists()


def test_flags_are_still_those_of_the_type_that_was_recorded(tmp_path: Path) -> None:
    """Integers become reals where frames are missing; 65535 is no more a reading than before."""
    stack = np.full((4, 4, 5), 100, np.uint16)
    stack[:, 1, 2] = 65535
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", stack.shape, stack.dtype, chunks=(1, 4, 5))[:3] = stack[:3]
    save(da.from_array(stack, chunks=(1, 4, 5)), tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "data" / "c" / "3" / "0" / "0").unlink()
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["data"] = stack
    for name in ("a.h5", "a.zarr"):
        with pytest.warns(MissingWarning):
            frames = open_frames(tmp_path / name)
        found = response.correct_response(frames, response.Response.from_gain(np.ones((4, 5)))).values
        assert np.isnan(found[3]).all()
        assert np.isnan(found[:3, 1, 2]).all()
        assert np.nansum(found[:3]) == 3 * 19 * 100
        with pytest.warns(MissingWarning):
            joined = open_frames([tmp_path / "whole.h5", tmp_path / "a.h5"])
        found = response.correct_response(joined, response.Response.from_gain(np.ones((4, 5)))).values
        assert np.nansum(found) == 7 * 19 * 100


def test_a_mask_of_which_a_part_is_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file.create_dataset("data", (4, 4), np.uint8, chunks=(2, 4))[:2] = 0
    with pytest.warns(MissingWarning):
        mask = open_frames(tmp_path / "mask.h5")
    with pytest.raises(InputError, match=r"expected a mask of which nothing is missing, but .*mask.h5.* lacks"):
        response.fit_response(np.ones((3, 4, 4)), mask=mask)


# ------------------------------------------------------------------------------------- what a file says of its own frames


def written_in_part(group: h5py.Group, name: str, values: Any, written: int) -> None:
    """A dataset of which only the first chunk, of so many rows, was written."""
    values = np.asarray(values)
    chunks = None if written == 0 else (written, *values.shape[1:])
    stored = group.create_dataset(name, values.shape, values.dtype, chunks=chunks)
    if written:
        stored[:written] = values[:written]


@pytest.mark.parametrize("name", ["image_key", "image_key_control"])
def test_keys_that_were_never_written_are_no_projections(name: str, tmp_path: Path) -> None:
    keys = np.repeat([2, 0, 1], 2)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"] = STACK
        if name != "image_key":
            group["image_key"] = keys
        written_in_part(group, name, keys, 4)
    with pytest.raises(InputError, match=rf"{name} .*a\.nxs, but it is damaged: .*{name} 2 of 6 rows \(4–5\) are not there"):
        open_frames(tmp_path / "a.nxs")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.nxs", frames=":").values, STACK)


def test_angles_that_were_never_written_are_nan(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"], group["image_key"] = STACK, np.repeat([2, 0], 3)
        written_in_part(group, "rotation_angle", np.arange(6.0) + 10, 4)
    with pytest.warns(MissingWarning, match=r"rotation_angle lacks 2 of 6 values \(4–5\)"):
        frames = open_frames(tmp_path / "a.nxs", frames="projections")
    np.testing.assert_array_equal(frames.rotation_angle, [13, np.nan, np.nan])


def test_a_detectors_mask_and_limits_that_were_never_written_are_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"] = STACK
        written_in_part(group, "saturation_value", 0, 0)
    with pytest.warns(MissingWarning, match="saturation_value lacks 1 of 1 values"):
        assert "valid_max" not in open_frames(tmp_path / "a.nxs").attrs
    with h5py.File(tmp_path / "a.nxs", "r+") as file:
        del file["entry/detector/saturation_value"]
        written_in_part(file["entry/detector"], "pixel_mask", np.zeros((20, 30), np.uint32), 10)
    with pytest.raises(InputError, match=r"all of .*pixel_mask in .*a\.nxs, but it is damaged: .*10 of 20 rows \(10–19\) are not there"):
        open_frames(tmp_path / "a.nxs")


# ------------------------------------------------------------------------------------------------------- many, and at once


def test_many_chunks_are_opened_quickly(tmp_path: Path) -> None:
    number, frame = 20_000, np.ones((2, 2), "u2").tobytes()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", (number, 2, 2), "u2", chunks=(1, 2, 2))
        for place in range(number):
            if place != 777:
                data.id.write_direct_chunk((place, 0, 0), frame)
    with pytest.warns(MissingWarning, match=r"lacks 1 of 20000 frames \(777\)"):
        frames = open_frames(tmp_path / "a.h5")
    assert np.flatnonzero(np.isnan(frames[:, 0, 0].values)).tolist() == [777]


def test_files_can_be_read_while_h5py_visits_one(tmp_path: Path) -> None:
    """h5py holds its lock meanwhile, for which other threads would wait for ever."""
    write(tmp_path / "a.h5", STACK, chunks=(1, 20, 30), compression="gzip")
    save(response.Response.from_gain(np.full((20, 30), 2.0)), tmp_path / "c.h5")
    save(make_map(), tmp_path / "map.h5")
    code = """if True:
        import h5py, detcal
        def visit(name, item):
            print(int(detcal.get_array("a.h5", name).sum()), detcal.open_frames("a.h5").shape, len(detcal.tree("a.h5")) > 9)
            print(type(detcal.load("c.h5")).__name__, type(detcal.load("map.h5")).__name__)
        with h5py.File("a.h5") as file:
            file.visititems(visit)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{STACK.sum()} (6, 20, 30) True", "Response DistortionMap"], done.stderr
