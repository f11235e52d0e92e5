"""What verify and repair say, refuse, and leave behind when they are broken off."""

import os
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from detcal_pipelines import repair as repairing
from detcal_pipelines.cli import main
from detcal_pipelines.ledger import as_line, event_of
from detcal_pipelines.lock import only_run
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.repair import repair
from detcal_pipelines.run import run
from detcal_pipelines.unfinished import Places
from detcal_pipelines.verify import verify

from detcal import get_array, load, open_frames, save, tree
from detcal.errors import InputError, OutputError
from detcal.response import Response
from detcal.stores.targets.zarr_store import prepare_zarr
from tests.faults.test_corruption import LIMITS, QUIET, SIDE, contents, write_recipe

CHUNK = "corrected/c/{}/0/0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with the output of a run."""
    folder = tmp_path_factory.mktemp("finished")
    frames = np.random.default_rng(0).poisson(900, (22, SIDE, SIDE)).astype(np.uint16)
    save(xr.DataArray(frames, dims=("frame", "y", "x")), folder / "raw.zarr", chunks={"frame": 4})
    save(Response.from_gain(np.ones((SIDE, SIDE))), folder / "response.zarr")
    run(read_recipe(write_recipe(folder, "plain.zarr")), LIMITS, QUIET)
    return folder


@pytest.fixture
def folder(finished) -> Path:
    """The same, as it was; and so it is left."""
    kept = finished.with_name("kept")
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    kept.rename(finished)


def command(folder: Path, *arguments: str) -> Result:
    with chdir(folder):
        return CliRunner().invoke(main, ["verify", *arguments])


def damage(folder: Path, *numbers: int) -> None:
    """Flip a bit in some chunks."""
    for number in numbers:
        file = folder / "plain.zarr" / CHUNK.format(number)
        content = bytearray(file.read_bytes())
        content[20] ^= 1
        file.write_bytes(content)


def test_the_command_names_what_is_bad_and_its_exit_code_says_so(folder):
    assert command(folder, "plain.zarr").exit_code == 0
    assert "6 files of chunks and 2 others checked, all sound" in command(folder, "plain.zarr").stdout
    damage(folder, 2)
    (folder / "plain.zarr/notes.txt").write_text("mine")
    done = command(folder, "plain.zarr")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"bad: {CHUNK.format(2)}: its checksum is wrong", "bad: notes.txt: it does not belong there"]
    assert lines[2].endswith("6 files of chunks and 2 others checked, 2 bad")
    repaired = command(folder, "plain.zarr", "--repair", "--memory", "4GiB", "--workers", "1")
    assert repaired.exit_code == 0, repaired.output
    assert "before the repair: bad: notes.txt: it does not belong there" in repaired.stdout
    assert not (folder / "plain.zarr/notes.txt").exists()


def test_only_what_is_bad_is_computed_again(folder, monkeypatch):
    damage(folder, 1, 4)
    computed = []
    mending = repairing.Mending.check_same
    monkeypatch.setattr(repairing.Mending, "check_same", lambda self, seals: (computed.extend(seals), mending(self, seals)))
    repair(folder / "plain.zarr", LIMITS, QUIET)
    assert sorted(computed) == [("corrected", (1, 0, 0)), ("corrected", (4, 0, 0))]


def test_changed_inputs_are_refused(folder):
    damage(folder, 1)
    before = contents(folder / "plain.zarr")
    save(Response.from_gain(2 * np.ones((SIDE, SIDE))), folder / "response.zarr", overwrite=True)
    done = command(folder, "plain.zarr", "--repair")
    assert done.exit_code == 2
    assert "plain.zarr cannot be repaired, since something has changed: response.zarr was written anew. Put it back" in done.stderr
    shutil.rmtree(folder / "raw.zarr")
    said = command(folder, "plain.zarr", "--repair").stderr
    assert said.count("\n") == 1
    assert f"cannot be repaired: its recipe cannot be used any more: no such file: {folder / 'raw.zarr'}. Put back what is missing" in said
    assert contents(folder / "plain.zarr") == before


@pytest.mark.parametrize("after", range(1, 6))
def test_a_repair_that_is_broken_off_leaves_what_can_be_verified_and_repaired(folder, monkeypatch, after):
    """Broken off at its `after`th step: removing, restoring, computing."""
    pristine = contents(folder / "plain.zarr")
    damage(folder, 0, 3)
    (folder / "plain.zarr/corrected/zarr.json").write_text("{")
    (folder / "plain.zarr/foreign").write_text("")
    steps = iter(range(100))

    def broken_off(function):
        def until(*arguments, **options):
            if next(steps) == after:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return until

    with monkeypatch.context() as patch:
        patch.setattr(repairing, "remove", broken_off(repairing.remove))
        patch.setattr(repairing, "complete", broken_off(repairing.complete))
        patch.setattr(repairing.ThreadsRun, "compute", broken_off(repairing.ThreadsRun.compute))
        with pytest.raises(KeyboardInterrupt, match="is not repaired: the same command goes on with what is still bad"):
            repair(folder / "plain.zarr", LIMITS, QUIET)
    assert not verify(folder / "plain.zarr").sound
    assert repair(folder / "plain.zarr", LIMITS, QUIET)[1].sound
    assert contents(folder / "plain.zarr") == pristine
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_one_at_a_time(folder):
    output = folder / "plain.zarr"
    with only_run(Places.of(output).lock, output):
        with pytest.raises(OutputError, match="is being written, or repaired"):
            verify(output)
        with pytest.raises(OutputError, match="is being written by another run"):
            repair(output, LIMITS, QUIET)


