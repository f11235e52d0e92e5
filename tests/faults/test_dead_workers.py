"""Workers of a cluster that die do not end a run: others do their blocks, and what kills several is quarantined."""

import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
from detcal_pipelines import cluster as cluster_module
from detcal_pipelines import connecting
from detcal_pipelines.cluster import ClusterRun, Submitted, Workers
from detcal_pipelines.compiling import as_text, load_kernels
from detcal_pipelines.graph import Stage, Window
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
    """Two workers of one thread, which listen on this machine alone, and are started again when they die; twice is enough here."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as found,
    ):
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


def test_a_block_that_kills_workers_is_quarantined(folder, cluster, monkeypatch):
    monkeypatch.setattr(connecting, "WITHOUT_WORKERS_SECONDS", 60)  # on a busy machine it takes them long to start again
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


STAGES = [Stage({f"read {number}": 0, f"write {number}": 1}, [f"write {number}"]) for number in range(6)]
BLOCKS = {f"write {number}": ("corrected", (number, 0, 0)) for number in range(6)}


@pytest.fixture
def killed():
    """A run of six stages of which three are begun, and what the cluster says of a task of the second."""
    run = ClusterRun(None, SimpleNamespace(begun=3, peak_bytes=900 * 2**20), set(), lambda: None, lambda text: None)
    submitted = Submitted.__new__(Submitted)
    submitted.stages, submitted.ends = STAGES, {number: set(STAGES[number].ends) for number in range(3)}
    return run, KilledWorker("read 1", None, 3), submitted, Window({}, BLOCKS, [])


def test_workers_that_outgrow_their_memory(killed):
    run, *rest = killed
    run.workers.outgrew((0.0, {"worker": "tcp://there:1", "rss": 2**30, "pid": 1}))
    message = str(run.told(*rest, Deadly()))
    assert message.startswith(
        "4 workers outgrew their memory, one after the other, at the same block: one held 1 GiB, and 900 MiB was planned"
    )
    assert message.endswith("start workers with more --memory-limit, or with fewer threads")
    assert not run.suspects


def test_all_blocks_that_were_begun_are_suspects_and_the_one_that_kills_again_is_noted(killed):
    run, *rest = killed
    told = Deadly()
    assert isinstance(run.told(*rest, told), DeadlyBlocks)
    assert run.suspects == {BLOCKS[f"write {number}"] for number in range(3)}
    assert run.at_once == 1
    assert isinstance(run.told(*rest, told), DeadlyBlocks)
    assert told.ends == ["write 1"]
    assert run.at_once == 3


def test_after_the_suspects_all_blocks_go_on(killed):
    """Three blocks killed workers by chance: they are done one at a time, and the others three at once."""
    run, said, submitted = killed[0], [], []
    run.suspects, run.say = {BLOCKS[f"write {number}"] for number in range(3)}, said.append

    class Client:
        """Does at once what it is given."""

        status = "running"

        def get(self, tasks, keys, sync):
            submitted.append(keys)
            return [SimpleNamespace(key=key, status="finished") for key in keys]

    class Left(list):
        """What is handed out comes back one by one."""

        def is_empty(self):
            return not self

        def update(self, futures):
            self.extend(futures)
            most.append(len(self))

        def next_batch(self, block):
            return [self.pop(0)]

    class Watcher(Deadly):
        def begun(self, key):
            pass

        written = live = lambda *_: None

    most, watcher = [], Watcher()
    todo = Submitted.__new__(Submitted)
    todo.client, todo.stages, todo.there, todo.watcher, todo.last_needs, todo.number, todo.ends = Client(), STAGES, {}, watcher, {}, 0, {}
    todo.left = Left()
    todo.submit(run.at_once)
    run.wait_for(todo, Window({}, BLOCKS, []), watcher)
    assert submitted == [stage.ends for stage in STAGES]
    assert most == [1, 1, 1, 1, 2, 3]
    assert said == ["it was at none of them: all blocks go on"]


def test_workers_of_another_version(folder):
    text = as_text(read_recipe(folder / "correct_response.toml")).replace('{"detcal": "', '{"detcal": "another than ', 1)
    with pytest.raises(RunError, match=r"is installed there, and another than .* here: install the same version in both places"):
        load_kernels(text)
