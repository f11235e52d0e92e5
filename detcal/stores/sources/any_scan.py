"""X-ray fluorescence scans in files of any layout."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import fspath
from typing import Any, Literal, get_args

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.crono import open_crono
from detcal.stores.sources.hdf5_files import follow, open_hdf5
from detcal.stores.sources.layouts import LAYOUTS, Layout
from detcal.stores.sources.own_scan import is_own_scan, open_own_scan
from detcal.stores.sources.placed import Parts, energies_in, parts_in, seconds_in
from detcal.stores.sources.readers import check_readable
from detcal.stores.sources.rosetta import is_foreign, read_foreign
from detcal.stores.sources.scan_elements import counted_together
from detcal.stores.sources.scans import Numbers, PathOrName, left_out_of_file
from detcal.stores.sources.zarr_reader import zarr_arrays
from detcal.stores.sources.zarr_zip import is_store

Format = Literal["crono", "maps", "pyxrf", "nexus", "plain", "detcal"]
FORMATS = get_args(Format)
LOOKED_FOR = {
    "detcal": "a scan that detcal wrote",
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
        The HDF5 file; a zarr store (a zipped one too) or HDF5 file into which a scan was saved, by the step smooth_spectra say; or a
        .bcf, .spx, .spd, .spc, .msa, .rpl, .hspy or .zspy, which rosettasciio reads: it is GPL-3, and so not installed with detcal, but
        by pip install "detcal[formats]".
    format
        Its layout. "detcal": as `save` writes a scan. "crono": of a Crono scanner. "maps": /MAPS_RAW or /MAPS, of the APS. "pyxrf":
        /xrfmap. "nexus": NXfluo, NXxrf, or an NXdata with an axis of energies, as Savu takes them. "plain": spectra under a name of its
        own. Default: found from what the file holds.
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
    if is_foreign(name):
        return open_foreign(
            name,
            live_time_s=live_time_s,
            energy_kev=energy_kev,
            detector=detector,
            chunks=chunks,
            spectra=spectra,
            positions=positions,
            format=format,
        )
    if spectra is None and format in (None, "detcal") and is_own_scan(name):
        check_unused("scans that detcal wrote", name, positions=positions, detector=detector)
        check_step(name, motor_step_um)
        return open_own_scan(path, live_time_s=live_time_s, energy_kev=energy_kev, chunks=chunks)
    check_is_file(name, format)
    layout = Layout((spectra,)) if spectra is not None else find_layout(name, format)
    if layout is None:
        check_unused("scans of a Crono scanner", name, positions=positions, detector=detector)
        times, energies = (
            read_named(name, read, values) if isinstance(values, str) else values
            for read, values in ((seconds_in, live_time_s), (energies_in, energy_kev))
        )
        return open_crono(path, motor_step_um=motor_step_um, live_time_s=times, energy_kev=energies, chunks=chunks)
    if layout.says_nothing and (spectra, positions, energy_kev) == (None, None, None):
        warnings.warn(
            f"nothing in {name} says that {layout.spectra[0]} is spectra: there are neither positions nor energies beside it, and its last "
            "axis is taken for channels; say so by spectra=, or give energy_kev",
            stacklevel=2,
        )
    check_step(name, motor_step_um)
    if positions is not None:
        layout = replace(layout, positions=names_of(positions))
    return open_layout(name, layout, live_time_s=live_time_s, energy_kev=energy_kev, detector=detector, chunks=chunks)


def open_foreign(
    name: str,
    live_time_s: str | Numbers | None,
    energy_kev: str | Numbers | None,
    detector: int | Sequence[int] | None,
    chunks: Mapping[str, int] | None,
    **others: Any,
) -> xr.Dataset:
    """Open a file that rosettasciio reads; numbers that are given take the place of its own."""
    names = {key: value for key, value in (("live_time_s", live_time_s), ("energy_kev", energy_kev)) if isinstance(value, str)}
    for option, value in (others | names).items():
        if value is not None:
            raise InputError(f"{option} names something in HDF5 files, and {name} is none: leave it out")
    parts = read_foreign(name).with_numbers(name, live_time_s, energy_kev, None)  # type: ignore[arg-type]  # no text any more
    return scan_of(name, parts, detector=detector, chunks=chunks)


def check_format(format: str | None, spectra: str | None) -> None:
    """Refuse an unknown format, or one of a file whose spectra are named."""
    if format is not None and format not in FORMATS:
        raise InputError(f"expected format to be one of {', '.join(FORMATS)}, got {format!r}")
    if format not in (None, "plain") and spectra is not None:
        raise InputError(f"spectra names a dataset in a file of any layout, got format={format!r} too: leave one of them out")


def check_unused(kind: str, name: str, **options: Any) -> None:
    """Refuse options that a kind of files has no use for."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is not for {kind}, as {name} is one: leave it out, or name spectra too")


