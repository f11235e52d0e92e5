"""Which files a path, a list, a pattern, a folder or a text names, and in which order: that of the numbers in their names."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from glob import glob, has_magic
from itertools import pairwise
from os import PathLike, fspath
from os.path import abspath, exists, isdir, join, realpath
from pathlib import Path

from detcal.errors import InputError
from detcal.stores.sources.readers import check_readable
from detcal.stores.sources.urls import is_url

HDF5_SUFFIXES = {".h5", ".hdf5", ".nxs", ".hdf", ".nx"}
OF_IMAGES = {".btf", ".cbf", ".edf", ".img", ".kcd", ".mccd", ".png", ".sfrm", ".spe", ".tif", ".tiff"}  # of which series consist
PACKED = {".gz", ".bz2"}
OF_FRAMES = HDF5_SUFFIXES | OF_IMAGES | {".npy"}
OF_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
OF_NAMES = {".txt", ".lst"}  # texts that name a file in each line
MOST_SERIES = 3  # in a message
MASTER = "_master"  # at the end of the names of files that link to others beside them
# A number in a name; a dash before it is its sign, but not where it joins: angle_-5 is below 0, run-5 and 2026-11-05 are not.
NUMBER = re.compile(r"((?<![^\s_=/(,])-[0-9]+|[0-9]+)")
DECIMAL = re.compile(r"(?<![0-9.])([0-9]+\.[0-9]+)(?![0-9.]*[0-9])")  # or two numbers: nobody can tell, where only one is behind a point
ANY_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)*")
PathOrName = str | PathLike[str]


def find_paths(path: PathOrName | Sequence[PathOrName]) -> list[str]:
    """The files that a path, list, glob, folder or text names, as absolute paths: a worker may run in another folder."""
    if is_url(path):
        return [str(path).rstrip("/")]
    if not isinstance(path, str | PathLike):
        found = [fspath(item) for item in path]
    elif is_pattern(path):
        found = in_order(glob(fspath(path)))
    elif is_folder(path):
        found = files_in(Path(path))
    elif Path(path).suffix.lower() in OF_NAMES:
        found = names_in(Path(path))
    else:
        found = [fspath(path)]
    if not found:
        raise InputError(f"no file matches {path}")
    for name in found:
        check_readable(name)
    return [name if is_url(name) else abspath(name) for name in found]


def takes(path: PathOrName | Sequence[PathOrName], name: str) -> bool:
    """Whether a pattern or a folder would take a file of some name, if there was one."""
    if not is_series(path):
        return False
    assert isinstance(path, str | PathLike)
    if not is_pattern(path):
        file = Path(name)
        return realpath(file.parent) == realpath(path) and not file.name.startswith(".") and kind_of(file) in OF_FRAMES
    wanted, parts = Path(abspath(path)).parts, Path(name).parts
    return len(wanted) == len(parts) and all(map(fnmatch, parts, wanted))


def is_series(path: PathOrName | Sequence[PathOrName]) -> bool:
    """Whether files are found by what their names have in common, so that a gap in their numbers is one that is missing."""
    return isinstance(path, str | PathLike) and not is_url(path) and (is_pattern(path) or is_folder(path))


def is_pattern(path: PathOrName) -> bool:
    """Whether it is a pattern of names, and no file that has such a name."""
    return has_magic(fspath(path)) and not Path(path).exists()


def is_folder(path: PathOrName) -> bool:
    """Whether it is a folder, and no zarr store."""
    return isdir(path) and not any(exists(join(path, name)) for name in OF_ZARR)  # which pass over what may not be read


def files_in(folder: Path) -> list[str]:
    """The files of frames in a folder, which must be of one kind; of files that link to those beside them, these alone.

    Raises
    ------
    InputError
        There are none, or some of several kinds.
    """
    check_readable(str(folder))
    kinds_of = {file: kind_of(file) for file in folder.iterdir() if not file.name.startswith(".")}
    found = [file for file, kind in kinds_of.items() if kind in OF_FRAMES]
    masters = [file for file in found if file.stem.endswith(MASTER)]
    kinds = Counter(file.suffix for file in masters or found)
    if len(kinds) > 1:
        one = folder / f"*{kinds.most_common(1)[0][0]}"
        raise InputError(f"expected files of one kind in {folder}, got {told(kinds)}: choose by a pattern, such as {one}")
    if not found:
        raise InputError(f"cannot read {folder}: it is a folder without image files, and no zarr store")
    if several := series_of(file.name for file in masters or found):
        one = folder / several.most_common(1)[0][0]
        raise InputError(f"expected one series of files in {folder}, got {told(several)}: choose by a pattern, such as {one}")
    return in_order(str(file) for file in masters or found)


def warn_of_several(path: PathOrName | Sequence[PathOrName], paths: Sequence[str]) -> None:
    """Say so where a pattern takes files of several series, as flats beside projections are; a list is as it was meant."""
    if is_series(path) and (several := series_of(Path(name).name for name in paths)):
        warnings.warn(f"{path} takes several series of files, one after the other: {told(several)}", stacklevel=4)


def series_of(names: Iterable[str]) -> Counter[str]:
    """How many files there are of each name but for its numbers, if there are several such; single files make up one series."""
    found = Counter(ANY_NUMBER.sub("*", name) for name in names)
    return found if len(found) > 1 and max(found.values()) > 1 else Counter()


def told(series: Counter[str]) -> str:
    """The largest series of several, and how many files they have."""
    return ", ".join(f"{count} {name}" for name, count in series.most_common(MOST_SERIES)) + ", …" * (len(series) > MOST_SERIES)


def kind_of(file: Path) -> str:
    """The suffix of a name; of a packed file that of what is in it."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in PACKED else suffix


