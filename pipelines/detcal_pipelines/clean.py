"""What runs that broke off, and writers that were killed, have left in a folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detcal.errors import DetcalError, OutputError
from detcal.stores.targets.replacing import remove
from detcal.stores.targets.save import WRITERS
from detcal.stores.targets.zarr_store import METADATA
from detcal_pipelines.ledger import is_ledger, read_ledger
from detcal_pipelines.lock import holder_of, is_held, only_run
from detcal_pipelines.unfinished import PARTS, REMOVED, Places, percent, settle

# .NAME.partial and so on of a run; with eight letters in between of `save`, of reports, and of what is being removed
KINDS = "|".join([*PARTS, REMOVED, "new"])
OWN_NAME, VERSION_MARK = re.compile(r"\.[0-9a-f]{8}\."), b'"detcal_version"'
HIDDEN = re.compile(rf"\.(?P<name>.+?)(\.html|\.[0-9a-f]{{8}}|\.({KINDS}))*\.({KINDS})")


@dataclass(frozen=True)
class Remains:
    """What is left of one output that is not whole."""

    output: Path
    files: tuple[Path, ...]
    held: bool

    def describe(self) -> str:
        """What it is, in words."""
        if self.held:
            return f"{self.output} is being written"
        ledger = Places.of(self.output).ledger
        try:
            done = f"{percent(read_ledger(ledger).share)} done" if ledger.is_file() else "which cannot go on"
        except DetcalError:
            done = "with a damaged ledger"
        return f"{self.output}, {done}: {', '.join(file.name for file in self.files)}"


def remains_in(place: Path) -> Iterator[Remains]:
    """What is left in a folder, or of one output."""
    folder, only = (place, None) if place.is_dir() and not (place / "zarr.json").exists() else (place.absolute().parent, place.name)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        hidden = HIDDEN.fullmatch(path.name)
        if hidden and only in (None, hidden["name"]) and Path(hidden["name"]).suffix.lower() in WRITERS:
            found.setdefault(hidden["name"], []).append(path)
    for name, files in found.items():
        output = folder / name
        if any(map(is_ours, files)):
            yield Remains(output, tuple(files), is_held(Places.of(output).lock))


def is_ours(path: Path) -> bool:
    """Whether a hidden file or folder is known to be detcal's: others have names that end like these."""
    if path.is_dir():
        metadata = path / METADATA
        return OWN_NAME.search(path.name) is not None or (metadata.is_file() and VERSION_MARK in metadata.read_bytes())
    return (
        OWN_NAME.search(path.name) is not None or is_ledger(path) or (path.suffix == ".lock" and (is_held(path) or bool(holder_of(path))))
    )


def clean(place: Path) -> Iterator[str]:
    """Remove what is left in a folder, or of one output, but what a run works at; says what."""
    for remains in remains_in(place):
        said, places = remains.describe(), Places.of(remains.output)
        try:
            with only_run(places.lock, remains.output):
                settle(places)
                for file in remains.files:
                    remove(file)
            yield f"removed: {said}"
        except OutputError:
            yield f"left: {remains.output} is being written"
