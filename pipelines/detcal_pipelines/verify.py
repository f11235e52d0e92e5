"""Whether an output is as the run wrote it that made it: every chunk, all metadata, no file too many; by its ledger, where that is there.

What has no ledger is held to itself: its chunks end in checksums, and its metadata are there twice.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import h5py
import numpy as np

from detcal.errors import InputError, OutputError
from detcal.stores.checksums import checksum_of
from detcal.stores.soundness import ANOTHER, MALFORMED, MOST_CHUNKS, Contents, Fault, chunk_name, contents_by_metadata, faults_in, files_of
from detcal.stores.sources.readers import check_readable
from detcal.stores.sources.zarr_zip import ZIP, is_zip
from detcal.stores.targets.exports import EXPORTERS
from detcal_pipelines.ledger import VERSION, Block, History, read_ledger, whole_lines
from detcal_pipelines.lock import is_held
from detcal_pipelines.unfinished import Places, check_is_output, percent

PIECE_BYTES = 2**26  # of a dataset that are read at once
CUT = ("depth", "begun")  # of the header: frames or rows a block, and blocks begun at once
MOST_LINES = 50  # that are printed of what is bad


@dataclass
class Record:
    """What a ledger says of an output, as far as it can be read.

    Attributes
    ----------
    history
        None: there is no ledger, or nothing of it can be used.
    faults, notes
        What is wrong with the ledger, and what is only to be said of it.
    """

    history: History | None = None
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """What was found of an output.

    Attributes
    ----------
    output, record
        What was looked at, and what its ledger says.
    contents
        What should be there; of another file than a store nothing.
    faults
        What is bad; files are named as seen from the output, which itself is ".".
    readable
        Whether files of a store could be looked at.
    """

    output: Path
    record: Record
    contents: Contents = field(default_factory=Contents)
    faults: list[Fault] = field(default_factory=list)
    readable: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing is bad, the ledger included."""
        return not self.faults and not self.record.faults

    def lines(self) -> Iterator[str]:
        """What there is to say, a line each, and how much was looked at."""
        yield from (f"note: {note}" for note in self.record.notes)
        bad = [*self.record.faults, *self.faults]
        yield from (f"bad: {fault}" for fault in bad[:MOST_LINES])
        if len(bad) > MOST_LINES:
            yield f"bad: … and {len(bad) - MOST_LINES} others"
        files = len(self.contents.chunks) + len(self.contents.others)
        what = f"{len(self.contents.chunks)} files of chunks and {len(self.contents.others)} others" if files else "1 file"
        yield f"{self.output}: {what} checked, {f'{len(bad)} bad' if bad else 'all sound'}"


def verify(output: Path) -> Findings:
    """Look at every file of an output, of a run or of `detcal.save`.

    Raises
    ------
    OutputError
        A run is at work at it, or broke off before there was one.
    InputError
        There is none, or nothing to check it by.
    """
    places = Places.of(output)
    if is_held(places.lock):
        raise OutputError(f"{output} is being written, or repaired: verify it when that has ended")
    return look_at(places)


def look_at(places: Places) -> Findings:
    """As `verify`, whoever holds the lock."""
    check_there(places)
    found = Findings(places.output, read_record(places))
    if found.record.history is None:
        check_is_output(places.output)
    if places.output.is_dir() or kind_of(places) in (".zarr", ZIP) or is_zip(places.output):
        look_at_store(found)
    else:
        look_at_file(found)
    return found


def kind_of(places: Places) -> str:
    """The suffix of an output."""
    return places.output.suffix.lower()


def check_there(places: Places) -> None:
    """Refuse what is not there, or not yet."""
    with suppress(OutputError):  # of a damaged ledger
        if not places.output.exists() and places.ledger.is_file():
            share = percent(read_ledger(places.ledger).share)
            raise InputError(f"{places.output} is not there yet: a run of it broke off, {share} done; the same command goes on with it")
    check_readable(str(places.output))


def read_record(places: Places) -> Record:
    """What the ledger of an output says, damaged or not."""
    path = places.ledger if places.ended else places.last_ledger
    if not path.is_file():
        return Record(notes=[f"there is no {path.name} that says what was written: each file is checked by itself"])
    events, damaged, _ = whole_lines(path)
    if damaged:
        events.insert(1, {"process": {}, "s": 0.0})  # whose own line may be one of those
    if 1 in damaged or not events:
        return Record(faults=[Fault(path.name, "its first line is damaged, and nothing in it can be used")])
    if events[0].get("detcal_ledger") != VERSION:
        return Record(notes=[f"{path.name} is of another version of detcal, and not used: each file is checked by itself"])
    try:
        history = History.of(events)
        check_usable(history)
    except MALFORMED:
        return Record(faults=[Fault(path.name, "it does not say what a ledger says, and is not used")])
    record = Record(history)
    record.faults += [Fault(path.name, f"line {number} is damaged") for number in damaged]
    if history.commit is None and not damaged:
        record.faults.append(Fault(path.name, "it is cut short: that the output was whole is not in it"))
    return record


