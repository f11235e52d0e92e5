"""What NeXus and Eiger files say of the detector of their frames: which pixels, and numbers, are no readings; how they were recorded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.frames.flags import MISSING, RANGE
from detcal.stores.sources.facts import KEV, MATERIALS, METRES, PIXELS, SECONDS, converted, is_limit, known
from detcal.stores.sources.hdf5_data import values_of, whole_values
from detcal.stores.sources.hdf5_files import Members, follow, holds
from detcal.stores.sources.nxdata import is_of_class, texts_of

MASK = "pixel_mask"
BAD_BITS = 0xFFFF  # of a mask of integers: the others only describe a pixel, as NXdetector has it
# In which attribute of frames the number goes that a detector gives: the last, or the first, that is a reading
LIMITS = {"saturation_value": "valid_max", "countrate_correction_count_cutoff": "valid_max", "underload_value": "valid_min"}
EIGER = "detectorSpecific"  # group in which Dectris keeps these beside the detector's own


class Fact(NamedTuple):
    """An attribute of frames, and units that a file may give it in; those that are meant where it names none."""

    name: str
    factors: dict[str, float]
    units: str


# By the names of NeXus, Dectris and Data Exchange, the likelier first
OF_DETECTOR = [
    ("sensor_thickness", Fact("sensor_thickness_m", METRES, "m")),
    ("x_pixel_size", Fact("pixel_size_x_m", METRES, "m")),
    ("y_pixel_size", Fact("pixel_size_y_m", METRES, "m")),
    ("pixel_size", Fact("pixel_size_x_m", METRES, "m")),
    ("pixel_size", Fact("pixel_size_y_m", METRES, "m")),
    ("beam_center_x", Fact("beam_center_x_px", PIXELS, "pixel")),
    ("beam_center_y", Fact("beam_center_y_px", PIXELS, "pixel")),
    ("detector_distance", Fact("detector_distance_m", METRES, "m")),
    ("distance", Fact("detector_distance_m", METRES, "m")),
    ("sample_detector_distance", Fact("detector_distance_m", METRES, "m")),
    ("frame_time", Fact("frame_time_s", SECONDS, "s")),
    ("count_time", Fact("exposure_time_s", SECONDS, "s")),
]
OF_BEAM = [
    ("incident_wavelength", Fact("wavelength_m", METRES, "angstrom")),
    ("wavelength", Fact("wavelength_m", METRES, "angstrom")),
    ("incident_energy", Fact("energy_kev", KEV, "keV")),
    ("energy", Fact("energy_kev", KEV, "keV")),
    ("photon_energy", Fact("energy_kev", KEV, "eV")),
]


class Said(NamedTuple):
    """Which pixels (y, x) are no readings, None if no mask is there; and attributes of frames."""

    mask: NDArray[np.bool_] | None = None
    attrs: dict[str, Any] = {}  # noqa: RUF012  # never changed


def said_by_detector(file: h5py.File, dataset: str, shape: tuple[int, ...], attrs: Mapping[str, Any], entry: Sequence[Members]) -> Said:
    """What an open file says of the detector of frames of that shape, and with these attributes."""
    found = detector_of(file, dataset, [MASK, *LIMITS], entry) or detector_of(file, dataset, [name for name, _ in OF_DETECTOR], entry)
    facts = facts_of(found, entry)
    if found is None:
        return Said(None, facts)
    masks = [each for each in datasets_of(found, [MASK]) if each.dtype.kind in "biu" and one_image(each) == shape]
    spoken = {*RANGE, MISSING} & set(attrs)  # the frames' own attributes say more of them than their detector does
    limits = {} if spoken else limits_of(found, file[dataset].dtype)
    return Said(bad_pixels(masks[0]) if masks else None, limits | facts)


def detector_of(file: h5py.File, dataset: str, names: list[str], entry: Sequence[Members]) -> Members | None:
    """The group with some of these names of the detector that took a dataset: its own, or the only one in its entry, or that which holds
    the same data."""
    data = file[dataset]
    groups = (members for members in entry if not members.group.name.endswith(f"/{EIGER}"))
    found = [members for members in groups if any(datasets_of(members, names))]
    own = [members for members in found if members.group == data.parent]
    same = own or (found if len(found) == 1 else [members for members in found if any(members.names_of(data))])
    return same[0] if same else None


def facts_of(detector: Members | None, entry: Sequence[Members]) -> dict[str, Any]:
    """How frames were recorded, as their detector and their beam say."""
    found = {} if detector is None else facts_in([detector], OF_DETECTOR)
    material = detector.group["sensor_material"] if detector and detector.holds("sensor_material") else None
    if material is not None and material.size == 1 and material.dtype.kind in "SO":
        name = texts_of(material[()])[0].strip()
        found["sensor_material"] = MATERIALS.get(name, name)
    beams = [members for members in entry if not is_source(members.group)]
    return known(found | facts_in(beams, OF_BEAM))


def is_source(group: h5py.Group) -> bool:
    """Whether a group is of a source, whose energy is that of the electrons in a ring."""
    return is_of_class(group, "NXsource") or group.name.endswith("/source")


def facts_in(groups: Sequence[Members], names: Sequence[tuple[str, Fact]]) -> dict[str, Any]:
    """Single numbers of these names, in the first group that has one."""
    found: dict[str, Any] = {}
    for name, fact in names:
        for members in groups:
            if fact.name in found or not members.holds(name):
                continue
            stored = members.group[name]
            if stored.size == 1 and stored.dtype.kind in "iuf":
                units = "".join(texts_of(stored.attrs.get("units", "")))
                value = converted(values_of(stored).item(), units, fact.factors, fact.units)
                found |= {} if value is None else {fact.name: value}
    return found


def datasets_of(members: Members, names: list[str]) -> Iterator[h5py.Dataset]:
    """Datasets of these names in a detector's group."""
    yield from (members.group[name] for name in names if members.holds(name))
    inner = follow(members.group, EIGER) if EIGER in members.types else None
    if isinstance(inner, h5py.Group):
        yield from (inner[name] for name in names if holds(inner, name))


def one_image(stored: h5py.Dataset) -> tuple[int, ...]:
    """The shape of a dataset; that of the image, if it is a stack of one."""
    return tuple(stored.shape[1:] if stored.ndim == 3 and stored.shape[0] == 1 else stored.shape)


def bad_pixels(stored: h5py.Dataset) -> NDArray[np.bool_]:
    """The pixels that a mask says are bad, which may be of a type too small for the bits that only describe."""
    values = whole_values(stored).reshape(one_image(stored))
    return np.asarray(values & BAD_BITS != 0 if values.dtype.itemsize > 2 else values != 0)


def limits_of(members: Members, dtype: np.dtype[Any]) -> dict[str, float]:
    """What a detector says of the range of its readings, as attributes: not what its type says already."""
    found: dict[str, float] = {}
    for stored in datasets_of(members, [*LIMITS]):
        name = LIMITS[stored.name.rsplit("/", 1)[-1]]
        if (
            stored.size == 1
            and stored.dtype.kind in "iuf"
            and name not in found
            and is_limit(value := values_of(stored).item(), name, dtype)
        ):
            found[name] = value
    return found
