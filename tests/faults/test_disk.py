"""Disks that are full, read-only, or go away while a run writes to them: one clear line, and the run can go on."""

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from detcal_pipelines import disk
from detcal_pipelines.recording import Recorder

from tests.faults.amount import times
from tests.faults.damaged import RESPONSE, run, stack, write_recipe
from tests.faults.killing import PROCESSES, Series, contents, left_of, remove_output, run_recipe, same
from tests.pipelines.commands import in_process

SEED = 20261129
FULL = times(20, 4)  # disks
MOST_FILES = 120  # about as many as a run makes
OPTIONS = ["--memory", "4GiB", "--workers", "2"]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def spoil(folder: Path, after: int, error: int) -> None:
    """From here on only so many files and folders can be made in a folder by this process; then its disk is full, or read-only."""
    left = [after]

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        new = event == "os.mkdir" or (event == "open" and arguments[2] & WRITING != 0)
        other = error == errno.EROFS and event in ("os.rename", "os.remove", "os.rmdir")
        if (new or other) and isinstance(arguments[0], str | os.PathLike) and Path(arguments[0]).absolute().is_relative_to(folder):
            left[0] -= new
            if left[0] < 0:
                raise OSError(error, os.strerror(error), str(arguments[0]))

    sys.addaudithook(look)


def run_on_a_spoilt_disk(recipe: Path, options: list[str], log: Path, after: int, error: int) -> None:
    """A run that may make so many files."""
    spoil(recipe.parent / "target", after, error)
    run_recipe(recipe, options, log)


def write_inputs(folder: Path, output: str) -> Series:
    """Frames in blocks of two, and a recipe that writes into a folder of its own."""
    np.save(folder / "raw.npy", stack())
    (folder / "target").mkdir(exist_ok=True)
    write_recipe(folder, RESPONSE, "raw.npy", f"target/{output}")
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text.replace("chunk_frames = 8", "chunk_frames = 2"))
    return Series(folder / "r.toml", folder / "target" / output, OPTIONS)


def undisturbed(series: Series) -> Path:
    """What a run gives that nothing stands in the way of."""
    series.undisturbed()
    kept = series.recipe.with_name(f"undisturbed{series.output.suffix}")
    shutil.move(series.output, kept)
    remove_output(series.output)
    return kept


