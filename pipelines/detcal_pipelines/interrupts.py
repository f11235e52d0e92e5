"""Ctrl-C and SIGTERM, which batch systems send: none is lost, and the second one does not wait."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from threading import enumerate as enumerate_threads
from types import FrameType

TASK = "detcal-task"  # how threads are named whose tasks may outlast a run that is given up


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C as before, SIGTERM like it, and what raises them once more: Python drops one that comes while an object is deleted."""
    came, before = Event(), signal.getsignal(signal.SIGINT)
    raised: list[type[KeyboardInterrupt]] = []

    def stop_if_interrupted() -> None:
        if came.is_set():
            raise raised[0]

    if current_thread() is not main_thread():  # they come to another one
        yield stop_if_interrupted
        return
    handle = before if callable(before) else None  # ignored, as behind a shell's &

    def notice(number: int, frame: FrameType | None) -> None:
        raised.append(KeyboardInterrupt)
        came.set()
        if handle is not None:
            handle(number, frame)

    def terminate(number: int, frame: FrameType | None) -> None:
        raised.append(Terminated)
        came.set()
        raise Terminated

    replaced = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    if handle is not None:
        replaced[signal.SIGINT] = signal.signal(signal.SIGINT, notice)
    try:
        yield stop_if_interrupted
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def tasks_run_on() -> bool:
    """Whether tasks of a run that was given up are at work: an end of the process in good order would wait for locks that they hold."""
    return any(thread.name.startswith(TASK) for thread in enumerate_threads())
