"""Files whose chunks hold few rows of all frames: no chunk is read twice, no stack is held whole, and results are those of whole frames."""

import shutil
from pathlib import Path
from typing import Any

import dask.threaded
import h5py
import numpy as np
import pytest
import zarr
from detcal_pipelines import plan as planning
from detcal_pipelines.copying import Copy
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.recipe import read_recipe

from detcal import load, open_frames, save
from detcal.frames import stack
from detcal.response import Response
from detcal.stores.sources import frames as opening
from detcal.stores.sources import hdf5_data
from tests.pipelines.commands import AMPLE, change, detcal, in_process

SHAPE, ROWS = (96, 30, 40), 4
CHUNKS = 8
SMALL = 2**16  # bytes of a block, so that few rows of all frames are one
RECIPE = """
[input]
path = "rows.h5"
[[steps]]
{step}
[output]
path = "out.zarr"
"""
CORRECT = 'operation = "correct_response"\nresponse = "gain.zarr"\ndark = "dark.h5"'
FIT = 'operation = "fit_response"\nsigma = 2.0\nmask = "mask.npy"'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep and darks by rows, the sweep by frames too, gains."""
    rng = np.random.default_rng(5)
    sweep = rng.poisson(np.linspace(1000, 9000, SHAPE[0])[:, None, None] * np.ones(SHAPE)).astype(np.uint16)
    for name, frames in (("rows", sweep), ("dark", sweep[:5] // 100)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=frames, chunks=(len(frames), ROWS, SHAPE[2]), compression="gzip", fletcher32=True)
    np.save(tmp_path / "frames.npy", sweep)
    np.save(tmp_path / "mask.npy", np.eye(*SHAPE[1:], dtype=np.uint8))
    save(Response.from_gain(rng.uniform(0.9, 1.1, SHAPE[1:])), tmp_path / "gain.zarr")
    for module in (stack, opening):
        monkeypatch.setattr(module, "BLOCK_BYTES", SMALL)
    return tmp_path


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file of each chunk that is read."""
    found: list[str] = []
    read = hdf5_data.raw_chunk

    def note(dataset: h5py.Dataset, corner: tuple[int, ...]) -> tuple[bytes, int] | None:
        found.append(Path(dataset.file.filename).name)
        return read(dataset, corner)

    monkeypatch.setattr(hdf5_data, "raw_chunk", note)
    return found


def write(folder: Path, step: str) -> None:
    (folder / "r.toml").write_text(RECIPE.format(step=step))


