"""Zarr stores in one zip file."""

import zipfile
from pathlib import Path

from zarr.storage import ZipStore

ZIP = ".zip"


def is_zip(path: Path) -> bool:
    """Whether a path is a zip file."""
    return path.is_file() and zipfile.is_zipfile(path)


def zarr_place(path: str | Path) -> Path | ZipStore:
    """A store as zarr opens it: a folder by its path."""
    return ZipStore(path, mode="r") if is_zip(Path(path)) else Path(path)


def pack(folder: Path, path: Path) -> None:
    """Put a store into a zip file: its chunks are compressed already, so that they are only copied, one at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in sorted(item for item in folder.rglob("*") if item.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
