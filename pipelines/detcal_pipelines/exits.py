"""How a command ends: one clear message, and an exit code that says what happened."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from time import monotonic, sleep
from typing import Any, NoReturn

import click

FAILED = 1
BAD_INPUT = 2
QUARANTINED = 3
INTERRUPTED, TERMINATED = 130, 143
SECONDS_TO_END = 1  # that tasks are given which nobody waits for


def clear_exit(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of the user's become one clear message and exit code 2, Ctrl-C exit code 130."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        from detcal.errors import DetcalError, RunError

        warnings.showwarning = show_plainly
        try:
            command(*args, **options)
        except DetcalError as error:
            click.echo(f"error: {error}", err=True)
            leave(FAILED if isinstance(error, RunError) else BAD_INPUT)
        except BrokenPipeError:  # who reads it has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            click.echo(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all that is left to do is to end
            warnings.simplefilter("ignore")  # of what was cut off in the middle
            click.echo(f"stopped; {str(stop) or 'no output was written'}", err=True)
            leave(TERMINATED if type(stop).__name__ == "Terminated" else INTERRUPTED)

    return wrapped


def leave(code: int) -> NoReturn:
    """End the process, after Ctrl-C and where tasks are at work that nobody waits for: at once, in place of waiting for their locks."""
    from detcal_pipelines.interrupts import tasks_run_on

    ended = monotonic() + SECONDS_TO_END
    while tasks_run_on() and monotonic() < ended:  # those that write end soon, and clear away what they wrote
        sleep(0.05)
    if code in (INTERRUPTED, TERMINATED) or tasks_run_on():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def show_plainly(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the source that Python would add."""
    show_once(" ".join(str(message).split()))


@cache
def show_once(warning: str) -> None:
    """What a run does several times, to plan it first, it warns of once."""
    from detcal_pipelines.logs import LOG

    click.echo(f"warning: {warning}", err=True)
    LOG.warning("%s", warning)
