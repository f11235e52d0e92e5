"""The output of a run that has not ended: where it lies, whether the run can go on, and how it becomes the output.

Nothing appears under the output's own name before it is whole. What is beside it, hidden, while the run lasts and if it breaks off:
the store that is written (for an .h5 or .tif too), the ledger, saved sums, notes of damaged input, the lock, and a copy of the input if
that is not by whole frames. With the end of the run the store, or what is exported from it, takes the output's name, and the ledger becomes
NAME.ledger; beside it NAME.html is a report.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from os.path import lexists
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import zarr

from detcal.errors import InputError, OutputError
from detcal.stores.checksums import Seal, checksum_of, chunks_in_shard, fault_of, seal_of
from detcal.stores.soundness import chunk_name, other_files
from detcal.stores.targets.chunk_files import remove_half_written
from detcal.stores.targets.replacing import ledger_of, remove
from detcal.stores.targets.save import WRITERS
from detcal.stores.targets.zarr_store import METADATA, array_in, check_kept
from detcal_pipelines.fingerprint import Fingerprint, differences
from detcal_pipelines.ledger import Block, Event, History, Ledger, as_list, is_ledger, now, read_ledger, whole_lines
from detcal_pipelines.sums import share_saved

PARTS = ("partial", "ledger", "sums", "lock", "bad", "whole", "old", "frames")
SECONDS_TO_APPEAR, SECONDS_BETWEEN_LOOKS = 30.0, 0.1  # of a file on a disk of the network that another machine has written
REMOVED = "gone"  # how the names end of what is being removed


@dataclass(frozen=True)
class Places:
    """Where the parts of a run lie."""

    output: Path
    store: Path
    ledger: Path
    sums: Path
    lock: Path
    bad: Path  # notes of what of the input cannot be read
    whole: Path  # what is exported from the store
    old: Path  # an older output, while the new one takes its place
    frames: Path  # a copy of the input by whole frames, see detcal_pipelines.copying
    last_ledger: Path  # of an output that is whole
    report: Path

    @classmethod
    def of(cls, output: str | Path) -> "Places":
        """Beside an output.

        Raises
        ------
        InputError
            It has no name.
        """
        path = Path(output).absolute()
        if not path.name:
            raise InputError(f"expected the name of an output, got {output}")
        names = [*(f".{path.name}.{kind}" for kind in PARTS), ledger_of(path).name, f"{path.name}.html"]
        return cls(path, *map(path.with_name, names))

    def remove(self) -> None:
        """Remove what a run has left, the ledger last; not its output."""
        removed = self.output.parent.glob(f".{escape(self.output.name)}.*.{REMOVED}")  # by a process that was killed meanwhile
        for path in (*removed, self.store, self.whole, self.frames, self.sums, self.bad, self.ledger):
            remove(path)

    @property
    def ended(self) -> bool:
        """Whether the output is there that the ledger is of, which has not got its own name: the run was killed at its very end."""
        events = whole_lines(self.ledger)[0] if self.ledger.is_file() else []
        commit = next((event["commit"] for event in reversed(events) if "commit" in event), None)
        if commit is None:
            return False
        if "output" in commit:  # the store that it is exported from may be there still
            return self.output.is_file() and checksum_of(self.output) == tuple(commit["output"])
        metadata = self.output / METADATA
        return not self.store.exists() and metadata.is_file() and checksum_of(metadata) == tuple(commit["files"][METADATA])


def history_of(places: Places) -> History | None:
    """What is known of the run that is at work at an output, has broken off, or has made it; None if nothing is."""
    for path in (places.ledger, places.last_ledger):
        if path.is_file():
            return read_ledger(path)
    return None


def check_is_output(path: Path) -> None:
    """Refuse what no run, and no `detcal.save`, has written.

    Raises
    ------
    InputError
        By its name or content.
    """
    if path.suffix.lower() not in WRITERS and not (path / METADATA).is_file():
        raise InputError(f"expected an output, a file or store with one of {', '.join(WRITERS)} at the end of its name, got {path}")


def to_go_on(places: Places, basis: Fingerprint, *, restart: bool) -> History | None:
    """What a run that broke off has noted, if it can go on; None if there is none.

    Raises
    ------
    OutputError
        There is one, but what it rests on has changed.
    """
    if restart or not places.ledger.is_file() or not (places.store / METADATA).is_file():
        return None
    history = read_ledger(places.ledger)
    if share := share_saved(places.sums):
        history.sums = {"share": share}
    check_unchanged(places, history, basis)
    return history


def go_on(places: Places) -> Ledger:
    """The ledger of a run that broke off, with every block of it there: those that are not are noted as lost."""
    ledger = Ledger.go_on(places.ledger)
    remove_half_written(places.store)
    for block in lost_blocks(places.store, ledger.history):
        ledger.note(lost=as_list(block))
    return ledger


def check_unchanged(places: Places, history: History, basis: Fingerprint) -> None:
    """Refuse to mix what rests on different things."""
    changed = differences(history.header["fingerprint"], basis)
    if changed:
        raise OutputError(
            f"a run of {places.output} broke off, {percent(history.share)} done, and cannot go on, since something has changed: "
            f"{'; '.join(changed)}. Put it back as it was, or begin anew with --restart"
        )


def lost_blocks(store: Path, history: History) -> list[Block]:
    """Blocks that the ledger has and the disk has not: all are looked for, and those that may not have reached the disk are read."""
    unsure = set(history.unsure())
    return [block for block, done in history.done.items() if not is_there(store, block, done.seal, history, read=block in unsure)]


def is_there(store: Path, block: Block, seal: Seal, history: History, *, read: bool) -> bool:
    """Whether a block is on the disk as it was written."""
    file, chunks = store / chunk_name(*block), chunks_of(block, history)
    try:
        if not read:
            return file.stat().st_size == seal[0]
        return seal_of(file, chunks) == tuple(seal) and fault_of(file, chunks) is None
    except (OSError, ValueError):
        return False


def chunks_of(block: Block, history: History) -> int:
    """How many chunks are in the file of a block; 0 if it is one."""
    return int(history.header["arrays"][block[0]]["chunks"])


def written_seal(store: Path, block: Block, history: History) -> Seal:
    """What tells the file of a block that was written just now from all others.

    Raises
    ------
    OutputError
        It is not there, though a worker has written it.
    """
    file, end = store / chunk_name(*block), monotonic() + SECONDS_TO_APPEAR
    while True:
        with suppress(FileNotFoundError):
            return seal_of(file, chunks_of(block, history))
        check_kept(store)
        if monotonic() > end:
            raise OutputError(f"{file} was written by a worker, and is not there: workers need the same disk as this process")
        sleep(SECONDS_BETWEEN_LOOKS)


def header_of(basis: Fingerprint, plan: Any, writes: dict[str, Any], store: Path, provenance: dict[str, str]) -> Event:
    """The first line of a ledger."""
    group = zarr.open_group(store, mode="r")
    return {
        "fingerprint": basis,
        "provenance": provenance,
        "cut": {
            "unit": plan.cut.unit,
            "length": plan.cut.length,
            "depth": plan.depth,
            "begun": plan.begun,
            "copied": plan.copy is not None,
        },
        "arrays": {
            name: {"blocks": int(np.prod(array.numblocks)), "shape": array.numblocks, "chunks": chunks_in_shard(array_in(group, name))}
            for name, array in writes.items()
        },
        "steps": [step.operation for step in plan.steps],
        "bytes_in": int(plan.bytes_in),
        "bytes_out": int(plan.bytes_out),
    }


def percent(share: float) -> str:
    """A share in words: never 100 % of what is not done."""
    return f"{min(99, int(100 * share)) if share < 1 else 100} %"


def stored_bytes(path: Path) -> int:
    """Size on disk of a file or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def check_ledger_is_ours(places: Places) -> None:
    """Refuse to replace what has the name of the output's ledger, and is none.

    Raises
    ------
    OutputError
        With the name.
    """
    if lexists(places.last_ledger) and not is_ledger(places.last_ledger):
        raise OutputError(f"{places.last_ledger} exists already, and is no ledger of detcal: move it away")


def settle(places: Places) -> None:
    """Finish what a run that was killed at its very end has left undone."""
    if lexists(places.old) and not lexists(places.output):
        places.old.rename(places.output)  # until the new one is there
    remove(places.old)
    if places.ended:
        places.ledger.replace(places.last_ledger)
        places.remove()


def commit_of(store: Path, whole: Path, arrays: Collection[str]) -> dict[str, Any]:
    """What is noted of an output that is whole: checksums of all that is in its store beside blocks, and of it, if it is one file."""
    one_file = {"output": checksum_of(whole)} if whole.is_file() else {}
    return {"time": now(), "files": other_files(store, arrays), **one_file}
