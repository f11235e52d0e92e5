"""One run at a time for an output: a lock beside it, which the system takes off when the process that holds it ends, whatever ends it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep, time

from detcal.errors import OutputError
from detcal_pipelines.ledger import now

LOOK_SECONDS = 0.2
SILENT_SECONDS = 120  # after which a process of another machine, whose locks this one may not see, is taken to be gone


@contextmanager
def only_run(path: Path, output: Path) -> Iterator[None]:
    """Hold the lock of an output.

    Raises
    ------
    OutputError
        Another run holds it: which one, and since when.
    """
    with open(locked(path, output), "r+") as file:
        holder = {"host": gethostname(), "pid": os.getpid(), "since": now()}
        file.truncate()
        json.dump(holder, file)
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # of a disk that is gone, or read-only: nobody holds it any more all the same
                path.unlink()


def locked(path: Path, output: Path) -> int:
    """The lock's file, which nobody else has now."""
    patience = monotonic() + LOOK_SECONDS
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() < patience:  # somebody may only look whether it is held
                os.close(number)
                sleep(LOOK_SECONDS / 10)
                continue
            told = holder_of(path)
            os.close(number)
            raise OutputError(f"{output} is being written by another run{told}: wait for it, or choose another name") from None
        except OSError:  # the file system has no locks: what the file says must do
            pass
        if is_that(number, path):
            break
        os.close(number)  # it was removed by the run that held it, between our two looks
    told = holder_of(path)
    if told and on_another_machine(path):
        os.close(number)
        raise OutputError(
            f"{output} is being written by another run{told}, which gave a sign of life less than {SILENT_SECONDS} s ago: "
            "wait for it, or choose another name"
        )
    return number


def is_that(number: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(number)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def holder_of(path: Path) -> str:
    """Who holds a lock, in words; nothing if it does not say."""
    try:
        holder = json.loads(path.read_text())
        return f", process {holder['pid']} on {holder['host']} since {datetime.fromtimestamp(holder['since']):%H:%M:%S}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""


def on_another_machine(path: Path) -> bool:
    """Whether a lock is of a process elsewhere that gave a sign of life a moment ago."""
    return json.loads(path.read_text()).get("host") != gethostname() and time() - path.stat().st_mtime < SILENT_SECONDS


def is_held(path: Path) -> bool:
    """Whether a run holds a lock now."""
    try:
        number = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return bool(holder_of(path))
    finally:
        os.close(number)
    return bool(holder_of(path)) and on_another_machine(path)