def names_in(text: Path) -> list[str]:
    """The files that a text names, one a line, as seen from its folder; not those behind a #.

    Raises
    ------
    InputError
        It is no such text, or names none.
    """
    check_readable(str(text))
    try:
        lines = [line.strip() for line in text.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        lines = []
    names = [str(text.parent / line) for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError(f"expected the names of files in {text}, one a line, got none")
    return names


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their numbers; says so where decimals would be in another one."""
    found = sorted(names, key=natural_order)
    wrong = next(((first, second) for first, second in pairwise(found) if before_as_decimals(second, first)), None)
    if wrong is not None:
        warnings.warn(
            f"numbers behind a point in names are taken as whole ones: {Path(wrong[0]).name} comes before {Path(wrong[1]).name}; if they "
            "are decimals, give a list of the files in their order",
            stacklevel=3,
        )
    return found


def before_as_decimals(name: str, other: str) -> bool:
    """Whether a name would come before another one that is the same but for its decimals."""
    parts, others = (DECIMAL.split(Path(each).name) for each in (name, other))
    if parts[::2] != others[::2]:
        return False
    return [float(part) for part in parts[1::2]] < [float(part) for part in others[1::2]]


def natural_order(name: str) -> tuple[tuple[str | int, ...], str]:
    """What to sort names by so that numbers in them count as numbers; names that then are the same are sorted as texts."""
    parts = NUMBER.split(name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


def gaps_in(names: list[str]) -> dict[int, list[str]]:
    """The names that are missing in a series of numbered files, by the place of the file behind them; none if it is no such series.

    That is one in which a single number differs and grows in steps, of which most are there.
    """
    parts = [NUMBER.split(name) for name in names]
    places = [place for place in range(1, len(parts[0]), 2) if len({int(part[place]) for part in parts if len(part) > place}) > 1]
    if len(places) != 1 or len({(*part[: places[0]], *part[places[0] + 1 :]) for part in parts}) > 1:
        return {}
    numbers = [int(part[places[0]]) for part in parts]
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps)
    if step <= 0 or any(each % step for each in steps) or not 0 < sum(steps) // step - len(steps) < len(names):
        return {}
    return {
        place: [with_number(parts[place], places[0], number) for number in range(numbers[place - 1] + step, numbers[place], step)]
        for place, each in enumerate(steps, 1)
        if each > step
    }


def with_number(parts: list[str], place: int, number: int) -> str:
    """A name with another number, of as many digits."""
    return "".join([*parts[:place], f"{number:0{len(parts[place])}}", *parts[place + 1 :]])