def assert_same(output: Path, kept: Path) -> None:
    if output.suffix == ".h5":
        assert same(output, kept)
        return
    found, expected = contents(output), contents(kept)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def others_in(folder: Path) -> dict[str, bytes]:
    """All that a run must leave alone."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.suffix != ".log"}


def check_message(log: str, error: int) -> None:
    """One line that says what is wrong."""
    assert "Traceback" not in log
    assert log.count("error: ") == 1, log
    message = log.partition("error: ")[2]
    assert os.strerror(error) in message or (error == errno.ENOSPC and "no room left on the disk" in message), log


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=os.strerror)
@pytest.mark.parametrize("output", ["out.zarr", "out.h5"])
def test_a_disk_that_cannot_be_written_to_any_more(folder: Path, output: str, error: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It is full, or becomes read-only as one does that has errors."""
    random = Random(f"{SEED} {output} {error}")
    series = write_inputs(folder, output)
    kept = undisturbed(series)
    before = others_in(folder)
    counts: Counter[str] = Counter()
    for _ in range(FULL // 2):
        arguments = series.recipe, OPTIONS, series.log, random.randrange(MOST_FILES), error
        process = PROCESSES.Process(target=run_on_a_spoilt_disk, args=arguments)
        process.start()
        process.join()
        log = series.log.read_text()
        if process.exitcode:
            check_message(log, error)
            assert process.exitcode in (1, 2)
            assert not series.output.exists()
            resumable = "goes on from there" in log
            assert bool(left_of(series.output)) == resumable or error == errno.EROFS, log
            counts["resumable" if resumable else "nothing kept"] += 1
            series.undisturbed()
        else:
            counts["done, without its report" if "its report was not" in log else "done"] += 1
        assert_same(series.output, kept)
        assert not left_of(series.output) or error == errno.EROFS
        assert others_in(folder) == before
        remove_output(series.output)
    with capsys.disabled():
        print(f"\n{output}, {os.strerror(error)}: {dict(sorted(counts.items()))}")


# ---------------------------------------------------------------------------------------------------- disks that are mounted


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"disks cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def mounted(folder: Path) -> Iterator[Path]:
    """The folder of the output on a disk of its own."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("disks can be mounted by root on Linux alone")
    (folder / "target").mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder / "target"))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder / "target"], capture_output=True, check=False)


def run_without_looking(recipe: Path, options: list[str], log: Path) -> None:
    """A run that does not look how much room there is left."""
    disk.LEAST_FREE, disk.BEST_COMPRESSION = -(2**40), 2**40
    run_recipe(recipe, options, log)


def test_a_small_disk_that_is_full(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is written as it fills up: a block, the ledger, the report."""
    random = Random(f"{SEED} small")
    series = write_inputs(mounted, "out.zarr")
    kept = undisturbed(series)
    needed = sum(len(content) for content in contents(kept).values())
    counts: Counter[str] = Counter()
    for _ in range(times(20, 3)):
        target = str(series.output.parent)
        mount("-o", f"remount,size={int(needed * random.uniform(0.5, 1.5))}", target)
        process = PROCESSES.Process(target=run_without_looking, args=(series.recipe, OPTIONS, series.log))
        process.start()
        process.join()
        if process.exitcode:
            check_message(series.log.read_text(), errno.ENOSPC)
            assert not series.output.exists()
            counts["resumable" if left_of(series.output) else "nothing kept"] += 1
            mount("-o", "remount,size=64m", target)
            series.undisturbed()
        else:
            counts["done"] += 1
            mount("-o", "remount,size=64m", target)
        assert_same(series.output, kept)
        assert not left_of(series.output)
        series.output.with_name("out.zarr.html").unlink(missing_ok=True)
        remove_output(series.output)
    with capsys.disabled():
        print(f"\ntmpfs: {dict(sorted(counts.items()))}")


def test_a_run_waits_for_room_and_then_ends_so_that_it_can_go_on(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = write_inputs(mounted, "out.zarr")
    kept = undisturbed(series)
    monkeypatch.setattr(disk, "SECONDS_TO_WAIT", 1.0)
    monkeypatch.setattr(disk, "SECONDS_BETWEEN_LOOKS", 0.0)
    changed_after(2, lambda: mount("-o", "remount,size=4m", str(series.output.parent)), monkeypatch)
    done = in_process(mounted, "run", "r.toml", *OPTIONS)
    assert done.exit_code == 2, repr(done.exception)
    assert "paused: the disk of" in done.stdout
    assert "make room there. " in done.stderr
    assert "goes on from there" in done.stderr
    monkeypatch.undo()
    mount("-o", "remount,size=64m", str(series.output.parent))
    run(mounted)
    assert_same(series.output, kept)


def test_a_disk_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks end meanwhile."""
    looks, clock = [], iter(np.arange(0, 3, 0.01))
    monkeypatch.setattr(disk, "monotonic", lambda: next(clock))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: looks.append(folder) or SimpleNamespace(free=2**40))
    watch = disk.DiskWatch(tmp_path, 2**20, print, lambda: None)
    for _ in range(200):
        watch.look()
    assert looks == [tmp_path] * 2


def changed_after(blocks: int, change: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Change something as so many blocks of a run are noted."""
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == blocks:
            change()

    monkeypatch.setattr(Recorder, "written", changed)


def test_a_disk_that_is_read_only(mounted: Path) -> None:
    series = write_inputs(mounted, "out.zarr")
    mount("-o", "remount,ro", str(series.output.parent))
    done = in_process(mounted, "run", "r.toml", *OPTIONS)
    assert done.exit_code == 2
    assert done.stderr.count("error: ") == 1
    assert f"cannot write in {series.output.parent}: Read-only file system" in done.stderr


def test_a_disk_that_goes_away(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = write_inputs(mounted, "out.zarr")
    changed_after(2, lambda: subprocess.run(["umount", "-l", series.output.parent], check=True) and None, monkeypatch)
    done = in_process(mounted, "run", "r.toml", *OPTIONS)
    assert done.exit_code in (1, 2), repr(done.exception)
    assert done.stderr.count("error: ") == 1
    assert "was given up while it was written, or somebody has moved or removed it" in done.stderr
    assert "goes on from there" not in done.stderr
    monkeypatch.undo()
    assert not list(series.output.parent.iterdir())
    run(mounted)
