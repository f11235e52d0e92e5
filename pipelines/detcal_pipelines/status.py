"""How a run is: seen from any process, while it works and afterwards, in its ledger, its lock and the files beside its output."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep, time
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.text import Text

from detcal.errors import InputError
from detcal_pipelines.columns import columns
from detcal_pipelines.ledger import History, Process
from detcal_pipelines.lock import holder_of, is_held
from detcal_pipelines.plan import size
from detcal_pipelines.quarantine import described
from detcal_pipelines.unfinished import Places, check_is_output, history_of, percent

SECONDS_BETWEEN_LOOKS = 1.0
BAR = 30  # letters

State = Literal["at work", "broken off", "whole"]


@dataclass(frozen=True)
class Status:
    """How a run is.

    Attributes
    ----------
    state
        At work, broken off (it can go on), or whole: the output is there.
    history
        What its ledger tells; None if there is none: of a run that is about to begin, or of an output that no run made.
    holder
        Which process works at it.
    now
        When this was seen.
    """

    output: Path
    state: State
    history: History | None
    holder: str
    now: float

    @property
    def share(self) -> float:
        """Of the run that is done."""
        return 1.0 if self.state == "whole" else 0.0 if self.history is None else self.history.share


def status_of(output: Path) -> Status:
    """How the run of an output is.

    Raises
    ------
    InputError
        There is nothing of that name, and nothing that a run has left.
    """
    places = Places.of(output)
    held = is_held(places.lock)  # before anything is read: a run that ends meanwhile is whole
    history = history_of(places)
    unfinished = places.ledger.is_file() and not places.ended
    state: State = "at work" if held else "broken off" if unfinished else "whole"
    if not held and not unfinished and not places.output.exists():
        raise InputError(f"there is no {output}, and no run of it that is at work or has broken off: expected the name of an output")
    if history is None and not held:
        check_is_output(places.output)
    holder = holder_of(places.lock).removeprefix(", ") if held else ""
    if held and not unfinished and history is not None:
        if is_of(holder, last_of(history)):
            state = "whole"  # it writes its report
        else:
            history = None  # it has not begun: the ledger that is there is that of an output which it replaces
    return Status(places.output, state, history, holder, time())


def watch(output: Path, console: Console) -> None:
    """Show the status of a run, anew each second until it ends.

    Raises
    ------
    KeyboardInterrupt
        With the news that the run does not end with it.
    """
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                status = status_of(output)
                live.update(Text("\n".join(describe(status))), refresh=True)
                if status.state != "at work":
                    return
                sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the run goes on") from None


def describe(status: Status) -> list[str]:
    """A status in lines of at most 80 letters."""
    rows = [("state", headline(status))]
    if status.history is None:
        rows += [("run by", status.holder)] if status.holder else [("ledger", "none: no run of detcal has made it, or it was moved away")]
    else:
        told = [progress, rate, time_left, memory, workers, run_by, earlier, quarantine]
        rows += [(name, text) for name, tell in zip(ROWS, told, strict=True) if (text := tell(status, status.history))]
    return [*columns([("output", str(status.output))]), *columns(rows)]


ROWS = ("blocks", "rate", "time left", "memory", "tasks", "run by", "before", "quarantined")


def headline(status: Status) -> str:
    """At work, broken off or whole, and how far."""
    if status.history is None:
        return "about to begin" if status.state == "at work" else status.state
    done = round(BAR * status.share)
    bar = f"[{'#' * done}{'-' * (BAR - done)}] {percent(status.share)}"
    if status.state != "broken off":
        return f"{status.state} {bar}"
    return f"broken off {bar}: {ending_of(last_of(status.history))}; the same command goes on from there"


def progress(status: Status, history: History) -> str:
    """How many blocks are there."""
    cut = history.header["cut"]
    return f"{len(history.done)} of {history.blocks}, each of {cut['depth']} of the {cut['length']} {cut['unit']}"


def rate(status: Status, history: History) -> str:
    """How fast the last process was, or is."""
    speed = speed_of(status, history)
    cut = history.header["cut"]
    return f"{speed * cut['length']:.4g} {cut['unit']} a second" if speed else ""


def time_left(status: Status, history: History) -> str:
    """How long it will take at this rate."""
    speed = speed_of(status, history)
    return as_duration((1 - status.share) / speed) if speed and status.state == "at work" else ""


def speed_of(status: Status, history: History) -> float:
    """Share of the run that the last process does a second; 0 if it has done nothing yet."""
    if not history.processes:
        return 0.0
    last = history.processes[-1]
    if status.state == "at work" and not is_of(status.holder, last):
        return 0.0  # another one is about to go on
    seconds = max(last.seconds, status.now - last.begun["time"]) if status.state == "at work" else last.seconds
    return max(0.0, history.share - last.begun["share"]) / seconds if seconds > 0 else 0.0


def memory(status: Status, history: History) -> str:
    """What the process holds, and held at most, against what was planned."""
    last = last_of(history)
    if last is None:
        return ""
    planned = f"planned {size(last.begun['planned'])} of {size(last.begun['budget'])}"
    if last.begun["scheduler"]:
        return f"{planned} on the fullest worker"
    held = f"{size(last.memory)} held, " if status.state == "at work" else ""
    return f"{held}{size(last.peak)} at most, {planned}" if last.peak else planned


def workers(status: Status, history: History) -> str:
    """How many tasks run at once, and where."""
    last = last_of(history)
    if last is None:
        return ""
    where = f"on {last.begun['workers']} workers of {last.begun['scheduler']}" if last.begun["scheduler"] else "on threads of one process"
    return f"{last.begun['tasks']} at once, {where}"


def run_by(status: Status, history: History) -> str:
    """Which process is at work, or was the last one, and when."""
    if status.holder:
        return status.holder
    last = last_of(history)
    if last is None:
        return ""
    begun = datetime.fromtimestamp(last.begun["time"])
    return f"process {last.begun['pid']} on {last.begun['host']}, {begun:%Y-%m-%d %H:%M:%S}, for {as_duration(last.seconds)}"


def earlier(status: Status, history: History) -> str:
    """What became of the processes that worked at it before the last one."""
    return "; ".join(f"process {process.begun['pid']} {ending_of(process)}" for process in history.processes[:-1])


def quarantine(status: Status, history: History) -> str:
    """Input that could not be read."""
    notes = history.quarantine
    return described(notes) if notes else ""


def is_of(holder: str, process: Process | None) -> bool:
    """Whether a process of a ledger is the one that holds the lock."""
    return process is not None and holder.startswith(f"process {process.begun['pid']} on {process.begun['host']} ")


def last_of(history: History) -> Process | None:
    """The process that works at it, or worked last."""
    return history.processes[-1] if history.processes else None


def ending_of(process: Process | None) -> str:
    """How a process ended."""
    if process is None or process.end is None:
        return "was killed"
    how, why = process.end["how"], process.end.get("why", "")
    return "ended well" if how == "done" else f"ended by {how}{f' ({why})' if why else ''}"


def as_duration(seconds: float) -> str:
    """Seconds for people: 1:02:03, or 4.2 s."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
