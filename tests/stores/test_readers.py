"""Every kind of file gives back what was written to it, or says in one line why not: never other data."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detcal import load, open_frames, save, tree
from detcal.errors import InputError
from detcal.stores.sources.frames import block_frames, find_paths, open_reader
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.readers import FrameArray, NpyReader

SHAPE = (6, 20, 31)
Stack = NDArray[Any]


def make_stack(dtype: str) -> Stack:
    """Known frames, with NaN or the extremes of their type; half of them in int32, since fabio's CBF writer wraps larger steps."""
    rng = np.random.default_rng(7)
    if dtype == "float32":
        stack = rng.normal(1000, 300, SHAPE).astype(dtype)
        stack[0, 0, :2] = np.nan, np.inf
        return stack
    low, high = (0, 2**16 - 1) if dtype == "uint16" else (-(2**30), 2**30 - 1)
    stack = rng.integers(low, high, SHAPE, dtype, endpoint=True)
    stack[0, 0, :2] = low, high
    return stack


# What is opened (a path, a list or a glob) after a stack was written into a folder.


def write_hdf5(folder: Path, stack: Stack, **options: Any) -> Path:
    path = folder / "stack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=stack, **options)
    return path


def write_virtual(folder: Path, stack: Stack) -> Path:
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    half = len(stack) // 2
    for number, part in enumerate((stack[:half], stack[half:])):
        with h5py.File(folder / f"part{number}.h5", "w") as file:
            file["raw"] = part
        layout[number * half : number * half + len(part)] = h5py.VirtualSource(f"part{number}.h5", "raw", part.shape)
    with h5py.File(folder / "master.nxs", "w") as file:
        file.create_virtual_dataset("entry/data", layout)
    return folder / "master.nxs"


def write_linked(folder: Path, stack: Stack) -> Path:
    """Behind an external link to a group of another file, twice more by soft and hard links, in a loop, beside a scalar."""
    with h5py.File(folder / "raw.h5", "w") as file:
        file["scan/detector/frames"] = stack
        file["scan/detector/again"] = h5py.SoftLink("/scan/detector/frames")
        file["scan/detector/up"] = file["scan"]
        file["scan/detector/empty"] = h5py.Empty("f4")
    with h5py.File(folder / "master.h5", "w") as file:
        file["entry/measurement"] = h5py.ExternalLink("raw.h5", "/scan")
        file["entry/plot"] = h5py.SoftLink("/entry/measurement/detector/frames")
        file["entry/gone"] = h5py.SoftLink("/nowhere")
        file["entry/time"] = 3.0
    return folder / "master.h5"


def write_npy(folder: Path, stack: Stack) -> Path:
    np.save(folder / "stack.npy", stack)
    return folder / "stack.npy"


def write_tiff(folder: Path, stack: Stack, **options: Any) -> Path:
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack", **options)
    return folder / "stack.tif"


def write_tiff_without_description(folder: Path, stack: Stack) -> Path:
    """As other programs write: nothing but the chain of pages, here all of it but the first link at the end, says how many there are."""
    return write_tiff(folder, stack, metadata=None)


def write_tiff_pages(folder: Path, stack: Stack) -> Path:
    """A write for each page: tifffile counts each as a series of its own."""
    with tifffile.TiffWriter(folder / "stack.tiff") as file:
        for frame in stack:
            file.write(frame)
    return folder / "stack.tiff"


def write_hyperstack(folder: Path, stack: Stack) -> Path:
    with tifffile.TiffWriter(folder / "stack.tif", imagej=True) as file:
        file.write(stack.reshape(2, -1, 1, *stack.shape[1:]), metadata={"axes": "TZCYX"})
    return folder / "stack.tif"


def write_tiff_files(folder: Path, stack: Stack) -> str:
    for number, frame in enumerate(stack):
        tifffile.imwrite(folder / f"scan_{number:04}.tif", frame)
    return str(folder / "scan_*.tif")


def write_edf(folder: Path, stack: Stack, name: str = "stack.edf") -> Path:
    image = EdfImage(data=stack[0])
    for frame in stack[1:]:
        image.append_frame(data=frame)
    image.write(str(folder / name))
    return folder / name


def write_edf_files(folder: Path, stack: Stack) -> list[Path]:
    return [write_edf(folder, frame[None], f"scan_{number}.edf") for number, frame in enumerate(stack)]


