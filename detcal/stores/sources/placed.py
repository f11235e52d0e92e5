"""Spectra of any dimensions and what belongs to each of them: positions, times; and the energies of their channels."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.hdf5_files import find_dataset
from detcal.stores.sources.layouts import FEWEST_CHANNELS, Layout, text
from detcal.stores.sources.scans import Numbers, StoredSpectra, as_many, channel_axis, read_all, warn_of_surplus
from detcal.xrf.calibration import check_energy

Points = tuple[int, ...]  # how many there are, or rows and columns of them
LENGTHS = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3}  # µm
TIMES = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}  # s
ENERGIES = {"kev": 1.0, "ev": 1e-3}  # keV
AXES = (2, 3, 4)  # of positions: an array of more is no list of them, but mostly x alone, of a map
HIGHEST_KEV = 500.0  # of fluorescence: numbers beyond it that have no unit are eV
ORDERS: dict[int, list[tuple[str, ...]]] = {
    2: [("spectrum", "energy"), ("energy", "spectrum")],
    3: [("row", "column", "energy"), ("energy", "row", "column"), ("spectrum", "detector", "energy"), ("detector", "spectrum", "energy")],
    4: [("row", "column", "detector", "energy"), ("detector", "row", "column", "energy")],
}


@dataclass(frozen=True)
class Parts:
    """What a file holds of a scan.

    Attributes
    ----------
    elements
        Spectra of each element of the detector.
    positions : (spectrum, axis)
        x and y first.
    unit
        Of the positions.
    energy
        The axis of energies.
    times
        live_time_s and real_time_s (element, spectrum), so far as there are any.
    sources
        Names of what the spectra are read from: one, or one for each element.
    """

    elements: Sequence[StoredSpectra]
    positions: NDArray[np.float64]
    unit: str
    energy: Any
    times: Mapping[str, NDArray[np.float64]]
    sources: Sequence[str]

    def with_numbers(self, name: str, live_time_s: Numbers | None, energy_kev: Numbers | None, positions: Numbers | None) -> "Parts":
        """The same with numbers in place of the file's own."""
        found, points = self, self.elements[0].points
        if live_time_s is not None:
            given = times_of_each("live_time_s", np.asarray(live_time_s, np.float64), len(self.elements), points)
            found = replace(found, times={**self.times, "live_time_s": given})
        if energy_kev is not None:
            found = replace(found, energy=energy_axis(np.asarray(energy_kev, np.float64), self.elements[0]))
        if positions is not None:
            found = replace(found, positions=places_in(name, [np.asarray(positions, np.float64)], points), unit="1")
        return found


def energy_axis(energies: NDArray[np.float64], spectra: StoredSpectra) -> Any:
    """Energies in keV as the axis of spectra.

    Raises
    ------
    InputError
        They do not fit.
    """
    check_energy(energies, spectra.shape[1], "give other energies by energy_kev")
    return ("energy", energies, {"units": "keV"})


def parts_in(name: str, file: h5py.File, layout: Layout, channels: int | None = None) -> Parts:
    """What an HDF5 file holds of a scan, under the names of a layout; how many channels it has, where energies are given beside it."""
    elements, places, unit = spectra_in(name, file, layout, channels)
    named = {"live_time_s": layout.live_time_s, "real_time_s": layout.real_time_s}
    times = {kind: times_in(name, file, stored, len(elements), elements[0]) for kind, stored in named.items() if stored is not None}
    axis = channel_axis(elements[0].shape[1])
    if layout.energy_kev is not None:
        axis = energy_axis(energies_in(name, file, layout.energy_kev), elements[0])
    return Parts(elements, places, unit, axis, times, layout.spectra)


