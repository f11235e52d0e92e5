"""Input that changes while a run reads it ends the run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detcal_pipelines.recording import Recorder

from tests.faults.conftest import SIDE
from tests.faults.damaged import DEPTH, FRAMES, RESPONSE, WRITERS, run, stack, write_recipe, write_zarr


def append(file: Path) -> None:
    with open(file, "ab") as opened:
        opened.write(b"more")


def rewrite(file: Path) -> None:
    """Other bytes, as many, a moment later."""
    content = bytearray(file.read_bytes())
    content[-SIDE * SIDE :] = bytes(SIDE * SIDE)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def replace(file: Path) -> None:
    shutil.copy(file, file.with_name("other"))
    file.with_name("other").replace(file)


CHANGES = [append, rewrite, truncate, replace, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["gzip", "npy", "tiff"])
def test_input_that_changes_while_it_is_read_ends_the_run(
    folder: Path, change: Callable[[Path], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(folder / "raw.npy", stack())
    path = "raw.npy" if kind == "npy" else WRITERS[kind](folder, [])
    file = folder / ("scan_039.tif" if kind == "tiff" else path)
    write_recipe(folder, RESPONSE, path)
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == 1 and file.exists() and not (folder / "changed").exists():
            (folder / "changed").touch()
            change(file)

    monkeypatch.setattr(Recorder, "written", changed)
    done = run(folder, code=1)
    assert str(file) in done.stderr
    assert "the run began" in done.stderr
    assert not (folder / "out.zarr").exists()
    assert done.stderr.count("error: ") == 1


@pytest.mark.parametrize("which", ["dark.npy", "raw.zarr/data/c/0/0/0"])
def test_what_is_read_only_once_is_looked_at_again_before_the_end(folder: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(folder / "dark.npy", stack()[:1])
    write_recipe(folder, RESPONSE + 'dark = "dark.npy"\n', write_zarr(folder, []))
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == FRAMES // DEPTH:
            append(folder / which)

    monkeypatch.setattr(Recorder, "written", changed)
    done = run(folder, code=1)
    assert which.partition("/")[0] in done.stderr
    assert "has changed while the run read it" in done.stderr
    assert "goes on from there" not in done.stderr
    assert not list(folder.glob("*out*"))
