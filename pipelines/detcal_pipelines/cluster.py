"""To compute on a Dask cluster that runs already."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from threading import Thread
from time import monotonic, sleep
from typing import Any, Protocol
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker, Scheduler, SchedulerPlugin, as_completed

from detcal.errors import RunError
from detcal_pipelines import connecting
from detcal_pipelines.graph import Stage, Window, in_stages
from detcal_pipelines.ledger import Block
from detcal_pipelines.plan import Plan, size
from detcal_pipelines.quarantine import DeadlyBlocks

IDLE_SECONDS = 8  # that tasks are given which nobody waits for
SILENT_SECONDS = 60  # after which a worker is said to have stalled: it is heard of every second or so
LOOK_SECONDS = 2
SECONDS_BETWEEN_LOOKS = 0.005
OUTGROWN = "worker-restart-memory"  # what a nanny logs of a worker that it ends, with its memory


class Watcher(Protocol):
    """Who is told of what a cluster does; all but `count` by the thread that drives the run."""

    def enter(self, window: Window, stages: list[Stage]) -> None:
        """A window is begun."""

    def begun(self, key: Any) -> None:
        """A task is handed out."""

    def written(self, key: Any) -> None:
        """A write has ended."""

    def count(self, event: Any) -> None:
        """A task has ended."""

    def deadly(self, ends: list[Any]) -> None:
        """Workers died, one after the other, at a task that these keys wait for."""

    def live(self) -> None:
        """Some time has passed."""


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


class ClusterRun:
    """A run on a cluster, window by window, with so many stages begun and not done as are planned.

    A worker that dies takes its tasks with it, and the cluster gives them to others; a task at which several died is not tried again.

    Parameters
    ----------
    planned
        Blocks that may be begun, and the peak of a worker in bytes.
    suspects
        Blocks at one of which workers died: until these are done there is one stage at a time. They are taken out as they are done, and
        put in as workers die.
    pause_or_stop, say
        Called often; shows a line.
    """

    def __init__(
        self, client: Client, planned: Plan, suspects: set[Block], pause_or_stop: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.client, self.planned, self.suspects, self.pause_or_stop, self.say = client, planned, suspects, pause_or_stop, say
        self.there: dict[Any, Future] = {}  # results that the next window wants
        self.workers = Workers(client, say)

    @property
    def at_once(self) -> int:
        """How many stages may be begun and not done."""
        return 1 if self.suspects else self.planned.begun

    def compute(self, watcher: Watcher, window: Window) -> None:
        """Compute a window, and keep those of its results that the next one shares. On Ctrl-C or an error what is left is cancelled.

        Raises
        ------
        DeadlyBlocks
            Workers died at a task, for no reason that is known.
        RunError
            Workers outgrew their memory, no worker or no scheduler is left.
        """
        stages = in_stages(window.graph, list(window.ends))
        watcher.enter(window, stages)
        submitted = Submitted(self.client, stages, self.there, window.shared, watcher)
        try:
            with events_of(self.client, watcher, self.workers):
                submitted.submit(self.at_once)
                self.wait_for(submitted, window, watcher)
        except BaseException as error:
            with suppress(OSError, CancelledError):  # of a cluster that is not there any more
                self.client.cancel(submitted.futures())
                wait_until_idle(self.client)
            if isinstance(error, KilledWorker):
                raise self.told(error, submitted, window, watcher) from None
            raise
        self.there = {key: submitted.there[key] for key in window.shared}

    def told(self, error: KilledWorker, submitted: "Submitted", window: Window, watcher: Watcher) -> RunError:
        """What is said of workers that died at a task. If it was not for their memory, all blocks that were begun become suspects; if
        these were done one at a time already, the one that the task is of is noted."""
        deaths = error.allowed_failures + 1
        if self.workers.outgrown:
            held = max(self.workers.outgrown.values())
            return RunError(
                f"{deaths} workers outgrew their memory, one after the other, at the same block: one held {size(held)}, and "
                f"{size(self.planned.peak_bytes)} was planned: start workers with more --memory-limit, or with fewer threads"
            )
        if self.suspects:
            self.suspects.clear()
            watcher.deadly(submitted.ends_of(error.task))
        else:
            self.suspects |= {window.ends[key] for ends in submitted.ends.values() for key in ends}
        return DeadlyBlocks(f"{deaths} workers were ended, one after the other, at the same block: look at their logs")

    def wait_for(self, submitted: "Submitted", window: Window, watcher: Watcher) -> None:
        """Wait for all that is submitted, and for what is submitted meanwhile."""
        while not submitted.left.is_empty():
            self.pause_or_stop()
            watcher.live()
            ended = submitted.left.next_batch(block=False)
            for future in ended:
                raise_if_failed(future)
                watcher.written(future.key)
                submitted.end(future.key)
                self.clear(window.ends[future.key])
            submitted.submit(self.at_once)
            self.workers.look(working=bool(ended))
            sleep(SECONDS_BETWEEN_LOOKS)

    def clear(self, block: Block) -> None:
        """A block is written: workers did not die at this one."""
        if block in self.suspects:
            self.suspects.discard(block)
            if not self.suspects:
                self.say("it was at none of them: all blocks go on")


class Workers:
    """Looks at the workers of a cluster now and then, and says what is wrong with them.

    Attributes
    ----------
    outgrown
        Bytes that workers held which their nannies ended for it, by their addresses.
    """

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self.client, self.say = client, say
        self.looked = self.alive = monotonic()
        self.heard: dict[str, tuple[float, float]] = {}  # of each worker: its last sign of life by the scheduler's clock, and since when
        self.silent: set[str] = set()
        self.outgrown: dict[str, int] = {}

    def look(self, *, working: bool) -> None:
        """Look again, if the last time is long enough ago.

        Raises
        ------
        RunError
            There is no worker, for a while, or no scheduler.
        """
        now = monotonic()
        if working:
            self.looked = self.alive = now
        if now - self.looked <= LOOK_SECONDS:
            return
        self.looked = now
        workers = workers_of(self.client)
        self.alive = now if workers else self.alive
        if now - self.alive > connecting.WITHOUT_WORKERS_SECONDS:
            raise RunError("the cluster has no workers left: look at their logs, start some, then run again")
        for address, worker in workers.items():
            if self.heard.get(address, (None, now))[0] != worker["last_seen"]:
                self.heard[address] = worker["last_seen"], now
                self.silent.discard(address)
            elif now - self.heard[address][1] > SILENT_SECONDS and address not in self.silent:
                self.silent.add(address)
                self.say(f"the worker at {address} has said nothing for a minute: end it if it does not come back, and others do its tasks")

    def outgrew(self, event: Any) -> None:
        """A nanny ends a worker."""
        if isinstance(event, tuple):  # with the time before it
            event = event[1]
        self.outgrown[event["worker"]] = event["rss"]
        self.say(f"the worker at {event['worker']} was ended, since it held {size(event['rss'])}: its tasks are done again elsewhere")


@contextmanager
def events_of(client: Client, watcher: Watcher, workers: Workers) -> Iterator[None]:
    """Tell of tasks that end, and of workers that outgrow their memory."""
    topic = f"detcal-{uuid4().hex}"
    client.register_plugin(FinishedTasks(topic))
    client.subscribe_topic(topic, watcher.count)
    client.subscribe_topic(OUTGROWN, workers.outgrew)
    try:
        yield
    finally:
        with suppress(OSError, CancelledError):
            client.unsubscribe_topic(OUTGROWN)
            client.unsubscribe_topic(topic)
            client.unregister_scheduler_plugin(topic)


class Submitted:
    """What a cluster was told to do and has not done yet. What has ended is released: workers would keep each task to the end of the run.

    Stages are submitted in their order, and share results: those that a later stage needs are wanted until that one has ended, and those
    that are `shared` with other windows until the end.
    """

    def __init__(self, client: Client, stages: list[Stage], there: dict[Any, Future], shared: list[Any], watcher: Watcher) -> None:
        self.client, self.stages, self.there, self.watcher = client, stages, dict(there), watcher
        self.last_needs = {
            each: number for number, stage in enumerate(stages) for node in stage.tasks.values() for each in node.dependencies
        }
        self.last_needs |= dict.fromkeys([*there, *shared], len(stages))
        self.number = 0  # of the next stage
        self.ends: dict[int, set[Any]] = {}  # that are waited for, by stage
        self.left = as_completed()

    def submit(self, most: int) -> None:
        """Submit stages until so many are begun and not done."""
        while len(self.ends) < most and self.number < len(self.stages):
            self.submit_next()

    def submit_next(self) -> None:
        """Submit the next stage."""
        stage, number = self.stages[self.number], self.number
        tasks = {key: node for key, node in stage.tasks.items() if key not in self.there}
        shared = [key for key in tasks if self.last_needs.get(key, number) > number]
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):  # masks and images may be among the tasks
            futures = self.client.get(tasks, [*stage.ends, *shared], sync=False)
        for key in stage.tasks:
            self.watcher.begun(key)
        self.there |= dict(zip(shared, futures[len(stage.ends) :], strict=True))
        self.number += 1
        if stage.ends:
            self.ends[number] = set(stage.ends)
            self.left.update(futures[: len(stage.ends)])

    def end(self, key: Any) -> None:
        """Take note of a write that has ended; with the last one of its stage, results that no other stage needs are released."""
        number = next(number for number, ends in self.ends.items() if key in ends)
        self.ends[number].discard(key)
        if not self.ends[number]:
            del self.ends[number]
            oldest = min(self.ends, default=self.number)
            self.there = {key: future for key, future in self.there.items() if self.last_needs[key] >= oldest}

    def ends_of(self, key: Any) -> list[Any]:
        """The writes that wait for a task; none if all of them do."""
        return next((stage.ends for stage in self.stages if key in stage.tasks), [])

    def futures(self) -> list[Future]:
        """All that is not done, or not needed any more."""
        return [*self.left.futures, *self.there.values()]


def raise_if_failed(ended: Future) -> None:
    """Raise the error of a task, or that nobody will do it; of one that has ended well its result may be lost since, which nobody wants."""
    if ended.status == "cancelled":
        raise RunError("the cluster has given up the run's tasks: its scheduler was restarted, or has gone away")
    if ended.status == "error":
        ended.result()


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker, by its address.

    Raises
    ------
    RunError
        There is no scheduler any more.
    """
    if client.status != "running":
        raise RunError("the cluster's scheduler has gone away")
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def wait_until_idle(client: Client) -> None:
    """Wait for tasks that run still, since they may write what is to be cleared away; not for a worker that has stalled."""

    def wait() -> None:
        with suppress(OSError, CancelledError):  # of a cluster that is not there any more
            while any((client.call_stack() or {}).values()):
                sleep(SECONDS_BETWEEN_LOOKS)

    waiting = Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(IDLE_SECONDS)
