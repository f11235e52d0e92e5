"""To reach a Dask cluster that runs already, and to have a recipe's kernels loaded there."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep
from typing import Any

import dask
from distributed import Client, KilledWorker

from detcal.errors import InputError, PlanError, RunError
from detcal_pipelines.compiling import as_text, load_kernels
from detcal_pipelines.plan import WORKER_BYTES, Place
from detcal_pipelines.recipe import Recipe

ANSWER_SECONDS = 8  # that a scheduler may take to answer
WITHOUT_WORKERS_SECONDS = 12  # that a run waits for a worker to come back
SECONDS_BETWEEN_QUESTIONS = 0.1  # to the scheduler


@contextmanager
def remote_cluster(address: str) -> Iterator[Client]:
    """The cluster at an address.

    Raises
    ------
    InputError
        No scheduler answers there, or it asks for certificates that are not configured.
    """
    if address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise InputError(
            f"{address} needs certificates, and none are configured: set distributed.comm.tls.ca-file, distributed.comm.tls.client.cert "
            "and distributed.comm.tls.client.key in Dask's configuration, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on"
        )
    with connect(address) as client:
        yield client


def connect(address: str) -> Client:
    """A client of a scheduler; in a thread of its own, since whatever does not speak Dask's language is waited for without end."""
    answers: SimpleQueue[Client | BaseException] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(Client(address, timeout=f"{ANSWER_SECONDS - 2}s"))
        except BaseException as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except Empty:
        raise InputError(
            f"no scheduler answers at {address}: what listens there is of another kind, the dashboard perhaps; "
            "schedulers listen at tcp://host:8786 by default"
        ) from None
    if isinstance(answer, Client):
        return answer
    raise InputError(f"no scheduler answers at {address}: {' '.join(str(answer).split())}") from answer


def dashboard_of(client: Client) -> str | None:
    """Where a cluster shows what it does; None if it does not."""
    try:
        link: str | None = client.dashboard_link
    except KeyError:  # its scheduler has none
        return None
    return link


def loaded_kernels(client: Client, recipe: Recipe) -> dict[str, int]:
    """Load a recipe's kernels on every worker; the bytes that each holds then, by its address, without workers that go away meanwhile.

    Raises
    ------
    RunError
        A worker cannot: detcal is not installed there, say.
    """
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=WITHOUT_WORKERS_SECONDS)  # those that were ended are started again
    text = as_text(recipe)
    futures = {address: client.submit(load_kernels, text, workers=[address], pure=False) for address in client.nthreads()}
    held = {}
    for address, future in futures.items():
        while not future.done() and address in client.nthreads():
            sleep(SECONDS_BETWEEN_QUESTIONS)
        if not future.done():
            continue
        try:
            held[address] = future.result()
        except KilledWorker:
            raise RunError(
                f"the worker at {address} was ended while it loaded kernels: it outgrew its memory, or its machine went away"
            ) from None
        except (ImportError, RunError, RuntimeError, OSError, CancelledError) as error:
            raise RunError(f"the worker at {address} cannot run detcal: {' '.join(str(error).split())}") from None
    return held


def places_for(workers: dict[str, dict[str, Any]], held: dict[str, int]) -> list[Place]:
    """The workers of a cluster, which hold so many bytes already: every thread of them may run a task, within its worker's memory limit."""
    workers = {address: worker for address, worker in workers.items() if address in held}
    if not workers:
        raise PlanError("the cluster has no workers: start some, then run again")
    if not all(worker["memory_limit"] for worker in workers.values()):
        raise PlanError("some of the cluster's workers have no memory limit, so nothing can be planned: start them with --memory-limit")
    return [Place(worker["memory_limit"], worker["nthreads"], held[address] + WORKER_BYTES) for address, worker in workers.items()]
