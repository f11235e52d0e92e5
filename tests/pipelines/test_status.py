"""How a run is, told from its ledger, its lock and its files; and what it says to a log."""

import os
import re
import threading
import time
from io import StringIO
from socket import gethostname

import numpy as np
import pytest
from detcal_pipelines.columns import columns
from detcal_pipelines.ledger import Ledger
from detcal_pipelines.lock import only_run
from detcal_pipelines.status import describe, status_of, watch
from detcal_pipelines.unfinished import Places
from rich.console import Console

from detcal import save
from detcal.response import Response
from tests.pipelines.commands import in_process

RECIPE = """\
[input]
path = "frames.npy"
chunk_frames = 4

[[steps]]
operation = "correct_response"
response = "response.zarr"

[output]
path = "{}"
"""
HEADER = {
    "fingerprint": {"recipe": {}, "inputs": {}, "steps": {}},
    "cut": {"unit": "frames", "length": 400, "depth": 4},
    "arrays": {"corrected": {"blocks": 100, "shape": [100, 1, 1]}},
    "steps": ["correct_response"],
    "bytes_in": 2**20,
    "bytes_out": 2**21,
}
MIB = 2**20


def process(**changed):
    return {
        "host": "a-host", "pid": 17, "time": time.time() - 10, "tasks": 2, "budget": 900 * MIB, "planned": 500 * MIB, "workers": 1,
        "scheduler": None, "share": 0.0, "plan": "100 × 4 frames, 2 tasks at once", "steps": [], "versions": {},
    } | changed  # fmt: skip


def begun(output, **changed) -> Ledger:
    """The ledger of a run that has begun to write an output."""
    ledger = Ledger.begin(Places.of(output).ledger, HEADER)
    ledger.note(process=process(**changed))
    return ledger


def write(ledger: Ledger, blocks: range) -> None:
    for number in blocks:
        ledger.note(block=["corrected", number, 0, 0], seal=[100, number])


