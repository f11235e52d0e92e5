"""The zarr writer: any shape, blocks, chunks and shards come back; what cannot be is refused before."""

from math import ceil, prod
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detcal import load, open_frames, save
from detcal.errors import InputError
from detcal.stores.targets.chunk_files import ChunkFiles, put_file, remove_half_written
from detcal.stores.targets.zarr_store import COMPRESSORS, SPECTRA_COMPRESSORS, write_block
from tests.stores.samples import chunk_files, make_frames


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


@pytest.mark.parametrize("shards", [None, (4, 6)])
@pytest.mark.parametrize("compressors", [COMPRESSORS, SPECTRA_COMPRESSORS])
@pytest.mark.parametrize("dtype", ["u2", ">u2", "i8", ">f4", "c16", "?"])
def test_files_hold_what_zarr_itself_writes(dtype: str, compressors: Any, shards: tuple[int, int] | None, tmp_path: Path) -> None:
    """To the bit; of shards, in which zarr chooses the order of chunks, to the length. Chunks and shards reach over the end."""
    values = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 900, (7, 11)).astype(dtype)
    options = {"shape": (7, 11), "chunks": (2, 3), "shards": shards, "dtype": dtype, "compressors": compressors, "fill_value": 1}
    unit = shards or (2, 3)
    with zarr.config.set({"array.write_empty_chunks": True}):
        theirs = zarr.create_array(tmp_path / "theirs.zarr", **options)
        theirs[...] = values
    ours = zarr.create_array(tmp_path / "ours.zarr", **options)
    files = ChunkFiles.of(ours, tmp_path / "ours.zarr")
    for place in np.ndindex(*(ceil(size / step) for size, step in zip(values.shape, unit, strict=True))):
        part = tuple(slice(number * step, (number + 1) * step) for number, step in zip(place, unit, strict=True))
        files.write(values[part], place)
    np.testing.assert_array_equal(ours[...], values)
    assert zarr.config.get("codecs.crc32c") == "zarr.codecs.crc32c_.Crc32cCodec"  # by whom it was read
    written, expected = ({file.relative_to(path): file.read_bytes() for file in chunk_files(path)} for path in (
        tmp_path / "ours.zarr", tmp_path / "theirs.zarr"
    ))  # fmt: skip
    assert written.keys() == expected.keys()
    if shards is None:
        assert written == expected
    else:
        assert {name: len(content) for name, content in written.items()} == {name: len(content) for name, content in expected.items()}


def test_a_task_that_is_killed_as_it_writes_leaves_no_file_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"before")

    def parts() -> Any:
        yield b"some"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_file(tmp_path / "0", parts())
    (tmp_path / "0.ab.partial").touch()
    remove_half_written(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["0"]
    assert (tmp_path / "0").read_bytes() == b"before"


@pytest.mark.parametrize("shards", [None, (4, 5)])
def test_a_block_that_is_not_a_chunk_is_refused(shards: tuple[int, int] | None, tmp_path: Path) -> None:
    target = zarr.create_array(
        tmp_path / "a.zarr", shape=(9, 5), chunks=(2 if shards else 4, 5), shards=shards, dtype="f4", compressors=COMPRESSORS
    )
    files = ChunkFiles.of(target, tmp_path / "a.zarr")

    def write(number: int, length: int) -> Any:
        return write_block(np.ones((length, 5)), files, tmp_path / "a.zarr", block_id=(number, 0))

    for number, length in [(0, 3), (0, 8), (1, 5), (2, 4)]:
        with pytest.raises(InputError, match=r"cannot write a block of \(\d, 5\) as the chunk \(\d, 0\)"):
            write(number, length)
    assert not target[:].any()
    for number, length in [(0, 4), (1, 4), (2, 1)]:
        assert write(number, length).all()
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
