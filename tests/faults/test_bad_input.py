"""What a run meets that nobody planned: recipes of nonsense, stores that are moved, disks that go, clocks that go back: one clear line."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detcal_pipelines import sums
from detcal_pipelines.recording import Recorder

from detcal import save
from detcal.response import Response
from tests.faults.conftest import SIDE
from tests.faults.damaged import RESPONSE, run, stack, write_recipe
from tests.pipelines.commands import fails, in_process


@pytest.mark.parametrize("depth", [60, 300, 5000])
@pytest.mark.parametrize("brackets", ["[]", "{a=}"])
def test_a_recipe_of_many_levels_is_refused_in_a_line(folder: Path, depth: int, brackets: str) -> None:
    write_recipe(folder, RESPONSE, "gain.npy")
    opening, closing = (brackets[0], brackets[1]) if brackets == "[]" else ("{a=", "}")
    nested = opening * depth + "1" + closing * depth
    (folder / "r.toml").write_text((folder / "r.toml").read_text().replace("[[steps]]", f"frames = {nested}\n[[steps]]", 1))
    message = fails(folder, "check", "r.toml")
    assert len(message.splitlines()) <= 2  # of a mistake: how many there are, and which
    assert "r.toml" in message


@pytest.mark.parametrize("place", ["input", "output", "dataset", "raw"])
def test_a_recipe_with_a_nul(folder: Path, place: str) -> None:
    gain = "gain\\u0000.npy" if place == "input" else "gain.npy"
    write_recipe(folder, RESPONSE, gain, "out\\u0000.zarr" if place == "output" else "out.zarr")
    text = (folder / "r.toml").read_text()
    if place == "raw":
        (folder / "r.toml").write_text(text.replace("gain", "ga\0in", 1))
    if place == "dataset":
        (folder / "r.toml").write_text(text.replace('response = "gain.npy"', 'response = { path = "r.zarr", dataset = "a\\u0000b" }'))
        save(Response.from_gain(np.ones((SIDE, SIDE))), folder / "r.zarr")
    message = fails(folder, "check", "r.toml")
    assert "\0" not in message


def test_chunk_frames_that_shard_frames_overrules_are_said(folder: Path) -> None:
    np.save(folder / "raw.npy", stack())
    write_recipe(folder, RESPONSE, "raw.npy")
    (folder / "r.toml").write_text((folder / "r.toml").read_text() + "shard_frames = 20\n")
    assert "warning: shard_frames = 20 overrules chunk_frames = 8: leave chunk_frames out" in in_process(folder, "plan", "r.toml").stderr
    done = run(folder)
    assert done.stderr.count("overrules") == 1
    (folder / "r.toml").write_text((folder / "r.toml").read_text().replace("chunk_frames = 8", "chunk_frames = 20"))
    assert "overrules" not in in_process(folder, "plan", "r.toml").stderr


def move_store(folder: Path) -> None:
    (folder / ".out.zarr.partial").rename(folder / "elsewhere")


def remove_folder(folder: Path) -> None:
    """As a disk that is not there any more."""
    shutil.rmtree(folder)


@pytest.mark.parametrize("change", [move_store, remove_folder], ids=lambda change: change.__name__)
def test_an_output_that_goes_away_while_it_is_written(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path_factory.mktemp("target")
    np.save(folder / "raw.npy", stack())
    write_recipe(folder, RESPONSE, "raw.npy", str(target / "out.zarr"))
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == 1:
            change(target)

    monkeypatch.setattr(Recorder, "written", changed)
    done = in_process(folder, "run", "r.toml", "--workers", "1", "--memory", "4GiB")
    assert done.exit_code in (1, 2), repr(done.exception)
    assert done.stderr.count("error: ") == 1
    assert str(target) in done.stderr
    assert "goes on from there" not in done.stderr
    assert not list(target.glob(".*"))
    monkeypatch.undo()
    target.mkdir(exist_ok=True)
    run(folder)


def test_sums_are_saved_though_the_clock_goes_back(tmp_path: Path) -> None:
    target = tmp_path / "sums"
    target.mkdir()
    (target / sums.BEGUN).touch()
    later = time.time() + 3600
    os.utime(target / sums.BEGUN, (later, later))
    total = np.ones((2, SIDE))
    fold = sums.Fold("fold", parts=5, tiles=1)
    assert sums.saved(total, target, (3, 0), fold) is total
    ((place, found),) = sums.read_sums(target, fold).items()
    assert place == (3, 0)
    np.testing.assert_array_equal(found, total)
