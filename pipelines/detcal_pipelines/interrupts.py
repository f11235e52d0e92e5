"""Ctrl-C: none is lost, and the second one does not wait."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from threading import enumerate as enumerate_threads
from types import FrameType

TASK = "detcal-task"  # how threads are named whose tasks may outlast a run that is given up


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C as before, and what raises it once more: Python drops one that comes while an object is deleted."""
    came, before = Event(), signal.getsignal(signal.SIGINT)

    def stop_if_interrupted() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    if current_thread() is not main_thread() or not callable(before):  # it comes to another thread, or is ignored, as behind a shell's &
        yield stop_if_interrupted
        return
    handle = before

    def notice(number: int, frame: FrameType | None) -> None:
        came.set()
        handle(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield stop_if_interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def tasks_run_on() -> bool:
    """Whether tasks of a run that was given up are at work: an end of the process in good order would wait for locks that they hold."""
    return any(thread.name.startswith(TASK) for thread in enumerate_threads())