def write_multi_edf_files(folder: Path, stack: Stack) -> list[str]:
    return [str(write_edf(folder, part, f"scan_{number}.edf")) for number, part in enumerate((stack[:2], stack[2:]))]


def write_cbf_files(folder: Path, stack: Stack) -> str:
    for number, frame in reversed(list(enumerate(stack))):  # so that the glob's order is not that of writing
        CbfImage(data=frame).write(str(folder / f"scan_{number:05}.cbf"))
    return str(folder / "scan_*.cbf")


def write_cbf(folder: Path, stack: Stack) -> Path:
    write_cbf_files(folder, stack[:1])
    return folder / "scan_00000.cbf"


def write_zarr(folder: Path, stack: Stack, **options: Any) -> Path:
    group = zarr.open_group(folder / "stack.zarr", mode="w", zarr_format=options.pop("zarr_format", 3))
    array = group.create_array("entry/frames", shape=stack.shape, dtype=stack.dtype, **{"chunks": (2, 10, 31), **options})
    array[:] = stack
    group.create_array("dark", data=np.ones_like(stack[0]))
    return folder / "stack.zarr"


def write_zarr_array(folder: Path, stack: Stack) -> Path:
    zarr.create_array(folder / "array.zarr", data=stack, chunks=(2, 10, 31))
    return folder / "array.zarr"


def with_options(write: Callable[..., Any], **options: Any) -> Callable[[Path, Stack], Any]:
    return lambda folder, stack: write(folder, stack, **options)


ALL = ("uint16", "int32", "float32")
KINDS: dict[str, tuple[Callable[[Path, Stack], Any], tuple[str, ...]]] = {
    "hdf5 contiguous": (write_hdf5, ALL),
    "hdf5 chunked": (with_options(write_hdf5, chunks=(4, 7, 9), compression="gzip"), ALL),
    "hdf5 bitshuffle": (with_options(write_hdf5, chunks=(1, 20, 31), **hdf5plugin.Bitshuffle(cname="lz4")), ALL),
    "hdf5 virtual": (write_virtual, ALL),
    "hdf5 linked": (write_linked, ALL),
    "npy": (write_npy, ALL),
    "npy fortran": (lambda folder, stack: write_npy(folder, np.asfortranarray(stack)), ALL),
    "tiff": (write_tiff, ALL),
    "tiff compressed": (with_options(write_tiff, compression="zlib"), ALL),
    "tiff big-endian": (with_options(write_tiff, byteorder=">"), ALL),
    "tiff bigtiff contiguous": (with_options(write_tiff, bigtiff=True, contiguous=True), ALL),
    "tiff behind one page": (with_options(write_tiff, truncate=True), ALL),
    "tiff behind one page, big-endian": (with_options(write_tiff, truncate=True, byteorder=">"), ALL),
    "tiff without description": (write_tiff_without_description, ALL),
    "tiff a write a page": (write_tiff_pages, ALL),
    "tiff imagej": (with_options(write_tiff, imagej=True), ("uint16", "float32")),
    "tiff imagej hyperstack": (write_hyperstack, ("uint16", "float32")),
    "tiff files": (write_tiff_files, ALL),
    "edf": (write_edf, ALL),
    "edf files": (write_edf_files, ALL),
    "edf files of several": (write_multi_edf_files, ALL),
    "cbf files": (write_cbf_files, ("int32",)),
    "zarr": (write_zarr, ALL),
    "zarr sharded": (with_options(write_zarr, chunks=(1, 10, 31), shards=(2, 20, 31)), ALL),
    "zarr 2": (with_options(write_zarr, zarr_format=2), ALL),
    "zarr array": (write_zarr_array, ALL),
}
CASES = [pytest.param(write, dtype, id=f"{kind} {dtype}") for kind, (write, dtypes) in KINDS.items() for dtype in dtypes]

INDICES: list[Any] = [
    0, -1, slice(1, 6, 2), slice(None, None, -1), slice(4, 1, -2), slice(2, 2), [5, 0, 2], np.s_[:, 3], np.s_[1:4, 2:9, -1], np.s_[3, ::2],
]  # fmt: skip


