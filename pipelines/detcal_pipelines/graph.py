"""The graph of a run: all outputs together, in windows of blocks, and none of its blocks begun long before its turn."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from math import ceil
from typing import Any

from dask._task_spec import DataNode, Task, TaskRef, convert_legacy_graph
from dask.array import Array
from dask.array.optimization import optimize
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.order import order

Graph = dict[Any, Any]
Ends = dict[Any, Any]  # what is asked of a graph: its keys, and what each stands for

DONE = "done"  # of keys that mark that another is done
WINDOW_BLOCKS = 1000  # whose tasks exist at once


def optimise_together(arrays: list[Array]) -> tuple[Graph, list[Any]]:
    """The tasks of all arrays, and the keys of their blocks: dask would optimise each array alone, and run what several share for each."""
    keys = list(flatten([array.__dask_keys__() for array in arrays]))
    return tasks_for(HighLevelGraph.merge(*(array.__dask_graph__() for array in arrays)), keys), keys


def tasks_for(graph: HighLevelGraph, keys: list[Any]) -> Graph:
    """The tasks that some keys take."""
    return convert_legacy_graph(dict(optimize(graph, keys)))


@dataclass(frozen=True)
class Window:
    """A part of a run: blocks that follow each other, and all tasks that they take.

    Attributes
    ----------
    graph, ends
        Tasks, and keys that are wanted of them, in the order of the data, with what each stands for.
    shared
        Keys that the next window wants too: a matrix, say.
    """

    graph: Graph
    ends: Ends
    shared: list[Any]


def windows(graph: HighLevelGraph, turns: Iterable[Ends]) -> Iterator[Window]:
    """A graph in windows, of which no more than two exist at once; `turns` are the ends of each window."""
    parts = ((ends, tasks_for(graph, list(ends))) for ends in turns)
    nothing_more: tuple[Ends, Graph] = ({}, {})
    for (ends, these), (_, later) in pairwise(chain(parts, [nothing_more])):
        yield Window(these, ends, shared_keys(these, later, set(ends)))


def shared_keys(these: Graph, later: Graph, wanted: Collection[Any]) -> list[Any]:
    """Tasks of two windows whose results the later one wants for what is its own."""
    both = {key for key in these.keys() & later.keys() if is_task(later[key])}
    needed = {each for key, node in later.items() if key not in both for each in node.dependencies}
    return [key for key in both & needed if key not in wanted]


def with_results(graph: Graph, results: Mapping[Any, Any], ends: Collection[Any]) -> Graph:
    """The tasks that are left to do where some results are there already."""
    graph = {**graph, **{key: DataNode(key, value) for key, value in results.items() if key in graph}}
    left, wanted = {}, list(ends)
    while wanted:
        key = wanted.pop()
        if key not in left:
            left[key] = graph[key]
            wanted += graph[key].dependencies
    return left


class Turns:
    """The blocks of several arrays that are not done yet, in windows: those of one lie at the same place of all arrays.

    There may be millions: those of a window are named when its turn comes.
    """

    def __init__(self, arrays: Mapping[str, Array], done: Collection[Any]) -> None:
        self.arrays, self.done = arrays, done
        self.number = ceil(max((array.npartitions for array in arrays.values()), default=0) / WINDOW_BLOCKS)

    def __iter__(self) -> Iterator[Ends]:
        return filter(None, map(self.window, range(self.number)))

    def window(self, turn: int) -> Ends:
        """What is left to do of a window."""
        found: Ends = {}
        for name, array in self.arrays.items():
            first, end = (ceil(each * array.npartitions / self.number) for each in (turn, turn + 1))
            for number in range(first, end):
                if (name, place := place_of(number, array.numblocks)) not in self.done:
                    found[array.name, *place] = (name, place)
        return found

    def sizes(self) -> list[int]:
        """How many blocks are left to do, of each window that has any."""
        return [len(ends) for ends in self]


def place_of(number: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The place of a block among so many along each dimension, by its number in C order."""
    place: list[int] = []
    for along in reversed(blocks):
        number, at = divmod(number, along)
        place.insert(0, at)
    return tuple(place)


@dataclass(frozen=True)
class Stage:
    """A block of the output: what has to be done for it that was not done for those before, and the writes that end it."""

    tasks: Graph
    ends: list[Any]

    def last(self) -> list[Any]:
        """Its tasks that no other of it needs."""
        needed = {each for node in self.tasks.values() for each in node.dependencies}
        return [key for key, node in self.tasks.items() if is_task(node) and key not in needed]


def in_stages(graph: Graph, ends: list[Any]) -> list[Stage]:
    """The graph taken apart: a stage for each block, in the order of `ends`, which is that of the data.

    A stage begins with tasks that need nothing but what the first block needs too, a matrix, say: these bring something new into memory.
    Whatever follows from them belongs to the stage that completes what it needs, so that it is not kept waiting.
    """
    turns = first_ends(graph, ends)
    begins = {key: turn for key, turn in turns.items() if is_task(graph[key]) and not any(turns[each] for each in graph[key].dependencies)}
    place = {turn: number for number, turn in enumerate(sorted({0, *begins.values()}))}
    stage: dict[Any, int] = {}
    after_needs = order(graph)
    for key in sorted(turns, key=after_needs.__getitem__):
        stage[key] = place[begins[key]] if key in begins else max((stage[each] for each in graph[key].dependencies), default=0)
    stages = [Stage({}, []) for _ in place]
    for key, number in stage.items():
        stages[number].tasks[key] = graph[key]
    for key in ends:
        stages[stage[key]].ends.append(key)
    return stages


def in_turn(stages: list[Stage], at_once: int) -> Graph:
    """The whole graph, in which the first tasks of a block wait until all is done for the block that was written `at_once` places before.

    Without this, where one task is held up others run ahead: what they make for blocks whose turn has not come piles up, beyond any plan.
    Nor is it enough that a block is written: what is yet to be added up of it, for a sum over all blocks, would stay in memory.
    """
    graph: Graph = {}
    for number, stage in enumerate(stages):
        graph |= stage.tasks
        written = next((each for each in stages[max(0, number - at_once) :: -1] if each.ends), None) if number >= at_once else None
        before = [] if written is None else [(DONE, key) for key in written.last()]
        for key, node in stage.tasks.items() if before else ():
            if is_task(node) and not any(each in stage.tasks for each in node.dependencies):
                graph[key] = Task(key, after, node, *map(TaskRef, before))
        graph |= {mark: Task(mark, nothing, TaskRef(mark[1])) for mark in before}
    return graph


def count_tasks(graph: Graph) -> int:
    """How many tasks there are."""
    return sum(map(is_task, graph.values()))


def first_ends(graph: Graph, ends: list[Any]) -> dict[Any, int]:
    """For each task the number of the first of the ends that needs it."""
    found: dict[Any, int] = {}
    for number, end in enumerate(ends):
        left = [end]
        while left:
            key = left.pop()
            if key not in found:
                found[key] = number
                left += graph[key].dependencies
    return found


def is_task(node: Any) -> bool:
    """Whether there is something to do, and not only a value."""
    return not isinstance(node, DataNode)


def after(value: Any, *before: Any) -> Any:
    """The value itself; what came before says no more than that its turn has come."""
    return value


def nothing(value: Any) -> None:
    """What marks that a value is there, without keeping it."""
