"""Gathering what a report tells: from the ledger, from what the output says of itself, and from a few looks at data."""

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import xarray as xr
from pydantic import ValidationError

from detcal.errors import DetcalError, InputError
from detcal.frames.notes import ALIKE, RESIZED
from detcal.stores import open_frames
from detcal.stores.sources.nexus import load_hdf5, written_by_detcal
from detcal.stores.sources.zarr_reader import load_zarr
from detcal.stores.sources.zarr_zip import is_zip
from detcal.stores.targets.replacing import is_zarr_store
from detcal_pipelines.chain import open_first, trace
from detcal_pipelines.ledger import Event, History, read_ledger
from detcal_pipelines.pictures import pictures_of
from detcal_pipelines.plan import size
from detcal_pipelines.quarantine import Quarantine, counted, runs_of
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.reports.document import Document, Listing, Section, Table, some
from detcal_pipelines.reports.provenance import files_of, inputs_of, provenance_of, recipe_in
from detcal_pipelines.reports.toml import as_toml
from detcal_pipelines.status import as_duration, ending_of
from detcal_pipelines.unfinished import Places, check_is_output, percent, stored_bytes

IMAGES = (".tif", ".tiff", ".edf", ".png")  # files of frames or maps
MOST_ROWS = 20
LEAST_SECONDS = 1.0  # of which shares are told: each look stands for a fiftieth of a second


def report_of(output: Path, recipe: Recipe | None = None) -> Document:
    """The report of an output, or of a run that has none yet.

    Parameters
    ----------
    recipe
        Of the run, if that has just ended: what its steps have prepared is there still.

    Raises
    ------
    InputError
        There is neither an output nor a run.
    """
    places = Places.of(output)
    there = places.output.exists()
    ledger = places.last_ledger if there else places.ledger
    history = read_ledger(ledger) if ledger.is_file() else None
    if not there and history is None:
        raise InputError(f"there is no {output}, and no run of it that is at work or has broken off: expected the name of an output")
    if history is None:
        check_is_output(places.output)
    stored = stored_dataset(places.output) if there else xr.Dataset()
    folder = places.output.parent
    asked = recipe_in(stored.attrs) if history is None else history.header["fingerprint"]["recipe"]
    inputs = files_of(asked) if history is None else inputs_of(history.header, folder)
    recipe = recipe or recipe_of(asked, folder)
    sections = [
        *([plan_and_measurement(places, history), steps_of(history)] if history is not None else []),
        Section("Recipe", [Listing(as_toml(asked))] if asked else ["None: no run of detcal has made this."]),
        *(
            Section(title, list(pictures))
            for title, pictures in pictures_for(recipe, stored, places, history.quarantine if history else []).items()
        ),
        *([unreadable(history, folder), read_files(history, folder), processes(history)] if history is not None else []),
        Section("Where inputs come from", [Listing("\n".join(provenance_of(inputs, folder)))] if inputs else ["Nothing was read."]),
        versions_of(history, stored),
    ]
    return Document(places.output.name, summary_of(places, history, stored), sections)


def stored_dataset(output: Path) -> xr.Dataset:
    """What an output holds, lazily, with all its attributes; nothing of kinds of files that are not opened as frames."""
    if is_zarr_store(output) or is_zip(output):
        return load_zarr(str(output))[0]
    if h5py.is_hdf5(output) and written_by_detcal(str(output)):
        return load_hdf5(str(output))[0]
    return xr.Dataset({"frames": open_frames(output)} if output.suffix.lower() in IMAGES else {})


def recipe_of(asked: dict[str, Any], folder: Path) -> Recipe | None:
    """The recipe that was run, as seen from the output's folder; None if what it reads is not there any more."""
    try:
        return Recipe.model_validate_json(json.dumps(asked), context={"folder": folder})
    except ValidationError:
        return None


def pictures_for(recipe: Recipe | None, stored: xr.Dataset, places: Places, notes: list[Event]) -> dict[str, list[Any]]:
    """Pictures of what went in and what came out, as the last step shows them; what of the input is noted as damaged is NaN."""
    if not places.output.exists():
        return {"Pictures": ["They are drawn once the output is whole."]}
    if not stored:
        return {"Pictures": [f"Files {places.output.suffix} are not drawn."]}
    if recipe is None:
        return {"What came out": [*pictures_of(stored), "What went in is not shown: it is not where the recipe names it."]}
    with TemporaryDirectory() as folder:
        recipe.guard = replace(Quarantine(recipe, places, noted=notes).guard, folder=folder)  # for damage that is seen here once more
        try:
            data = open_first(recipe, None if recipe.input is None else 1)
            found = recipe.steps[-1].pictures(data, stored, lambda: trace(recipe)[-1].ready)
        except DetcalError as error:
            return {"What came out": [*pictures_of(stored), f"What went in is not shown: {error}"]}
    return {title: list(pictures) or ["No pictures."] for title, pictures in found.items()}


def summary_of(places: Places, history: History | None, stored: xr.Dataset) -> str:
    """In a sentence, what this is and how it is."""
    kind = str(stored.attrs.get("detcal_type", "")) or ", ".join(map(str, stored.data_vars))
    if history is None:
        return f"{kind}, in {places.output}; there is no ledger of a run beside it."
    steps = " → ".join(history.header["steps"])
    if history.commit is None:
        return f"{steps}: {percent(history.share)} done, for {places.output}."
    made = datetime.fromtimestamp(history.commit["time"])
    return f"{kind}, made by {steps} on {made:%Y-%m-%d at %H:%M:%S}, in {places.output}.{resized_alike(stored)}"


