"""Outputs appear whole or not at all: written under a temporary name beside the target and renamed at the end."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import link
from os.path import lexists
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic, sleep
from uuid import uuid4

from detcal.errors import OutputError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
CHANGED_MEANWHILE = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}  # by a task that still has files of a folder open
TAKEN = {errno.EEXIST, errno.ENOTEMPTY}  # what renaming says of a name that is not free
OVERWRITE = "--overwrite, in a recipe overwrite = true under [output], from Python overwrite=True"
MOST_NAMES = 1000  # that are tried for a result whose own name is taken
STORE_FILES = ("zarr.json", ".zgroup", ".zarray")  # one of them lies at the top of a zarr store
PATIENCE = 5.0  # seconds, for tasks to close their files in a folder that is to be removed


def is_zarr_store(path: Path) -> bool:
    """Whether a folder is a zarr store."""
    return any((path / name).is_file() for name in STORE_FILES)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, or that cannot be written; whoever overwrites may replace files and stores, but no other folder."""
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}")
    check_writable(path.parent)
    if path.is_dir():
        check_replaceable(path)
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to what is not there, {path.readlink()}: remove the link, or choose another name")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: choose another name, or overwrite it ({OVERWRITE})")


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made: to ask for permissions alone would miss file systems that are read-only."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"cannot write in {folder}: {error.strerror}") from error


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that nobody wants to lose."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise OutputError(f"{folder} is the current folder, or holds it: choose another name")
    if not is_zarr_store(folder):
        raise OutputError(f"{folder} is a folder that is not a zarr store: choose another name, or remove it yourself")


def ledger_of(path: Path) -> Path:
    """Beside an output, what the run that made it has noted of it; what takes its place is not of that run."""
    return path.with_name(f"{path.name}.ledger")


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A hidden name in the folder of `path`; whatever lies there in the end is removed."""
    with removed_at_the_end(path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")) as temporary:
        yield temporary


@contextmanager
def removed_at_the_end(temporary: Path) -> Iterator[Path]:
    """A name under which nothing is left."""
    try:
        yield temporary
    finally:
        with suppress(PermissionError):  # in a folder that was closed meanwhile: the error that this led to is the one to tell
            remove(temporary)


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary path to write to, which takes the target's place if all goes well.

    What has appeared there meanwhile stays unless it may be overwritten.
    """
    with temporary_beside(path) as temporary, clear_write_errors(path, temporary):
        yield temporary
        put_in_place(temporary, path, overwrite)


@contextmanager
def clear_write_errors(path: Path, temporary: Path) -> Iterator[None]:
    """One line of a disk that is full, or of a folder that nobody may write in.

    Raises
    ------
    OutputError
        Of an output that is written under a temporary name.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise OutputError(f"no room left on the disk of {path.parent.resolve()}: {path.name} was not written or changed") from error
        ours = temporary.stem in f"{error.filename} {error.filename2}" or error.filename == str(path)  # and not an input
        if error.errno in FORBIDDEN and ours:
            raise OutputError(f"cannot write in {path.parent}: {error.strerror}") from error
        raise


def put_in_place(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a finished output its name; what has appeared there meanwhile stays unless it may be overwritten."""
    if overwrite:
        check_free(path, overwrite)  # it may be another one than when the work began
        take_place(temporary, path)
    else:
        take_free_place(temporary, path)


def take_free_place(temporary: Path, path: Path) -> None:
    """Rename the finished output to its name, or to another one if something has taken it meanwhile: no result is lost.

    Raises
    ------
    OutputError
        Which says the other name.
    """
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, MOST_NAMES))
    name = next(name for name in (path, *others) if take_free_name(temporary, name))
    if name != path:
        raise OutputError(f"{path} appeared while this was computed, and is left as it is: the result is in {name}")


def take_free_name(temporary: Path, path: Path) -> bool:
    """Rename an output if nothing has that name, in one step with the look whether there is; returns whether it was free."""
    try:
        if temporary.is_dir():
            path.mkdir()  # a folder may replace an empty one, which from here on is ours
            temporary.rename(path)
        else:
            link_or_claim(temporary, path)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True


def link_or_claim(temporary: Path, path: Path) -> None:
    """Give a file a name that must be free; where file systems have no links, by an empty file that it then replaces."""
    try:
        link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        path.open("xb").close()
        temporary.replace(path)
    else:
        temporary.unlink()


def take_place(temporary: Path, path: Path) -> None:
    """Rename the finished output; an older folder is moved aside first, since it cannot be replaced in one step."""
    if not path.exists() or (path.is_file() and temporary.is_file()):
        temporary.replace(path)
        return
    aside = temporary.with_suffix(".old")
    try:
        path.rename(aside)
        temporary.rename(path)
    finally:  # after Ctrl-C too, which may come between the two
        if lexists(aside) and not lexists(path):
            aside.rename(path)
        remove(aside)


def sync(path: Path) -> None:
    """See to it that a file, or all files of a folder, are on the disk, should the machine go down."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        number = os.open(each, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one.

    A folder disappears at once, so that tasks that still write into it notice, whatever part of it they look at. Its name until all in
    it is removed tells whose it was, should the process be killed meanwhile.
    """
    if not lexists(path):  # on a disk that is read-only, too
        return
    gone = path.with_name(f".{path.name.removeprefix('.')}.{uuid4().hex[:8]}.gone")
    with suppress(FileNotFoundError):  # there is none, or another task has removed it
        path.rename(gone)
    if gone.is_symlink() or not gone.is_dir():
        gone.unlink(missing_ok=True)
        return
    end = monotonic() + PATIENCE
    while gone.exists():
        try:
            shutil.rmtree(gone)
        except OSError as error:
            if error.errno not in CHANGED_MEANWHILE or monotonic() > end:
                raise
            sleep(0.01)
