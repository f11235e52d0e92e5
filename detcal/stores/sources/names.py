"""Which files a path, a list or a pattern names, and in which order: that of the numbers in their names."""

import re
from collections.abc import Sequence
from glob import glob, has_magic
from os import PathLike, fspath
from os.path import abspath
from pathlib import Path

from detcal.errors import InputError
from detcal.stores.sources.readers import check_readable

# A number in a name; a dash before it is its sign, but not where it joins: angle_-5 is below 0, run-5 and 2026-11-05 are not.
NUMBER = re.compile(r"((?<![^\s_=/(,])-[0-9]+|[0-9]+)")
PathOrName = str | PathLike[str]


def find_paths(path: PathOrName | Sequence[PathOrName]) -> list[str]:
    """The files that a path, list or glob names, as absolute paths: a worker may run in another folder."""
    if not isinstance(path, str | PathLike):
        found = [fspath(item) for item in path]
    elif has_magic(fspath(path)) and not Path(path).exists():
        found = sorted(glob(fspath(path)), key=natural_order)
    else:
        found = [fspath(path)]
    if not found:
        raise InputError(f"no file matches {path}")
    for name in found:
        check_readable(name)
    return [abspath(name) for name in found]


def natural_order(name: str) -> tuple[tuple[str | int, ...], str]:
    """What to sort names by so that numbers in them count as numbers; names that then are the same are sorted as texts."""
    parts = NUMBER.split(name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name
