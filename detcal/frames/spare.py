"""Memory of large arrays that is used again: to clear a fresh page, on its first touch, takes the system as long as much of the work."""

from collections import deque
from contextlib import suppress
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike, NDArray

MOST_SPARE = 4  # arrays whose memory is kept for the next ones: a task that is done hands it to the next
MOST_BYTES = 2**29  # of these
SPARE: deque[NDArray[np.uint8]] = deque(maxlen=MOST_SPARE)  # what comes last takes the place of the first


def reused(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """An array of any numbers, in memory that an earlier one of its size was freed from, if there is such."""
    size, kind = int(np.prod(shape)), np.dtype(dtype)
    memory = spare_of(kind.itemsize * max(1, size))
    array = np.frombuffer(memory.data, kind)  # which all views of it keep: views of a view would keep the memory alone
    finalize(array, give_back, memory).atexit = False
    return array[:size].reshape(shape)


def spare_of(count: int) -> NDArray[np.uint8]:
    """So many bytes: those that are spare, or new ones. Other threads may take and give back meanwhile."""
    for _ in range(MOST_SPARE):
        try:
            memory = SPARE.popleft()
        except IndexError:
            break
        if memory.size == count:
            return memory
        SPARE.append(memory)
    return np.empty(count, np.uint8)


def give_back(memory: NDArray[np.uint8]) -> None:
    """Keep memory for the next array, in place of what was spare before where both are too much."""
    if memory.size > MOST_BYTES:
        return
    SPARE.append(memory)
    while sum(each.size for each in tuple(SPARE)) > MOST_BYTES:  # so that what no one asks for does not stay for good
        with suppress(IndexError):  # others may have taken them meanwhile
            SPARE.popleft()
