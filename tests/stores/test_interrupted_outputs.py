"""An output that fails or is stopped leaves no trace, and an older output as it was."""

import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from detcal import open_frames, save
from detcal.errors import InputError, OutputError
from detcal.stores.targets.chunk_files import ChunkFiles
from detcal.stores.targets.replacing import remove, take_place
from detcal.stores.targets.zarr_store import COMPRESSORS, write_block
from tests.stores.samples import SUFFIXES, content, make_failing, make_frames

CODECS = {"compressors": COMPRESSORS}


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
    target = ChunkFiles.of(zarr.create_array(tmp_path / "a.zarr", shape=(4, 5), chunks=(2, 5), dtype="f4", **CODECS), tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="given up"):
        write_block(np.ones((2, 5)), target, tmp_path / "a.zarr", block_id=(0, 0))
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_written_while_a_store_is_cleared_away_leave_nothing(tmp_path: Path) -> None:
    block, store = np.random.default_rng(1).random((1, 50_000)), tmp_path / ".a.partial"

    def write_until_given_up(target: ChunkFiles) -> str:
        for number in range(3000):
            place = number % 20
            try:
                write_block(block, target, store, block_id=(place, 0))
            except OutputError as error:
                return str(error)
        return "written to the end"

    for round_number in range(10):
        zarr.create_group(store)
        arrays = [zarr.create_array(store, name=name, shape=(20, 50_000), chunks=(1, 50_000), dtype="f8", **CODECS) for name in "abc"]
        with ThreadPoolExecutor(3) as threads:
            writers = threads.map(write_until_given_up, [ChunkFiles.of(array, store) for array in arrays])
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
