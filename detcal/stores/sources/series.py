"""A stack in several datasets of an HDF5 file, or behind its links, one after the other: as in the master files of Eiger detectors."""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import h5py
import numpy as np

from detcal.errors import InputError
from detcal.frames.corrections import ATTRIBUTE
from detcal.frames.flags import MISSING, RANGE
from detcal.stores.sources.attributes import own_attributes
from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.hdf5_files import dims_of, find_dataset, follow, groups_of_entry, holds, target_of
from detcal.stores.sources.headers import Header, read_header
from detcal.stores.sources.joined import Joined, check_alike
from detcal.stores.sources.missing import MissingPart, named
from detcal.stores.sources.numbered import at_their_numbers
from detcal.stores.sources.packed import OFFSET, SCALE
from detcal.stores.sources.readers import Around, Reader
from detcal.stores.sources.scanned import Coords

EIGER = "detectorSpecific"  # group in which Dectris keeps what it says beside the detector's own
OF_NUMBERS = (*RANGE, MISSING, "units", SCALE, OFFSET, ATTRIBUTE)  # attributes without which nobody knows what numbers mean
TOTALS = ("nimages", "ntrigger")  # whose product is how many frames were to be taken


@dataclass(frozen=True)
class Hdf5Series(Around):
    """Datasets of one file as one stack. What the file says of the first that is there, it says of all."""

    path: str
    dataset: str  # the first that is there
    header: Header | None = field(default=None, compare=False, repr=False)

    @classmethod
    def within(cls, path: str, file: h5py.File, datasets: tuple[str, ...], *, listed: bool) -> "Hdf5Series":
        """Of datasets of an open file by their names; those that are links to what is not there are missing.

        If these names were not listed by the user, so are frames that lie between the parts by their numbers.

        Raises
        ------
        InputError
            None is there; or there are frames of another shape or type than those of the first.
        """
        readers = {name: reader for name in datasets if (reader := part_of(path, file, name))}
        lost = {name: target_of(file, name) for name in datasets if name not in readers}
        told = named([f"{name} → {target}" if target else name for name, target in lost.items()])
        if not readers:
            raise InputError(f"none of the parts of {path} is there: {told}; copy them to where it names them")
        check_alike([*readers.values()], [f"{path}::{name}" for name in readers])
        first = next(iter(readers.values()))
        gone = MissingPart(
            (max(reader.shape[0] for reader in readers.values()), *first.shape[1:]),
            file[first.dataset].dtype,
            f"; parts that are not there: {told}",
        )
        if listed:
            check_say_the_same(path, file, [*readers])
        named_parts: list[Reader] = [readers.get(name, gone) for name in datasets]
        parts = named_parts if listed else at_their_numbers(named_parts)
        total = frames_wanted(file, first.dataset)
        joined = Joined(tuple(with_last(parts, total)))
        names, entry = dims_of(file[first.dataset]), [*groups_of_entry(file, first.dataset)]
        return cls(joined, path, first.dataset, read_header(path, file, first.dataset, joined.shape, joined.dtype, names, entry))

    def __dask_tokenize__(self) -> str:
        return repr(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "header": None}  # tasks read numbers

    @property
    def says(self) -> Header:
        """What the file says of the frames."""
        assert self.header is not None, "a reader that was sent to a task"
        return self.header

    def coords(self) -> Coords:
        """The axes that the file gives for all parts together."""
        return self.says.axes

    def attrs(self) -> dict[str, Any]:
        return self.says.attrs


def part_of(path: str, file: h5py.File, name: str) -> Hdf5Reader | None:
    """The reader of a dataset, of which no file stays open; None if the name leads nowhere."""
    found = follow(file, name)
    if isinstance(found, h5py.Group):
        find_dataset(path, file, name)  # which says what there is in place of a group
    return None if found is None else Hdf5Reader.of(path, name, found, dims_of(found))


def check_say_the_same(path: str, file: h5py.File, names: list[str]) -> None:
    """Refuse datasets of which not all say the same of their numbers: of one stack that is said once.

    Raises
    ------
    InputError
        What is said in which.
    """
    says = [{name: str(np.asarray(value).tolist()) for name, value in own_attributes(file[each]).items()} for each in names]
    for each, said in zip(names, says, strict=True):
        other = next((name for name in OF_NUMBERS if said.get(name) != says[0].get(name)), None)
        if other is not None:
            told = [f"{one.get(other, 'nothing')} in {name}" for one, name in ((says[0], names[0]), (said, each))]
            raise InputError(
                f"expected datasets in {path} of which the frames say the same, got {other} = {' and '.join(told)}: work on each alone "
                f'(dataset = "{each}")'
            )


def with_last(parts: list[Reader], total: int) -> list[Reader]:
    """Parts of which the last, if it is missing, is as long as the frames that were wanted leave it, where the file says these."""
    *others, last = parts
    rest = total - sum(part.shape[0] for part in others)
    if isinstance(last, MissingPart) and 0 < rest < last.shape[0]:
        return [*others, replace(last, shape=(rest, *last.shape[1:]))]
    return parts


def frames_wanted(file: h5py.File, dataset: str) -> int:
    """How many frames were to be taken; 0 if the file does not say."""
    for group, types in groups_of_entry(file, dataset):
        for each in (group, *([follow(group, EIGER)] if EIGER in types else [])):
            counts = [int(each[name][()]) for name in TOTALS if holds(each, name) and each[name].size == 1]
            if counts:
                return prod(counts)
    return 0