def shown(output) -> dict[str, str]:
    """What the status says, by what it is about; what is wrapped in one line."""
    lines = describe(status_of(output))
    assert max(map(len, lines)) <= 80
    found, name = {}, ""
    for line in lines:
        label, _, text = line.partition("  ")
        name = label or name
        found[name] = f"{found.get(name, '')} {text.strip()}".strip()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a recipe, and what a run of it wrote, with a log."""
    folder = tmp_path_factory.mktemp("a-long-name" * 9)
    np.save(folder / "frames.npy", np.random.default_rng(0).poisson(900, (20, 16, 24)).astype(np.uint16))
    save(Response.from_gain(np.ones((16, 24))), folder / "response.zarr")
    (folder / "recipe.toml").write_text(RECIPE.format("out.zarr"))
    done = in_process(folder, "run", "recipe.toml", "--log", "run.log", "--memory", "16GiB", "--workers", "2")
    assert done.exit_code == 0, done.stderr
    return folder


def test_a_run_at_work(tmp_path):
    output = tmp_path / "out.zarr"
    ledger = begun(output, pid=os.getpid(), host=gethostname())
    write(ledger, range(25))
    ledger.note(memory={"held": 300 * MIB, "peak": 400 * MIB})
    ledger.note(bad={"file": "frames.h5", "unit": "frames", "frames": [8, 11], "reason": "a checksum is wrong"})
    ledger.close()
    with only_run(Places.of(output).lock, output):
        found = shown(output)
    assert found["state"].startswith("at work [")
    assert found["state"].endswith("] 25 %")
    assert found["blocks"] == "25 of 100, each of 4 of the 400 frames"
    rate, left = float(found["rate"].split()[0]), float(found["time left"].split()[0])
    assert 9 < rate < 10.1  # 100 frames in the 10 s since it began
    assert left == pytest.approx(300 / rate, rel=0.02)
    assert found["memory"] == "300 MiB held, 400 MiB at most, planned 500 MiB of 900 MiB"
    assert found["tasks"] == "2 at once, on threads of one process"
    assert found["run by"].startswith(f"process {os.getpid()} on {gethostname()} since ")
    assert found["quarantined"] == "4 frames cannot be read: 8–11 of frames.h5 (a checksum is wrong)"


def test_a_run_that_was_killed_and_one_that_says_why_it_ended(tmp_path):
    output = tmp_path / "out.zarr"
    ledger = begun(output)
    write(ledger, range(63))
    found = shown(output)
    assert "63 %: was killed; the same command goes on from there" in found["state"]
    assert "time left" not in found
    ledger.note(end={"how": "Terminated", "why": ""})
    assert "ended by Terminated; the same" in shown(output)["state"]
    ledger.note(process=process(pid=18, share=0.63))
    write(ledger, range(63, 70))
    ledger.note(end={"how": "RunError", "why": "no room left"})
    ledger.close()
    found = shown(output)
    assert "70 %: ended by RunError (no room left)" in found["state"]
    assert found["before"] == "process 17 ended by Terminated"
    assert "process 18 on a-host" in found["run by"]


def test_sums_count_as_what_is_done(tmp_path):
    output = tmp_path / "out.zarr"
    ledger = begun(output)
    ledger.note(sums={"part": 41, "file": "41.npy", "checksum": 1, "parts": 100, "share": 0.42})
    ledger.close()
    assert "] 42 %" in shown(output)["state"]


def test_a_run_that_is_about_to_begin_is_not_taken_for_the_output_that_it_replaces(finished):
    output = finished / "out.zarr"
    assert shown(output)["state"] == f"whole [{'#' * 30}] 100 %"
    places = Places.of(output)
    with only_run(places.lock, output):
        # as another process would hold it
        places.lock.write_text(places.lock.read_text().replace('"pid": ', '"pid": 9'))
        assert shown(output)["state"] == "about to begin"


def test_an_output_of_no_run(finished):
    found = shown(finished / "response.zarr")
    assert found["state"] == "whole"
    assert found["ledger"].startswith("none")


def test_nothing_is_an_error(tmp_path):
    done = in_process(tmp_path, "status", "out.zarr")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "there is no out.zarr" in done.stderr


def test_the_command_says_it_in_80_columns(finished):
    done = in_process(finished, "status", "out.zarr")
    assert done.exit_code == 0
    assert "5 of 5, each of 4 of the 20 frames" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_watching_ends_with_the_run(tmp_path):
    output = tmp_path / "out.zarr"
    held, go = threading.Event(), threading.Event()

    def work():
        ledger = begun(output)
        with only_run(Places.of(output).lock, output):
            held.set()
            go.wait(10)
        ledger.close()

    run = threading.Thread(target=work)
    run.start()
    held.wait(10)
    threading.Timer(0.3, go.set).start()
    screen = StringIO()
    watch(output, Console(file=screen, width=80, force_terminal=True))
    run.join()
    assert "at work" in screen.getvalue()
    assert "broken off" in screen.getvalue()


def test_ctrl_c_ends_the_watch_alone(tmp_path, monkeypatch):
    output = tmp_path / "out.zarr"
    begun(output).close()

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("detcal_pipelines.status.sleep", interrupted)
    with only_run(Places.of(output).lock, output), pytest.raises(KeyboardInterrupt, match="the run goes on"):
        watch(output, Console(file=StringIO()))


def test_names_of_files_cannot_steer_the_terminal(tmp_path):
    ledger = begun(tmp_path / "out.zarr")
    ledger.note(bad={"file": "a\x1b[2Jb\nc", "unit": "frames", "frames": [1, 1], "reason": "r"})
    ledger.close()
    lines = describe(status_of(tmp_path / "out.zarr"))
    assert not any(ord(letter) < 32 for line in lines for letter in line)


def test_columns_are_wrapped_to_fit():
    lines = columns([("a", "x" * 100, "some words " * 10), ("longer", "y", "z")])
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 100
    assert lines[-1].split() == ["longer", "y", "z"]


# ------------------------------------------------------------------------------------------------------------- log


def test_a_log_tells_what_was_planned_begun_written_and_how_it_ended(finished):
    lines = (finished / "run.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) +\S", line) for line in lines)
    told = "\n".join(lines)
    assert re.search(r"INFO +begun by process \d+ on \S+: 5 × 4 frames, \d tasks? at once, peak .* of 16 GiB", told)
    assert len(re.findall(r"DEBUG +written: \w+ \(\d, 0, 0\)", told)) == 5
    assert "100.0 % done" in told
    assert lines[-1].endswith("ended: done")


def test_a_log_tells_of_warnings_and_errors_and_of_what_is_resumed(finished, tmp_path):
    for name in ("frames.npy", "response.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    (tmp_path / "recipe.toml").write_text(RECIPE.format("out.zarr"))
    (tmp_path / "out.zarr.html").write_text("somebody else's")
    run = ["run", "recipe.toml", "--log", "run.log", "--memory", "16GiB"]
    assert in_process(tmp_path, *run).exit_code == 0
    assert re.search("WARNING .* was written, its report was not: .* is no report of detcal", (tmp_path / "run.log").read_text())
    (tmp_path / "run.log").unlink()
    assert in_process(tmp_path, *run).exit_code == 2
    assert re.search("ERROR +ended by OutputError: .* exists already", (tmp_path / "run.log").read_text())

    places = Places.of(tmp_path / "out.zarr")
    places.output.rename(places.store)
    places.last_ledger.replace(places.ledger)
    whole = places.ledger.read_bytes().splitlines(keepends=True)
    until = [number for number, line in enumerate(whole) if b'"block":' in line][1]
    places.ledger.write_bytes(b"".join(whole[:until]))  # as a process that was killed leaves it
    assert in_process(tmp_path, *run).exit_code == 0
    assert re.search(r"INFO +resumed at 20.0% by process", (tmp_path / "run.log").read_text())


@pytest.mark.parametrize("log", ["frames.npy", "recipe.toml", "response.zarr/run.log", "new.zarr"])
def test_a_log_is_not_added_to_what_the_run_reads_or_writes(finished, tmp_path, log):
    for name in ("frames.npy", "response.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    (tmp_path / "recipe.toml").write_text(RECIPE.format("new.zarr"))
    done = in_process(tmp_path, "run", "recipe.toml", "--log", log)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "recipe.toml", "response.zarr"]