def spectra_in(name: str, file: h5py.File, layout: Layout, channels: int | None) -> tuple[list[StoredSpectra], NDArray[np.float64], str]:
    """Spectra of each element of the detector, their positions (spectrum, axis), and the unit of these."""
    stored = [find_dataset(name, file, each) for each in layout.spectra]
    if len({each.shape for each in stored}) > 1:
        raise InputError(f"expected detectors of one shape in {name}, got {[each.shape for each in stored]}")
    arrays = [numbers_in(name, file, each) for each in layout.positions]
    if layout.energy_kev is not None:
        channels = find_dataset(name, file, layout.energy_kev).size
    if turned(layout.dims or ()):
        arrays = [each.T if each.ndim == len(arrays) == 2 else each for each in arrays]
    dims, arrays = placed(name, stored[0], layout.dims, arrays, channels)
    detectors = stored[0].shape[dims.index("detector")] if "detector" in dims else 1
    elements = [StoredSpectra.of(each, dims, number) for each in stored for number in range(detectors)]
    if not arrays:
        return elements, pixels(elements[0].points), "pixels"
    factor, unit = unit_of_places([file[each] for each in layout.positions])
    return elements, places_in(name, arrays, elements[0].points) * factor, unit


def turned(dims: Sequence[str]) -> bool:
    """Whether a file has the columns of a map before its rows; then so have its positions and times of each point."""
    return "row" in dims and dims.index("column") < dims.index("row")


def placed(
    name: str, stored: h5py.Dataset, dims: tuple[str, ...] | None, positions: list[NDArray[np.float64]], channels: int | None
) -> tuple[tuple[str, ...], list[NDArray[np.float64]]]:
    """The dimensions of spectra, if they are not known, and a position for each, NaN for those that lack one.

    It is the first order in which there is a position for each, or else in which a scan may have ended between the two.

    Raises
    ------
    InputError
        No order has as many spectra as there are positions, or there are none and spectra in no map.
    """
    known = [] if dims is None else [dims]
    fitting = [each for each in known if not positions or fit(positions, points_of(stored.shape, each))]
    if found := fitting or ([] if known else orders_of(stored, positions, channels)):
        return found[0], positions
    check_positions_told(name, stored, positions)
    for each in known or likely_orders(stored, channels):
        for longer in lengthened(positions, stored, each):
            if fit(longer, points_of(stored.shape, each)):
                warn_of_surplus("positions", positions[-1].shape, longer[-1].shape, name)
                return each, longer
    shapes = " and ".join(str(each.shape) for each in positions)
    raise InputError(
        f"expected positions of shape ({stored.shape[0]}, 2 to 4), x and y of each spectrum of {name}::{stored.name}, or x and y by two "
        f"names, got {shapes} for spectra of shape {stored.shape}"
    )


def check_positions_told(name: str, stored: h5py.Dataset, positions: Sequence[NDArray[Any]]) -> None:
    """Refuse what are no spectra, and spectra that are no map without positions."""
    place, orders = f"{name}::{stored.name}", ORDERS.get(stored.ndim, [])
    if not orders:
        raise InputError(f"expected spectra (spectrum, energy), or of 3 or 4 dimensions, in {place}, got {stored.shape}")
    if not positions and "row" not in orders[0]:
        raise InputError(f"expected positions of the spectra {stored.shape} in {place}, which are no map of rows and columns: name them")


def lengthened(positions: list[NDArray[np.float64]], stored: h5py.Dataset, dims: tuple[str, ...]) -> Iterator[list[NDArray[np.float64]]]:
    """Positions with NaN for the last spectra, or rows of a map, that lack them, and without those of no spectrum.

    Of spectra of more dimensions that do not grow a list of another length may be of any of these: then only maps of positions are.
    """
    points = points_of(stored.shape, dims)
    if len(points) == 1 and not (stored.ndim == 2 or stored.maxshape[0] is None):
        return
    if len({each.shape for each in positions}) == 1:
        for axis in (0, 1):  # x and y, if they are together, last or first
            if all(each.shape[axis + 1 : axis + len(points)] == points[1:] and each.ndim > axis for each in positions):
                yield [as_many(each, points[0], axis) for each in positions]
    elif len(points) == 2 and all(each.ndim == 1 for each in positions):  # of columns and of rows
        yield [positions[0], as_many(positions[1], points[0])]


