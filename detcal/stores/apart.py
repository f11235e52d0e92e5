"""An output stays apart from what it is made of: it is never one of these files, nor around them, nor inside one of them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from os import PathLike, fspath, stat
from os.path import abspath, realpath
from pathlib import Path
from typing import Any

import xarray as xr
from dask import is_dask_collection
from dask._task_spec import DataNode, Task

from detcal.errors import OutputError
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.hdf5_files import open_hdf5
from detcal.stores.sources.names import takes
from detcal.stores.sources.virtual import data_files
from detcal.stores.targets.replacing import is_zarr_store

SEVERAL = re.compile(r" … (.*) \(\d+ files\)$")
PathOrName = str | PathLike[str]


def check_apart(output: PathOrName, sources: Iterable[PathOrName], what: str = "input") -> None:
    """Refuse an output that is a source, holds one, or lies inside a store that is or holds one, under whatever name.

    Parameters
    ----------
    output, sources
        Paths; links of both kinds are followed.
    what
        What to call a source in the error.

    Raises
    ------
    OutputError
        Which names the source.
    """
    target = names_of(output)
    above = {each for path in target for each in Path(path).parents}
    above_files = set(map(identity, above)) - {None}
    own = identity(Path(output))
    for source in dict.fromkeys(fspath(each) for each in sources):
        paths = [Path(path) for path in names_of(source)]
        around = {each for path in paths for each in (path, *path.parents)}
        if not around.isdisjoint(map(Path, target)) or (own is not None and own in map(identity, around)):
            raise OutputError(f"the output {fspath(output)} would take the place of the {what} {source}: choose another name")
        roots = [store_around(path) for path in paths]
        if not above.isdisjoint(roots) or not above_files.isdisjoint(set(map(identity, roots)) - {None}):
            raise OutputError(f"the output {fspath(output)} lies inside the {what} {source}: choose another name")


def check_not_taken(output: PathOrName, series: Iterable[PathOrName]) -> None:
    """Refuse an output that one of these patterns or folders would take for frames when they are opened again.

    Raises
    ------
    OutputError
        Which names it.
    """
    for path in series:
        if any(takes(path, name) for name in names_of(output)):
            raise OutputError(
                f"the output {fspath(output)} would be one of the files of the input {fspath(path)} from then on: choose another name or"
                " folder"
            )


def names_of(path: PathOrName) -> set[str]:
    """A path in full, as it is written and with its links followed."""
    return {abspath(path), realpath(path)}


def identity(path: Path) -> tuple[int, int] | None:
    """What all names of a file have in common; None if there is no such file."""
    try:
        found = stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def store_around(path: Path) -> Path:
    """The outermost zarr store that a path lies in; the path itself if there is none."""
    return next((each for each in reversed(path.parents) if is_zarr_store(each)), path)


def origins(dataset: xr.Dataset) -> Iterator[str]:
    """The files that a dataset is made of, as far as it says so: by its attributes, and by the readers in its graph."""
    if isinstance(source := dataset.encoding.get("source"), str):
        yield source
    for attrs in (dataset.attrs, *(variable.attrs for variable in dataset.variables.values())):
        if isinstance(source := attrs.get("source"), str):
            yield from files_in(source)
    for variable in dataset.variables.values():
        if is_dask_collection(variable.data):
            yield from read_by(variable.data.__dask_graph__())


def files_in(source: str) -> list[str]:
    """The files in the text by which frames name their source: a file, a dataset in it, or the first and last of several."""
    if several := SEVERAL.search(source):
        return [source[: several.start()], several[1]]
    return [source.partition("::")[0]]


def read_by(graph: Any) -> Iterator[str]:
    """The files that the readers in a graph read; dask keeps what arrays were made from in layers of their own, or fused with what a
    delayed function takes."""
    for name, layer in getattr(graph, "layers", {}).items():
        if str(name).startswith(("original-", "finalize-")):
            yield from read_in(dict(layer))


def read_in(tasks: Mapping[Any, Any]) -> Iterator[str]:
    """The files that the readers among some tasks, and inside fused ones, read."""
    for key, node in tasks.items():
        if "original-" not in str(key):
            continue
        if not isinstance(node, Task):
            yield from files_of(node.value if isinstance(node, DataNode) else node)
            continue
        for inner in node.args:
            if isinstance(inner, Task | dict):
                yield from read_in({inner.key: inner} if isinstance(inner, Task) else inner)


def files_of(reader: Any) -> Iterator[str]:
    """The files of a reader, or of the readers in it; of xarray's too."""
    if isinstance(reader, Hdf5Reader):
        with open_hdf5(reader.path) as file:
            yield from (reader.path, *data_files(file[reader.dataset]))
    elif is_dataclass(reader):
        values = {field.name: getattr(reader, field.name) for field in fields(reader)}
        for name, value in values.items():
            each = value if isinstance(value, tuple) else (value,)
            if name in ("path", "paths"):
                yield from each
            else:
                yield from (file for inner in each if is_dataclass(inner) for file in files_of(inner))
    elif hasattr(reader, "array"):  # of xarray, around others
        yield from files_of(reader.array)
    else:
        array = reader.get_array() if hasattr(reader, "get_array") else reader
        store = getattr(array, "store", None)  # of zarr: a folder has a root, a zip file a path
        yield from (fspath(place) for place in (getattr(store, "root", None), getattr(store, "path", None)) if place)
