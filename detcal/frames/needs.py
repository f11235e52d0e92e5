"""What an operation holds in memory: the form in which each subject's memory.py says it."""

from typing import NamedTuple


class Needs(NamedTuple):
    """Bytes of an operation in one process, beside the process itself.

    Attributes
    ----------
    prepared
        At the peak of what is made before the first block: a matrix, the mean of darks.
    once
        Kept for all blocks, whatever the number of tasks.
    task
        Of each task that runs.
    begun
        Of each block that is begun and not finished yet: partial sums, what is to be written together with its neighbours.
    """

    prepared: int = 0
    once: int = 0
    task: int = 0
    begun: int = 0

    def __add__(self, other: "Needs") -> "Needs":  # type: ignore[override]  # two steps of a chain, not a longer tuple
        return Needs(*(own + more for own, more in zip(self, other, strict=True)))

    def peak(self, tasks: int, begun: int) -> int:
        """With so many tasks at once, and so many blocks begun."""
        return max(self.prepared, self.once + tasks * self.task + begun * self.begun)
