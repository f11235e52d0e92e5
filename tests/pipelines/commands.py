"""Commands of detcal, in a process of their own and in this one, and changes of recipes."""

import subprocess
import warnings
from contextlib import chdir
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from detcal_pipelines.chain import build, prepare_once
from detcal_pipelines.cli import main
from detcal_pipelines.exits import show_once
from detcal_pipelines.recipe import read_recipe

from tests.benchmarks.sampling import DETCAL

AMPLE = 2**34  # bytes of memory: the process of many tests holds more than one of its own would


def in_process(folder: Path, *arguments: str) -> Result:
    """A command in this process, without the seconds that one of its own takes to import all; it knows nothing of those before it."""
    show_once.cache_clear()
    prepare_once.cache_clear()
    with chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("default")
        return CliRunner().invoke(main, arguments)


def detcal(folder: Path, *arguments: str) -> Result:
    """The same of a command that must end well."""
    done = in_process(folder, *arguments)
    assert done.exit_code == 0, f"{done.exception!r}: {done.output}"
    return done


def fails(folder: Path, *arguments: str) -> str:
    """The message of a command that must fail, which must be one clear message and no traceback."""
    before = sorted(folder.rglob("*"))
    done = in_process(folder, *arguments)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("error: ") == 1
    assert sorted(folder.rglob("*")) == before, "nothing may be written"
    return done.stderr.partition("error: ")[2].strip()


def detcal_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A command in a process of its own that must end well."""
    done = subprocess.run([*DETCAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


def made_by(recipe: Path) -> Any:
    """What a recipe makes, without workers, in blocks of 16 frames."""
    return build(read_recipe(recipe), 16).compute()


def change(folder: Path, recipe: str, old: str, new: str) -> None:
    text = (folder / recipe).read_text()
    assert old in text
    (folder / recipe).write_text(text.replace(old, new))


def change_step(folder: Path, recipe: str, old: str, new: str) -> None:
    """The same below [[steps]]: [input] has keys of the same names."""
    above, header, below = (folder / recipe).read_text().partition("[[steps]]")
    assert old in below
    (folder / recipe).write_text(above + header + below.replace(old, new))