def check_usable(history: History) -> None:
    """Raise one of `MALFORMED` if a ledger does not say what is needed of it."""
    add_noted(Contents(), history)
    header = history.header
    if not isinstance(header["provenance"]["detcal_recipe"], str) or not all(isinstance(header["cut"][name], int) for name in CUT):
        raise TypeError("expected a recipe, and how it is cut")
    if header["fingerprint"].keys() != {"recipe", "inputs", "steps"}:
        raise ValueError("expected a fingerprint")
    if any(map(leads_out, [*header["arrays"], *((history.commit or {}).get("files") or {})])):
        raise ValueError("expected arrays and files of the store: a repair would remove what is somewhere else")


def leads_out(name: str) -> bool:
    """Whether a file of a store would lie outside it."""
    return name.startswith("/") or ".." in name.split("/")


def look_at_store(found: Findings) -> None:
    """All files of a store."""
    commit = found.record.history.commit if found.record.history else None
    try:
        with files_of(found.output) as files:
            if commit is None:
                found.contents, found.faults = contents_by_metadata(files, found.output)
            if found.record.history is not None:
                add_noted(found.contents, found.record.history)
            known = {fault.file for fault in found.faults}
            found.faults += [fault for fault in faults_in(files, found.contents) if fault.file not in known]
    except (BadZipFile, OSError) as error:
        found.faults.append(Fault(".", f"it cannot be opened, {error}"))
        found.readable = False
        if found.record.history is not None:
            add_noted(found.contents, found.record.history)
        return
    noted = (commit or {}).get("output")
    if commit and found.output.is_file() != (noted is not None):
        found.faults.append(Fault(".", "it was one file, and is a folder" if noted else "it was a folder, and is one file"))
    elif noted and not found.faults and checksum_of(found.output) != tuple(noted):
        found.faults.append(Fault(".", "it was changed between the files in it"))


def add_noted(contents: Contents, history: History) -> None:
    """What a store should hold by its ledger: with seals, as far as these are in it."""
    for block in blocks_of(history):
        done = history.done.get(block)
        contents.chunks[file_of(block)] = history.header["arrays"][block[0]]["chunks"], done.seal if done else None
    for name, (size, checksum) in ((history.commit or {}).get("files") or {}).items():
        contents.others[name] = size, checksum


def blocks_of(history: History) -> Iterator[Block]:
    """All blocks of an output."""
    for name, array in history.header["arrays"].items():
        if prod(array["shape"]) > MOST_CHUNKS:
            raise ValueError(f"expected up to {MOST_CHUNKS} blocks, got {array['shape']}")
        yield from ((name, place) for place in np.ndindex(*array["shape"]))


def file_of(block: Block) -> str:
    """The file of a block."""
    return chunk_name(*block)


def look_at_file(found: Findings) -> None:
    """An output that is one file, of HDF5 or images."""
    commit = found.record.history.commit if found.record.history else None
    if commit and "output" in commit:
        size, checksum = checksum_of(found.output)
        if size != commit["output"][0]:
            found.faults.append(Fault(".", f"it has {size} bytes, and had {commit['output'][0]}"))
        elif checksum != commit["output"][1]:
            found.faults.append(Fault(".", ANOTHER))
    elif h5py.is_hdf5(found.output):
        found.record.notes.append("HDF5 files have no checksums: all that is found is what cannot be read")
        found.faults += unreadable_in(found.output)
    elif kind_of(Places.of(found.output)) in EXPORTERS and found.record.faults:
        return
    else:
        raise InputError(
            f"expected an output of a run, or a store or HDF5 file that detcal wrote, got {found.output}: nothing to check it by"
        )


def unreadable_in(path: Path) -> Iterator[Fault]:
    """What cannot be read of an HDF5 file."""
    names = ["."]
    try:
        with h5py.File(path, "r") as file:
            file.visit(names.append)
    except (OSError, RuntimeError) as error:
        yield Fault(".", f"it cannot be opened, {' '.join(str(error).split())}")
        return
    for name in names:
        try:
            with h5py.File(path, "r") as file:
                read_through(file[name])
        except (OSError, RuntimeError, KeyError) as error:
            yield Fault(name, f"it cannot be read, {' '.join(str(error).split())}")


def read_through(item: h5py.Group | h5py.Dataset) -> None:
    """Read a dataset, in pieces."""
    if not isinstance(item, h5py.Dataset) or not item.shape:
        return
    rows = max(1, PIECE_BYTES * len(item) // max(1, item.nbytes)) if item.shape[0] else 1
    for start in range(0, item.shape[0], rows):
        item[start : start + rows]
