"""Sums over all frames, saved now and then, so that a fit that breaks off goes on from the last one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import google_crc32c
import numpy as np
from dask.array import Array
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from numpy.typing import NDArray

from detcal.frames.graph import FOLD, MERGED, TOTAL

SECONDS_BETWEEN_SAVES = 2.0
SAVED_A_SECOND = 200e6  # bytes, on a slow disk
SHARE_OF_TIME = 0.03  # that saving may take
BEGUN = "begun"  # a file that says since when there is something to save


@dataclass(frozen=True)
class Fold:
    """The largest sum of a graph: the layer that it is, in how many parts it is summed, and into how many tiles these are cut."""

    layer: str
    parts: int
    tiles: int

    def totals(self, parts: int) -> list[Any]:
        """The keys of what so many parts sum up to, tile by tile, one part after the other."""
        return [(self.layer, TOTAL, part, tile) for part in range(parts) for tile in range(self.tiles)]


def largest_fold(graph: HighLevelGraph, writes: Mapping[str, Array]) -> Fold | None:
    """The sum of most parts and tiles, if these are more than blocks that are written: else it is that of a scan's darks, and soon done."""
    layers = {name: layer for name, layer in graph.layers.items() if name.startswith(FOLD)}
    folds = [Fold(name, *shape_of(layer)) for name, layer in layers.items()]
    largest = max(folds, key=lambda fold: fold.parts * fold.tiles, default=None)
    blocks = max((array.npartitions for array in writes.values()), default=0)
    return largest if largest is not None and largest.parts * largest.tiles > blocks else None


def shape_of(layer: Iterable[Any]) -> tuple[int, int]:
    """How many parts and tiles the keys of a sum tell of."""
    totals = [key[2:] for key in layer if isinstance(key, tuple) and key[1] == TOTAL]
    return max(part for part, _ in totals) + 1, max(tile for _, tile in totals) + 1


def with_saving(graph: HighLevelGraph, fold: Fold, folder: Path) -> HighLevelGraph:
    """The graph in which the task that makes a sum saves it too, if it is time to: a task of its own would keep sums waiting in memory."""
    layer: Mapping[Any, Any] = graph.layers[fold.layer]
    saving = {key: (saved, layer[key], folder, key[2:], fold) for key in fold.totals(fold.parts - 1)}
    return HighLevelGraph({**graph.layers, fold.layer: MaterializedLayer({**layer, **saving})}, graph.dependencies)


def with_saved(graph: HighLevelGraph, fold: Fold, found: Mapping[tuple[int, int], NDArray[Any]]) -> HighLevelGraph:
    """The graph in which the sums of tiles up to some parts are there already: what they were made of is not wanted any more."""
    layer: Mapping[Any, Any] = graph.layers[fold.layer]
    there = {(fold.layer, TOTAL, *place): total for place, total in found.items()}
    merged = {(fold.layer, MERGED, earlier, tile): None for part, tile in found for earlier in range(part + 1)}
    return HighLevelGraph({**graph.layers, fold.layer: MaterializedLayer({**layer, **merged, **there})}, graph.dependencies)


def saved(total: NDArray[Any], folder: Path, place: tuple[int, int], fold: Fold) -> NDArray[Any]:
    """The sum itself, up to a part and of a tile, which is saved if the tile's last one was long enough ago, in place of that."""
    part, tile = place
    folder.mkdir(exist_ok=True)
    begun = folder / BEGUN
    if not begun.exists():
        begun.touch()
    before = list(folder.glob(f"{tile}-*.npy"))
    last = max(file.stat().st_mtime for file in before or [begun])
    if 0 <= time() - last < max(SECONDS_BETWEEN_SAVES, fold.tiles * total.nbytes / SAVED_A_SECOND / SHARE_OF_TIME):  # clocks may go back
        return total
    new = folder / f".{tile}-{part}.new"
    with open(new, "wb") as target:
        np.save(target, total, allow_pickle=False)
    new.replace(folder / f"{tile}-{fold.tiles}-{part}-{fold.parts}-{google_crc32c.value(total.tobytes())}.npy")
    for file in before:
        file.unlink(missing_ok=True)
    return total


def share_saved(folder: Path) -> float:
    """Of a sum, how much is saved of all of its tiles."""
    files = [named(file) for file in files_in(folder)]
    shares = {tile: (part + 1) / parts for tile, _, part, parts, _ in sorted(files)}
    return min(shares.values()) if files and len(shares) == files[0][1] else 0.0


def read_sums(folder: Path, fold: Fold) -> dict[tuple[int, int], NDArray[Any]]:
    """The last sums that were saved whole, of such parts and tiles, by the part up to which they go, and their tile."""
    found: dict[int, tuple[int, NDArray[Any]]] = {}
    for file in files_in(folder):
        tile, tiles, part, parts, checksum = named(file)
        if (parts, tiles) != (fold.parts, fold.tiles) or found.get(tile, (-1,))[0] > part:
            continue
        try:
            total: NDArray[Any] = np.load(file, allow_pickle=False)
        except (OSError, ValueError):
            continue
        if google_crc32c.value(total.tobytes()) == checksum:
            found[tile] = part, total
    return {(part, tile): total for tile, (part, total) in found.items()}


def files_in(folder: Path) -> list[Path]:
    """The sums that are saved."""
    return list(folder.glob("*-*-*-*-*.npy"))


def named(file: Path) -> tuple[int, ...]:
    """What the name of a sum says: its tile, of how many, its part, of how many, and its checksum."""
    return tuple(map(int, file.stem.split("-")))