@pytest.mark.parametrize("kind", ["process", "block", "commit", "end"])
def test_a_damaged_line_of_the_ledger_is_named_and_mended(folder, kind):
    ledger = folder / "plain.zarr.ledger"
    pristine = contents(folder / "plain.zarr")
    lines = ledger.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if kind in event_of(line))
    lines[number] = lines[number].replace(b":", b";", 1)
    ledger.write_bytes(b"".join(lines))
    found = verify(folder / "plain.zarr")
    assert [str(fault) for fault in found.record.faults] == [f"plain.zarr.ledger: line {number + 1} is damaged"]
    assert not found.faults
    assert repair(folder / "plain.zarr", LIMITS, QUIET)[1].sound
    assert contents(folder / "plain.zarr") == pristine
    damage(folder, 0, 5)  # of which the ledger knows all again
    assert {fault.file for fault in verify(folder / "plain.zarr").faults} == {CHUNK.format(0), CHUNK.format(5)}
    assert repair(folder / "plain.zarr", LIMITS, QUIET)[1].sound


def test_ledgers_that_cannot_be_used_are_said_and_the_store_is_looked_at_all_the_same(folder):
    output, ledger = folder / "plain.zarr", folder / "plain.zarr.ledger"
    damage(folder, 2)
    lines = ledger.read_bytes().splitlines(keepends=True)
    header = event_of(lines[0])
    for text, said in [
        (None, "note: there is no plain.zarr.ledger"),
        (b"nonsense", "bad: plain.zarr.ledger: its first line is damaged"),
        (b"", "bad: plain.zarr.ledger: its first line is damaged"),
        (as_line({**header, "detcal_ledger": 99}), "note: plain.zarr.ledger is of another version"),
        (as_line({"detcal_ledger": 1}), "bad: plain.zarr.ledger: it does not say what a ledger says"),
        (as_line({**header, "arrays": {"a": {"shape": [10**12], "blocks": 1, "chunks": 0}}}), "bad: plain.zarr.ledger: it does not say"),
        (b"".join(lines[:-2]), "bad: plain.zarr.ledger: it is cut short"),
    ]:
        ledger.unlink() if text is None else ledger.write_bytes(text)
        found = verify(output)
        assert [line for line in found.lines() if line.startswith(said)], list(found.lines())
        assert {fault.file for fault in found.faults} == {CHUNK.format(2)}
    ledger.unlink()
    done = command(folder, "plain.zarr", "--repair")
    assert done.exit_code == 2
    assert "cannot be repaired: no ledger says which inputs it was made of" in done.stderr


def test_an_output_that_was_moved_with_its_inputs_is_repaired(folder, tmp_path):
    pristine = contents(folder / "plain.zarr")
    damage(folder, 3)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for kept, copied in ((folder / name, moved / name) for name in ("raw.zarr", "response.zarr")):
        kept.rename(kept.with_name("away"))
        shutil.rmtree(kept.with_name("away"))
        assert copied.is_dir()
    assert repair(moved / "plain.zarr", LIMITS, QUIET)[1].sound
    assert contents(moved / "plain.zarr") == pristine


def test_what_nothing_can_be_checked_by_is_refused(folder):
    np.save(folder / "frames.npy", np.ones(3))
    (folder / "notes").mkdir()
    (folder / "notes/mine.txt").write_text("mine")
    for name, said in (
        ("frames.npy", "expected an output, a file or store with one of"),
        ("gone.zarr", "no such file"),
        ("notes", "expected an output, a file or store with one of"),
    ):
        with pytest.raises(InputError, match=said):
            verify(folder / name)
    assert command(folder, "notes", "--repair").exit_code == 2
    assert (folder / "notes/mine.txt").read_text() == "mine"


def test_what_takes_the_place_of_an_output_is_not_held_to_its_ledger(folder):
    save(xr.DataArray(np.ones((3, 4, 4)), dims=("frame", "y", "x")), folder / "plain.zarr", overwrite=True)
    assert verify(folder / "plain.zarr").sound


def test_links_are_no_chunks(folder):
    chunk = folder / "plain.zarr" / CHUNK.format(1)
    chunk.rename(folder / "elsewhere")
    chunk.symlink_to(folder / "elsewhere")
    elsewhere = (folder / "elsewhere").read_bytes()
    assert [str(fault) for fault in verify(folder / "plain.zarr").faults] == [
        f"{CHUNK.format(1)}: it cannot be read, it is a link, or no plain file"
    ]
    assert repair(folder / "plain.zarr", LIMITS, QUIET)[1].sound
    assert not os.path.islink(chunk)
    assert (folder / "elsewhere").read_bytes() == elsewhere


def test_stores_that_are_not_whole_are_refused_by_all_readers(tmp_path):
    path = tmp_path / "half.zarr"
    frames = xr.DataArray(np.ones((4, 5, 6), "f4"), dims=("frame", "y", "x"), name="frames")
    writes = prepare_zarr(frames.to_dataset().assign_attrs(detcal_version="1"), path)
    [write.compute() for write in writes.values()]
    for read in (
        lambda: open_frames(path),
        lambda: open_frames(path / "frames"),
        lambda: load(path),
        lambda: get_array(path, "frames"),
        lambda: open_frames(np_file(tmp_path), mask=path),
    ):
        with pytest.raises(InputError, match=r"half\.zarr\S* is not whole: what writes it has not ended; wait for it, or run it again"):
            read()
    assert "detcal_incomplete" in tree(path)
    assert "zarr.json: what writes the store has not ended" in [str(fault) for fault in verify(path).faults]


def np_file(folder: Path) -> Path:
    """Frames of another file."""
    np.save(folder / "frames.npy", np.ones((2, 5, 6)))
    return folder / "frames.npy"