def resized_alike(stored: xr.Dataset) -> str:
    """In a sentence, which images of the whole detector were cropped or rebinned with the frames, and how; nothing, if none was."""
    attrs = next((variable.attrs for variable in stored.values() if ALIKE in variable.attrs), {})
    return f" {', '.join(attrs[ALIKE])} of the whole detector went the way of the frames: {', '.join(attrs[RESIZED])}." if attrs else ""


def plan_and_measurement(places: Places, history: History) -> Section:
    """What was planned, and what came."""
    header, last = history.header, history.processes[-1] if history.processes else None
    arrays = len(header["arrays"])
    cut, seconds = header["cut"], sum(process.seconds for process in history.processes)
    peak = max((process.peak for process in history.processes), default=0)
    here = last is not None and not last.begun["scheduler"]
    planned = "" if last is None else f"{size(last.begun['planned'])} of {size(last.begun['budget'])}"
    on_disk = f"{size(stored_bytes(places.output))} on disk" if places.output.exists() else ""
    rows = [
        ("time", "", as_duration(seconds)),
        (f"{cut['unit']} a second", "", f"{history.share * cut['length'] / seconds:.4g}" if seconds else ""),
        (
            "blocks",
            "" if last is None else last.begun["plan"].partition(", ")[0],
            f"{len(history.done)} of {history.blocks} written{f', of {arrays} arrays' if arrays > 1 else ''}",
        ),
        ("tasks at once", "" if last is None else str(last.begun["tasks"]), ""),
        ("in", size(header["bytes_in"]), ""),
        ("out", f"{size(header['bytes_out'])} uncompressed", on_disk),
        ("peak memory", planned, (size(peak) if peak else "") if here else "on other machines"),
    ]
    return Section("Plan and measurement", [Table(rows, ("", "planned", "measured"))])


def steps_of(history: History) -> Section:
    """What each step was planned to take, and where the time went."""
    steps = [tuple(step) for process in history.processes[-1:] for step in process.begun["steps"]]
    planned = Table(steps, ("step", "in", "out", "bytes out", "memory a task"))
    seconds: Counter[str] = Counter()
    for process in history.processes:
        seconds.update(process.times)
    total = sum(seconds.values())
    if total < LEAST_SECONDS:
        return Section("Steps", [planned, "Where the time went was not measured: the run was short, or its tasks ran on other machines."])
    rows = [(name, f"{spent:.1f} s", f"{100 * spent / total:.0f} %") for name, spent in seconds.items()]
    told = "Time of all threads together, by looking 50 times a second at what they do. What takes less than a hundredth may not be seen."
    return Section("Steps", [planned, told, Table(rows, ("", "time", "share"))])


def unreadable(history: History, folder: Path) -> Section:
    """Input that was quarantined."""
    notes = history.quarantine
    if not notes:
        return Section("Quarantine", ["All that was asked for could be read."])
    rows = [(relpath(note["file"], folder), runs_of([note]), str(note["reason"])) for note in notes]
    told = f"{counted(notes)} could not be read: NaN in the output, and left out of sums over all of them."
    return Section("Quarantine", [told, Table(some(rows, MOST_ROWS), ("file", str(notes[0]["unit"]), "reason"))])


def read_files(history: History, folder: Path) -> Section:
    """The files that were read, and whether they are as they were."""
    inputs = history.header["fingerprint"]["inputs"]
    total = sum(state[0] for state in inputs.values())
    rows = [
        (name, size(state[0]), f"{datetime.fromtimestamp(state[1] / 1e9):%Y-%m-%d %H:%M:%S}", state_now(Path(folder, name), state))
        for name, state in inputs.items()
    ]
    told = f"{len(inputs)} file{'s' if len(inputs) != 1 else ''}, {size(total)} in all; names are as seen from the folder of the output."
    return Section("What was read", [told, Table(some(rows, MOST_ROWS), ("name", "size", "changed", "now"))])


def state_now(path: Path, state: list[Any]) -> str:
    """Whether a file is as it was; of a folder, whether it is there."""
    if not path.exists():
        return "gone"
    if path.is_dir():
        return "there"
    status = path.stat()
    return "as it was" if [status.st_size, status.st_mtime_ns] == state[:2] else "another"


def processes(history: History) -> Section:
    """Which processes worked at it, and how they ended."""
    rows = [
        (
            f"{datetime.fromtimestamp(process.begun['time']):%Y-%m-%d %H:%M:%S}",
            f"{process.begun['pid']} on {process.begun['host']}",
            f"{process.done}",
            as_duration(process.seconds),
            ending_of(process),
        )
        for process in history.processes
    ]
    return Section("Processes", [Table(rows, ("begun", "process", "blocks", "time", "end"))])


def versions_of(history: History | None, stored: xr.Dataset) -> Section:
    """Versions of detcal, of the packages that steps come from, and of the libraries."""
    if history is None or not history.processes:
        return Section("Versions", [f"detcal {stored.attrs.get('detcal_version', 'of unknown version')}"])
    versions = history.header["fingerprint"]["steps"] | history.processes[-1].begun["versions"]
    return Section("Versions", [Table(list(versions.items()), ("step or library", "version"))])
