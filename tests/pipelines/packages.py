"""Packages that add steps to detcal, as pip leaves them in a folder: modules and what a package says of itself; no network, no build."""

import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "a_package"


def install(target: Path) -> Path:
    """The laboratory's package, in a folder."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copytree(PACKAGE / "labsteps", target / "labsteps")
    write_metadata(target, project["name"], project["version"], project["entry-points"]["detcal.steps"])
    return target


def pretend(target: Path, name: str, source: str, **entries: str) -> None:
    """A package of one module with entry points, in a folder."""
    target.mkdir(exist_ok=True)
    (target / f"{name}.py").write_text(source)
    write_metadata(target, name, "0.1", entries)


def write_metadata(target: Path, name: str, version: str, entries: Mapping[str, str]) -> None:
    """What an installed package says of itself."""
    info = target / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[detcal.steps]\n" + "".join(f"{step} = {place}\n" for step, place in entries.items()))


@contextmanager
def found_in(folder: Path) -> Iterator[None]:
    """This process, and those that it starts, find the packages of a folder."""
    before = {*sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        yield
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
