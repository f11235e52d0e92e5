"""Layouts of X-ray fluorescence scans in HDF5 files: under which names a file has its spectra, positions and times."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import h5py
import numpy as np

from detcal.stores.sources.attributes import own_type
from detcal.stores.sources.hdf5_files import Found, Members, follow, is_copy, survey
from detcal.stores.sources.nxdata import default_group, is_of_class, names_of, signal_of

FEWEST_CHANNELS = 16  # of spectra that are found by their shape
PLACES = (("x", "y"), ("x_axis", "y_axis"), ("sample_x", "sample_y"), ("samx", "samy"), ("x_pos", "y_pos"), ("x_position", "y_position"))
TOGETHER = ("positions", "position", "pos", "xy")
FLUORESCENCE = {"NXfluo", "NXxrf"}  # what an entry is said to be


@dataclass(frozen=True)
class Layout:
    """Names of datasets.

    Attributes
    ----------
    spectra
        One dataset, or one for each element of a detector.
    dims
        Of each; None: found by its shape.
    positions
        One dataset of x and y, or one of x and one of y; none: columns and rows of the map.
    live_time_s, real_time_s, energy_kev
        None, where there are none.
    """

    spectra: tuple[str, ...]
    dims: tuple[str, ...] | None = None
    positions: tuple[str, ...] = ()
    live_time_s: str | None = None
    real_time_s: str | None = None
    energy_kev: str | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether the spectra were found by their size alone."""
        return self.dims is None and not self.positions and self.energy_kev is None


def maps_layout(file: h5py.File) -> Layout | None:
    """Fly scans of the APS: raw, a dataset for each element of the detector, or else as MAPS and XRF-Maps add them up."""
    raw = follow(file, "MAPS_RAW")
    names = tuple(f"MAPS_RAW/{name}" for name in sorted(raw) if name.startswith("data_")) if isinstance(raw, h5py.Group) else ()
    spectra = names or first_of(file, "MAPS/Spectra/mca_arr", "MAPS/mca_arr")
    if not spectra:
        return None
    places = tuple(name for axis in "xy" for name in first_of(file, f"MAPS/Scan/{axis}_axis", f"MAPS/{axis}_axis"))
    times = ("MAPS_RAW/livetime", "MAPS_RAW/realtime") if names else ("MAPS/Spectra/Elapsed_Livetime", "MAPS/Spectra/Elapsed_Realtime")
    live, real, energy = (
        next(iter(first_of(file, *each)), None) for each in ([times[0]], [times[1]], ["MAPS/Spectra/Energy", "MAPS/energy"])
    )
    return Layout(spectra, ("energy", "row", "column"), places if len(places) == 2 else (), live, real, energy)


def pyxrf_layout(file: h5py.File) -> Layout | None:
    """PyXRF's maps: the elements of the detector where it kept them, or else their sum."""
    group = follow(file, "xrfmap")
    if not isinstance(group, h5py.Group):
        return None
    numbers = sorted(int(name[3:]) for name in group if name[:3] == "det" and name[3:].isdigit() and f"{name}/counts" in group)
    spectra = tuple(f"xrfmap/det{number}/counts" for number in numbers) or first_of(file, "xrfmap/detsum/counts")
    return Layout(spectra, ("row", "column", "energy"), first_of(file, "xrfmap/positions/pos")) if spectra else None


def nexus_layout(file: h5py.File) -> Layout | None:
    """The NXdata to which @default leads, if it has an energy; NXfluo or NXxrf, as Savu and others take it, or else such an NXdata."""
    entries = [*Members.of(file).groups()]
    meant = [entry for entry in entries if text(follow(entry, "definition")) in FLUORESCENCE]
    if (found := data_layout(default_group(file))) is not None:
        return found
    for entry in meant or entries:
        for group in groups_below(entry):
            if is_of_class(group, "NXdata") and (found := data_layout(group)) is not None:
                return found
    for entry in meant:
        place = f"{entry.name}/instrument/fluorescence"
        if spectra := first_of(file, f"{place}/data"):
            return Layout(spectra, None, places_near(file, spectra[0]), energy_kev=next(iter(first_of(file, f"{place}/energy")), None))
    return None


def groups_below(group: h5py.Group) -> Iterator[h5py.Group]:
    """A group and all groups in it."""
    yield group
    for inner in Members.of(group).groups():
        yield from groups_below(inner)


def data_layout(group: h5py.Group) -> Layout | None:
    """The spectra of an NXdata group, if one of its axes is an energy: by its name, or in a map the one that has none."""
    signal = signal_of(Members.of(group))
    spelled = [] if signal is None else names_of(group.attrs.get("axes", signal.attrs.get("axes", "")))
    if signal is None or len(spelled) != signal.ndim:
        return None
    lines = [follow(group, name) for name in spelled]
    dims = dims_of_map(spelled, lines, signal.shape)
    if dims is None and not is_energy(spelled[-1], lines[-1]):
        return None
    energy_axis = spelled[-1] if dims is None else spelled[dims.index("energy")]
    here = [name for name in dict.fromkeys(group) if isinstance(follow(group, name), h5py.Dataset)]
    named = [name for name, line in zip(spelled, lines, strict=True) if name != energy_axis and isinstance(line, h5py.Dataset)]
    candidates = {
        axis: [*(each for each in named if along_axis(each, axis)), *(each for each in here if is_place(each, axis))] for axis in "xy"
    }
    places = [next((f"{group.name}/{name}" for name in candidates[axis]), None) for axis in "xy"]
    energy = next(iter(first_of(group.file, f"{group.name}/{energy_axis}")), None)
    return Layout((signal.name,), dims, tuple(name for name in places if name) if all(places) else (), energy_kev=energy)


