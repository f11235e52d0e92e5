"""Where the time of a run goes: what its threads are at is looked at now and then, which costs next to nothing and changes nothing."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from time import monotonic
from types import FrameType
from typing import Any

from detcal_pipelines.interrupts import TASK
from detcal_pipelines.steps.step import Step

SECONDS_BETWEEN_LOOKS = 0.02
READING, WRITING, OTHER = "reading", "writing", "other"
STORES = {"detcal.stores.sources": READING, "detcal.stores.targets": WRITING, "detcal.frames.precision": WRITING}


class Stopwatch:
    """Counts the seconds that the threads of a run spend on reading, on each step and on writing.

    A thread is at what the innermost of its calls belongs to. Steps whose functions lie in the same package are one entry.
    """

    def __init__(self, steps: Iterable[Step[Any]]) -> None:
        self.places = STORES | places_of(steps)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.stopped = Event()
        self.thread = Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        last = monotonic()
        while not self.stopped.wait(SECONDS_BETWEEN_LOOKS):
            now = monotonic()
            for activity in activities(self.places):
                self.seconds[activity] += now - last
            last = now

    def times(self) -> dict[str, float]:
        """Seconds of all threads together, in the order of the work; what was never seen is left out."""
        names = dict.fromkeys([READING, *self.places.values(), OTHER])
        ordered = [*(name for name in names if name != WRITING), WRITING]
        return {name: round(self.seconds[name], 3) for name in ordered if name in self.seconds}

    def __enter__(self) -> "Stopwatch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def places_of(steps: Iterable[Step[Any]]) -> dict[str, str]:
    """The packages that the functions of steps lie in, and the names of the steps."""
    found: dict[str, list[str]] = {}
    for step in steps:
        module = type(step).__module__
        package = module.replace("detcal_pipelines.steps", "detcal") if module.startswith("detcal_pipelines.") else module.partition(".")[0]
        found.setdefault(package, []).append(step.operation)
    return {package: " and ".join(dict.fromkeys(names)) for package, names in found.items()}


def activities(places: Mapping[str, str]) -> list[str]:
    """What each thread is at that has a task."""
    frames = sys._current_frames()
    try:
        threads = [thread.ident for thread in enumerate_threads() if thread.name.startswith(TASK)]
        return [activity for ident in threads if ident in frames and (activity := activity_of(frames[ident], places))]
    finally:
        frames.clear()  # this call's own frame is among them: a cycle, which would keep the data of all tasks until it is collected


def activity_of(frame: FrameType | None, places: Mapping[str, str]) -> str | None:
    """What a call belongs to, or the call that it was made from, and so on; None if there is no task."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "_work" and module == "detcal_pipelines.threads":
            return None
        if module == "dask.local":
            return OTHER
        for package, name in places.items():
            if module == package or module.startswith(f"{package}."):
                return name
        frame = frame.f_back
    return None
