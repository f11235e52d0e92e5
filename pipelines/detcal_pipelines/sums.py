"""Sums over all frames, saved now and then, so that a fit that breaks off goes on from the last one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import google_crc32c
import numpy as np
from dask.array import Array
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from numpy.typing import NDArray

from detcal.frames.graph import FOLD, TOTAL

SECONDS_BETWEEN_SAVES = 2.0
SAVED_A_SECOND = 200e6  # bytes, on a slow disk
SHARE_OF_TIME = 0.03  # that saving may take


@dataclass(frozen=True)
class Fold:
    """The largest sum of a graph: the layer that it is, and in how many parts it is summed."""

    layer: str
    parts: int


def largest_fold(graph: HighLevelGraph, writes: Mapping[str, Array]) -> Fold | None:
    """The sum over most parts, if these are more than blocks that are written: else it is that of a scan's darks, say, and soon done."""
    layers = {name: layer for name, layer in graph.layers.items() if name.startswith(FOLD)}
    folds = [Fold(name, sum(isinstance(key, tuple) and key[1] == TOTAL for key in layer)) for name, layer in layers.items()]
    largest = max(folds, key=lambda fold: fold.parts, default=None)
    return largest if largest is not None and largest.parts > max((array.npartitions for array in writes.values()), default=0) else None


def with_saving(graph: HighLevelGraph, fold: Fold, folder: Path) -> HighLevelGraph:
    """The graph in which the task that makes a sum saves it too, if it is time to: a task of its own would keep sums waiting in memory."""
    layer: Mapping[Any, Any] = graph.layers[fold.layer]
    keys = {(fold.layer, TOTAL, part): part for part in range(fold.parts - 1)}
    saving = {key: (saved, layer[key], folder, part, fold.parts) for key, part in keys.items()}
    return HighLevelGraph({**graph.layers, fold.layer: MaterializedLayer({**layer, **saving})}, graph.dependencies)


def with_saved(graph: HighLevelGraph, fold: Fold, part: int, total: NDArray[Any]) -> HighLevelGraph:
    """The graph in which the sum up to a part is there already: what it was made of is not wanted any more."""
    layer: Mapping[Any, Any] = graph.layers[fold.layer]
    return HighLevelGraph({**graph.layers, fold.layer: MaterializedLayer({**layer, (fold.layer, TOTAL, part): total})}, graph.dependencies)


def saved(total: NDArray[Any], folder: Path, part: int, parts: int) -> NDArray[Any]:
    """The sum itself, which is saved if the last one was long enough ago, in place of that."""
    folder.mkdir(exist_ok=True)
    before = list(folder.glob("*.npy"))
    last = max((file.stat().st_mtime for file in before), default=folder.stat().st_mtime)
    if 0 <= time() - last < max(SECONDS_BETWEEN_SAVES, total.nbytes / SAVED_A_SECOND / SHARE_OF_TIME):  # clocks may go back
        return total
    new = folder / f".{part}.new"
    with open(new, "wb") as target:
        np.save(target, total, allow_pickle=False)
    new.replace(folder / f"{part}-{parts}-{google_crc32c.value(total.tobytes())}.npy")
    for file in before:
        file.unlink(missing_ok=True)
    return total


def share_saved(folder: Path) -> float:
    """Of a sum, how much is saved."""
    return max(((part + 1) / parts for part, parts, _ in map(named, folder.glob("*.npy"))), default=0.0)


def read_sums(folder: Path, parts: int) -> tuple[int, NDArray[Any]] | None:
    """The last sum that was saved whole, of so many parts, and up to which part it goes; None if there is none."""
    for file in sorted(folder.glob("*.npy"), key=lambda file: -named(file)[0]):
        part, of, checksum = named(file)
        try:
            total: NDArray[Any] = np.load(file, allow_pickle=False)
        except (OSError, ValueError):
            continue
        if of == parts and google_crc32c.value(total.tobytes()) == checksum:
            return part, total
    return None


def named(file: Path) -> tuple[int, int, int]:
    """What the name of a sum says: its part, of how many, and its checksum."""
    part, parts, checksum = map(int, file.stem.split("-"))
    return part, parts, checksum
