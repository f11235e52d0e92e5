"""Where an output comes from: its inputs, what calibrations among them were made of, and so on, down to raw files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from os.path import relpath
from pathlib import Path
from typing import Any

import h5py
import zarr

from detcal.errors import DetcalError
from detcal.stores.sources.nexus import written_by_detcal
from detcal.stores.sources.readers import clear_errors
from detcal.stores.sources.zarr_zip import is_zip, zarr_place
from detcal.stores.targets.replacing import is_zarr_store
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.unfinished import Places

DEEPEST = 8  # calibrations made of calibrations
MOST_FILES = 20  # of one output that are named


@dataclass(frozen=True)
class Origin:
    """What a file says of how it was made: which object it holds, by which version and recipe, and from what."""

    kind: str
    version: str
    steps: list[str]
    inputs: list[Path]


def provenance_of(inputs: list[Path], folder: Path, depth: int = 0, above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """A line for each input, and below those that detcal made what they were made from; names are as seen from a folder."""
    for path in inputs[:MOST_FILES]:
        name = f"{'  ' * depth}{relpath(path, folder)}"
        if not path.exists():
            yield f"{name}: not there any more"
            continue
        origin = origin_of(path)
        if origin is None:
            yield f"{name}: raw"
            continue
        yield f"{name}: {origin.kind}, {' → '.join(origin.steps) or 'saved from Python'}, detcal {origin.version}"
        if depth < DEEPEST and path not in above:
            yield from provenance_of(origin.inputs, folder, depth + 1, above | {path})
    if len(inputs) > MOST_FILES:
        yield f"{'  ' * depth}… and {len(inputs) - MOST_FILES} more"


def origin_of(path: Path) -> Origin | None:
    """How a file was made, if it is detcal's: by its attributes, and by its ledger, if that lies beside it."""
    attributes = attributes_of(path)
    if "detcal_version" not in attributes:
        return None
    asked = recipe_in(attributes)
    inputs = files_of(asked)
    ledger = Places.of(path).last_ledger
    if ledger.is_file():
        inputs = inputs_of(read_ledger(ledger).header, path.parent)
    steps = [str(step.get("operation")) for step in as_list(asked.get("steps")) if isinstance(step, dict)]
    return Origin(str(attributes.get("detcal_type", "data")), str(attributes["detcal_version"]), steps, inputs)


def inputs_of(header: dict[str, Any], folder: Path) -> list[Path]:
    """The files that a run read, by the header of its ledger."""
    return [Path(folder, name).resolve() for name in header["fingerprint"]["inputs"]]


def files_of(asked: dict[str, Any]) -> list[Path]:
    """The files that a recipe in attributes names."""
    named = dict.fromkeys(paths_in({**asked, "output": None}))
    return [Path(file) for path in named for file in (sorted(glob(path)) if has_magic(path) else [path])]


def as_list(value: Any) -> list[Any]:
    """What should be a list, if it is one."""
    return value if isinstance(value, list) else []


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a store or HDF5 file that detcal wrote; of what cannot be read, or is somebody else's, there are none."""
    try:
        with clear_errors(str(path)):
            if is_zarr_store(path) or is_zip(path):
                node = zarr.open(zarr_place(path), mode="r")
                return dict(node.attrs)
            if path.is_file() and h5py.is_hdf5(path) and written_by_detcal(str(path)):
                with h5py.File(path, "r") as file:
                    return dict(file["entry"].attrs)
    except DetcalError:
        pass
    return {}


def recipe_in(attributes: dict[str, Any]) -> dict[str, Any]:
    """The recipe that made an output, if its attributes say one."""
    try:
        found = json.loads(attributes.get("detcal_recipe", "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def paths_in(value: Any) -> Iterator[str]:
    """The files that a recipe names: it has them as absolute paths."""
    if isinstance(value, str) and Path(value).is_absolute():
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from paths_in(each)
