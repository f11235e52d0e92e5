"""X-ray fluorescence scans in files of any layout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import fspath
from typing import Any, Literal

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.crono import open_crono
from detcal.stores.sources.hdf5_files import follow, open_hdf5
from detcal.stores.sources.layouts import LAYOUTS, Layout
from detcal.stores.sources.placed import energies_in, places_in, seconds_in, spectra_in, times_in, times_of_each
from detcal.stores.sources.readers import check_readable
from detcal.stores.sources.scan_elements import counted_together
from detcal.stores.sources.scans import Numbers, PathOrName, channel_axis, left_out_of_file
from detcal.xrf.calibration import check_energy

Format = Literal["crono", "maps", "pyxrf", "nexus", "plain"]
FORMATS = ("crono", *LAYOUTS)
LOOKED_FOR = {
    "crono": "/XRF (Crono)",
    "maps": "/MAPS_RAW or /MAPS (APS)",
    "pyxrf": "/xrfmap (PyXRF)",
    "nexus": "NXfluo, NXxrf or an NXdata with an energy axis (NeXus)",
    "plain": "a single dataset of the size of spectra, beside positions such as x and y",
}


def open_scan(
    path: PathOrName,
    *,
    format: Format | None = None,
    spectra: str | None = None,
    positions: str | Sequence[str] | None = None,
    live_time_s: str | Numbers | None = None,
    energy_kev: str | Numbers | None = None,
    detector: int | Sequence[int] | None = None,
    motor_step_um: float = 1.0,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open an X-ray fluorescence scan lazily, whatever of the known layouts its file has.

    Parameters
    ----------
    path
        The HDF5 file.
    format
        Its layout. "crono": of a Crono scanner. "maps": /MAPS_RAW or /MAPS, of the APS. "pyxrf": /xrfmap. "nexus": NXfluo, NXxrf, or an
        NXdata whose last axis is an energy, as Savu takes them. "plain": spectra under a name of its own. Default: found from what the
        file holds.
    spectra
        Name of the dataset of spectra in a file of any layout: (spectrum, energy), (row, column, energy), (spectrum, detector, energy), or
        others of these orders.
    positions
        Name of the dataset of their positions, with x and y first, or [x, y], the names of two. Default: columns and rows, of a map.
    live_time_s : s
        Live times, in place of the file's own: one for each spectrum, or the name of a dataset.
    energy_kev : keV
        Energies of the channels, in place of the file's own: one for each channel, or the name of a dataset. If that is in eV it is
        converted.
    detector
        Numbers of the detector's elements, from 0, or of one. Default: all that have counted, see `open_maps`.
    motor_step_um
        Length of a motor step, in µm, of a Crono scanner.
    chunks
        Spectra a block: {"spectrum": 2048}, or {"row": 4} of a map. Default: about 4 MiB.

    Returns
    -------
    Dataset
        As from `open_crono`, or from `open_maps`.

    Raises
    ------
    InputError
        No such file or dataset; no layout that is known; options that the layout has no use for; and whatever `open_crono` refuses.

    Examples
    --------
    >>> import detcal
    >>> from detcal import simulate
    >>> from detcal.stores.targets.crono_writer import write_crono
    >>> path = write_crono(simulate.maxrf_scan(4, 6, channels=64), "scan.h5")
    >>> detcal.open_scan(path).spectra.dims
    ('spectrum', 'energy')
    """
    name = fspath(path)
    check_format(format, spectra)
    layout = Layout((spectra,)) if spectra is not None else find_layout(name, format)
    if layout is None:
        check_unused(name, positions=positions, detector=detector)
        times, energies = (
            read_named(name, read, values) if isinstance(values, str) else values
            for read, values in ((seconds_in, live_time_s), (energies_in, energy_kev))
        )
        return open_crono(path, motor_step_um=motor_step_um, live_time_s=times, energy_kev=energies, chunks=chunks)
    if motor_step_um != 1:
        raise InputError(f"motor_step_um is for scans of a Crono scanner, and {name} is none: leave it out")
    if positions is not None:
        layout = replace(layout, positions=names_of(positions))
    return open_layout(name, layout, live_time_s=live_time_s, energy_kev=energy_kev, detector=detector, chunks=chunks)


def check_format(format: str | None, spectra: str | None) -> None:
    """Refuse an unknown format, or one of a file whose spectra are named."""
    if format is not None and format not in FORMATS:
        raise InputError(f"expected format to be one of {', '.join(FORMATS)}, got {format!r}")
    if format not in (None, "plain") and spectra is not None:
        raise InputError(f"spectra names a dataset in a file of any layout, got format={format!r} too: leave one of them out")


def check_unused(name: str, **options: Any) -> None:
    """Refuse options that a Crono file has no use for."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is not for scans of a Crono scanner, as {name} is one: leave it out, or name spectra too")


def names_of(positions: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or two."""
    names = (positions,) if isinstance(positions, str) else tuple(positions)
    if len(names) not in (1, 2) or not all(isinstance(name, str) for name in names):
        raise InputError(f"expected positions as the name of a dataset, or as [x, y], the names of two, got {positions!r}")
    return names


def read_named(name: str, read: Callable[[str, h5py.File, str], NDArray[np.float64]], dataset: str) -> NDArray[np.float64]:
    """The numbers of a dataset, as some function takes them out of an open file."""
    with open_hdf5(name) as file:
        return read(name, file, dataset)


