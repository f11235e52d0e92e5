"""Files are data: nothing in them is run, and no store reaches out of its own files."""

import ast
import json
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detcal_pipelines
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.ledger import whole_lines, write_lines
from detcal_pipelines.verify import verify

import detcal
from detcal import get_array, load, open_frames, open_scan, save, tree
from detcal.errors import InputError
from tests.pipelines.commands import in_process

PICKLE = {"id": "pickle", "protocol": 5}
TEXT = {"id": "vlen-utf8"}  # with which zarr takes what is below for texts
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "joblib"}
READERS: tuple[Callable[[Path], Any], ...] = (
    open_frames, open_scan, load, tree, lambda path: load(path).compute(), lambda path: get_array(path, "frames"),
    lambda path: get_array(path, "frame"),
)  # fmt: skip


class Intruder:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def write_array(store: Path, name: str, dims: list[str], content: bytes, **described: Any) -> None:
    """An array of zarr's second format, of one chunk."""
    folder = store / name
    folder.mkdir(parents=True)
    shape = [2, 4, 4][: len(dims)]
    metadata = {"zarr_format": 2, "shape": shape, "chunks": shape, "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zarray").write_text(json.dumps(metadata | described))
    (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims}))
    (folder / ".".join("0" for _ in dims)).write_bytes(content)


@pytest.mark.parametrize("what", ["frames", "frame"])
@pytest.mark.parametrize(
    "described",
    [
        {"filters": [PICKLE]}, {"compressor": PICKLE}, {"filters": [PICKLE], "dtype": "|O"},
        {"filters": [TEXT, PICKLE], "dtype": "|O"}, {"filters": [TEXT], "compressor": PICKLE, "dtype": "|O"},
    ],
)  # fmt: skip
def test_no_zarr_store_is_unpickled(tmp_path: Path, what: str, described: dict[str, Any]) -> None:
    mark, store = tmp_path / "intruder was here", tmp_path / "a.zarr"
    content = pickle.dumps(Intruder(mark))
    described = {"dtype": "<u2"} | described
    if what == "frames":
        write_array(store, "frames", ["frame", "y", "x"], content, **described)
    else:
        write_array(store, "frames", ["frame", "y", "x"], np.ones((2, 4, 4), "<u2").tobytes(), dtype="<u2")
        write_array(store, "frame", ["frame"], content, **described)
    refused = 0
    for read in READERS:
        try:
            read(store)
        except (InputError, RuntimeError):
            refused += 1
        assert not mark.exists()
    assert refused >= 2
    pickle.loads(content)
    assert mark.exists()  # else nothing of this would be a test


def test_no_npy_file_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "intruder was here"
    np.save(tmp_path / "a.npy", np.array([Intruder(mark)], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot read"):
        open_frames(tmp_path / "a.npy")
    (tmp_path / "a.npy").rename(tmp_path / "a.edf")
    with pytest.raises(InputError, match="cannot read"):
        open_frames(tmp_path / "a.edf")
    assert not mark.exists()


@pytest.mark.parametrize("package", [detcal, detcal_pipelines])
def test_no_line_of_ours_runs_or_unpickles_what_it_reads(package: Any) -> None:
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in RUNS_CODE), f"{file}:{node.lineno}"
                assert not any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords), file
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not UNSAFE & {name.partition(".")[0] for name in names}, f"{file}:{node.lineno}"


# -------------------------------------------------------------------------------------------------- out of a store


def linked_zip(folder: Path, names: dict[str, str]) -> Path:
    """A zipped store in which files are links, as a zip holds them, to what they are given."""
    frames = xr.DataArray(np.ones((2, 4, 4), np.float32), dims=("frame", "y", "x"), name="frames")
    whole, linked = save(frames, folder / "whole.zip", chunks={"frame": 1}), folder / "linked.zip"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(linked, "w") as target:
        for name in source.namelist():
            member = zipfile.ZipInfo(name)
            if name in names:
                member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            target.writestr(member, names.get(name, source.read(name)))
    return linked


def test_links_in_a_zip_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with zipfile.ZipFile(linked_zip(tmp_path, {})) as archive:
        secret.write_bytes(archive.read("frames/c/1/0/0"))  # a sound chunk: whoever follows the link finds nothing wrong
    for path in tmp_path.glob("*.zip"):
        path.unlink()
    linked = linked_zip(tmp_path, {"frames/c/1/0/0": str(secret)})
    frames = open_frames(linked)
    assert (frames[0] == 1).all()
    with pytest.raises(InputError, match=r"linked\.zip"):
        frames[1].compute()
    assert [fault.file for fault in verify(linked).faults] == ["frames/c/1/0/0"]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-detcal", "frames/../../outside"])
def test_files_of_a_zip_are_not_unpacked(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = linked_zip(folder, {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"intruder")
    before = sorted(tmp_path.rglob("*"))
    assert (open_frames(path) == 1).all()
    assert [str(fault.file) for fault in verify(path).faults] == [name]
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/outside-of-detcal").exists()


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_a_ledger_does_not_lead_a_repair_out_of_the_store(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "frames.npy", np.ones((2, 4, 4), np.uint16))
    np.save(tmp_path / "gain.npy", np.ones((4, 4), np.float32))
    (tmp_path / "r.toml").write_text(
        '[input]\npath = "frames.npy"\n[[steps]]\noperation = "correct_response"\nresponse = "gain.npy"\n[output]\npath = "out.zarr"\n'
    )
    assert in_process(tmp_path, "run", "r.toml").exit_code == 0
    ledger, victim = tmp_path / "out.zarr.ledger", tmp_path / "c/0/0/0"
    header, *events = whole_lines(ledger)[0]
    if kind == "arrays":
        header["arrays"][".."] = {"blocks": 1, "shape": [1, 1, 1], "chunks": 1}
    else:
        next(event for event in events if "commit" in event)["commit"]["files"]["../c/0/0/0"] = [1, 1]
    write_lines(ledger, [header, *events])
    victim.parent.mkdir(parents=True)
    victim.write_text("somebody's")
    (tmp_path / "out.zarr/corrected/c/0/0/0").write_bytes(b"damaged")
    done = in_process(tmp_path, "verify", "out.zarr", "--repair")
    assert victim.read_text() == "somebody's"
    assert done.exit_code == 2
    assert "cannot be repaired" in done.stderr


def test_a_tar_is_refused(tmp_path: Path) -> None:
    frames = save(np.ones((2, 4, 4), np.float32), tmp_path / "a.zarr")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(frames, "a.zarr")
    with pytest.raises(InputError, match=r"cannot read .*a\.tar"):
        open_frames(tmp_path / "a.tar")