@pytest.mark.parametrize(("write", "dtype"), CASES)
def test_every_kind_of_file_gives_back_its_frames(write: Callable[[Path, Stack], Any], dtype: str, tmp_path: Path) -> None:
    stack = make_stack(dtype)
    frames = open_frames(write(tmp_path, stack), chunks={"frame": 4})
    assert frames.dims == ("frame", "y", "x")
    assert frames.attrs["units"] == "counts"
    assert frames.dtype == frames.data.compute().dtype == stack.dtype
    np.testing.assert_array_equal(frames.values, stack)
    assert frames.chunks == ((4, 2), (20,), (31,))
    for index in INDICES:
        np.testing.assert_array_equal(frames.data[index].compute(), stack[index], err_msg=str(index))


def test_only_the_frames_that_an_index_wants_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack("uint16")
    reads: list[tuple[int, int]] = []
    read = NpyReader.read
    monkeypatch.setattr(NpyReader, "read", lambda reader, start, stop: reads.append((start, stop)) or read(reader, start, stop))
    frames = FrameArray(NpyReader.open(str(write_npy(tmp_path, stack))))
    for index in INDICES:  # any of them may come from dask, which fuses what it can of a later index into the read
        key = index if isinstance(index, tuple) else (index,)
        key = (*key, *(slice(None),) * (3 - len(key)))
        np.testing.assert_array_equal(frames[key], stack[key], err_msg=str(index))
    assert reads == [(0, 1), (5, 6), (1, 6), (0, 6), (2, 5), (0, 0), (0, 6), (0, 6), (1, 4), (3, 4)]
    reads.clear()
    open_frames(tmp_path / "stack.npy")[4].compute()
    assert reads == [(4, 5)]


@pytest.mark.parametrize(("write", "dtype"), CASES)
def test_a_reader_is_small_and_reads_after_pickling(write: Callable[[Path, Stack], Any], dtype: str, tmp_path: Path) -> None:
    stack = make_stack(dtype)
    reader, _ = open_reader(find_paths(write(tmp_path, stack)), None)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 5000
    np.testing.assert_array_equal(pickle.loads(pickled).read(1, 4), stack[1:4])


def write_image_hdf5(folder: Path, image: Stack) -> Path:
    with h5py.File(folder / "image.h5", "w") as file:
        file.create_dataset("image", data=image, chunks=(5, 5))
        file["spectrum"] = np.arange(5)
    return folder / "image.h5"


def write_image_zarr(folder: Path, image: Stack) -> Path:
    zarr.open_group(folder / "image.zarr").create_array("image", data=image)
    return folder / "image.zarr"


@pytest.mark.parametrize(
    "write",
    [write_image_hdf5, write_npy, write_image_zarr, write_tiff, lambda folder, image: write_edf(folder, image[None])],
    ids=["hdf5", "npy", "zarr", "tiff", "edf"],
)
def test_an_image_is_a_stack_of_one_frame(write: Callable[[Path, Stack], Any], tmp_path: Path) -> None:
    image = make_stack("uint16")[0]
    frames = open_frames(write(tmp_path, image))
    assert frames.shape == (1, *image.shape)
    np.testing.assert_array_equal(frames.values[0], image)
    np.testing.assert_array_equal(frames[0].values, image)
    np.testing.assert_array_equal(frames[0:1, 3:5].values, image[None, 3:5])


@given(
    frames=st.integers(1, 5000), own=st.integers(1, 300), height=st.integers(1, 4000), wanted=st.none() | st.integers(1, 6000)
)  # fmt: skip
def test_blocks_are_whole_chunks_of_the_file(frames: int, own: int, height: int, wanted: int | None) -> None:
    reader = Hdf5Reader("a.h5", "data", (frames, height, 2048), np.dtype("u2"), own, "")
    block = block_frames(reader, wanted)
    assert 1 <= block <= frames
    assert block == frames or block % own == 0
    if wanted is not None:
        assert min(frames, wanted) <= block < wanted + own
    elif own * height * 4096 <= 2**26:
        assert block * height * 4096 <= 2**26
    else:
        assert block == min(frames, own)


def test_blocks_follow_the_chunks_of_an_hdf5_dataset(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, np.zeros((23, 8, 8), "u2"), chunks=(5, 3, 3))
    assert open_frames(path, chunks={"frame": 7}).chunks == ((10, 10, 3), (8,), (8,))
    assert open_frames(path, chunks={"frame": 1}).chunks == ((5, 5, 5, 5, 3), (8,), (8,))
    assert open_frames(path).chunks == ((23,), (8,), (8,))