def find_layout(name: str, format: str | None) -> Layout | None:
    """The layout that a file has: one of a format, or the first that is known. None: that of a Crono scanner.

    Raises
    ------
    InputError
        It has none of these.
    """
    check_readable(name)
    with open_hdf5(name) as file:
        if format == "crono" or (format is None and follow(file, "XRF") is not None):
            return None
        for known in LAYOUTS if format is None else (format,):
            layout = LAYOUTS[known](file)
            if layout is not None:
                return layout
    wanted = LOOKED_FOR if format is None else {format: LOOKED_FOR[format]}
    raise InputError(
        f"expected {', or '.join(wanted.values())} in {name}, found none: give spectra and positions, the names of its datasets, "
        f"which `detcal tree {name}` lists"
    )


def open_spectra(
    path: PathOrName,
    spectra: str,
    positions: str | Sequence[str] | None = None,
    *,
    live_time_s: str | None = None,
    energy_kev: str | None = None,
    units: str | None = None,
    detector: int | Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open spectra and positions from any HDF5 file lazily.

    Parameters
    ----------
    path
        The file.
    spectra, positions
        Its datasets. Spectra (spectrum, energy), (row, column, energy), (spectrum, detector, energy), (row, column, detector, energy), or
        with the energy, or the detector, first. Positions (spectrum, axis) or (axis, spectrum), or with (row, column) in place of
        spectrum, x and y first; or two names, [x, y], each (spectrum,) or (row, column), or x (column,) and y (row,). Default: columns and
        rows, of a map.
    live_time_s, energy_kev : optional
        Its datasets: (spectrum,) or (row, column) in seconds, of several elements of a detector also for each; and (energy,) in keV. Other
        units that the file tells are converted.
    units
        Of the positions. Default: µm, to which lengths in another unit that the file tells are converted.
    detector
        Numbers of the detector's elements, from 0, or of one. Default: all that have counted, see `open_maps`.
    chunks
        Spectra a block: {"spectrum": 2048}, or {"row": 4} of a map. Default: about 4 MiB.

    Returns
    -------
    Dataset
        As from `open_crono`, or from `open_maps` of a detector of several elements.

    Raises
    ------
    InputError
        No such file or dataset, none of these shapes, and whatever `open_crono` refuses.

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("counts.h5", "w") as file:
    ...     file["counts"] = np.ones((6, 64), np.uint16)
    ...     file["xy"] = np.indices((2, 3)).reshape(2, 6)
    >>> detcal.open_spectra("counts.h5", "counts", "xy").spectra.shape
    (6, 64)
    """
    places = () if positions is None else names_of(positions)
    layout = Layout((spectra,), None, places)
    return open_layout(
        fspath(path), layout, units=units, live_time_s=live_time_s, energy_kev=energy_kev, detector=detector, chunks=chunks
    )  # fmt: skip


def open_layout(
    name: str,
    layout: Layout,
    *,
    positions: Numbers | None = None,
    units: str | None = None,
    live_time_s: str | Numbers | None = None,
    energy_kev: str | Numbers | None = None,
    detector: int | Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open the scan whose datasets a layout names; what is given, as numbers or by another name, takes the place of the file's own."""
    layout = replace(layout, live_time_s=live_time_s) if isinstance(live_time_s, str) else layout
    layout = replace(layout, energy_kev=energy_kev) if isinstance(energy_kev, str) else layout
    check_readable(name)
    with open_hdf5(name) as file:
        elements, places, unit = spectra_in(name, file, layout)
        points, channels = elements[0].points, elements[0].shape[1]
        number = len(places)
        times = {kind: times_in(name, file, stored, len(elements), elements[0]) for kind, stored in named_times(layout)}
        if live_time_s is not None and not isinstance(live_time_s, str):
            times["live_time_s"] = times_of_each("live_time_s", np.asarray(live_time_s, np.float64), len(elements), points)
        axis: Any = channel_axis(channels)
        if energy_kev is not None or layout.energy_kev is not None:
            numbers = energy_kev if energy_kev is not None and not isinstance(energy_kev, str) else None
            energies = energies_in(name, file, str(layout.energy_kev)) if numbers is None else np.asarray(numbers, np.float64)
            check_energy(energies, channels, "give other energies by energy_kev")
            axis = ("energy", energies, {"units": "keV"})
    if positions is not None:
        places, unit = places_in(name, [np.asarray(positions, np.float64)], points), "1"
    variables, wanted, partly = counted_together(name, elements, times, detector, chunks)
    variables["positions"] = (("spectrum", "axis"), places, {"units": units or unit})
    if len(points) == 2:
        variables["selected"] = (("row", "column"), np.arange(number).reshape(points))
    variables |= left_out_of_file(name, variables, partly)
    axes = list("xyz"[: places.shape[1]]) if places.shape[1] <= 3 else np.arange(places.shape[1])
    coords = {"energy": axis, "axis": axes, "spectrum": np.arange(number)}
    if len(elements) > 1:
        coords["detector"] = wanted
    return xr.Dataset(variables, coords, {"source": f"{name}::{', '.join(sources_of(layout, wanted.tolist()))}"})


def named_times(layout: Layout) -> list[tuple[str, str]]:
    """Kinds of times that a layout has, with their names."""
    found = (("live_time_s", layout.live_time_s), ("real_time_s", layout.real_time_s))
    return [(kind, stored) for kind, stored in found if stored is not None]


def sources_of(layout: Layout, wanted: Sequence[int]) -> list[str]:
    """The datasets of the elements that are used."""
    return list(layout.spectra) if len(layout.spectra) == 1 else [layout.spectra[number] for number in wanted]
