"""Outputs appear whole or not at all: written under a temporary name beside the target and renamed at the end."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from detcal.errors import OutputError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, or whose folder does not."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: choose another name, or overwrite it (overwrite=True, --overwrite)")
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}")


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A hidden name in the folder of `path`; whatever lies there in the end is removed."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield temporary
    finally:
        remove(temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the target's place if all goes well."""
    with temporary_beside(path) as temporary:
        try:
            yield temporary
            take_place(temporary, path)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise OutputError(f"no room left on the disk of {path.parent.resolve()}: {path.name} was not written or changed") from error
            raise


def take_place(temporary: Path, path: Path) -> None:
    """Rename the finished output; an older folder is moved aside first, since it cannot be replaced in one step."""
    if not path.exists() or (path.is_file() and temporary.is_file()):
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.old")
    path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        aside.rename(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
