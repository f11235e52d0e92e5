"""Parts of a stack that are not there, as readers: NaN."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detcal.stores.absence import Lacks, with_nan
from detcal.stores.sources.readers import Block, recorded_as
from detcal.stores.sources.scanned import Coords

MOST_NAMES = 3  # of missing parts in a message


@dataclass(frozen=True)
class MissingPart:
    """Frames that are not there."""

    shape: tuple[int, ...]
    recorded: np.dtype[Any]  # in which type the other parts were recorded
    hint: str  # which files or links they are
    chunk_frames: int = 1
    version: str = "missing"

    @property
    def dtype(self) -> np.dtype[Any]:
        return with_nan(self.recorded)

    @property
    def lacks(self) -> Lacks:
        whole = np.ones(self.shape[0], np.bool_)
        return Lacks(whole, ~whole, self.hint)

    def coords(self) -> Coords:
        return {}

    def attrs(self) -> dict[str, Any]:
        return recorded_as(self.recorded, self.dtype)

    def files(self, start: int, stop: int) -> list[str]:
        return []

    def read(self, start: int, stop: int) -> Block:
        return np.full((stop - start, *self.shape[1:]), np.nan, self.dtype)


def named(texts: list[str]) -> str:
    """The first of many."""
    return ", ".join(texts[:MOST_NAMES]) + ", …" * (len(texts) > MOST_NAMES)
