"""What all tasks of a process share: built once, by the first task that needs it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Generic, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed
from dask.system import CPU_COUNT
from numpy.typing import NDArray

Value = TypeVar("Value")


class Once(Generic[Value]):
    """The value of a function, which is called by the first who asks and kept: for other tasks, and for later computations.

    Were its parts dask arrays that a task takes, each of them would be optimised by itself, with a copy of the tasks that make all of
    them; and they would be made anew in every computation. In another process, the function is called anew: the value is not sent.
    """

    def __init__(self, build: Callable[[], Value]) -> None:
        self._build, self._lock = build, Lock()
        self._values: list[Value] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Once, (self._build,)

    def get(self) -> Value:
        """The value."""
        with self._lock:
            if not self._values:
                self._values.append(self._build())
            return self._values[0]

    def lazily(self) -> Delayed:
        """The value as a task."""
        return delayed(self.get, pure=False)()


def in_memory(*lazy: Any) -> list[NDArray[Any]]:
    """Arrays that may be lazy, computed together, each block dropped as soon as it is in its place.

    In threads of their own: a task may ask for it, which holds one of the run's.
    """
    arrays = [np.empty(array.shape, array.dtype) if isinstance(array, da.Array) else np.asarray(array) for array in lazy]
    targets = [(one, other) for one, other in zip(lazy, arrays, strict=True) if isinstance(one, da.Array)]
    with ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT) as threads:
        da.store([one for one, _ in targets], [other for _, other in targets], lock=False, scheduler=threads)
    return arrays
