"""Zarr stores as other programs write them: named dimensions in any order, images of OME-Zarr, zip files, order F; and by URL."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import detcal
from detcal import open_frames, save
from detcal.errors import InputError, MissingWarning
from detcal.stores.sources import urls
from tests.pipelines.commands import detcal as command
from tests.pipelines.commands import fails

STACK = np.arange(1, 1 + 6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)
ANGLES = np.linspace(0, 180, 6)


def turned(order: tuple[str, ...]) -> Any:
    """The stack with its dimensions in another order."""
    return STACK.transpose([("angle", "y", "x").index(dim) for dim in order])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("order", [("y", "x", "angle"), ("y", "angle", "x"), ("angle", "x", "y"), ("x", "y", "angle")])
def test_dimensions_are_found_by_their_names(tmp_path: Path, order: tuple[str, ...], zarr_format: Any) -> None:
    scan = xr.Dataset({"scan": (order, turned(order))}, {"angle": ("angle", ANGLES, {"units": "deg"})})
    scan.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False, encoding={"scan": {"chunks": (4, 4, 4)}})
    frames = open_frames(tmp_path / "a.zarr", "scan", chunks={"frame": 4})
    np.testing.assert_array_equal(frames.values, STACK)
    np.testing.assert_array_equal(frames[4, 1:7:2, ::-1].values, STACK[4, 1:7:2, ::-1])
    np.testing.assert_array_equal(frames.angle.values, ANGLES)
    assert frames.angle.attrs == {"units": "deg"}


def test_own_stores_in_another_order(tmp_path: Path) -> None:
    frames = xr.DataArray(STACK, dims=("frame", "y", "x")).transpose("y", "x", "frame")
    save(frames, tmp_path / "a.zarr", chunks={"frame": 4, "y": 3})
    found = open_frames(tmp_path / "a.zarr", chunks={"y": 3})
    assert found.chunks == ((4, 2), (3, 3, 2), (10,))
    np.testing.assert_array_equal(found.values, STACK)
    (tmp_path / "a.zarr/data/c/0/0/1").unlink()
    with pytest.warns(MissingWarning, match=r"lacks parts of 2 of 6 frames \(4–5\)"):
        found = open_frames(tmp_path / "a.zarr")
    expected = STACK.astype(float)
    expected[4:, :3] = np.nan
    np.testing.assert_array_equal(found.values, expected)


def write_image(path: Path, stack: Any, axes: list[Any], version: str = "0.4") -> Path:
    """An image of OME-Zarr, and a smaller copy of it."""
    image = {"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}], "version": version}
    group = zarr.open_group(path, mode="a", zarr_format=2 if version < "0.5" else 3)
    group.attrs.update({"multiscales": [image]} if version < "0.5" else {"ome": {"version": version, "multiscales": [image]}})
    group.create_array("0", data=stack, chunks=(*(1,) * (stack.ndim - 2), 8, 10))
    group.create_array("1", data=stack[..., ::2, ::2])
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((6, 8, 10), "tyx"), ((1, 1, 6, 8, 10), "tczyx"), ((2, 1, 3, 8, 10), "tczyx"), ((6, 1, 8, 10), "tcyx")]
)
def test_images_of_ome_zarr(tmp_path: Path, shape: tuple[int, ...], axes: str, version: str) -> None:
    named = [{"name": name, "type": "space" if name in "zyx" else "time"} for name in axes]
    path = write_image(tmp_path / "a.ome.zarr", STACK.reshape(shape), named, version)
    for frames in (open_frames(path, chunks={"frame": 2}), open_frames(path, "0", chunks={"y": 8})):
        assert frames.shape == STACK.shape
        np.testing.assert_array_equal(frames.values, STACK)
        np.testing.assert_array_equal(frames[4:1:-1, 2].values, STACK[4:1:-1, 2])


def test_one_of_several_images_is_to_be_named(tmp_path: Path) -> None:
    for series in "01":
        write_image(tmp_path / "a.zarr" / series, STACK, ["t", "y", "x"])
    zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=2)
    with pytest.raises(InputError, match=r"choose one with dataset=:\n  0/0 \(6, 8, 10\)\n  1/0 \(6, 8, 10\)"):
        open_frames(tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.zarr", "1/0").values, STACK)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "packing"),
    [("uint16", {"scale_factor": 0.25}), ("int16", {"scale_factor": 0.5, "add_offset": 100.0}), ("int32", {"add_offset": -3.0})],
)
def test_packed_numbers_are_unpacked_as_xarray_does(tmp_path: Path, dtype: str, packing: dict[str, float], zarr_format: Any) -> None:
    values = 4.0 * STACK
    values[2, 3, 4] = np.nan
    encoding = {"scan": {"dtype": dtype, "_FillValue": 9999, "chunks": (2, 8, 10), **packing}}
    scan = xr.Dataset({"scan": (("angle", "y", "x"), values, {"units": "mm"})}, {"angle": ANGLES})
    scan.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False, encoding=encoding)
    frames = open_frames(tmp_path / "a.zarr", chunks={"frame": 2})
    assert frames.dtype == (np.float64 if dtype == "int32" else np.float32)
    np.testing.assert_array_equal(frames.values, values)
    np.testing.assert_array_equal(frames.values, xr.open_zarr(tmp_path / "a.zarr", consolidated=False).scan)
    np.testing.assert_array_equal(open_frames(tmp_path / "a.zarr", frames=[5, 0], flip="ud").values, values[[5, 0], ::-1])
    assert (frames.units, np.isnan(frames.missing_value)) == ("mm", True)
    save(frames, tmp_path / "own.zarr")
    np.testing.assert_array_equal(open_frames(tmp_path / "own.zarr").values, values)


def test_a_dummy_is_a_stored_number(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan"] = STACK
        file["scan"].attrs.update({"scale_factor": np.float32(2.0), "valid_max": 400})
    for options, none in (({}, STACK > 400), ({"dummy": 7}, STACK == 7), ({"mask": STACK[0] == 1}, (STACK > 400) | (STACK[0] == 1))):
        wanted = np.where(none, np.nan, 2.0 * STACK)
        np.testing.assert_array_equal(open_frames(tmp_path / "a.h5", **options).values, wanted)


def test_files_that_were_packed_each_in_its_own_way_are_refused(tmp_path: Path) -> None:
    for name, scale in (("a.h5", 2.0), ("b.h5", 3.0), ("c.h5", "two")):
        with h5py.File(tmp_path / name, "w") as file:
            file["scan"] = STACK
            file["scan"].attrs["scale_factor"] = scale
    with pytest.raises(InputError, match=r"the same scale_factor and add_offset in all files of .*a\.h5"):
        open_frames([tmp_path / "a.h5", tmp_path / "b.h5"])
    with pytest.raises(InputError, match=r"scale_factor and add_offset of .*c\.h5.* to be numbers, got 'two' and 0\.0"):
        open_frames(tmp_path / "c.h5")


def test_order_f(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=STACK, chunks=(2, 8, 10), order="F", zarr_format=2)
    np.testing.assert_array_equal(open_frames(tmp_path / "a.zarr").values, STACK)


def test_own_zip_from_a_recipe(tmp_path: Path) -> None:
    save(STACK, tmp_path / "a.zip", chunks={"frame": 2})
    np.testing.assert_array_equal(open_frames(tmp_path / "a.zip").values, STACK)
    check_recipe(tmp_path, "a.zip")


def check_recipe(folder: Path, path: str) -> None:
    """A recipe takes frames from there."""
    np.save(folder / "gain.npy", np.full(STACK.shape[1:], 2, np.float32))
    (folder / "r.toml").write_text(
        f'[input]\npath = "{path}"\n[[steps]]\noperation = "correct_response"\nresponse = "gain.npy"\n[output]\npath = "out.zarr"\n'
    )
    command(folder, "run", "r.toml")
    np.testing.assert_array_equal(detcal.load(folder / "out.zarr").corrected.values, 2 * STACK)


# ------------------------------------------------------------------------------------------------------------- by URL


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """A store in the memory of this process, as fsspec names it."""
    save(STACK, tmp_path / "a.zarr", chunks={"frame": 2})
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "a.zarr"), f"{tmp_path}.zarr", recursive=True)
    yield f"memory://{str(tmp_path)[1:]}.zarr"
    files.rm(f"{tmp_path}.zarr", recursive=True)


def test_a_store_in_memory(memory: str, tmp_path: Path) -> None:
    frames = open_frames(memory, chunks={"frame": 2}, frames="1:5")
    np.testing.assert_array_equal(frames.values, STACK[1:5])
    assert frames.attrs["source"] == f"{memory}::data"
    assert "data  (6, 8, 10) uint16" in detcal.tree(memory)
    np.testing.assert_array_equal(detcal.get_array(memory, "data"), STACK)
    check_recipe(tmp_path, memory)
    assert memory in (tmp_path / "out.zarr.ledger").read_text()


def test_a_chunk_that_is_not_there_by_url(memory: str) -> None:
    before = open_frames(memory)
    fsspec.filesystem("memory").rm(f"{memory.removeprefix('memory:/')}/data/c/1/0/0")
    with pytest.raises(InputError, match="1 chunks are not there, and were when it was opened"):
        before.compute()
    with pytest.warns(MissingWarning, match=r"lacks 2 of 6 frames \(2–3\)"):
        frames = open_frames(memory)
    assert np.isnan(frames[2:4]).all()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nothing.zarr", "^no zarr store at memory://nothing.zarr: expected zarr.json"),
        ("gopher://there/a.zarr", "^cannot read gopher://there/a.zarr: gopher:// is unknown; expected a path, or a URL"),
    ],
)
def test_urls_that_lead_nowhere(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_frames(url)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")

    monkeypatch.setattr(urls, "http_timeout", missing)
    with pytest.raises(InputError, match=r"^cannot read http://there/b\.zarr: expected aiohttp to be installed: pip install aiohttp$"):
        open_frames("http://there/b.zarr")


def test_calibrations_are_not_read_by_url(tmp_path: Path, memory: str) -> None:
    check_recipe(tmp_path, memory)
    text = (tmp_path / "r.toml").read_text().replace("correct_response", "deconvolve").replace('response = "gain.npy"', f'psf = "{memory}"')
    (tmp_path / "r.toml").write_text(text)
    assert f"expected a file on a disk, got {memory}: copy it to one" in fails(tmp_path, "check", "r.toml")


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder; it knows no parts of files."""

    def log_message(self, *_: Any) -> None:
        """Nothing is told."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the folder."""
    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_stores_of_a_server(server: str, tmp_path: Path) -> None:
    save(STACK, tmp_path / "a.zarr", chunks={"frame": 2})
    save(STACK, tmp_path / "s.zarr", shards={"frame": 4})
    for name in "as":
        np.testing.assert_array_equal(open_frames(f"{server}/{name}.zarr").values, STACK)
    check_recipe(tmp_path, f"{server}/a.zarr")
    (tmp_path / "a.h5").write_bytes(b"no store")
    with pytest.raises(InputError, match=rf"^no zarr store at {server}/a\.h5: .* are opened from a disk: copy them to one$"):
        open_frames(f"{server}/a.h5")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    assert urls.SECONDS_TO_ANSWER < 15
    monkeypatch.setattr(urls, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zarr"
        with pytest.raises(InputError, match=rf"^cannot read {url}: .*\. Does its server run, and is the address right\?$"):
            open_frames(url)
    with pytest.raises(InputError, match=rf"^cannot read {url}: Cannot connect to host .* Does its server run"):
        open_frames(f"{url}/")
