"""Several runs at one output, and runs that are asked to end."""

import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from detcal_pipelines.ledger import as_line, event_of, read_ledger
from detcal_pipelines.unfinished import Places, percent
from detcal_pipelines.verify import verify

from tests.faults.amount import times
from tests.faults.damaged import RESPONSE, run, stack, write_recipe
from tests.faults.killing import PROCESSES, contents, end_at, has_done, kill_after, left_of, remove_output, run_recipe
from tests.pipelines.commands import in_process

SEED = 20261129
OPTIONS = ["--memory", "4GiB", "--workers", "1"]
PAIRS = times(20, 3)


@pytest.fixture
def ready(folder: Path) -> Path:
    """A folder with frames, and a recipe of five blocks."""
    np.save(folder / "raw.npy", stack())
    write_recipe(folder, RESPONSE, "raw.npy")
    return folder


def test_of_two_runs_of_one_output_one_wins_and_the_other_is_refused(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = Random(SEED)
    output = ready / "out.zarr"
    run(ready)
    expected = contents(output)
    remove_output(output)
    counts: Counter[str] = Counter()
    for _ in range(PAIRS):
        logs = [ready / f"{number}.log" for number in range(2)]
        pair = [PROCESSES.Process(target=run_recipe, args=(ready / "r.toml", OPTIONS, log)) for log in logs]
        for process in pair:
            process.start()
            process.join(random.uniform(0, 0.3))
        for process in pair:
            process.join()
        said = [log.read_text() for log in logs]
        assert sorted(process.exitcode for process in pair) == [0, 2], said
        (refused,) = (text for process, text in zip(pair, said, strict=True) if process.exitcode)
        assert refused.count("error: ") == 1
        reason = next(each for each in ("is being written by another run", "exists already") if each in refused)
        counts[reason] += 1
        assert contents(output) == expected
        assert verify(output).sound
        assert not left_of(output)
        remove_output(output)
    with capsys.disabled():
        print(f"\n{PAIRS} pairs, refused: {dict(counts)}")


def test_sigterm_ends_a_run_with_143_and_says_what_is_there(ready: Path) -> None:
    said = end_at(partial(has_done, 2), ready, signal.SIGTERM, 143)
    there = percent(read_ledger(Places.of(ready / "out.zarr").ledger).share)
    assert there in ("40 %", "60 %"), "a block that has begun is finished"
    assert said.endswith(f"stopped; {ready / 'out.zarr'} is {there} done: the same command goes on from there\n")
    assert in_process(ready, "status", "out.zarr").exit_code == 0
    run(ready)
    assert not left_of(ready / "out.zarr")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [as_line({**event_of(lines[0]), "detcal_ledger": 99}), *lines[1:]], "is of another version of detcal"),
        (lambda lines: [lines[0], lines[1].replace(b":", b";", 1), *lines[2:]], "is damaged in line 2"),
        (lambda lines: [b"nonsense\n"], "is no ledger of detcal, or damaged in its first line"),
        (lambda lines: [], "is no ledger of detcal, or damaged in its first line"),
        (lambda lines: [as_line({"detcal_ledger": 1})], "does not say what a ledger says"),
    ],
    ids=["version", "line", "nonsense", "empty", "header"],
)
def test_a_ledger_that_cannot_be_used_is_said_and_begun_anew_if_asked(ready: Path, damage, said) -> None:
    kill_after(ready, 2)
    ledger = Places.of(ready / "out.zarr").ledger
    ledger.write_bytes(b"".join(damage(ledger.read_bytes().splitlines(keepends=True))))
    for command in (("run", "r.toml", *OPTIONS), ("status", "out.zarr")):
        done = in_process(ready, *command)
        assert done.exit_code == 2, repr(done.exception)
        assert said in done.stderr
        assert "--restart" in done.stderr
        assert done.stderr.count("error: ") == 1
    run(ready, "--restart")
    assert verify(ready / "out.zarr").sound
    assert not left_of(ready / "out.zarr")


def test_a_ledger_that_cannot_be_used_is_cleaned(ready: Path) -> None:
    kill_after(ready, 2)
    places = Places.of(ready / "out.zarr")
    places.bad.mkdir()
    places.ledger.write_bytes(b"nonsense")
    done = in_process(ready, "clean")
    assert "with a damaged ledger" in done.stdout
    assert ".out.zarr.bad" in done.stdout
    assert not left_of(places.output)


def test_a_clock_that_goes_back_changes_nothing(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ready)
    expected = contents(ready / "out.zarr")
    remove_output(ready / "out.zarr")
    kill_after(ready, 2)
    earlier = time.time() - 10**6
    monkeypatch.setattr("detcal_pipelines.ledger.time", lambda: earlier)
    monkeypatch.setattr("detcal_pipelines.lock.time", lambda: earlier)
    monkeypatch.setattr("detcal_pipelines.sums.time", lambda: earlier)
    run(ready)
    history = read_ledger(Places.of(ready / "out.zarr").last_ledger)
    assert [process.done for process in history.processes] == [2, 3]
    assert contents(ready / "out.zarr") == expected
    assert in_process(ready, "status", "out.zarr").exit_code == 0


def test_an_end_between_the_two_renames_of_an_output_that_is_replaced(ready: Path) -> None:
    """The older output is put back, and replaced by the run that goes on; or stays, if what is left is cleaned."""
    run(ready)
    places = Places.of(ready / "out.zarr")
    places.output.rename(places.old)
    assert "removed" in in_process(ready, "clean", "out.zarr").stdout
    assert places.output.exists()
    assert not left_of(places.output)


@pytest.mark.parametrize("output", ["out.zarr", "out.h5"])
def test_an_end_before_the_ledger_gets_its_name(ready: Path, output: str) -> None:
    write_recipe(ready, RESPONSE, "raw.npy", output)
    run(ready)
    places = Places.of(ready / output)
    places.last_ledger.rename(places.ledger)
    if output == "out.h5":
        places.store.mkdir()
    assert verify(places.output).sound
    assert "whole" in in_process(ready, "status", output).stdout
    assert in_process(ready, "run", "r.toml", *OPTIONS).exit_code == 2
    assert places.last_ledger.is_file()
    assert not left_of(places.output)