def test_blocks_follow_the_chunks_of_a_zarr_array(tmp_path: Path) -> None:
    path = write_zarr(tmp_path, np.ones((9, 8, 8), "u2"), chunks=(2, 3, 3), shards=(4, 9, 9))
    assert open_frames(path, chunks={"frame": 3}).chunks == ((4, 4, 1), (8,), (8,))
    assert open_frames(path, chunks={"frame": 1}).chunks[0] == (2, 2, 2, 2, 1)


def test_a_reader_works_in_a_process_that_has_opened_nothing_yet(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    path = write_hdf5(tmp_path, stack, chunks=(1, 20, 31), **hdf5plugin.Bitshuffle(cname="lz4"))
    reader, _ = open_reader([str(path)], None)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read(2, 4).sum())"
    run = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(reader), capture_output=True, check=True)
    assert int(run.stdout) == stack[2:4].sum()


def test_a_dataset_is_chosen_by_name_or_because_it_is_the_only_stack(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/dark"] = stack[0]
        file["entry/mask"] = stack > 5
        file["entry/note"] = [["a", "b"]]
        file["entry/frames"] = stack
        file["entry/valid"] = stack > 6
    assert open_frames(tmp_path / "a.h5").attrs["source"].endswith("a.h5::/entry/frames")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", "entry/dark").values[0], stack[0])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/flat"] = stack[:2]
    with pytest.raises(InputError, match=r"choose one with dataset=:\n  /entry/flat \(2, 20, 31\)\n  /entry/frames \(6, 20, 31\)$"):
        open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", "/entry/flat").values, stack[:2])


def test_an_array_of_a_zarr_group_is_chosen_by_name(tmp_path: Path) -> None:
    stack = make_stack("int32")
    path = write_zarr(tmp_path, stack)
    np.testing.assert_array_equal(open_frames(path, "entry/frames").values, stack)
    assert open_frames(path, "dark").shape == (1, 20, 31)
    zarr.open_group(path).create_array("second", data=stack)
    with pytest.raises(InputError, match=r"choose one with dataset=:\n(  entry/frames .*\n  second|  second .*\n  entry/frames) "):
        open_frames(path)
    with pytest.raises(InputError, match=r"no array gone in .*stack\.zarr"):
        open_frames(path, "gone")


def test_two_thousand_files_are_not_opened_one_by_one(tmp_path: Path) -> None:
    first = make_stack("uint16")[:1]
    write_edf(tmp_path, first, "scan_0000.edf")
    for number in range(1, 2000):
        (tmp_path / f"scan_{number:04}.edf").touch()  # no image: to open it is an error
    frames = open_frames(tmp_path / "scan_*.edf", chunks={"frame": 1})
    assert frames.shape == (2000, 20, 31)
    np.testing.assert_array_equal(frames[0].values, first[0])
    with pytest.raises(InputError, match=r"scan_1999\.edf"):
        frames[-1].compute()


@pytest.mark.parametrize(
    "write",
    [write_hdf5, write_npy, write_tiff, write_tiff_without_description, write_tiff_pages, write_edf, write_cbf],
    ids=lambda write: write.__name__,
)
def test_a_file_that_is_cut_short_never_gives_other_data(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("int32"))
    whole, content = open_frames(path).values, path.read_bytes()
    messages = []
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        found = values_or_message(path)
        if isinstance(found, str):
            messages.append(found)
        else:
            np.testing.assert_array_equal(found, whole)  # only padding was cut off
    assert len(messages) >= 38
    assert all(path.name in message and "\n" not in message for message in messages)


