"""The disk that a run writes to: whether its output has room, and what to do when it has not."""

import shutil
import warnings
from collections.abc import Callable
from math import inf
from pathlib import Path
from time import monotonic, sleep

from detcal.errors import OutputError, PlanError
from detcal_pipelines.plan import Plan, size

BEST_COMPRESSION = 8  # of frames and spectra with noise
SECONDS_TO_WAIT = 60.0  # for somebody to make room; after that the run ends, and can go on later
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_QUESTIONS = 0.5  # while it waits
LEAST_FREE = 8 * 2**20


def check_room(folder: Path, planned: Plan, stored: int, *, exported: bool) -> None:
    """Refuse an output that cannot fit on its disk, and warn of one that may not, since nobody knows how well it compresses.

    Parameters
    ----------
    stored
        Bytes of it that are there already.
    exported
        Whether it is written twice: as a store first.
    """
    copied = 0 if planned.copy is None else planned.copy.nbytes
    most, free = max(0, planned.bytes_out * (1 + exported) + copied - stored), shutil.disk_usage(folder).free
    what = "the output, and a copy of the frames," if copied else "the output"
    needed = f"{what} takes up to {size(most)} (uncompressed) on the disk of {folder}, which has {size(free)} left"
    if most > BEST_COMPRESSION * free:
        raise PlanError(f"{needed}: make room there, or choose another folder")
    if most > free:
        warnings.warn(f"{needed}: if that is not enough the run pauses, and then ends so that it can go on", stacklevel=2)


class DiskWatch:
    """Looks now and then whether the disk of an output has room for the blocks that are begun, and waits while it has none.

    Parameters
    ----------
    folder
        Of the output.
    begun
        Bytes of the blocks that are begun.
    say, stop_if_interrupted
        Shows a line; is called while it waits.
    """

    def __init__(self, folder: Path, begun: int, say: Callable[[str], None], stop_if_interrupted: Callable[[], None]) -> None:
        self.folder, self.least, self.say, self.stop_if_interrupted = folder, LEAST_FREE + begun, say, stop_if_interrupted
        self.looked = -inf

    def look(self) -> None:
        """Look, if the last time is a second ago, and wait.

        Raises
        ------
        OutputError
            Nobody made room.
        """
        if monotonic() - self.looked >= SECONDS_BETWEEN_LOOKS:
            self.looked = monotonic()
            if self.free < self.least:
                self.wait()

    @property
    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.folder).free

    def wait(self) -> None:
        """Wait for somebody to make room."""
        self.say(f"paused: the disk of {self.folder} is nearly full; make room for {size(self.least)} there within {SECONDS_TO_WAIT:.0f} s")
        end = monotonic() + SECONDS_TO_WAIT
        while (free := self.free) < self.least:
            self.stop_if_interrupted()
            if monotonic() > end:
                raise OutputError(
                    f"the disk of {self.folder} has {size(free)} left, and a few blocks of the output take {size(self.least)}: "
                    "make room there"
                )
            sleep(SECONDS_BETWEEN_QUESTIONS)
        self.say("there is room again: going on")
