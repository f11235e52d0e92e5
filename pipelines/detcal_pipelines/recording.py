"""What a run notes in its ledger as its tasks begin and end, and how far it is."""

import os
from collections.abc import Callable
from typing import Any

from detcal_pipelines.graph import Stage, Window, count_tasks
from detcal_pipelines.ledger import Ledger, as_list
from detcal_pipelines.quarantine import Quarantine
from detcal_pipelines.sums import share_saved
from detcal_pipelines.unfinished import Places, written_seal

SECONDS_BETWEEN_SIGNS = 5.0


class Recorder:
    """Takes note of blocks; all but `count` is called by the thread that drives the run.

    Parameters
    ----------
    ledger, places
        Of the run.
    windows
        How many there are.
    held
        Bytes that the process holds, and held at most.
    show
        Shows the share that is done.
    quarantine
        What of the input cannot be read: before a block is noted as done, what is damaged of it is.
    """

    def __init__(
        self,
        ledger: Ledger,
        places: Places,
        windows: int,
        held: Callable[[], tuple[int, int]],
        show: Callable[[float], None],
        quarantine: Quarantine,
    ) -> None:
        self.ledger, self.places, self.held, self.show, self.quarantine = ledger, places, held, show, quarantine
        self.before, self.windows, self.window = ledger.history.share, windows, -1
        self.signed = self.summed = 0.0
        show(self.before)

    def enter(self, window: Window, stages: list[Stage]) -> None:
        """Begin with a window, of which these stages are left to do."""
        self.window += 1
        self.ends, self.tasks, self.ended = window.ends, sum(count_tasks(stage.tasks) for stage in stages), 0
        self.turns = {key: number for number, stage in enumerate(stages) for key in stage.tasks}
        self.waiting = {number: stage.ends for number, stage in enumerate(stages)}

    def begun(self, key: Any) -> None:
        """A task is handed out: with the first one of a block, that is begun."""
        ends = self.waiting.pop(self.turns.get(key, -1), [])
        if ends:
            self.ledger.note(begun=[as_list(self.ends[end]) for end in ends])

    def finished(self, key: Any) -> None:
        """A task of this process has ended."""
        self.count()
        if key in self.ends:
            self.written(key)
        self.live()

    def written(self, key: Any) -> None:
        """A task that ends a block has ended, here or on a worker: what it gave may be lost with its worker, and its file is there.

        Raises
        ------
        OutputError
            It is not: workers write to another disk than this process reads.
        """
        self.quarantine.note_in(self.ledger)
        block = self.ends[key]
        self.ledger.note(block=as_list(block), seal=written_seal(self.places.store, block, self.ledger.history))

    def deadly(self, ends: list[Any]) -> None:
        """Workers died, one after the other, at what these keys wait for."""
        self.quarantine.add_deadly([self.ends[end] for end in ends], self.ledger)

    def count(self, *_: Any) -> None:
        """A task has ended, here or on a worker: show how far the run is. It may be called by any thread."""
        self.ended += 1
        done = (self.window + min(1.0, self.ended / max(1, self.tasks))) / self.windows
        self.show(self.before + (1 - self.before) * done)

    def live(self) -> None:
        """Give a sign of life now and then, with what the process holds."""
        if self.ledger.seconds - self.signed > SECONDS_BETWEEN_SIGNS:
            self.sign()

    def sign(self) -> None:
        """Give a sign of life, with what the process holds."""
        self.signed = self.ledger.seconds
        held, peak = self.held()
        self.ledger.note(memory={"held": held, "peak": peak})
        os.utime(self.places.lock)
        self.note_sums()

    def note_sums(self) -> None:
        """Note how much of a sum is saved, if it is more than before."""
        share = share_saved(self.places.sums)
        if share > self.summed:
            self.summed = share
            self.ledger.note(sums={"share": round(share, 4)})
