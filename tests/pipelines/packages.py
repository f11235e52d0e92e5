"""Packages that add steps to detcal: installed from a folder, without network."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "a_package"


def install(target: Path) -> Path:
    """A folder with the laboratory's package, as pip installs it."""
    source = target.with_name("source")
    shutil.copytree(PACKAGE, source)  # pip builds in it
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)], check=True)
    return target


def pretend(target: Path, name: str, module: str, source: str, **entries: str) -> None:
    """A package of one module with entry points, as if it were installed in a folder."""
    target.mkdir(exist_ok=True)
    (target / f"{module}.py").write_text(source)
    info = target / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
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
