"""Which datasets of an HDF5 file are its frames: one, or several that follow each other."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from posixpath import dirname
from typing import Any

import h5py

from detcal.errors import InputError, MissingWarning
from detcal.stores.sources.dimensions import MAP, Described, as_stack, what_is_no_frame
from detcal.stores.sources.exchange import GROUP as EXCHANGE
from detcal.stores.sources.exchange import OF_ALS
from detcal.stores.sources.hdf5_files import Survey, address, follow, groups_of_entry, is_copy, survey
from detcal.stores.sources.mappings import mappings_of, source_paths
from detcal.stores.sources.names import gaps_in, natural_order
from detcal.stores.sources.nxdata import default_signal, is_of_class, signal_of
from detcal.stores.sources.zarr_reader import zarr_arrays

LIKELY = [(3, "iuf"), (MAP, "iuf"), (2, "iuf"), (3, "b"), (2, "b")]  # what frames are, the likeliest first: dimensions, kinds of types
FEWEST_PIXELS = 8  # along both sides of frames of a map without names of its dimensions: fewer are elements of a detector
NO_IMAGES = ("spectrum", "scalar", "vertex")  # @interpretation of what is no stack of images
NUMBERED = re.compile(r"(.*?)([0-9]+)(?:\.tiff?)?")  # beamline 8.3.2 of the ALS calls datasets as files
PADDED = 4  # digits of a number from which on it counts parts, and does not name a detector
ERRORS = ("_errors", "_error", "_uncertainties", "_std")
BESIDE = ("NXmonitor", "NXsample", "NXtransformations", "NXpositioner", "NXsource", "NXmonochromator")  # what NeXus has no frames in
CORRECTIONS = ("pixel_mask", "flatfield", "mask", "pixel_corners")  # of a detector, some files' as stacks of one
MOST_LISTED = 3  # links that lead nowhere; `detcal tree` shows all
Stack = tuple[str, ...]  # names of datasets that follow each other
Datasets = str | Sequence[str] | None


def datasets_of_frames(path: str, file: h5py.File, dataset: Datasets) -> Stack:
    """The names of the datasets that are the frames of an open file; in them are names that lead nowhere, for parts that are missing.

    Parameters
    ----------
    dataset
        A name, a pattern of names ("/entry/data/part_*"), a group, or a list of names, in its order. By default what the file says.

    Raises
    ------
    InputError
        There are none, or several could be meant.
    """
    if dataset is not None and not isinstance(dataset, str):
        return listed_names(path, dataset)
    group = file if dataset is None else follow(file, dataset)
    if not isinstance(group, h5py.Group):
        return matching(file, str(dataset)) if group is None else (str(dataset),)
    names, lost = choose(path, file, group)
    if lost:
        warnings.warn(f"links in {path} lead to what is not there, and are left out: {lost}", MissingWarning, stacklevel=2)
    return names


def arrays_of_frames(path: str, dataset: Datasets) -> Stack:
    """As `datasets_of_frames`, of a zarr store."""
    if dataset is not None:
        return (dataset,) if isinstance(dataset, str) else listed_names(path, dataset)
    arrays = zarr_arrays(path)
    names = next(filter(None, (named_alike(arrays, *kind) for kind in LIKELY)), [])
    return only_one(path, [(name,) for name in names], arrays)


def listed_names(path: str, names: Sequence[str]) -> Stack:
    """Several names, as they were listed."""
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"expected the name of a dataset in {path}, or a list of names, got {names!r}")
    return tuple(names)


def named_alike(arrays: Mapping[str, Described], ndim: int, kinds: str) -> list[str]:
    """The names of arrays of so many dimensions and a type of these kinds, by the names of their dimensions; of those that have none by
    their shape: a spectrum, say, of each point of a map is no stack."""
    maps = {sizes_of_map(each) for each in arrays.values() if each.rank == MAP and is_map(each)}

    def is_meant(array: Described) -> bool:
        return array.named or (is_map(array) if ndim == MAP else array.shape[:-1] not in maps)

    return [name for name, each in arrays.items() if each.rank == ndim and each.dtype.kind in kinds and is_meant(each)]


def is_map(array: Described) -> bool:
    """Whether an array of as many dimensions as a map has frames at its points, and no elements of a detector."""
    return array.named or min(array.shape[-2:]) >= FEWEST_PIXELS


def sizes_of_map(array: Described) -> tuple[int, ...]:
    """Of a map: how many points it has along each of its dimensions."""
    return tuple(array.shape[axis] for axis in as_stack(array.dims, len(array.shape))[:-2])


def only_one(path: str, stacks: list[Stack], arrays: Mapping[str, Described], lost: str = "") -> Stack:
    """The only stack there is; an error lists what there is."""
    if not stacks:
        others = [
            f"{what} {name} {each.sizes}" for name, each in arrays.items() if len(each.shape) > 1 and (what := what_is_no_frame(each.dims))
        ]
        raise InputError(
            f"no dataset of shape (frame, y, x) or (row, column, y, x) in {path}"
            + (f", which holds {listed_in_short(others)}: detcal.load({path!r}) opens them" if others else "")
            + (f"; links in it lead to what is not there: {lost}; mend them, or choose with dataset=" if lost else "")
        )
    if len(stacks) > 1:
        names = [next(name for name in stack if name in arrays) for stack in stacks]
        listed = "".join(f"\n  {name} {arrays[name].shape}" for name in names)
        raise InputError(f"several datasets in {path} could be the frames; choose one with dataset=:{listed}")
    return stacks[0]


def matching(file: h5py.File, pattern: str) -> Stack:
    """The datasets whose names match a pattern, in the order of the numbers in them; else the pattern, which may be a name."""
    if not set(pattern) & set("*?["):
        return (pattern,)
    wanted = f"/{pattern.strip('/')}"
    found = survey(file)
    names = [name for name in (*found.datasets, *found.broken) if fnmatchcase(name, wanted)]
    return in_series(names) if names else (pattern,)


def choose(path: str, file: h5py.File, group: h5py.Group) -> tuple[Stack, str]:
    """The only stack in a group of a file, or the one that it says is its signal; and which links that are no part of it lead nowhere."""
    found = without_spectra(without_beside(file, survey(group, group.name.rstrip("/"))))
    stacks = with_addresses(found, maps_in(found), [default_signal(file)]) or likeliest(found)
    for narrow in (without_companions, without_sources, default_only, signals_only):
        if len(stacks) > 1:
            stacks = narrow(file, found, stacks) or stacks
    lost = listed_in_short([f"{name} → {target}" for name, target in found.broken.items() if not any(name in stack for stack in stacks)])
    chosen = only_one(path, stacks, described(found), lost)
    if any(found.datasets[name].interpretation == "spectrum" for name in there(found, chosen)):
        warnings.warn(
            f"{path}::{chosen[0]} says that it is spectra, which detcal.open_scan opens: here they are taken for frames", stacklevel=2
        )
    return chosen, lost


def listed_in_short(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def without_beside(file: h5py.File, found: Survey) -> Survey:
    """Without what monitors counted and where the sample was: of a map of frames these are stacks too."""
    groups = {dirname(name) for name in found.datasets}
    beside = {group for group in groups if any(is_of_class(file[each], *BESIDE) for each in ancestors(group))}
    return Survey({name: each for name, each in found.datasets.items() if dirname(name) not in beside}, found.broken)


def without_spectra(found: Survey) -> Survey:
    """Without what says that it is no stack of images, if another stack is left."""
    stacks = [name for name, each in found.datasets.items() if len(each.shape) > 2]
    others = {name for name in stacks if found.datasets[name].interpretation in NO_IMAGES}
    left = {name: each for name, each in found.datasets.items() if name not in others}
    return Survey(left if len(stacks) > len(others) else found.datasets, found.broken)


def ancestors(group: str) -> Iterator[str]:
    """The name of a group, and those of the groups around it."""
    while group not in ("", "/"):
        yield group
        group = dirname(group)


def likeliest(found: Survey) -> list[Stack]:
    """The stacks of numbers, or else the images, or those of bool; numbered parts are one. No image, where a stack may be missing."""
    for ndim, kinds in LIKELY:
        if ndim == 2 and found.broken:
            continue
        if names := named_alike(described(found), ndim, kinds):
            return joined_parts(found, names)
    return []


def maps_in(found: Survey) -> list[Stack]:
    """Arrays of frames by row and column: stacks beside them may be spectra of the same map."""
    return [(name,) for name in named_alike(described(found), *LIKELY[1])]


def described(found: Survey) -> dict[str, Described]:
    """The datasets of a survey by their names."""
    return {name: Described(each.shape, each.dtype, each.dims) for name, each in found.datasets.items()}


def joined_parts(found: Survey, names: list[str]) -> list[Stack]:
    """Datasets of one group whose names differ in a number at their end, as one; with those that are links to what is not there."""
    series: dict[Any, list[str]] = {}
    for name in names:
        each = found.datasets[name]
        series.setdefault((stem_of(name), each.shape[-2:], each.dtype) if stem_of(name) else name, []).append(name)
    for key, members in series.items():
        if isinstance(key, tuple):
            members += [name for name in found.broken if stem_of(name) == key[0]]
    return [in_series(members) for members in series.values()]


def in_series(names: Sequence[str]) -> Stack:
    """Names in the order of their numbers, with those that are left out of it."""
    found = sorted(names, key=natural_order)
    return tuple(sorted([*found, *chain(*gaps_in(found).values())], key=natural_order))


def stem_of(name: str) -> str | None:
    """What stands before the number at the end of a name that counts parts: of four digits or more, as data_000001, or after "data"."""
    match = NUMBERED.fullmatch(name)
    if match is None:
        return None
    stem, number = match.groups()
    return stem if len(number) >= PADDED or stem.rsplit("/", 1)[-1] in ("data", "data_") else None


def there(found: Survey, stack: Stack) -> Stack:
    """The datasets of a stack that are there."""
    return tuple(name for name in stack if name in found.datasets)


def without_companions(file: h5py.File, found: Survey, stacks: list[Stack]) -> list[Stack]:
    """Without uncertainties of others, without what detectors are corrected by, and of Data Exchange files the projections alone."""
    names = {name for stack in stacks for name in stack}

    def is_companion(name: str) -> bool:
        group, own = dirname(name), name.rsplit("/", 1)[-1]
        of_others = [name.removesuffix(end) for end in ERRORS if name.endswith(end)]
        if own in ("errors", "uncertainties"):
            of_others += [other for other in names if dirname(other) == group and other != name]
        if group.endswith(f"/{EXCHANGE}") and own != "data":
            of_others.append(f"{group}/data")
        als = OF_ALS.fullmatch(name)
        beside = als is not None and any(other.startswith(f"{als[1]}_") for other in names)
        copied = name in found.datasets and is_copy(name, found.datasets)
        return beside or copied or any(other in names for other in of_others) or own in CORRECTIONS

    return [stack for stack in stacks if not is_companion(stack[0])]


def without_sources(file: h5py.File, found: Survey, stacks: list[Stack]) -> list[Stack]:
    """Without those that a virtual dataset among the others is made of."""
    sources = {source for stack in stacks for name in there(found, stack) for source in sources_of(file[name])}
    return [stack for stack in stacks if not any(place_of(file[name]) in sources for name in there(found, stack))]


def sources_of(dataset: h5py.Dataset) -> Iterator[tuple[str, str]]:
    """The files and names that a virtual dataset takes from."""
    if dataset.is_virtual:
        for mapping, path in zip(mappings_of(dataset), source_paths(dataset), strict=True):
            if path is not None:
                yield path, f"/{mapping.name.strip('/')}"


def place_of(dataset: h5py.Dataset) -> tuple[str, str]:
    """The file and name of a dataset."""
    return dataset.file.filename, dataset.name


def default_only(file: h5py.File, found: Survey, stacks: list[Stack]) -> list[Stack]:
    """The stack to which @default leads."""
    return with_addresses(found, stacks, [default_signal(file)])


def signals_only(file: h5py.File, found: Survey, stacks: list[Stack]) -> list[Stack]:
    """Those that a group in their entry names as its signal."""
    entries = {name.strip("/").split("/")[0]: name for stack in stacks for name in there(found, stack)[:1]}
    groups = [members for name in entries.values() for members in groups_of_entry(file, name)]
    return with_addresses(found, stacks, [signal_of(members) for members in groups])


def with_addresses(found: Survey, stacks: list[Stack], signals: list[h5py.Dataset | None]) -> list[Stack]:
    """The stacks in which some of these datasets are."""
    wanted = {address(signal) for signal in signals if signal is not None}
    return [stack for stack in stacks if any(found.datasets[name].address in wanted for name in there(found, stack))]
