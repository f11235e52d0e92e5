"""Zarr stores where they lie: in a folder, in one zip file, behind a URL."""

import zipfile
from pathlib import Path
from shutil import copyfileobj

from zarr.storage import FsspecStore, ZipStore

from detcal.errors import InputError
from detcal.stores.sources.readers import clear_errors
from detcal.stores.sources.urls import is_url, store_at

ZIP = ".zip"
NO_ZIP = "it is no whole zip file: copy or write it again"
NOT_AT_TOP = "it has no zarr.json, .zgroup or .zarray at its top: pack what is in the store's folder, not the folder"


def is_zip(path: Path) -> bool:
    """Whether a path is a zip file with a zarr store in it."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with clear_errors(str(path)), zipfile.ZipFile(path) as archive:
        return not {"zarr.json", ".zgroup", ".zarray"}.isdisjoint(archive.namelist())


def is_store(path: str) -> bool:
    """Whether a path can only be that of a zarr store: a folder, a zip file, a URL.

    Raises
    ------
    InputError
        A zip file that has none in it, or is damaged.
    """
    if is_url(path) or Path(path).is_dir() or is_zip(Path(path)):
        return True
    if Path(path).suffix.lower() == ZIP and Path(path).is_file():
        raise InputError(f"expected a zarr store in {path}, but {NOT_AT_TOP if zipfile.is_zipfile(path) else NO_ZIP}")
    return False


def zarr_place(path: str | Path) -> Path | ZipStore | FsspecStore:
    """A store as zarr opens it: a folder by its path."""
    if is_url(path):
        return store_at(str(path))
    file = Path(path).is_file() and zipfile.is_zipfile(path)  # faster than to look into it for each block that is read
    return ZipStore(path, mode="r") if file else Path(path)


def pack(folder: Path, path: Path) -> None:
    """Put a store into a zip file: its chunks are compressed already, so that they are only copied, one at a time.

    Nothing but the store is in it, no times, so that the same store gives the same file.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in sorted(item for item in folder.rglob("*") if item.is_file()):
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            member.file_size = file.stat().st_size  # by which it is told whether it takes more than 32 bits
            with file.open("rb") as source, archive.open(member, "w") as target:
                copyfileobj(source, target)
