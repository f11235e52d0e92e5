"""Workers of a cluster that die do not end a run: others do their blocks, and what kills several is quarantined."""

import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from detcal_pipelines import cluster as cluster_module
from detcal_pipelines.cluster import ClusterRun, Submitted, Workers
from detcal_pipelines.compiling import as_text, load_kernels
from detcal_pipelines.graph import Stage
from detcal_pipelines.quarantine import DeadlyBlocks
from detcal_pipelines.recipe import read_recipe
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin

from detcal import load
from detcal.errors import RunError
from detcal.stores.damage import Guarded
from tests.benchmarks.sampling import DETCAL
from tests.faults.killing import is_at_work, times_done
from tests.pipelines.commands import detcal, in_process
from tests.pipelines.inputs import write_inputs

DEADLY_FRAME = 9
BLOCK = slice(8, 16)  # the frames of its block


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("deaths")
    write_inputs(place, 128, 200, 40)
    detcal(place, "run", "correct_response.toml", "--workers", "2")
    (place / "new_corrected.zarr").rename(place / "undisturbed.zarr")
    (place / "new_corrected.zarr.ledger").unlink()
    return place


@pytest.fixture
def cluster():
    """Two workers of one thread, which listen on this machine alone, and are started again when they die."""
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as found:
        yield found


class DeadlyRead(WorkerPlugin):
    """Reading one frame ends the process, as a fault in a decoder would."""

    def setup(self, worker):
        read = Guarded.read_unchanged

        def read_or_die(reader, start, stop):
            if start <= DEADLY_FRAME < stop:
                os._exit(1)
            return read(reader, start, stop)

        Guarded.read_unchanged = read_or_die


def test_a_block_that_kills_workers_is_quarantined(folder, cluster):
    with Client(cluster) as client:
        client.register_plugin(DeadlyRead())
    done = in_process(folder, "run", "correct_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    assert done.exit_code == 3, done.output
    assert "8 frames cannot be read: 8–15 of" in done.stderr
    assert "processes were killed, one after the other" in done.stderr
    expected = frames_of(folder / "undisturbed.zarr")
    expected[BLOCK] = np.nan
    np.testing.assert_array_equal(frames_of(folder / "new_corrected.zarr"), expected)


def test_a_worker_that_is_killed_costs_its_own_blocks_alone(folder, cluster):
    with Client(cluster) as client:
        workers = list(client.run(os.getpid).values())
    run = subprocess.Popen(
        [*DETCAL, "run", "correct_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not is_at_work(folder / ".new_corrected.zarr.ledger") and run.poll() is None:
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 0, errors
    np.testing.assert_array_equal(frames_of(folder / "new_corrected.zarr"), frames_of(folder / "undisturbed.zarr"))
    assert set(times_done(folder / "new_corrected.zarr").values()) == {1}


def frames_of(path: Path) -> np.ndarray:
    (found,) = load(path).values()
    return found.values


# ------------------------------------------------------------------------------------------------------------ words


class Asked:
    """A client of workers that are heard of, or not."""

    status = "running"

    def __init__(self, **last_seen):
        self.last_seen = last_seen

    def scheduler_info(self, n_workers):
        return {"workers": {address: {"last_seen": next(seen)} for address, seen in self.last_seen.items()}}


def test_a_worker_that_stalls_is_told_once_after_a_minute(monkeypatch):
    said, clock = [], count(0, 3)
    monkeypatch.setattr(cluster_module, "monotonic", lambda: next(clock))
    workers = Workers(Asked(busy=count(), stalled=iter([7.0] * 100)), said.append)
    for _ in range(20):
        workers.look(working=False)
    assert not said
    for _ in range(20):
        workers.look(working=False)
    assert said == ["the worker at stalled has said nothing for a minute: end it if it does not come back, and others do its tasks"]


class Deadly:
    """Keeps what it is told of."""

    def deadly(self, ends):
        self.ends = ends


@pytest.fixture
def killed():
    """A run of two stages, and what the cluster says of a task of the second."""
    stages = [Stage({"read 0": 0, "write 0": 1}, ["write 0"]), Stage({"read 1": 0, "write 1": 1}, ["write 1"])]
    run = ClusterRun(None, 1, 900 * 2**20, lambda: None, lambda text: None)
    submitted = Submitted.__new__(Submitted)
    submitted.stages = stages
    return run, KilledWorker("read 1", None, 3), submitted


def test_workers_that_outgrow_their_memory(killed):
    run, error, submitted = killed
    run.workers.outgrew((0.0, {"worker": "tcp://there:1", "rss": 2**30, "pid": 1}))
    message = str(run.told(error, submitted, Deadly()))
    assert message.startswith(
        "4 workers outgrew their memory, one after the other, at the same block: one held 1 GiB, and 900 MiB was planned"
    )
    assert message.endswith("start workers with more --memory-limit, or with fewer threads")


def test_workers_that_die_for_no_known_reason(killed):
    run, error, submitted = killed
    told = Deadly()
    assert isinstance(run.told(error, submitted, told), DeadlyBlocks)
    assert told.ends == ["write 1"]


def test_workers_of_another_version(folder):
    text = as_text(read_recipe(folder / "correct_response.toml")).replace('{"detcal": "', '{"detcal": "another than ', 1)
    with pytest.raises(RunError, match=r"is installed there, and another than .* here: install the same version in both places"):
        load_kernels(text)