def orders_of(stored: h5py.Dataset, positions: Sequence[NDArray[Any]], channels: int | None) -> list[tuple[str, ...]]:
    """The orders of dimensions in which spectra have a position each; without positions, those of maps.

    First those with so many channels, or, where that is not known, with as many as spectra have.
    """
    orders = likely_orders(stored, channels)
    if not positions:
        return [dims for dims in orders if "row" in dims]
    return [dims for dims in orders if fit(positions, points_of(stored.shape, dims))]


def likely_orders(stored: h5py.Dataset, channels: int | None) -> list[tuple[str, ...]]:
    """All orders, those with as many energies as there are channels first."""

    def unlikely(dims: tuple[str, ...]) -> bool:
        energies = stored.shape[dims.index("energy")]
        return bool(energies < FEWEST_CHANNELS if channels is None else energies != channels)

    return sorted(ORDERS.get(stored.ndim, []), key=unlikely)


def points_of(shape: tuple[int, ...], dims: tuple[str, ...]) -> Points:
    """Number of points, or rows and columns, in spectra of some dimensions."""
    sizes = dict(zip(dims, shape, strict=True))
    return tuple(sizes[dim] for dim in ("spectrum", "row", "column") if dim in sizes)


def fit(positions: Sequence[NDArray[Any]], points: Points) -> bool:
    """Whether there is a position for each point."""
    try:
        places_in("", positions, points)
    except InputError:
        return False
    return True


def places_in(name: str, arrays: Sequence[NDArray[np.float64]], points: Points) -> NDArray[np.float64]:
    """Positions (spectrum, axis) from one array of them, or from one of x and one of y.

    Raises
    ------
    InputError
        Their shapes are no such ones.
    """
    number = prod(points)
    if len(arrays) == 2:
        return np.stack([along(name, values, points, axis) for axis, values in enumerate(arrays)], axis=1)
    (whole,) = arrays
    for shape in {(number,), points}:
        if whole.ndim == len(shape) + 1 and whole.shape[:-1] == shape and whole.shape[-1] in AXES:
            return whole.reshape(number, -1)
        if whole.ndim == len(shape) + 1 and whole.shape[1:] == shape and whole.shape[0] in AXES:
            return whole.reshape(-1, number).T
    raise InputError(f"expected positions of shape ({number}, 2 to 4): x and y of each spectrum, got {whole.shape} in {name}")