def check_step(name: str, motor_step_um: float) -> None:
    """Refuse a length of motor steps where positions are lengths."""
    if motor_step_um != 1:
        raise InputError(f"motor_step_um is for scans of a Crono scanner, and {name} is none: leave it out")


def check_is_file(name: str, format: str | None) -> None:
    """Refuse a zarr store that holds no scan, or of which a name is given."""
    if is_store(name):
        held = [f"{array} {each.sizes if each.dims else each.shape}" for array, each in zarr_arrays(name).items() if len(each.shape) > 1]
        raise InputError(
            f"expected a scan in {name}, spectra (spectrum, energy) and positions, as detcal.save and smooth_spectra write it, found "
            f"{', '.join(held) or 'neither'}: give another file" + (", and leave format out" if format else "")
        )


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
        with the energy, or the detector, first. Positions (spectrum, axis) or (axis, spectrum) of 2 to 4 axes, x and y first, or with
        (row, column) in place of spectrum; or two names, [x, y], each (spectrum,) or (row, column), or x (column,) and y (row,). Default:
        columns and rows, of a map.
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
    live_time_s: str | Numbers | None = None,
    energy_kev: str | Numbers | None = None,
    positions: Numbers | None = None,
    units: str | None = None,
    detector: int | Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open the scan whose datasets a layout names; what is given, as numbers or by another name, takes the place of the file's own."""
    numbers: dict[str, Numbers] = {}
    for key, value in (("live_time_s", live_time_s), ("energy_kev", energy_kev)):
        if value is not None:
            layout = replace(layout, **{key: value if isinstance(value, str) else None})  # type: ignore[arg-type]
        if value is not None and not isinstance(value, str):
            numbers[key] = value
    check_readable(name)
    with open_hdf5(name) as file:
        parts = parts_in(name, file, layout, np.size(numbers["energy_kev"]) if "energy_kev" in numbers else None)
    parts = parts.with_numbers(name, numbers.get("live_time_s"), numbers.get("energy_kev"), positions)
    return scan_of(name, parts, units=units, detector=detector, chunks=chunks)


def scan_of(
    name: str, parts: Parts, *, detector: int | Sequence[int] | None, chunks: Mapping[str, int] | None, units: str | None = None
) -> xr.Dataset:
    """A scan of what a file holds."""
    points, number = parts.elements[0].points, len(parts.positions)
    variables, wanted, partly = counted_together(name, parts.elements, parts.times, detector, chunks)
    variables["positions"] = (("spectrum", "axis"), parts.positions, {"units": units or parts.unit})
    if len(points) == 2:
        variables["selected"] = (("row", "column"), np.arange(number).reshape(points))
    variables |= left_out_of_file(name, variables, partly)
    across = parts.positions.shape[1]
    coords = {"energy": parts.energy, "axis": list("xyz"[:across]) if across <= 3 else np.arange(across), "spectrum": np.arange(number)}
    if len(parts.elements) > 1:
        coords["detector"] = wanted
    sources = parts.sources if len(parts.sources) == 1 else [parts.sources[element] for element in wanted]
    return xr.Dataset(variables, coords, {"source": f"{name}::{', '.join(sources)}"})
