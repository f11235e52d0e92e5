"""What is saved comes back; what cannot be saved leaves no trace, and an older output as it was."""

import hashlib
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from math import ceil, prod
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detcal import load, open_frames, save
from detcal.errors import InputError, OutputError
from detcal.response import Response
from detcal.stores import check_output
from detcal.stores.calibrations import as_tuples
from detcal.stores.sources.listing import tree
from detcal.stores.targets.replacing import remove, take_place
from detcal.stores.targets.zarr_store import write_block

SUFFIXES = [".zarr", ".h5", ".tif"]


def make_frames(dtype: str = "float32", blocks: Any = (2, -1, -1)) -> xr.DataArray:
    """A lazy stack with coords, units and a NaN."""
    values = np.random.default_rng(5).normal(100, 10, (7, 6, 5)).astype(dtype)
    if dtype == "float32":
        values[1, 2, 3] = np.nan
    coords = {"exposure": ("frame", np.linspace(1, 2, 7), {"units": "s"}), "x": ("x", np.arange(5) * 0.5, {"units": "mm"})}
    return xr.DataArray(da.from_array(values, chunks=blocks), coords, ("frame", "y", "x"), "frames", {"units": "counts"})


def make_failing() -> da.Array:
    """A stack whose first block fails at once, while the others are still computed; larger than the one above."""

    def fail_or_wait(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        if block_info[0]["chunk-location"][0] == 0:
            raise InputError("this block cannot be computed")
        time.sleep(0.1)
        return block

    return da.zeros((4, 60, 50), chunks=(1, 60, 50)).map_blocks(fail_or_wait, meta=np.empty((0, 0, 0)))


def content(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder."""
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def chunk_files(array: Path) -> list[Path]:
    """The files of an array's chunks or shards."""
    return [file for file in array.rglob("*") if file.is_file() and file.name != "zarr.json"]


# The zarr writer


def test_xarray_opens_a_store_with_dims_coords_units_and_provenance(tmp_path: Path) -> None:
    frames = make_frames()
    assert save(frames, tmp_path / "a.zarr", attrs={"detcal_recipe": "{}"}) == tmp_path / "a.zarr"
    with xr.open_zarr(tmp_path / "a.zarr") as opened:
        xr.testing.assert_identical(opened.frames.compute(), frames.compute())
        assert opened.frames.dims == ("frame", "y", "x")
        assert opened.frames.attrs == {"units": "counts"}
        assert opened.exposure.attrs == {"units": "s"}
        assert opened.attrs.keys() == {"detcal_version", "detcal_recipe"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def cut(size: int, lengths: list[int]) -> tuple[int, ...]:
    """Block sizes that sum to `size`, as irregular as `lengths`."""
    blocks: list[int] = []
    while sum(blocks) < size:
        blocks.append(min(lengths[len(blocks) % len(lengths)], size - sum(blocks)))
    return tuple(blocks)


# the size of a dimension, its blocks, and what is asked for: the size of a chunk, and how many of them a shard holds
AXIS = st.tuples(
    st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.none() | st.integers(1, 5), st.none() | st.integers(1, 3)
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=st.lists(AXIS, max_size=3), dtype=st.sampled_from(["u2", "i4", "f4", "f8", "?"]))
@example(axes=[(7, [7], 4, 3)], dtype="u2")  # a shard that reaches over the end by more than a chunk
@example(
    axes=[(9, [3], 2, None), (3, [1], None, 2)], dtype="u2"
)  # shards along one dimension, chunks that do not fit the blocks along another
def test_any_shape_blocks_chunks_and_shards_come_back(axes: list[Any], dtype: str, tmp_path: Path) -> None:
    shape = tuple(size for size, *_ in axes)
    dims = ("a", "b", "c")[: len(shape)]
    wanted = list(zip(dims, axes, strict=True))
    chunks = {dim: chunk for dim, (_, _, chunk, _) in wanted if chunk}
    shards = {dim: (chunk or 1) * several for dim, (_, _, chunk, several) in wanted if several}
    values = np.arange(1, 1 + prod(shape)).reshape(shape).astype(dtype)
    lazy = da.from_array(values, chunks=tuple(cut(size, lengths) for size, lengths, *_ in axes))
    path = tmp_path / "any.zarr"
    save(xr.DataArray(lazy, dims=dims, name="data"), path, chunks=chunks, shards=shards, overwrite=True)
    stored = zarr.open_array(path / "data", mode="r")
    np.testing.assert_array_equal(stored[...], values)
    np.testing.assert_array_equal(load(path).data.values, values)
    assert (stored.shards is not None) == bool(shards)
    for dim, size, chunk in zip(dims, shape, stored.chunks, strict=True):
        assert chunk == min(size, chunks.get(dim, 1 if dim in shards else chunk))
    units = stored.shards or stored.chunks
    assert len(chunk_files(path / "data")) == prod(ceil(size / unit) for size, unit in zip(shape, units, strict=True))


def test_by_default_a_chunk_is_a_block_and_irregular_blocks_are_made_regular(tmp_path: Path) -> None:
    frames = make_frames(blocks=((1, 3, 1, 2), (2, 4), 5))
    save(frames, tmp_path / "a.zarr")
    stored = zarr.open_array(tmp_path / "a.zarr/frames", mode="r")
    assert (stored.chunks, stored.shards) == ((3, 4, 5), None)
    np.testing.assert_array_equal(stored[:], frames.values)


def test_shards_hold_several_chunks(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr", chunks={"frame": 1}, shards={"frame": 4})
    stored = zarr.open_array(tmp_path / "a.zarr/frames", mode="r")
    assert (stored.chunks, stored.shards) == ((1, 6, 5), (4, 6, 5))
    assert len(chunk_files(tmp_path / "a.zarr/frames")) == 2
    np.testing.assert_array_equal(stored[:], make_frames().values)
    assert open_frames(tmp_path / "a.zarr", chunks={"frame": 2}).chunks[0] == (2, 2, 2, 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"chunks": {"frame": 2}, "shards": {"frame": 5}}, "expected shards of whole chunks, got 5 and 2 along frame"),
        ({"chunks": {"frames": 2}}, r"dimensions .*frame.*, got \{'frames': 2\}"),
        ({"shards": {"frame": 0}}, "sizes of at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        save(make_frames(), tmp_path / "a.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_chunks_that_the_compressor_cannot_take_are_refused(tmp_path: Path) -> None:
    stack = da.zeros((4, 20_000, 20_000), chunks=(2, -1, -1))
    with pytest.raises(InputError, match=r"less than 2 GiB, got \(2, 20000, 20000\) of float64 for data: give chunks="):
        save(stack, tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shards", [None, (4, 5)])
def test_a_block_that_cuts_through_a_chunk_is_refused(shards: tuple[int, int] | None, tmp_path: Path) -> None:
    target = zarr.create_array(tmp_path / "a.zarr", shape=(9, 5), chunks=(2 if shards else 4, 5), shards=shards, dtype="f4")

    def write(start: int, stop: int) -> Any:
        return write_block(
            np.ones((stop - start, 5)), target, tmp_path / "a.zarr", block_info=[{"array-location": [(start, stop), (0, 5)]}]
        )

    for start, stop in [(0, 3), (2, 4), (1, 9), (4, 6)]:
        with pytest.raises(InputError, match="cuts through the chunks"):
            write(start, stop)
    assert not target[:].any()
    for start, stop in [(0, 4), (8, 9), (0, 8), (4, 9)]:
        assert write(start, stop).all()
    assert target[:].all()


@pytest.mark.parametrize("shards", [None, {"frame": 4}])
@pytest.mark.parametrize(("dtype", "value"), [("u2", 0), ("f4", 0), ("f4", np.nan)])
def test_chunks_of_nothing_but_zero_or_nan_are_written(dtype: str, value: float, shards: dict[str, int] | None, tmp_path: Path) -> None:
    stack = da.full((8, 6, 5), value, chunks=(2, 6, 5), dtype=dtype)
    save(stack, tmp_path / "a.zarr", shards=shards)
    assert len(chunk_files(tmp_path / "a.zarr/data")) == (2 if shards else 4)
    np.testing.assert_array_equal(load(tmp_path / "a.zarr").data.values, stack.compute())


@pytest.mark.parametrize("shards", [None, {"frame": 2}])
@pytest.mark.parametrize("variable", ["frames", "exposure"])
def test_a_flipped_byte_is_an_error_and_not_data(variable: str, shards: dict[str, int] | None, tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr", shards=shards)
    chunk = sorted(chunk_files(tmp_path / f"a.zarr/{variable}"))[0]
    content = chunk.read_bytes()
    for place in range(0, len(content), 7):
        chunk.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            zarr.open_array(tmp_path / f"a.zarr/{variable}", mode="r")[:]


def test_a_dataset_with_all_that_xarray_holds_comes_back(tmp_path: Path) -> None:
    dataset = make_frames().to_dataset().assign(
        total=7.5, count=("frame", np.arange(7)), empty=(("frame", "peak"), np.zeros((7, 0))), note=("frame", list("abcdefg")),
        start=("frame", np.arange(7).astype("datetime64[s]")),
    )  # fmt: skip
    dataset = dataset.assign_coords(element=("y", ["Fe", "Cu", "Au", "Pb", "Hg", "Sn"]), height=("y", da.arange(6, chunks=2)), run=3)
    dataset.exposure.attrs["note"] = "as set"
    save(dataset, tmp_path / "a.zarr")
    xr.testing.assert_identical(load(tmp_path / "a.zarr").drop_attrs(deep=False).compute(), dataset.compute())
    save(load(tmp_path / "a.zarr"), tmp_path / "b.zarr", chunks={"frame": 3})  # lazy coords, and the encoding of the first store
    xr.testing.assert_identical(load(tmp_path / "b.zarr").compute(), load(tmp_path / "a.zarr").compute())


def test_arrays_are_saved_under_the_names_of_a_stack(tmp_path: Path) -> None:
    for number, shape in enumerate([(), (5,), (6, 5), (7, 6, 5)]):
        save(np.full(shape, 3), tmp_path / f"{number}.zarr")
        found = load(tmp_path / f"{number}.zarr").data
        assert found.dims == ("frame", "y", "x")[3 - len(shape) :]
        assert (found.values == 3).all()


def test_what_xarray_reads_is_computed_once(tmp_path: Path) -> None:
    """Texts and coords must not pull the frames with them."""
    counted: list[int] = []
    frames = make_frames().copy(
        data=make_frames().data.map_blocks(lambda block: counted.append(1) or block, meta=np.empty((0, 0, 0), "f4"))
    )
    save(frames.to_dataset().assign(note="text"), tmp_path / "a.zarr")
    assert len(counted) == 4


# NeXus and TIFF


def test_h5_is_nexus(tmp_path: Path) -> None:
    frames = make_frames()
    dataset = frames.to_dataset().assign(mean=frames.mean("frame"), names=("y", list("abcdef"))).assign_attrs(steps=["a", "b"])
    save(dataset, tmp_path / "a.h5", attrs={"detcal_recipe": "{}"})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["default"] == "entry"
        entry = file["entry"]
        assert (entry.attrs["NX_class"], entry.attrs["default"]) == ("NXentry", "frames")
        assert (entry.attrs["detcal_recipe"], entry.attrs["steps"]) == ("{}", '["a", "b"]')
        group = entry["frames"]
        assert (group.attrs["NX_class"], group.attrs["signal"]) == ("NXdata", "frames")
        assert list(group.attrs["axes"]) == ["exposure", ".", "x"]
        assert (group["frames"].dtype, group["frames"].attrs["units"]) == (frames.dtype, "counts")
        np.testing.assert_array_equal(group["frames"][:], frames.values)
        np.testing.assert_array_equal(group["x"][:], frames.x)
        assert group["exposure"].attrs["units"] == "s"
        np.testing.assert_array_equal(entry["mean/mean"][:], dataset["mean"].values)
        assert list(entry["names/names"].asstr()) == list("abcdef")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.h5").values, frames.values)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_axes_come_back_as_coords_of_the_frames(tmp_path: Path, suffix: str) -> None:
    """Without them, nobody could reconstruct a corrected scan."""
    frames = make_frames()
    save(frames, tmp_path / f"a{suffix}")
    found = open_frames(tmp_path / f"a{suffix}")
    for name in ("exposure", "x"):
        xr.testing.assert_identical(found[name].variable, frames[name].variable)


def test_silx_finds_the_default_plot(tmp_path: Path) -> None:
    nxdata = pytest.importorskip("silx.io.nxdata")
    save(make_frames(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        plot = nxdata.get_default(file)
        assert plot.is_valid
        assert plot.signal.name == "/entry/frames/frames"
        assert plot.axes_dataset_names == ["exposure", None, "x"]


def test_h5_holds_scalars_and_blocks_that_are_split_along_every_dimension(tmp_path: Path) -> None:
    frames = make_frames(blocks=(3, 4, 2))
    save(frames.to_dataset().assign(total=7.5, mask=frames > 100, start=np.datetime64("2020-02-03")), tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        assert file["entry/total/total"][()] == 7.5
        assert file["entry/start/start"].asstr()[()].startswith("2020-02-03")
        np.testing.assert_array_equal(file["entry/mask/mask"][:], (frames > 100).values)
        np.testing.assert_array_equal(file["entry/frames/frames"][:], frames.values)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_tif_has_a_page_for_each_frame(dtype: str, tmp_path: Path) -> None:
    frames = make_frames(dtype, blocks=(3, 4, 2))
    save(frames, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 7
        for page, frame in zip(file.pages, frames.values, strict=True):
            np.testing.assert_array_equal(page.asarray(), frame)
            assert page.dtype == dtype
    assert open_frames(tmp_path / "a.tif").dtype == dtype


@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (4, 1, 5), (3, 6, 3), (2, 1, 1)])
def test_tif_of_an_image_or_of_few_rows_comes_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(prod(shape), dtype="u2").reshape(shape)
    save(values, tmp_path / "a.tiff")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.tiff").values, values.reshape(-1, *shape[-2:]))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (make_frames().to_dataset().assign(mean=1.0), "holds one stack or image, not frames, mean"),
        (make_frames() > 100, r"not \('frame', 'y', 'x'\) \(7, 6, 5\) of bool"),
        (da.zeros((5,)), r"not \('x',\)"),
        (da.zeros((0, 6, 5)), r"\(0, 6, 5\)"),
    ],
    ids=["several", "bool", "line", "no frames"],
)
def test_what_does_not_fit_into_a_tif_is_refused_before_it_is_computed(obj: Any, expected: str, tmp_path: Path) -> None:
    def refuse_to_compute(writes: list[da.Array]) -> None:
        raise AssertionError

    with pytest.raises(InputError, match=expected):
        save(obj, tmp_path / "a.tif", compute=refuse_to_compute)


@pytest.mark.parametrize(
    ("obj", "name", "options", "expected"),
    [
        (make_frames(), "a.h5", {"shards": {"frame": 4}}, r"chunks and shards are those of a \.zarr, and a\.h5 has none"),
        (make_frames(), "a.tif", {"chunks": {"frame": 1}}, r"a\.tif has none: leave them out"),
        (make_frames(), "a.zarr", {"chunks": {"frame": 2}, "shards": {"frame": 5}}, "expected shards of whole chunks"),
        (make_frames(), "a.zarr", {"chunks": {"row": 2}}, r"got \{'row': 2\}"),
        (da.zeros((4, 20_000, 20_000), chunks=(2, -1, -1)), "a.h5", {}, "less than 2 GiB"),
        (Response.from_gain(np.ones((6, 5))), "a.tif", {}, "a .tif holds one stack or image, not gain"),
        ("text", "a.zarr", {}, "to save, got str"),
        (make_frames(), "old.zarr", {}, "exists already"),
        (make_frames(), "folder", {"overwrite": True}, "not a zarr store"),
        (make_frames(), "gone/a.zarr", {}, "no such folder"),
    ],
    ids=["shards in h5", "chunks in tif", "shards", "chunks", "large chunks", "calibration in tif", "text", "exists", "folder", "gone"],
)  # fmt: skip
def test_what_save_would_refuse_can_be_asked_for_before(obj: Any, name: str, options: Any, expected: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    save(np.ones((6, 5)), tmp_path / "old.zarr")
    before = content(tmp_path)
    for refuse in (check_output, save):
        with pytest.raises((InputError, OutputError), match=expected) as caught:
            refuse(obj, tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    assert content(tmp_path) == before
    check_output(make_frames(), tmp_path / "old.zarr", overwrite=True, shards={"frame": 4})
    check_output(make_frames(), tmp_path / "new.tif")
    assert content(tmp_path) == before


# Calibrations


def make_response(order: int) -> Response:
    gain = np.random.default_rng(1).uniform(0.8, 1.2, (6, 5))
    gain[2, 3] = np.nan
    response = Response.from_gain(gain, sigma=12.5, boundary="reflect")
    if order == 1:
        return response
    curvature = response.gain.copy(data=response.gain.data / 1000).assign_attrs(units="1/counts")
    return replace(response, order=2, curvature=curvature, intercept=True, cutoff=300.0, mask=response.mask.chunk())


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_response_comes_back_as_its_own_type(order: int, suffix: str, tmp_path: Path) -> None:
    response = make_response(order)
    save(response, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert isinstance(loaded, Response)
    for field in fields(Response):
        expected, found = getattr(response, field.name), getattr(loaded, field.name)
        if isinstance(expected, xr.DataArray):
            assert found.chunks is not None
            assert found.dtype == expected.dtype
            xr.testing.assert_identical(found.compute().rename(expected.name), expected.compute())
        else:
            assert (found, type(found)) == (expected, type(expected)), field.name


def test_a_response_without_curvature_stores_none(tmp_path: Path) -> None:
    for order in (1, 2):
        save(make_response(order), tmp_path / f"{order}.zarr")
        stored = zarr.open_group(tmp_path / f"{order}.zarr", mode="r")
        assert ("curvature" in stored) == (order == 2)
        assert "curvature" not in stored.attrs


def test_options_that_are_tuples_come_back_as_such() -> None:
    assert as_tuples([1, [2.5, "a"]]) == (1, (2.5, "a"))
    assert as_tuples("text") == "text"


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_dataset_comes_back_from_either_kind_of_store(suffix: str, tmp_path: Path) -> None:
    dataset = make_frames().to_dataset().assign(
        total=7.5, mask=make_frames() > 100, empty=(("frame", "peak"), np.zeros((7, 0))), note=("frame", list("abcdefg")),
        start=("frame", np.arange(7).astype("datetime64[s]")), wave=("y", np.arange(6) * 1j),
    )  # fmt: skip
    dataset = dataset.assign_coords(element=("y", ["Fe", "Cu", "Au", "Pb", "Hg", "Sn"]), run=3)
    dataset.frames.attrs |= {"flags": [True, 2, "three", None], "gain": np.float32(0.5), "axis": np.array([0, 1]), "on": True}
    dataset = dataset.assign_attrs(text="[1, 2]", steps=["a", "b"], number=4, real=4.0, off=False)
    save(dataset, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert loaded.frames.chunks is not None
    assert loaded.frames.attrs == {"units": "counts", "flags": [True, 2, "three", None], "gain": 0.5, "axis": [0, 1], "on": True}
    assert {name: (value, type(value)) for name, value in loaded.attrs.items() if name != "detcal_version"} == {
        name: (value, type(value)) for name, value in dataset.attrs.items()
    }
    xr.testing.assert_equal(loaded.compute(), dataset.compute())
    xr.testing.assert_equal(loaded.frames[::-2, [4, 1], 2].compute(), dataset.frames[::-2, [4, 1], 2].compute())
    save(loaded, tmp_path / f"b{suffix}")  # a file that is read while another is written
    xr.testing.assert_identical(load(tmp_path / f"b{suffix}").compute(), loaded.compute())


def test_a_file_of_another_program_is_not_loaded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = np.zeros((3, 6, 5))
    (tmp_path / "b.h5").write_text("nonsense")
    (tmp_path / "folder").mkdir()
    for name in ("a.h5", "b.h5", "folder"):
        with pytest.raises(InputError, match=rf"^expected a zarr store or an HDF5 file that detcal wrote, got .*{name}") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_damaged_h5_is_not_loaded(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read .*a\.h5"):
        load(tmp_path / "a.h5")


def test_a_response_in_h5_shows_its_gain_first(tmp_path: Path) -> None:
    save(make_response(2), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry"].attrs["default"] == "gain"
        assert file["entry"].attrs["sigma"] == 12.5
        np.testing.assert_array_equal(file["entry/curvature/curvature"], make_response(2).curvature)


def test_a_dataset_is_loaded_lazily_as_such(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr")
    loaded = load(tmp_path / "a.zarr")
    assert isinstance(loaded, xr.Dataset)
    assert loaded.frames.chunks[0] == (2, 2, 2, 1)


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr/gain")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zarr").write_text("nonsense")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr/zarr.json").write_text("{")
    for name in ("gone.zarr", "folder", "file.zarr", "broken.zarr"):
        with pytest.raises(InputError, match=name) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_calibration_without_an_image_is_refused(tmp_path: Path) -> None:
    save(make_response(1), tmp_path / "a.zarr")
    with xr.open_zarr(tmp_path / "a.zarr") as opened:
        save(opened.drop_vars("gain"), tmp_path / "b.zarr")
    with pytest.raises(InputError, match=r"cannot read .*b\.zarr: .*gain"):
        load(tmp_path / "b.zarr")


# Whole or not at all


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_exists_is_replaced_only_on_request(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save(np.zeros((3, 6, 5)), path)
    before = content(tmp_path)
    with pytest.raises(OutputError, match=f"a{suffix} exists already"):
        save(np.ones((3, 6, 5)), path)
    assert content(tmp_path) == before
    save(np.ones((3, 6, 5)), path, overwrite=True)
    assert (open_frames(path).values == 1).all()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_folder_replaces_a_file_or_a_link_and_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("a file")
    save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=True)
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "a.h5")
    save(np.full((3, 6, 5), 2), tmp_path / "a.h5", overwrite=True)
    assert (open_frames(tmp_path / "a.h5").values == 2).all()
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    save(np.full((3, 6, 5), 3), tmp_path / "link.zarr", overwrite=True)
    assert (open_frames(tmp_path / "link.zarr").values == 3).all()
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.h5", "a.zarr", "link.zarr"]


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_a_folder_that_is_no_store_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"thesis{suffix}"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/chapter").write_text("years of work")
    save(np.ones((6, 5)), folder / "inner/a.zarr")
    before = content(tmp_path)
    for overwrite in (True, False):
        with pytest.raises(OutputError, match=rf"thesis{suffix} is a folder that is not a zarr store"):
            save(np.ones((3, 6, 5)), folder, overwrite=overwrite)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OutputError, match="not a zarr store"):
        save(np.ones((3, 6, 5)), tmp_path / "link", overwrite=True)
    (tmp_path / "link").unlink()
    assert content(tmp_path) == before


@pytest.mark.parametrize("marker", [".zgroup", ".zarray"])
def test_a_store_of_the_second_version_is_replaced(marker: str, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / marker).touch()
    save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=True)
    assert (open_frames(tmp_path / "a.zarr").values == 1).all()


@pytest.mark.parametrize("name", [".", "..", "../..", "../../a.zarr"])
def test_the_current_folder_and_those_around_it_are_never_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(np.ones((6, 5)), tmp_path / "a.zarr")
    (tmp_path / "a.zarr/inner").mkdir()
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path / "a.zarr/inner")
    with pytest.raises(OutputError, match="is the current folder, or holds it"):
        save(np.ones((3, 6, 5)), name, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_link_that_leads_nowhere_is_no_output(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").symlink_to("gone")
    with pytest.raises(OutputError, match=r"a\.zarr is a link to what is not there, gone"):
        save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=overwrite)
    assert [found.name for found in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("mode", [0o555, 0o666], ids=["not to write in", "not to enter"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_in_a_folder_that_is_not_ours_is_refused(suffix: str, mode: int, ordinary_folder: Path) -> None:
    folder = ordinary_folder / "results"
    folder.mkdir()
    save(np.zeros((3, 6, 5)), folder / f"a{suffix}")
    before = content(ordinary_folder)
    folder.chmod(mode)
    for name in (f"a{suffix}", f"new{suffix}"):
        with pytest.raises(OutputError, match=r"^cannot write in .*results: Permission denied$"):
            save(make_failing(), folder / name, overwrite=True)
    folder.chmod(0o755)
    assert content(ordinary_folder) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_closed_during_a_run_is_named(suffix: str, ordinary_folder: Path) -> None:
    def close_folder(writes: list[da.Array]) -> None:
        dask.compute(writes)
        ordinary_folder.chmod(0o555)

    with pytest.raises(OutputError, match=f"^cannot write in {ordinary_folder}: Permission denied$"):
        save(np.zeros((3, 6, 5)), ordinary_folder / f"a{suffix}", compute=close_folder)


def test_an_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no such folder: .*gone"):
        save(make_frames(), tmp_path / "gone/a.zarr")


@pytest.mark.parametrize("obj", ["text", None, xr.Dataset()], ids=["text", "None", "empty"])
def test_what_is_no_data_is_refused(obj: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a DataArray, Dataset, array or calibration to save"):
        save(obj, tmp_path / "a.zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_graph_that_fails_leaves_nothing_behind(suffix: str, tmp_path: Path) -> None:
    with dask.config.set(num_workers=4), pytest.raises(InputError, match="this block cannot be computed"):
        save(make_failing(), tmp_path / f"a{suffix}")
    time.sleep(0.3)  # blocks that were computed while the first one failed
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_under_way_when_another_fails_are_waited_for(tmp_path: Path) -> None:
    started, ended = [], []

    def fail_or_wait(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        number = block_info[0]["chunk-location"][0]
        started.append(number)
        time.sleep(0.05 if number == 0 else 0.3)
        ended.append(number)
        if number == 0:
            raise InputError("this block cannot be computed")
        return block

    stack = da.zeros((4, 6, 5), chunks=(1, 6, 5)).map_blocks(fail_or_wait, meta=np.empty((0, 0, 0)))
    with dask.config.set(num_workers=4), pytest.raises(InputError, match="this block cannot be computed"):
        save(stack, tmp_path / "a.zarr")
    assert len(started) > 1
    assert sorted(ended) == sorted(started)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_graph_that_fails_leaves_the_old_output_as_it_was(suffix: str, tmp_path: Path) -> None:
    save(make_frames(), tmp_path / f"a{suffix}")
    before = content(tmp_path)
    with dask.config.set(scheduler="synchronous"), pytest.raises(InputError, match="this block cannot be computed"):
        save(make_failing(), tmp_path / f"a{suffix}", overwrite=True)
    assert content(tmp_path) == before


def test_a_block_does_not_bring_back_a_store_that_was_given_up(tmp_path: Path) -> None:
    target = zarr.create_array(tmp_path / "a.zarr", shape=(4, 5), chunks=(2, 5), dtype="f4")
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="given up"):
        write_block(np.ones((2, 5)), target, tmp_path / "a.zarr", block_info=[{"array-location": [(0, 2), (0, 5)]}])
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_written_while_a_store_is_cleared_away_leave_nothing(tmp_path: Path) -> None:
    block, store = np.random.default_rng(1).random((1, 50_000)), tmp_path / ".a.partial"

    def write_until_given_up(target: zarr.Array) -> str:
        for number in range(3000):
            place = number % 20
            try:
                write_block(block, target, store, block_info=[{"array-location": [(place, place + 1), (0, 50_000)]}])
            except OutputError as error:
                return str(error)
        return "written to the end"

    for round_number in range(10):
        zarr.create_group(store)
        arrays = [zarr.create_array(store, name=name, shape=(20, 50_000), chunks=(1, 50_000), dtype="f8") for name in "abc"]
        with ThreadPoolExecutor(3) as threads:
            writers = threads.map(write_until_given_up, arrays)
            time.sleep(0.05 + 0.003 * round_number)
            remove(store)
        assert set(writers) == {f"the output {store} was given up while it was written, or somebody has moved or removed it"}
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["before", "between", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_output_that_is_interrupted_is_the_old_one_or_the_new_one(
    error: type[BaseException], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(np.zeros((3, 6, 5)), tmp_path / "a.zarr")
    rename, renamed = Path.rename, []

    def rename_and_stop(path: Path, target: Path) -> Path:
        renamed.append(path)
        number = {"before": 1, "between": 2, "after": 2}[moment]
        if len(renamed) == number and moment != "after":
            raise error
        rename(path, target)
        if len(renamed) == number and moment == "after":
            raise error
        return target

    monkeypatch.setattr(Path, "rename", rename_and_stop)
    with pytest.raises(error):
        save(np.ones((3, 6, 5)), tmp_path / "a.zarr", overwrite=True)
    assert [found.name for found in tmp_path.iterdir()] == ["a.zarr"]
    assert (open_frames(tmp_path / "a.zarr").values == (moment == "after")).all()


def test_the_old_output_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/kept").touch()
    with pytest.raises(FileNotFoundError):
        take_place(tmp_path / "gone", tmp_path / "old")
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["old", "old/kept"]


FULL_DISK = """
    import resource
    import sys
    import dask.array as da
    from detcal import save
    from detcal.errors import OutputError

    # what the store beside an .h5 or .tif holds fits, file by file; the .h5 or .tif does not
    stack = da.random.default_rng(1).random((16, 50, 50), chunks=(1 if sys.argv[1] == "export" else 16, 50, 50))
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    for path in sys.argv[2:]:
        try:
            save(stack, path, overwrite=True)
        except OutputError as error:
            print(error)
"""


def test_a_full_disk_leaves_the_old_output_as_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    for suffix in SUFFIXES:
        save(np.zeros((3, 6, 5)), old / f"a{suffix}")
    before = content(tmp_path)
    for stage, suffixes in {"store": SUFFIXES, "export": SUFFIXES[1:]}.items():
        outputs = [str(folder / f"a{suffix}") for folder in (old, new) for suffix in suffixes]
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FULL_DISK), stage, *outputs], capture_output=True, text=True, check=True
        )  # fmt: skip
        for line, output in zip(run.stdout.splitlines(), outputs, strict=True):
            assert line.startswith(f"no room left on the disk of {Path(output).parent}: {Path(output).name} was not written or changed")
    assert content(tmp_path) == before
    assert list(new.iterdir()) == []


# tree


def test_tree_of_a_zarr_store(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr", shards={"frame": 4}, attrs={"note": "long " * 30})
    lines = tree(tmp_path / "a.zarr").splitlines()
    assert lines[0] == str(tmp_path / "a.zarr")
    assert "  frames  (7, 6, 5) float32, chunks (1, 6, 5), shards (4, 6, 5)" in lines
    assert "    @units = counts" in lines
    note = next(line for line in lines if "@note" in line)
    assert note.endswith("…")
    assert len(note) < 80


def test_tree_of_an_hdf5_file(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/up"] = file["entry"]
        file["entry/plot"] = h5py.SoftLink("/entry/frames/frames")
        file["entry/raw"] = h5py.ExternalLink("gone.h5", "/data")
        file.create_dataset("entry/chunked", data=np.zeros((4, 4)), chunks=(2, 4))
    lines = tree(tmp_path / "a.h5").splitlines()
    assert lines[:3] == [str(tmp_path / "a.h5"), "  @default = entry", "  entry/"]
    assert "      frames  (7, 6, 5) float32" in lines
    assert "        @units = counts" in lines
    assert "    chunked  (4, 4) float64, chunks (2, 4)" in lines
    assert "    up → /entry" in lines
    assert "    plot → /entry/frames/frames" in lines
    assert "    raw → missing" in lines


def test_tree_of_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("nonsense")
    with pytest.raises(InputError, match=r"cannot read .*a\.h5"):
        tree(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"cannot read .*"):
        tree(tmp_path)
    with pytest.raises(InputError, match=r"no such file: .*gone\.h5"):
        tree(tmp_path / "gone.h5")