def dims_of_map(names: list[str], lines: list[Any], shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """The dimensions of spectra of a map, in whatever order, by the names of their axes; None if these do not tell all.

    One is the energy, one lies along y, one along x, and a fourth is that of the detector's elements.
    """
    energies = [place for place, (name, line) in enumerate(zip(names, lines, strict=True)) if is_energy(name, line)]
    last = len(names) - 1
    found = energies or ([last] if names[last] in ("", ".") and shape[last] >= FEWEST_CHANNELS else [])
    rows, columns = ([place for place, name in enumerate(names) if place not in found and along_axis(name, axis)] for axis in "yx")
    if not (len(found) == len(rows) == len(columns) == 1 and len(names) in (3, 4)):
        return None
    known = {found[0]: "energy", rows[0]: "row", columns[0]: "column"}
    return tuple(known.get(place, "detector") for place in range(len(names)))


def along_axis(name: str, axis: str) -> bool:
    """Whether the name of an axis is that of a motor along x, or y: samx, stage_y, SampleX."""
    return is_place(name, axis) or re.search(f"(^|[^a-z]){axis}$|[a-z]{axis.upper()}$", name) is not None


def is_energy(name: str, stored: Any) -> bool:
    """Whether an axis is one of energies or channels."""
    units = text(stored.attrs.get("units")) if isinstance(stored, h5py.Dataset) else None
    return units in ("eV", "keV") or any(word in name.lower() for word in ("energy", "channel", "mca"))


def is_place(name: str, axis: str) -> bool:
    """Whether a name is one of positions along x, or y."""
    return any(name.lower() == pair["xy".index(axis)] for pair in PLACES)


def plain_layout(file: h5py.File) -> Layout | None:
    """The only dataset that may be spectra, and positions beside it, by their names; None if there are several, or none.

    Their sum does not count, nor the copy in the instrument of what lies beside it.
    """
    found = {name: each for name, each in survey(file).datasets.items() if may_be_spectra(each)}
    alone = {name: each for name, each in found.items() if not is_copy(name, found)}
    largest = max(alone, key=lambda name: prod(alone[name].shape), default="")
    others = [each.shape for name, each in alone.items() if name != largest and not is_sum(each.shape, alone[largest].shape)]
    if not alone or any(prod(shape) * FEWEST_CHANNELS > prod(alone[largest].shape) for shape in others):
        return None
    layout = Layout((largest,), None, places_near(file, largest))
    if not layout.positions and file[largest].ndim == 2:
        return None
    energies, times = names_near(file, largest, ("energy",)), names_near(file, largest, ("live_time", "livetime"))
    return replace(layout, energy_kev=next(iter(energies), None), live_time_s=next(iter(times), None))


def is_sum(shape: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Whether a dataset of a shape may be the sum of another one, over the elements of a detector, say."""
    return any(shape == (*of[:axis], *of[axis + 1 :]) for axis in range(len(of) - 1))


def may_be_spectra(found: Found) -> bool:
    """Whether a dataset has the shape of many spectra."""
    return found.dtype.kind in "iuf" and 2 <= len(found.shape) <= 4 and 0 not in found.shape and found.shape[-1] >= FEWEST_CHANNELS


def places_near(file: h5py.File, name: str) -> tuple[str, ...]:
    """Positions beside a dataset or in the groups around it: x and y, or both together."""
    for pair in PLACES:
        if len(found := names_near(file, name, pair)) == 2:
            return found
    return names_near(file, name, TOGETHER)[:1]


def names_near(file: h5py.File, name: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Datasets of some names, in this order, beside a dataset or in the groups around it, the nearest that has any."""
    for group in groups_around(file, name):
        lower = {member.lower(): member for member in group}
        found = [f"{group.name.rstrip('/')}/{lower[each]}" for each in wanted if each in lower]
        if datasets := tuple(each for each in found if isinstance(follow(file, each), h5py.Dataset)):
            return datasets
    return ()


def groups_around(file: h5py.File, name: str) -> Iterator[h5py.Group]:
    """The groups that a dataset lies in, from the innermost to the file, each with what it says of the sample."""
    parts = name.strip("/").split("/")[:-1]
    for end in range(len(parts), -1, -1):
        group = file["/" + "/".join(parts[:end])]
        yield group
        if isinstance(sample := follow(group, "sample"), h5py.Group):
            yield sample


def first_of(file: h5py.File, *names: str) -> tuple[str, ...]:
    """The first of some names that a file has a dataset of; none if it has none of these."""
    return next(((name,) for name in names if isinstance(follow(file, name), h5py.Dataset)), ())


def text(value: Any) -> str | None:
    """An attribute, or what a dataset holds, as text."""
    if isinstance(value, h5py.Dataset):
        value = value[()]
    value = value.flat[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    found = own_type(value)
    return found if isinstance(found, str) else None


# How each format is known; in the order in which they are looked for.
LAYOUTS: dict[str, Callable[[h5py.File], Layout | None]] = {
    "maps": maps_layout, "pyxrf": pyxrf_layout, "nexus": nexus_layout, "plain": plain_layout,
}  # fmt: skip