def little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A budget that whole frames of the file do not fit in, counted from more than what the process of the tests holds."""
    monkeypatch.setattr(planning, "PROCESS_BYTES", AMPLE)
    recipe = read_recipe(folder / "r.toml")
    whole = planning.plan_in(recipe, [planning.here((2 * AMPLE, 1))], copied=False)
    assert whole.copy is None
    return str(whole.peak_bytes - 1)


@pytest.mark.parametrize("flip", [None, "ud", "lr", "both"])
@pytest.mark.parametrize("files", [1, 2])
def test_blocks_are_rows_of_chosen_and_turned_frames(folder: Path, chunks_read: list[str], flip: Any, files: int) -> None:
    shutil.copy(folder / "rows.h5", folder / "rows2.h5")
    paths = [folder / name for name in ("rows.h5", "rows2.h5")[:files]]
    frames = open_frames(paths, frames="5:170:3", flip=flip)
    expected = np.concatenate([np.load(folder / "frames.npy")] * files)[5:170:3]
    for axis in {None: (), "ud": (1,), "lr": (2,), "both": (1, 2)}[flip]:
        expected = np.flip(expected, axis)
    assert len(frames.chunks[1]) > 1
    for start in range(0, SHAPE[1], 4 * ROWS):
        np.testing.assert_array_equal(frames[:, start : start + 4 * ROWS].values, expected[:, start : start + 4 * ROWS])
    assert len(open_frames(paths, chunks={"y": -1}).chunks[1]) == 1


def test_each_pixel_by_itself_is_corrected_by_rows(folder: Path, chunks_read: list[str]) -> None:
    write(folder, CORRECT)
    assert "rows, " in detcal(folder, "plan", "r.toml").output
    detcal(folder, "run", "r.toml", "--workers", "2")
    assert chunks_read.count("rows.h5") == CHUNKS + 4 + 4  # of the report: a row in each of two blocks of two chunks; those for rings
    assert chunks_read.count("dark.h5") == CHUNKS
    stored = zarr.open_array(folder / "out.zarr/corrected", mode="r")
    assert stored.chunks == (SHAPE[0], 2 * ROWS, SHAPE[2])
    change(folder, "r.toml", "rows.h5", "frames.npy")
    change(folder, "r.toml", "out.zarr", "frames.zarr")
    detcal(folder, "run", "r.toml")
    np.testing.assert_array_equal(stored[:], load(folder / "frames.zarr").corrected.values)


def test_what_blocks_of_rows_count_is_added_up(folder: Path) -> None:
    write(folder, f'{CORRECT}\nflat = "gain.npy"\n[[steps]]\noperation = "minus_log"\nfloor = 50')
    np.save(folder / "gain.npy", np.full(SHAPE[1:], 101.0))
    assert "rows, " in detcal(folder, "plan", "r.toml").output
    detcal(folder, "run", "r.toml", "--workers", "2")
    found = load(folder / "out.zarr")
    below = found.attenuation.values >= -np.log(np.float32(50))
    np.testing.assert_array_equal(found.floored, np.count_nonzero(below, axis=(1, 2)))
    assert 0 < found.floored.values.sum() < below.size


def test_files_that_are_written_by_frames_are_of_whole_frames(folder: Path) -> None:
    write(folder, CORRECT)
    change(folder, "r.toml", "out.zarr", "out.h5")
    detcal(folder, "run", "r.toml")
    assert read_ledger(folder / "out.h5.ledger").header["cut"]["unit"] == "frames"


def test_frames_are_copied_where_whole_ones_are_needed_and_do_not_fit(
    folder: Path, chunks_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, FIT)
    memory = little_memory(folder, monkeypatch)
    said = " ".join(detcal(folder, "plan", "r.toml", "--memory", memory, "--workers", "1").output.split())
    assert "are copied by " in said
    assert f"up to {planning.size(np.prod(SHAPE) * 2)} on disk while the run lasts" in said
    detcal(folder, "run", "r.toml", "--memory", memory, "--workers", "1")
    assert chunks_read.count("rows.h5") == CHUNKS + 4
    assert read_ledger(folder / "out.zarr.ledger").header["cut"]["copied"]
    assert not list(folder.glob(".*"))
    change(folder, "r.toml", "rows.h5", "frames.npy")
    change(folder, "r.toml", "out.zarr", "frames.zarr")
    detcal(folder, "run", "r.toml", "--workers", "1", "--memory", str(2 * AMPLE))
    np.testing.assert_array_equal(load(folder / "out.zarr").gain.values, load(folder / "frames.zarr").gain.values)


def test_a_repair_copies_once_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, FIT)
    memory = little_memory(folder, monkeypatch)
    detcal(folder, "run", "r.toml", "--memory", memory, "--workers", "1")
    chunk = folder / "out.zarr/gain/c/0/0"
    before = chunk.read_bytes()
    chunk.unlink()
    assert "all sound" in detcal(folder, "verify", "--repair", "out.zarr", "--memory", memory, "--workers", "1").output
    assert chunk.read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_dry_run_does_not_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, FIT)
    done = in_process(folder, "run", "r.toml", "--dry-run", "--workers", "1", "--memory", little_memory(folder, monkeypatch))
    assert done.exit_code == 2
    assert "all of it would be copied first" in done.stderr
    assert not list(folder.glob(".*"))


def test_a_copy_is_made_once_and_again_where_it_is_not_whole(folder: Path) -> None:
    copy = Copy(folder / ".out.frames", open_frames(folder / "rows.h5"))
    made: list[int] = []

    def compute(graph: Any, ends: list[Any]) -> None:
        made.append(len(ends))
        dask.threaded.get(graph, ends)

    for depth in (7, 7, 5):
        copy.make(depth, 2, compute)
        whole = copy.whole(depth)
        assert whole.chunks[0][0] == depth
        np.testing.assert_array_equal(whole.values, np.load(folder / "frames.npy"))
    assert made == [copy.blocks, copy.blocks]
    metadata = folder / ".out.frames/zarr.json"
    metadata.write_text(metadata.read_text().replace('"attributes": {', '"attributes": {"detcal_incomplete": "",', 1))
    copy.make(5, 2, compute)
    assert len(made) == 3


@pytest.mark.parametrize("step", [CORRECT, FIT])
def test_rows_of_a_damaged_chunk_are_nan_and_named(folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, step)
    with h5py.File(folder / "rows.h5") as file:
        info = file["data"].id.get_chunk_info(2)
    content = bytearray((folder / "rows.h5").read_bytes())
    content[info.byte_offset + info.size // 2] ^= 255
    (folder / "rows.h5").write_bytes(content)
    options = ("--memory", little_memory(folder, monkeypatch), "--workers", "1") if step == FIT else ()
    done = in_process(folder, "run", "r.toml", *options)
    assert done.exit_code == 3, done.output
    assert "4 rows cannot be read: 8–11 of " in done.output
    found = load(folder / "out.zarr")
    values = found.corrected.values if step == CORRECT else found.gain.values[None]
    bad = np.isnan(values).all(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(bad), np.arange(8, 12))