def along(name: str, values: NDArray[np.float64], points: Points, axis: int) -> NDArray[np.float64]:
    """x (axis 0) or y (axis 1) of each spectrum: as they are, or of each column, or row, of a map."""
    long = without_ones(values.shape)
    turned = len(points) == 2 and len(long) > 1 and long != without_ones(points)
    if values.size == prod(points) and not turned:
        return values.ravel()
    if len(points) == 2 and values.shape == (points[1 - axis],):
        return np.tile(values, points[0]) if axis == 0 else np.repeat(values, points[1])
    raise InputError(f"expected {'xy'[axis]} of each of {points} spectra in {name}, got {values.shape}")


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its dimensions of a single place."""
    return tuple(length for length in shape if length != 1)


def pixels(points: Points) -> NDArray[np.float64]:
    """Columns and rows of a map as positions (spectrum, (x, y))."""
    return np.stack([line.ravel() for line in np.indices(points)[::-1]], axis=1).astype(np.float64)


def unit_of_places(stored: Sequence[h5py.Dataset]) -> tuple[Any, str]:
    """By what positions are multiplied, all or each of two, and in which unit they are then: µm, unless the file says it is no length."""
    units = [text(each.attrs.get("units")) or "um" for each in stored]
    if not all(unit in LENGTHS for unit in units):
        return 1.0, units[0]
    return np.array([LENGTHS[unit] for unit in units]), "um"


def times_in(name: str, file: h5py.File, dataset: str, elements: int, spectra: StoredSpectra) -> NDArray[np.float64]:
    """Times (element, spectrum) of a dataset, in s.

    Raises
    ------
    InputError
        Of another shape, or in a unit that is none of times.
    """
    values = seconds_in(name, file, dataset)
    if turned(spectra.dims) and values.shape == spectra.points[::-1]:
        values = values.T
    fitting = times_of_all(values, elements, spectra.points)
    warn_of_surplus("times", values.shape, fitting.shape, name)
    return times_of_each(f"{name}::{dataset}", fitting, elements, spectra.points)


def times_of_all(values: NDArray[np.float64], elements: int, points: Points) -> NDArray[np.float64]:
    """Times with NaN for the last spectra, or rows of a map, that lack them; no element of a detector may lack its own."""
    shapes = [shape for shape, _ in shapes_of_times(elements, points)]
    of_elements = {(elements, *points), (elements, prod(points))}
    if values.shape in shapes:
        return values
    longer = [(axis, as_many(values, points[0], axis)) for axis in range(min(values.ndim, 2))]
    return next((each for axis, each in longer if each.shape in shapes and (each.shape in of_elements) == (axis == 1)), values)


def seconds_in(name: str, file: h5py.File, dataset: str) -> NDArray[np.float64]:
    """Times of a dataset in s.

    Raises
    ------
    InputError
        In a unit that is none of times.
    """
    stored = find_dataset(name, file, dataset)
    unit = text(stored.attrs.get("units")) or "s"
    if unit.lower() not in TIMES:
        raise InputError(f"expected times in {', '.join(TIMES)} in {name}::{dataset}, got {unit!r}")
    return np.asarray(read_all(stored), np.float64) * TIMES[unit.lower()]


def numbers_in(name: str, file: h5py.File, dataset: str) -> NDArray[np.float64]:
    """The numbers of a dataset."""
    return np.asarray(read_all(find_dataset(name, file, dataset)), np.float64)


def times_of_each(place: str, values: NDArray[np.float64], elements: int, points: Points) -> NDArray[np.float64]:
    """Times (element, spectrum); those that are told once are of all elements, or of all spectra too.

    Raises
    ------
    InputError
        Of another shape.
    """
    for shape, order in shapes_of_times(elements, points):
        if values.shape == shape:
            return np.broadcast_to(order(values), (elements, prod(points))).copy()
    expected = (elements, *points) if elements > 1 else points
    raise InputError(f"expected times of shape {expected} in {place}, got {values.shape}: a live time for each of {prod(points)} spectra")


def shapes_of_times(elements: int, points: Points) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Shapes that times may have, and what makes (element, spectrum) of each."""
    number = prod(points)
    for each in dict.fromkeys([points, (number,)]):
        yield (elements, *each), lambda values: values.reshape(elements, number)
        yield each, lambda values: values.reshape(1, number)
        yield (*each, elements), lambda values: values.reshape(number, elements).T
    for single in ((), (1,)):
        yield single, lambda values: values.reshape(1, 1)


def energies_in(name: str, file: h5py.File, dataset: str) -> NDArray[np.float64]:
    """Energies of the channels in keV; in eV, as the file says or as only eV can be, they are converted.

    Raises
    ------
    InputError
        In another unit.
    """
    stored = find_dataset(name, file, dataset)
    values, unit = np.asarray(read_all(stored), np.float64), text(stored.attrs.get("units"))
    if unit is None and values.size and np.nanmax(values) > HIGHEST_KEV:
        warnings.warn(f"{name}::{dataset} has no unit and goes to {np.nanmax(values):g}: it is taken as eV", stacklevel=3)
        unit = "eV"
    if (unit or "keV").lower() not in ENERGIES:
        raise InputError(f"expected energies in eV or keV in {name}::{dataset}, got {unit!r}")
    return values * ENERGIES[(unit or "keV").lower()]
