"""A stack in several datasets of an HDF5 file, or behind its links, one after the other: as in the master files of Eiger detectors."""

from dataclasses import dataclass
from math import prod

import h5py

from detcal.errors import InputError
from detcal.stores.sources.hdf5 import Hdf5Reader, lines_of
from detcal.stores.sources.hdf5_files import follow, groups_of_entry, holds, open_hdf5, target_of
from detcal.stores.sources.joined import Joined, check_alike
from detcal.stores.sources.missing import MissingPart, named
from detcal.stores.sources.readers import Around, Coords

FIRST = "image_nr_low"  # attribute of a part: the number of its first frame, from 1 on
EIGER = "detectorSpecific"  # group in which Dectris keeps what it says beside the detector's own
TOTALS = ("nimages", "ntrigger")  # whose product is how many frames were to be taken


@dataclass(frozen=True)
class Hdf5Series(Around):
    """Datasets of one file as one stack. What the file says of the first that is there, it says of all."""

    path: str
    dataset: str  # the first that is there

    @classmethod
    def open(cls, path: str, datasets: tuple[str, ...]) -> "Hdf5Series":
        """Of datasets by their names; those that are links to what is not there are missing.

        Raises
        ------
        InputError
            None is there; or there are frames of another shape or type than those of the first.
        """
        with open_hdf5(path) as file:
            readers = {name: reader for name in datasets if (reader := part_of(path, file, name))}
            lost = {name: target_of(file, name) for name in datasets if name not in readers}
            told = named([f"{name} → {target}" for name, target in lost.items()])
            if not readers:
                raise InputError(f"none of the parts of {path} is there: {told}; copy them to where it names them")
            check_alike([*readers.values()], [f"{path}::{name}" for name in readers])
            first = next(iter(readers.values()))
            recorded = file[first.dataset].dtype
            lengths = lengths_of(file, datasets, {name: reader.shape[0] for name, reader in readers.items()})
        parts = (
            readers.get(name) or MissingPart((length, *first.shape[1:]), recorded, f"; parts that are not there: {told}")
            for name, length in zip(datasets, lengths, strict=True)
        )
        return cls(Joined(tuple(parts)), path, first.dataset)

    def coords(self) -> Coords:
        """The axes that the file gives for all parts together."""
        with open_hdf5(self.path) as file:
            return lines_of(file, self.dataset, self.shape)


def part_of(path: str, file: h5py.File, name: str) -> Hdf5Reader | None:
    """The reader of a dataset, of which no file stays open; None if the name leads nowhere."""
    found = follow(file, name)
    if isinstance(found, h5py.Group):
        raise InputError(f"no dataset {name} in {path}: that is a group; `detcal tree {path}` lists what it holds")
    return None if found is None else Hdf5Reader.of(path, name, found)


def lengths_of(file: h5py.File, datasets: tuple[str, ...], known: dict[str, int]) -> list[int]:
    """How many frames each part has: those that are missing as many as a full one, but for the last, where the file says how many
    frames there are."""
    if len(known) == len(datasets):
        return [*known.values()]
    full = full_length(file, datasets, known)
    lengths = [known.get(name, full) for name in datasets]
    total = frames_wanted(file, next(iter(known)))
    rest = total - sum(lengths[:-1])
    if datasets[-1] not in known and 0 < rest < full:
        lengths[-1] = rest
    return lengths


def full_length(file: h5py.File, datasets: tuple[str, ...], known: dict[str, int]) -> int:
    """The frames of a full part: what lies before the first frame of a later one says it, or else the longest."""
    for place, name in enumerate(datasets):
        first = file[name].attrs.get(FIRST) if place and name in known else None
        if first is not None and (int(first) - 1) % place == 0 and int(first) > place:
            return (int(first) - 1) // place
    return max(known.values())


def frames_wanted(file: h5py.File, dataset: str) -> int:
    """How many frames were to be taken; 0 if the file does not say."""
    for group in groups_of_entry(file, dataset):
        for each in (group, *([follow(group, EIGER)] if EIGER in group else [])):
            counts = [int(each[name][()]) for name in TOTALS if holds(each, name) and each[name].size == 1]
            if counts:
                return prod(counts)
    return 0
