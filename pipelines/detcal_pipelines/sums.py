"""Sums over all frames, saved now and then, so that a fit that breaks off goes on from the last one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import google_crc32c
import numpy as np
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from numpy.typing import NDArray

from detcal.frames.graph import FOLD, TOTAL
from detcal_pipelines.ledger import Event

SECONDS_BETWEEN_SAVES = 2.0
SAVED_A_SECOND = 200e6  # bytes, on a slow disk
SHARE_OF_TIME = 0.03  # that saving may take

SAVE = "save-sums"


@dataclass(frozen=True)
class Fold:
    """The largest sum of a graph: the layer that it is, and in how many parts it is summed."""

    layer: str
    parts: int


def largest_fold(graph: HighLevelGraph) -> Fold | None:
    """The sum over most parts; None if nothing is summed, or all at once."""
    layers = {name: layer for name, layer in graph.layers.items() if name.startswith(FOLD)}
    folds = [Fold(name, sum(isinstance(key, tuple) and key[1] == TOTAL for key in layer)) for name, layer in layers.items()]
    largest = max(folds, key=lambda fold: fold.parts, default=None)
    return largest if largest is not None and largest.parts > 1 else None


def with_saving(graph: HighLevelGraph, fold: Fold, folder: Path) -> tuple[HighLevelGraph, list[Any]]:
    """The graph with tasks that save the sum so far, if it is time to; and their keys."""
    saves = {(SAVE, part): (save_sums, (fold.layer, TOTAL, part), folder, part) for part in range(fold.parts - 1)}
    layers = {**graph.layers, SAVE: MaterializedLayer(saves)}
    return HighLevelGraph(layers, {**graph.dependencies, SAVE: {fold.layer}}), list(saves)


def with_saved(graph: HighLevelGraph, fold: Fold, part: int, total: NDArray[Any]) -> HighLevelGraph:
    """The graph in which the sum up to a part is there already: what it was made of is not wanted any more."""
    layer: Mapping[Any, Any] = graph.layers[fold.layer]
    return HighLevelGraph({**graph.layers, fold.layer: MaterializedLayer({**layer, (fold.layer, TOTAL, part): total})}, graph.dependencies)


def save_sums(total: NDArray[Any], folder: Path, part: int) -> Event | None:
    """Save a sum if the last one was saved long enough ago; what to note of it."""
    folder.mkdir(exist_ok=True)
    last = max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
    if 0 <= time() - last < max(SECONDS_BETWEEN_SAVES, total.nbytes / SAVED_A_SECOND / SHARE_OF_TIME):  # clocks may go back
        return None
    file = folder / f"{part}.npy"
    new = folder / f".{part}.npy"
    with open(new, "wb") as target:
        np.save(target, total, allow_pickle=False)
    new.replace(file)
    return {"part": part, "file": file.name, "checksum": google_crc32c.value(total.tobytes())}


def read_sums(folder: Path, event: Event | None, parts: int) -> NDArray[Any] | None:
    """A sum as it was saved; None if there is none, or it is not whole."""
    if event is None or event["parts"] != parts:
        return None
    try:
        total: NDArray[Any] = np.load(folder / event["file"], allow_pickle=False)
    except (OSError, ValueError):
        return None
    return total if google_crc32c.value(total.tobytes()) == event["checksum"] else None


def keep_only(folder: Path, event: Event) -> None:
    """Remove sums that were saved before."""
    for file in folder.glob("*.npy"):
        if file.name != event["file"]:
            file.unlink(missing_ok=True)
