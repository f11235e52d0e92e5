"""Runs on a cluster: within the memory of each worker, whichever of them does the work, and one clear line when it goes wrong."""

import os
import socketserver
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pytest
from detcal_pipelines.connecting import loaded_kernels
from detcal_pipelines.recipe import read_recipe
from distributed import Client, LocalCluster

from detcal import load
from tests.benchmarks.sampling import DETCAL, planned_peak
from tests.faults.killing import is_at_work
from tests.pipelines.commands import detcal, fails
from tests.pipelines.inputs import OPTIONS, write_inputs

MIB = 2**20
SIDE = 512
HELD_SECONDS = 3
ALIKE = {
    "integrate",
    "integrate_azimuthal",
    "median_filter",
    "quantile_filter",
    "outlier_mask",
    "smooth_spectra",
    "remove_zingers",
    "minus_log",
    "crop",
    "rebin",
    "plot_pixel_calibrations",
}  # as sigma_clip, convert_crono and correct_response


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raw files, calibrations and recipes of small blocks."""
    place = tmp_path_factory.mktemp("cluster")
    write_inputs(place, SIDE, 240, 40)
    return place


@pytest.fixture(scope="module")
def cluster():
    """Three workers of one thread, which listen on this machine alone."""
    with LocalCluster(n_workers=3, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as found:
        yield found


def processes_of(cluster: LocalCluster) -> list[psutil.Process]:
    with Client(cluster) as client:
        return [psutil.Process(number) for number in client.run(os.getpid).values()]


@contextmanager
def held_back(folder: Path, workers: list[psutil.Process], number: int) -> Iterator[list[int]]:
    """Some workers are stopped for a while once a run has begun; the memory of all is noted as often as it is looked at."""
    seen, over = [0], Event()

    def watch() -> None:
        began, stopped = None, []
        while not over.wait(0.02):
            began = began or (time.monotonic() if list(folder.glob(".new_*.partial")) else None)
            if began and not stopped and time.monotonic() - began < HELD_SECONDS:
                stopped = [worker.suspend() or worker for worker in workers[:number]]
            if began and time.monotonic() - began > HELD_SECONDS:
                for worker in stopped:
                    worker.resume()
            seen.extend(worker.memory_info().rss for worker in workers)

    def watch_and_let_go() -> None:
        try:
            watch()
        finally:
            for worker in workers:
                worker.resume()

    with ThreadPoolExecutor(1) as threads:
        watched = threads.submit(watch_and_let_go)
        try:
            yield seen
        finally:
            over.set()
    watched.result()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - ALIKE))
def test_no_worker_outgrows_the_plan_where_others_are_held_back(folder, cluster, name, number):
    """They are stopped until the others can go no further: what these do not do waits there."""
    with held_back(folder, processes_of(cluster), number) as seen:
        done = detcal(folder, "run", f"{name}.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    assert max(seen) <= planned_peak(done.stdout)


def test_a_fit_does_not_depend_on_the_cluster(folder, cluster):
    done = detcal(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    assert done.stdout.count(f"dashboard of the cluster: {cluster.dashboard_link}") == 1
    found = load(folder / "new_response.zarr").compute()
    detcal(folder, "run", "fit_response.toml", "--workers", "2", "--overwrite")
    np.testing.assert_array_equal(found.gain, load(folder / "new_response.zarr").gain)


# ------------------------------------------------------------------------------------------------------- bad input


def test_a_port_that_speaks_another_language(folder):
    """A server that says nothing until it is asked, as the dashboard."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(2**16)
            time.sleep(20)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        start = time.monotonic()
        message = fails(folder, "run", "fit_response.toml", "--scheduler", f"tcp://127.0.0.1:{server.server_address[1]}", "--overwrite")
        server.shutdown()
    assert "no scheduler answers" in message
    assert "schedulers listen at tcp://host:8786" in message
    assert time.monotonic() - start < 60  # of which 8 s are waited for an answer, and the rest is Python's own start on a busy machine


def test_certificates_that_are_not_configured(folder):
    message = fails(folder, "run", "fit_response.toml", "--scheduler", "tls://127.0.0.1:9", "--overwrite")
    assert "needs certificates, and none are configured: set distributed.comm.tls.ca-file" in message


def test_workers_that_are_all_gone(folder):
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as cluster:
        run = subprocess.Popen(
            [*DETCAL, "run", "correct_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite"], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not is_at_work(folder / ".new_corrected.zarr.ledger") and run.poll() is None:
            time.sleep(0.05)
        cluster.scale(0)
        errors = run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert errors.startswith("error: the cluster has no workers left: look at their logs, start some, then run again. ")
    assert errors.endswith("% done: the same command goes on from there\n")
    detcal(folder, "clean")
    assert not list(folder.glob(".*"))


def test_a_cluster_without_workers(folder):
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        message = fails(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    assert message == "the cluster has no workers: start some, then run again"


class GoneWhileLoading:
    """What a run asks of its client: of two workers one loads kernels, and the other goes away before it has."""

    def nthreads(self):
        return {"tcp://there:1": 1} if self.asked else {"tcp://there:1": 1, "tcp://gone:2": 1}

    asked = False

    def wait_for_workers(self, number, timeout):
        """They are there."""

    def submit(self, function, text, *, workers, pure):
        loaded = Future()
        if workers == ["tcp://there:1"]:
            loaded.set_result(300 * MIB)
        self.asked = workers == ["tcp://gone:2"]
        return loaded


def test_a_worker_that_goes_away_while_kernels_are_loaded_is_not_waited_for(folder):
    assert loaded_kernels(GoneWhileLoading(), read_recipe(folder / "fit_response.toml")) == {"tcp://there:1": 300 * MIB}
