"""A Dask cluster that runs already: to reach it, and to compute on it."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker, Scheduler, SchedulerPlugin, as_completed

from detcal.errors import InputError, RunError
from detcal_pipelines.compiling import load_kernels
from detcal_pipelines.graph import Stage
from detcal_pipelines.recipe import Recipe

ANSWER_SECONDS = 8  # that a scheduler may take to answer
WITHOUT_WORKERS_SECONDS = 8  # that a run waits for a worker to come back
LOOK_SECONDS = 2
SECONDS_BETWEEN_LOOKS = 0.005
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


def loaded_kernels(client: Client, recipe: Recipe) -> dict[str, int]:
    """Load a recipe's kernels on every worker; the bytes that each holds then, by its address, without workers that go away meanwhile.

    Raises
    ------
    RunError
        A worker cannot: detcal is not installed there, say.
    """
    text = recipe.model_dump_json()
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


class FinishedTasks(SchedulerPlugin):
    """Tells the clients that listen of every task that ends, whether it did well or not."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.name = topic

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        if start == "processing" and finish in ("memory", "erred"):
            self.scheduler.log_event(self.topic, 1)


def compute_on_cluster(
    client: Client, stages: list[Stage], at_once: int, finished: Callable[[], None], stop_if_interrupted: Callable[[], None]
) -> None:
    """Compute stages on a cluster, so many at once; `finished` is called after each task. On Ctrl-C or an error what is left is cancelled.

    Raises
    ------
    RunError
        A worker was ended and its tasks with it, no worker or no scheduler is left.
    """
    topic = f"detcal-{uuid4().hex}"
    client.register_plugin(FinishedTasks(topic))
    client.subscribe_topic(topic, lambda _: finished())
    submitted = Submitted(client, stages)
    try:
        for _ in range(at_once):
            submitted.submit_next()
        wait_for(client, submitted, stop_if_interrupted)
    except KilledWorker as error:
        raise RunError(f"a worker was ended during {error.task}: it outgrew its memory, or its machine went away") from None
    except BaseException:
        with suppress(OSError, CancelledError):  # of a cluster that is not there any more
            client.cancel(submitted.futures())
            wait_until_idle(client)
        raise
    finally:
        with suppress(OSError, CancelledError):
            client.unsubscribe_topic(topic)
            client.unregister_scheduler_plugin(topic)


class Submitted:
    """What a cluster was told to do and has not done yet. What has ended is released: workers would keep each task to the end of the run.

    Stages are submitted in their order, and share results: those that a later stage needs are wanted until that one has ended.
    """

    def __init__(self, client: Client, stages: list[Stage]) -> None:
        self.client = client
        self.stages = stages
        self.last_needs = {
            each: number for number, stage in enumerate(stages) for node in stage.tasks.values() for each in node.dependencies
        }
        self.number = 0  # of the next stage
        self.shared: dict[Any, Future] = {}
        self.ends: dict[int, set[Any]] = {}  # that are waited for, by stage
        self.left = as_completed()

    def submit_next(self) -> None:
        """Submit the next stage, if there is one; and further ones, until one ends in a write."""
        if self.number == len(self.stages):
            return
        stage, number = self.stages[self.number], self.number
        shared = [key for key in stage.tasks if self.last_needs.get(key, number) > number]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):  # masks and images may be among the tasks
            futures = self.client.get(stage.tasks, [*stage.ends, *shared], sync=False)
        self.shared |= dict(zip(shared, futures[len(stage.ends) :], strict=True))
        self.number += 1
        if not stage.ends:
            self.submit_next()
            return
        self.ends[number] = set(stage.ends)
        self.left.update(futures[: len(stage.ends)])

    def end(self, key: Any) -> None:
        """Take note of a write that has ended; with the last one of its stage, the next stage is submitted."""
        number = next(number for number, ends in self.ends.items() if key in ends)
        self.ends[number].discard(key)
        if not self.ends[number]:
            del self.ends[number]
            oldest = min(self.ends, default=self.number)
            self.shared = {key: future for key, future in self.shared.items() if self.last_needs[key] >= oldest}
            self.submit_next()

    def futures(self) -> list[Future]:
        """All that is not done, or not needed any more."""
        return [*self.left.futures, *self.shared.values()]


def wait_for(client: Client, submitted: Submitted, stop_if_interrupted: Callable[[], None]) -> None:
    """Wait for all that is submitted, and for what is submitted meanwhile."""
    looked = alive = monotonic()
    while not submitted.left.is_empty():
        stop_if_interrupted()
        for future in submitted.left.next_batch(block=False):
            raise_if_lost(future)
            submitted.end(future.key)
            looked = alive = monotonic()
        if monotonic() - looked > LOOK_SECONDS:
            looked = monotonic()
            alive = looked if has_workers(client) else alive
            if looked - alive > WITHOUT_WORKERS_SECONDS:
                raise RunError("the cluster has no workers left: look at their logs, start some, then run again")
        sleep(SECONDS_BETWEEN_LOOKS)


def raise_if_lost(ended: Future) -> None:
    """Raise the error of a task, or that nobody will do it."""
    if ended.status in ("cancelled", "lost"):
        raise RunError("the cluster has given up the run's tasks: its scheduler was restarted, or has gone away")
    if ended.status != "finished":
        ended.result()


def has_workers(client: Client) -> bool:
    """Whether there is any worker.

    Raises
    ------
    RunError
        There is no scheduler any more.
    """
    if client.status != "running":
        raise RunError("the cluster's scheduler has gone away")
    return bool(client.nthreads())


def wait_until_idle(client: Client) -> None:
    """Wait for tasks that run still: they may write, and the output is to be cleared away after them."""
    while any((client.call_stack() or {}).values()):
        sleep(SECONDS_BETWEEN_LOOKS)