def values_or_message(path: Path) -> Stack | str:
    """The frames, or why there are none."""
    try:
        return open_frames(path).values
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.tif", "a.edf", "a.cbf"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, np.random.default_rng(3).bytes(3000)], ids=["empty", "text", "random"])
def test_garbage_is_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        open_frames(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_a_cbf_is_refused(tmp_path: Path) -> None:
    path = write_cbf(tmp_path, make_stack("int32"))
    content = bytearray(path.read_bytes())
    content[content.index(CbfImage.STARTER) + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"scan_00000\.cbf is damaged.*checksum"):
        open_frames(path)


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, make_stack("uint16"), chunks=(2, 20, 31), fletcher32=True)
    with h5py.File(path) as file:
        place = file["entry/data/data"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    frames = open_frames(path, chunks={"frame": 2})
    frames[:2].compute()
    with pytest.raises(InputError, match=r"cannot read .*stack\.h5"):
        frames[2:4].compute()


@pytest.mark.parametrize("damage", [lambda chunk: chunk[: len(chunk) // 2], lambda chunk: b"", lambda chunk: b"nonsense" + chunk[8:]])
def test_a_damaged_zarr_chunk_is_refused_when_it_is_read(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_zarr(tmp_path, make_stack("uint16"))
    chunk = path / "entry/frames/c/0/0/0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    frames = open_frames(path, chunks={"frame": 2})
    frames[2:].compute()
    with pytest.raises(InputError, match=r"cannot read .*stack\.zarr"):
        frames[:2].compute()


@pytest.mark.parametrize("metadata", ["", "{", "{}", '{"zarr_format": 3, "node_type": "array"}'])
def test_garbage_in_zarr_metadata_is_refused_in_one_line(metadata: str, tmp_path: Path) -> None:
    path = write_zarr_array(tmp_path, make_stack("uint16"))
    (path / "zarr.json").write_text(metadata)
    with pytest.raises(InputError, match=r"array\.zarr") as caught:
        open_frames(path)
    assert "\n" not in str(caught.value)


def write_other_shape(folder: Path) -> None:
    write_edf(folder, np.zeros((1, 20, 30), "u2"), "scan_4.edf")


def write_other_type(folder: Path) -> None:
    write_edf(folder, np.zeros((1, 20, 31), "f4"), "scan_4.edf")


def write_more_frames(folder: Path) -> None:
    write_edf(folder, np.zeros((3, 20, 31), "u2"), "scan_4.edf")


@pytest.mark.parametrize(
    ("write_another", "expected"),
    [
        (write_other_shape, r"expected frames of shape \(20, 31\) .*scan_0\.edf, got \(20, 30\) .*scan_4\.edf$"),
        (write_other_type, r"type uint16, as in .*scan_0\.edf, got .* float32 in .*scan_4\.edf$"),
        (write_more_frames, r"expected 1 frames in .*scan_4\.edf, as in .*scan_0\.edf.* got 3$"),
        (lambda folder: (folder / "scan_4.edf").unlink(), r"no such file: .*scan_4\.edf"),
    ],
    ids=["shape", "type", "count", "gone"],
)
def test_listed_files_that_disagree_are_named(write_another: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    frames = open_frames(write_edf_files(tmp_path, make_stack("uint16")), chunks={"frame": 2})
    write_another(tmp_path)
    frames[:4].compute()
    with pytest.raises(InputError, match=expected):
        frames[4:].compute()


def test_pages_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((5, 7), "u2"))
        file.write(np.zeros((5, 8), "u2"))
    with pytest.raises(InputError, match=r"expected frames of shape \(5, 7\).*got \(5, 8\)"):
        open_frames(tmp_path / "a.tif").compute()


def test_a_missing_source_of_a_virtual_dataset_is_nan(tmp_path: Path) -> None:
    path, stack = write_virtual(tmp_path, make_stack("uint16")), make_stack("uint16").astype(np.float32)
    stack[3:] = np.nan
    with h5py.File(tmp_path / "part1.h5", "a") as file:
        del file["raw"]
    with pytest.warns(UserWarning, match=r"master\.nxs::/entry/data lacks 3 of 6 frames \(3–5\).* not there: part1\.h5::raw$"):
        frames = open_frames(path)
    np.testing.assert_array_equal(frames.values, stack)
    (tmp_path / "part1.h5").unlink()
    with pytest.warns(UserWarning, match=r"lacks 3 of 6 frames \(3–5\).* not there: part1\.h5::raw$"):
        np.testing.assert_array_equal(open_frames(path).values, stack)


def test_a_missing_source_of_a_virtual_dataset_behind_a_link_and_another_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_virtual(inner, make_stack("uint16"))
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("inner/master.nxs", "entry/data", SHAPE)
    with h5py.File(tmp_path / "outer.h5", "w") as file:
        file.create_virtual_dataset("again", layout)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("inner/master.nxs", "entry/data")
    for name in ("outer.h5", "linked.h5"):
        np.testing.assert_array_equal(open_frames(tmp_path / name).values, make_stack("uint16"))
    (inner / "part0.h5").unlink()
    for name in ("outer.h5", "linked.h5"):
        with pytest.warns(UserWarning, match=r"lacks 3 of 6 frames \(0–2\).* not there: part0\.h5"):
            frames = open_frames(tmp_path / name)
        assert np.isnan(frames[:3].values).all()
        np.testing.assert_array_equal(frames[3:].values, make_stack("uint16")[3:])


def test_a_virtual_dataset_may_be_moved_with_its_sources(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with h5py.File(before / "part.h5", "w") as file:
        file["raw"] = make_stack("uint16")
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource(before / "part.h5", "raw", SHAPE)  # an absolute path
    with h5py.File(before / "master.h5", "w") as file:
        file.create_virtual_dataset("frames", layout)
    before.rename(after)
    np.testing.assert_array_equal(open_frames(after / "master.h5").values, make_stack("uint16"))


def test_a_missing_external_link_is_named(tmp_path: Path) -> None:
    path = write_linked(tmp_path, make_stack("uint16"))
    (tmp_path / "raw.h5").unlink()
    with pytest.raises(InputError, match=r"links in .*master\.h5 .*: /entry/measurement → raw\.h5"):
        open_frames(path)
    with pytest.raises(
        InputError, match=r"no dataset /entry/measurement/.* in .*master\.h5: entry/measurement links to raw\.h5, which is not there"
    ):
        open_frames(path, "/entry/measurement/detector/frames")


def write_group(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/four"] = np.zeros((2, 2, 2, 2))
        file["entry/none"] = np.zeros((0, 2, 2))
        file["entry/text"] = [["a", "b"]]
    return folder / "a.h5"


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("/entry/gone", "no dataset /entry/gone in .*; `detcal tree .*a.h5` lists"),
        ("/entry", "no dataset /entry in .*a.h5: that is a group"),
        ("/entry/four", r"expected an array of shape \(frame, y, x\) or \(y, x\), got \(2, 2, 2, 2\)"),
        ("/entry/none", r"expected frames of numbers, got shape \(0, 2, 2\)"),
        ("/entry/text", "expected frames of numbers, got shape .* of object"),
    ],
)
def test_a_dataset_that_is_no_stack_is_refused(dataset: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        open_frames(write_group(tmp_path), dataset)


def test_a_file_without_a_stack_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spectrum"] = np.arange(5)
    with pytest.raises(InputError, match=r"no dataset of shape \(frame, y, x\) in .*a\.h5"):
        open_frames(tmp_path / "a.h5")


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2)])
def test_npy_of_other_dimensions_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(InputError, match="expected an array of shape"):
        open_frames(tmp_path / "a.npy")


def test_colour_images_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 7, 3), "u1"), photometric="rgb")
    with pytest.raises(InputError, match=r"expected grey frames, got an image of shape \(5, 7, 3\)"):
        open_frames(tmp_path / "a.tif")


