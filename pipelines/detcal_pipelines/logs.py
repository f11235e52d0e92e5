"""What a run says to a log: its ledger, in words. By default nobody listens; `detcal run --log FILE` does."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detcal.errors import DetcalError
from detcal_pipelines.columns import cleaned

LOG = logging.getLogger("detcal")
LOG.addHandler(logging.NullHandler())  # else warnings would come on the terminal twice
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def logged_to(path: Path | None) -> Iterator[None]:
    """Add what is said meanwhile to a file, and how it ends; nothing without a file."""
    if path is None:
        yield
        return
    handler, level = logging.FileHandler(path, encoding="utf-8"), LOG.level
    handler.setFormatter(OneLine(FORMAT))
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    try:
        yield
    except BaseException as error:
        ours = isinstance(error, DetcalError | KeyboardInterrupt)
        LOG.error("ended by %s: %s", type(error).__name__, error, exc_info=None if ours else error)
        raise
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()


class OneLine(logging.Formatter):
    """A line for each message, whatever is in the names of files; a traceback has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return cleaned(super().formatMessage(record))


def log_event(event: dict[str, Any], share: float) -> None:
    """Say what a ledger takes note of."""
    match event:
        case {"process": begun}:
            how = f"resumed at {share:.1%}" if share else "begun"
            LOG.info("%s by process %s on %s: %s", how, begun["pid"], begun["host"], begun["plan"])
        case {"begun": blocks}:
            LOG.debug("begun: %s", in_words(blocks))
        case {"block": block}:
            LOG.debug("written: %s, %.1f %% done", in_words([block]), 100 * share)
        case {"lost": block}:
            LOG.warning("not on the disk as it was written, and done again: %s", in_words([block]))
        case {"bad": bad}:
            LOG.warning("cannot be read: %s %s to %s of %s: %s", bad["unit"], *bad["frames"], bad["file"], bad["reason"])
        case {"sums": sums}:
            LOG.debug("sums saved, %.1f %% done", 100 * sums["share"])
        case {"memory": memory}:
            LOG.debug("memory: %.0f MiB held, %.0f MiB at most", memory["held"] / 2**20, memory["peak"] / 2**20)
        case {"commit": _}:
            LOG.info("all blocks are written")
        case {"end": end}:
            LOG.info("ended: %s", end["how"])


def in_words(blocks: list[list[Any]]) -> str:
    """Blocks as array and place."""
    return ", ".join(f"{name} {tuple(place)}" for name, *place in blocks)
