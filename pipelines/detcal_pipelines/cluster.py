"""Where the tasks run: worker processes on this machine, or a cluster that runs already."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import psutil
from distributed import Client, LocalCluster

from detcal.errors import InputError

# No more root tasks on a worker than it has threads: a block that is read ahead is memory that nobody planned for.
# Nothing is spilled to disk: what a worker holds is planned, and one that outgrows its limit is ended. The allocator
# gives large blocks back at once, but keeps those of a few hundred kB that each transform takes: half as fast again.
SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 16 * 2**20,
}


@contextmanager
def local_cluster(workers: int, worker_bytes: int) -> Iterator[Client]:
    """Worker processes of one thread each, limited to so much memory."""
    with dask.config.set(SETTINGS):
        with deaf_to_interrupts():
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=worker_bytes, dashboard_address=":0",
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def ended_on_failure(client: Client) -> Iterator[None]:
    """On an error or Ctrl-C, end our own workers at once: a last task that writes on would bring back an output that is cleared away."""
    try:
        yield
    except BaseException:
        cluster = client.cluster
        if cluster is not None:
            client.close()
            cluster.close()
        raise


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Children started in here ignore Ctrl-C: the terminal sends it to them too, but the driver stops them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remote_cluster(address: str) -> Iterator[Client]:
    """A cluster that runs already."""
    try:
        client = Client(address, timeout="5s")
    except (OSError, ValueError) as error:
        raise InputError(f"no scheduler answers at {address}: {' '.join(str(error).split())}") from error
    with client:
        yield client


class MemorySampler:
    """Samples, from outside, the resident memory of some processes together; `peak` is the largest sum seen."""

    def __init__(self, processes: list[int], seconds: float = 0.05) -> None:
        self.peak = 0
        self.seconds = seconds
        self.processes = [psutil.Process(number) for number in processes]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self.stopped.wait(self.seconds):
            held = 0
            for process in self.processes:
                # a worker that has just ended holds nothing
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, held)

    def __enter__(self) -> "MemorySampler":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def worker_processes(client: Client) -> list[int]:
    """Process numbers of the workers of a local cluster."""
    return list(client.run(os.getpid).values())
