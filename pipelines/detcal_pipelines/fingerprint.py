"""What a run rests on: its recipe, its inputs and calibrations, and the versions of the steps. Whatever changed must not be mixed."""

import json
from collections.abc import Iterable
from hashlib import blake2b
from importlib.metadata import version
from os.path import relpath
from pathlib import Path
from platform import python_version
from typing import Any

from pydantic_core import to_jsonable_python

from detcal.errors import RunError
from detcal.stores.sources.urls import is_url, version_of_url
from detcal.version import __version__
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps.registry import package_of
from detcal_pipelines.steps.sources import RecipePath

END_BYTES, SAMPLE_BYTES, SAMPLES = 2**16, 2**12, 16  # of a file: its ends whole, and samples in between
SAMPLED_FILES = 32  # of a folder
LIBRARIES = ("dask", "distributed", "h5py", "numba", "numpy", "pyFAI", "scipy", "xarray", "zarr")

Fingerprint = dict[str, Any]


def fingerprint(recipe: Recipe, files: Iterable[str]) -> Fingerprint:
    """What a run of a recipe on these files rests on; paths are as seen from the output's folder, which may be moved with its inputs."""
    folder = Path(recipe.output.path).parent
    steps = {step.operation: str(package_of(step.operation) or f"detcal {__version__}") for step in recipe.steps}
    asked = recipe.model_dump(exclude={"compute": True, "output": {"overwrite"}})
    return {
        "recipe": to_jsonable_python(seen_from(folder, asked)),
        "inputs": {file if is_url(file) else relpath(file, folder): state_of(file) for file in sorted(set(files))},
        "steps": steps,
    }


def versions() -> dict[str, str]:
    """Of what a result depends on, beside the steps."""
    return {"detcal": __version__, "python": python_version(), **{name: version(name) for name in LIBRARIES}}


def seen_from(folder: Path, value: Any) -> Any:
    """The same values, with paths in them as seen from a folder."""
    if isinstance(value, dict):
        return {name: seen_from(folder, each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [seen_from(folder, each) for each in value]
    return relpath(value, folder) if isinstance(value, RecipePath) and not is_url(value) else value


def state_of(file: str) -> list[Any]:
    """Size, time of the last change and a hash of samples, of a file or of all files in a folder; of a URL what its server tells."""
    if is_url(file):
        return [0, 0, version_of_url(file)]
    path = Path(file)
    size, changed = size_and_time(path)
    if not path.is_dir():
        return [size, changed, samples_of(path, size)]
    files = sorted(each for each in path.rglob("*") if each.is_file())
    found = blake2b(digest_size=8)
    for each in files[:: max(1, len(files) // SAMPLED_FILES)]:
        found.update(f"{each.relative_to(path)}{samples_of(each, each.stat().st_size)}".encode())
    return [size, changed, found.hexdigest()]


def size_and_time(path: Path) -> tuple[int, int]:
    """Size and time of the last change, of a file or of all files in a folder."""
    states = [each.stat() for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path.stat()]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def check_kept(recipe: Recipe, basis: Fingerprint) -> None:
    """Refuse a result of files that have changed since the run began.

    Raises
    ------
    RunError
        Which have, and how.
    """
    folder = Path(recipe.output.path).parent
    there = {name: state for name, state in basis["inputs"].items() if is_url(name) or (folder / name).exists()}
    now = {name: state_of(name) if is_url(name) else [*size_and_time(folder / name), state[2]] for name, state in there.items()}
    changed = differences(basis, {**basis, "inputs": now})
    if changed:
        raise RunError(f"the input has changed while the run read it: {'; '.join(changed)}. Nothing is kept: run again")


def samples_of(path: Path, size: int) -> str:
    """A hash of both ends of a file, and of samples in between."""
    found = blake2b(digest_size=8)
    with open(path, "rb") as file:
        found.update(file.read(END_BYTES))
        for number in range(1, SAMPLES):
            file.seek(size * number // SAMPLES)
            found.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, size - END_BYTES))
        found.update(file.read(END_BYTES))
    return found.hexdigest()


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What is not as it was, in words."""
    return [
        *keys_that_differ(before["recipe"], after["recipe"], "the recipe"),
        *(f"{name} is read now, and was not" for name in after["inputs"].keys() - before["inputs"].keys()),
        *(f"{name} is not read any more" for name in before["inputs"].keys() - after["inputs"].keys()),
        *(f"{name} was {how}" for name, state in before["inputs"].items() if (how := change(state, after["inputs"].get(name, state)))),
        *(
            f"{name} was of {of}, and is of {after['steps'][name]}"
            for name, of in before["steps"].items()
            if after["steps"].get(name, of) != of
        ),
    ]


def keys_that_differ(before: Any, after: Any, place: str) -> list[str]:
    """The values of a recipe that are not the same."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = dict.fromkeys([*before, *after])
        return [
            text
            for name in names
            for text in keys_that_differ(
                before.get(name), after.get(name), f"{place}'s {name}" if place == "the recipe" else f"{place}.{name}"
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            text for number, pair in enumerate(zip(before, after, strict=True)) for text in keys_that_differ(*pair, f"{place}[{number}]")
        ]
    was, now = json.dumps(before), json.dumps(after)  # texts, since NaN is not the same as NaN
    return [] if was == now else [f"{place} was {was}, and is {now}"]


def change(before: list[Any], after: list[Any]) -> str:
    """What happened to a file."""
    if before[0] != after[0]:
        return f"{before[0]} bytes long, and is {after[0]}"
    if before[2] != after[2]:
        return "written anew"
    return "touched: its time of change is another" if before[1] != after[1] else ""


def provenance(recipe: Recipe) -> dict[str, str]:
    """What made the output, beside the version of detcal: the recipe, and whose steps are in it that are not detcal's."""
    others = {step.operation: str(package) for step in recipe.steps if (package := package_of(step.operation))}
    return {"detcal_recipe": recipe.model_dump_json()} | ({"detcal_steps_of": json.dumps(others)} if others else {})