def test_names_that_match_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*gone\.h5$"):
        open_frames(tmp_path / "gone.h5")
    with pytest.raises(InputError, match=r"no file matches .*\*\.cbf$"):
        open_frames(tmp_path / "*.cbf")
    with pytest.raises(InputError, match="no file matches"):
        open_frames([])
    with pytest.raises(InputError, match=r"no such file: .*gone\.edf$"):
        open_frames([write_edf(tmp_path, make_stack("uint16")), tmp_path / "gone.edf"])


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        open_frames(tmp_path)


@pytest.mark.parametrize("chunks", [{"frame": 0}, {"frame": -1}, {"frames": 4}, {"frame": 4, "y": 8}])
def test_chunks_that_cannot_be_are_refused(chunks: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'expected chunks such as \{"frame": 16\}'):
        open_frames(write_npy(tmp_path, make_stack("uint16")), chunks=chunks)


def add_text(path: Path, name: str, text: str | bytes) -> None:
    """An attribute of the frames in an HDF5 file or zarr store."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file["entry/data/data"].attrs[name] = text
    else:
        zarr.open_array(path, path="entry/frames", mode="r+").attrs[name] = text


@pytest.mark.parametrize("write", [write_hdf5, write_zarr], ids=lambda write: write.__name__)
def test_frames_keep_the_units_and_the_name_that_were_stored(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("float32"))
    assert open_frames(path).attrs.keys() == {"units", "source"}
    add_text(path, "units", "1")
    add_text(path, "long_name", "transmission")
    add_text(path, "other", "text")
    attrs = open_frames(path).attrs
    assert (attrs["units"], attrs["long_name"]) == ("1", "transmission")
    assert attrs.keys() == {"units", "long_name", "source"}


def test_units_of_a_fixed_length_are_text(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, make_stack("float32"))
    add_text(path, "units", np.bytes_(b"keV"))
    assert open_frames(path).attrs["units"] == "keV"


@pytest.mark.parametrize("name", ["stack.cxi", "stack.h5oina", "stack", "stack.tif"])
def test_an_hdf5_file_of_any_name_is_opened(name: str, tmp_path: Path) -> None:
    stack = make_stack("uint16")
    with h5py.File(tmp_path / name, "w") as file:
        file["scan/frames"] = stack
    np.testing.assert_array_equal(open_frames(tmp_path / name).values, stack)


@pytest.mark.parametrize("write", [write_image_hdf5, write_image_zarr, write_hdf5, write_zarr_array], ids=lambda write: write.__name__)
def test_a_mask_is_found_by_itself(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    mask = make_stack("uint16") > 30000
    mask = mask[0] if "image" in write.__name__ else mask
    frames = open_frames(write(tmp_path, mask))
    assert frames.dtype == bool
    np.testing.assert_array_equal(frames.values, mask.reshape(-1, *mask.shape[-2:]))


def test_an_image_in_a_zarr_store_has_its_axes(tmp_path: Path) -> None:
    image = xr.DataArray(make_stack("float32")[0] > 1000, {"x": np.arange(31) / 2}, ("y", "x"), "mask")
    for name in ("a.zarr", "a.h5"):
        save(image, tmp_path / name)
        frames = open_frames(tmp_path / name)
        np.testing.assert_array_equal(frames.values[0], image)
        np.testing.assert_array_equal(frames.x, image.x)


@pytest.mark.parametrize(
    "write", [write_hdf5, write_npy, write_zarr, write_zarr_array, write_tiff, write_edf, write_cbf], ids=lambda write: write.__name__
)  # fmt: skip
def test_a_file_that_may_not_be_read_is_told_from_one_that_is_damaged(
    write: Callable[[Path, Stack], Path], ordinary_folder: Path
) -> None:  # fmt: skip
    path = write(ordinary_folder, make_stack("int32"))
    frames = open_frames(path)
    path.chmod(0)
    for read in (lambda: open_frames(path), lambda: load(path), lambda: tree(path), frames.compute):
        with pytest.raises(InputError, match=f"^no permission to read {path}$"):
            read()
    path.chmod(0o700)
    ordinary_folder.chmod(0)
    with pytest.raises(InputError, match=f"^no permission to read {path}$"):
        open_frames(path)
    ordinary_folder.chmod(0o700)


def test_brackets_in_the_name_of_a_file_are_no_pattern(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    write_npy(tmp_path, stack).rename(tmp_path / "stack[1].npy")
    np.testing.assert_array_equal(open_frames(tmp_path / "stack[1].npy").values, stack)


def test_frames_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack("uint16")
    write_npy(tmp_path, stack)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    frames = open_frames("stack.npy")
    monkeypatch.chdir("elsewhere")
    np.testing.assert_array_equal(frames.values, stack)


def names(*opened: Any) -> list[str]:
    return [open_frames(path).data.name for path in opened]


@pytest.mark.parametrize("write", [write_hdf5, write_npy, write_tiff, write_edf], ids=lambda write: write.__name__)
def test_a_file_that_has_changed_gets_another_dask_name(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("uint16"))
    before, again = names(path, path)
    assert before == again
    assert before != open_frames(path, chunks={"frame": 2}).data.name
    os.utime(path, ns=(0, 0))
    assert names(path) != [before]


def test_a_source_that_has_changed_gives_a_virtual_dataset_another_dask_name(tmp_path: Path) -> None:
    path = write_virtual(tmp_path, make_stack("uint16"))
    before = names(path)
    os.utime(tmp_path / "part1.h5", ns=(0, 0))
    assert names(path) != before


def test_a_store_that_was_replaced_gets_another_dask_name(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    path = write_zarr(tmp_path, stack)
    before = names(path)
    assert names(path) == before
    shutil.rmtree(path)
    write_zarr(tmp_path, stack)
    assert names(path) != before


def test_files_in_another_order_get_another_dask_name(tmp_path: Path) -> None:
    paths = write_edf_files(tmp_path, make_stack("uint16"))
    for path in paths:
        os.utime(path, ns=(0, 0))
    first, *middle, last = paths
    assert len({*names(paths, [first, *reversed(middle), last])}) == 2


# -------------------------------------------------------------------------------------- chunks decoded outside HDF5
