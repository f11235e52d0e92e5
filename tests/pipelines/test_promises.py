"""What pipelines/PROMISES.md says of runs is so, and each promise names tests that there are."""

import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from detcal_pipelines.lock import holder_of, only_run
from detcal_pipelines.status import status_of
from detcal_pipelines.unfinished import Places

from detcal import open_frames, save
from tests.benchmarks.sampling import DETCAL
from tests.pipelines.commands import change, detcal, fails, in_process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "pipelines/PROMISES.md").read_text()
RUN = ["run", "correct_response.toml", "--workers", "2", "--memory", "16GiB"]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_leaves_its_output_its_ledger_and_its_report(folder):
    before = names_in(folder)
    detcal(folder, *RUN)
    assert names_in(folder) - before == {"corrected.zarr", "corrected.zarr.ledger", "corrected.zarr.html"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_so_can_go_on_and_can_be_cleaned_away(folder, number, code):
    save(np.concatenate([open_frames(folder / "ct.h5").values] * 20), folder / "ct.h5", overwrite=True)
    change(folder, "correct_response.toml", "# chunk_frames = 16", "chunk_frames = 1")
    before = names_in(folder)
    output = folder / "corrected.zarr"
    run = subprocess.Popen(
        [*DETCAL, *RUN], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # which may be ignored where tests run
    )  # fmt: skip
    while run.poll() is None and not (Places.of(output).ledger.exists() and status_of(output).share):
        time.sleep(0.002)
    run.send_signal(number)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == code, errors
    assert re.fullmatch(rf"stopped; {output} is \d+ % done: the same command goes on from there", errors.strip())
    assert names_in(folder) - before == {".corrected.zarr.partial", ".corrected.zarr.ledger"}
    assert "broken off" in in_process(folder, "status", "corrected.zarr").output
    detcal(folder, "clean")
    assert names_in(folder) == before


def test_a_second_run_of_an_output_is_refused(folder):
    with only_run(Places.of(folder / "corrected.zarr").lock, folder / "corrected.zarr"):
        assert "corrected.zarr is being written by another run, process" in fails(folder, *RUN)
    detcal(folder, *RUN)
    assert open_frames(folder / "corrected.zarr").shape == (50, 128, 160)


@pytest.mark.parametrize("said", ["", "[]", "no JSON", '{"pid": 1, "host": "h", "since": 1e300}', '{"pid": 1, "host": "h", "since": NaN}'])
def test_a_lock_that_says_nothing_sensible_and_that_nobody_holds_is_no_obstacle(tmp_path, said):
    lock = tmp_path / ".out.zarr.lock"
    lock.write_text(said)
    with only_run(lock, tmp_path / "out.zarr"):
        assert "process" in holder_of(lock)
    assert not lock.exists()


def break_off(output: Path, blocks: int) -> None:
    """Leave of an output that is whole what a killed run leaves that has done so many blocks."""
    places = Places.of(output)
    lines = places.last_ledger.read_bytes().splitlines(keepends=True)
    done = [number for number, line in enumerate(lines) if b'"block":' in line]
    places.ledger.write_bytes(b"".join(lines[: done[blocks]]))
    output.rename(places.store)
    for path in (places.last_ledger, places.report):
        path.unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [("recipe", "the recipe's steps.*residual_sigma was null, and is 3.0"), ("input", "ct.h5 was"), ("dark", "dark.h5 was")],
)
def test_what_has_changed_meanwhile_is_not_mixed(folder, what, said):
    change(folder, "correct_response.toml", "# chunk_frames = 16", "chunk_frames = 4")
    detcal(folder, *RUN)
    break_off(folder / "corrected.zarr", 5)
    if what == "recipe":
        change(folder, "correct_response.toml", "# residual_sigma", "residual_sigma")
    else:
        file = folder / {"input": "ct.h5", "dark": "dark.h5"}[what]
        save(open_frames(file).values + np.uint16(1), file, overwrite=True)
    message = fails(folder, *RUN)
    assert "cannot go on, since something has changed" in message
    assert re.search(said, message)
    assert message.endswith("Put it back as it was, or begin anew with --restart")
    detcal(folder, *RUN, "--restart")
    assert status_of(folder / "corrected.zarr").state == "whole"


def test_every_promise_names_a_test_that_there_is():
    promises = re.findall(r"^- .*(?:\n  .*)*", PAGE, re.MULTILINE)
    assert len(promises) > 15
    for promise in promises:
        assert re.search(r"`tests/[^`]+`", promise), promise
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE):
        text = (ROOT / file).read_text()
        assert not name or f"def {name}(" in text, (file, name)
