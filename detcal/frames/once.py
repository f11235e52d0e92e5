"""What is made once, by the first who needs it: what all tasks of a process share, and what decides the shape of a result.

Building a graph reads no frames. So what has a shape that only frames tell (dots, a lag, rings without a flat's bad pixels), and what is
long work (the counts of a matrix), is an object of which some is known at once and the rest is found when it is first asked for.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache
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

    @property
    def done(self) -> bool:
        """Whether the value is there."""
        return bool(self._values)

    def lazily(self) -> Delayed:
        """The value as a task."""
        return delayed(self.get, pure=False)()


def on_first_use(kind: type[Value], find: Callable[[], Value], **known: Any) -> Value:
    """An object of a dataclass of which some attributes are known; the others are found, all together, when one is first asked for.

    In another process they are found anew, if they are not found before.
    """
    form: Any = later_form(kind, frozenset(known))  # type: ignore[arg-type]  # a class can be hashed
    made: Value = object.__new__(form)
    vars(made).update(known, _found=Once(find), _made_of=(kind, find, known))
    return made


def is_found(value: Any) -> bool:
    """Whether an object has all that it holds, or else finds it on its first use."""
    return "_found" not in getattr(value, "__dict__", {}) or value._found.done


def find_now(value: Value) -> Value:
    """The same object, which finds what it does not hold yet: before a run, so that what is wrong with it is said then."""
    if not is_found(value):
        vars(value)["_found"].get()
    return value


def is_known(value: Any, name: str) -> bool:
    """Whether an attribute of an object is there, and need not be found."""
    return name in vars(value) or is_found(value)


def again(kind: type[Value], find: Callable[[], Value], known: Mapping[str, Any]) -> Value:
    """As `on_first_use`, in another process."""
    return on_first_use(kind, find, **known)


@lru_cache
def later_form(kind: type[Value], known: frozenset[str]) -> type[Value]:
    """A dataclass whose objects find their fields, and what else is known of them; a copy by `replace` is of the dataclass itself."""
    later: dict[str, Any] = {name: Later(name) for name in {*known, *(field.name for field in fields(kind))}}  # type: ignore[arg-type]
    later |= {"__class__": property(lambda self: kind), "__reduce__": reduced}
    return type(kind.__name__, (kind,), later | {"__module__": kind.__module__})


def reduced(made: Any) -> Any:
    """What is sent to another process."""
    return made._found.get().__reduce_ex__(2) if made._found.done else (again, made._made_of)


class Later:
    """An attribute that is taken from what an object finds, unless it is known."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, made: Any, kind: Any) -> Any:
        return self if made is None else getattr(made._found.get(), self.name)


def in_memory(*lazy: Any) -> list[NDArray[Any]]:
    """Arrays that may be lazy, computed together, each block dropped as soon as it is in its place.

    In threads of their own: a task may ask for it, which holds one of the run's.
    """
    arrays = [np.empty(array.shape, array.dtype) if isinstance(array, da.Array) else np.asarray(array) for array in lazy]
    targets = [(one, other) for one, other in zip(lazy, arrays, strict=True) if isinstance(one, da.Array)]
    with own_threads() as threads:
        da.store([one for one, _ in targets], [other for _, other in targets], lock=False, scheduler=threads)
    return arrays


def in_own_threads(tasks: list[Delayed]) -> Any:
    """What tasks give, computed here and now, in threads of their own likewise."""
    with own_threads() as threads:
        return dask.compute(*tasks, scheduler=threads)


def own_threads() -> ThreadPoolExecutor:
    """As many threads as a computation has here."""
    return ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT)
