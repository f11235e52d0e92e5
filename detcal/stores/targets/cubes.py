"""Cubes (row, column, energy) as plain numbers beside a header: Lispix' .rpl with .raw, and ENVI's .hdr with .img."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.stores.targets.images import MAP, pixel_size
from detcal.stores.targets.streaming import blocks

DIMS = (*MAP, "energy")
KINDS = {"i": "signed", "u": "unsigned", "f": "float"}
ENVI_TYPES = {
    "uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13, "int64": 14, "uint64": 15,
}  # fmt: skip


def cubes_of(dataset: xr.Dataset) -> list[xr.DataArray]:
    """The variables that are cubes of numbers."""
    return [variable for variable in dataset.values() if variable.dims == DIMS and variable.dtype.name in ENVI_TYPES and variable.size]


def check_cube(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what has not one cube.

    Raises
    ------
    InputError
        As said.
    """
    if len(cubes_of(dataset)) != 1:
        raise InputError(
            f"a {suffix} holds one cube (row, column, energy) of numbers, not {', '.join(map(str, dataset))}: save one of them"
        )


def export_raw(dataset: xr.Dataset, path: Path) -> None:
    """The numbers, energies innermost, the lowest byte first."""
    (cube,) = cubes_of(dataset)
    stored = np.memmap(path, cube.dtype.newbyteorder("<"), "w+", shape=cube.shape)
    for place, block in blocks(cube):
        stored[place] = block
    stored.flush()


def export_rpl(dataset: xr.Dataset, path: Path) -> None:
    """The header of Lispix, with the scales that hyperspy adds to it."""
    (cube,) = cubes_of(dataset)
    rows, columns, channels = cube.shape
    known = {
        "width": columns, "height": rows, "depth": channels, "offset": 0, "data-length": cube.dtype.itemsize,
        "data-type": KINDS[cube.dtype.kind], "byte-order": "little-endian", "record-by": "vector",
        **dict(scales_of(dataset, cube)),
    }  # fmt: skip
    path.write_text("\n".join(["key\tvalue", *(f"{name}\t{value}" for name, value in known.items())]) + "\n")


def scales_of(dataset: xr.Dataset, cube: xr.DataArray) -> Iterator[tuple[str, str]]:
    """Where each axis begins, its steps, name and unit: the energy's, if its steps are equal, and those of pixels that have a size."""
    energy = np.asarray(cube.coords.get("energy", ()), np.float64)
    steps = np.diff(energy)
    if len(steps) and np.allclose(steps, steps.mean(), rtol=1e-3):
        yield from axis_of("depth", "Energy", energy[0], float(steps.mean()), str(cube.energy.attrs.get("units", "")))
        if cube.energy.attrs.get("units") == "keV":
            yield "ev-per-chan", f"{1000 * steps.mean():.9g}"
    if (size := pixel_size(dataset)) is not None:
        yield from axis_of("height", "y", float(dataset.y[0]), size[0], size[2])
        yield from axis_of("width", "x", float(dataset.x[0]), size[1], size[2])


def axis_of(key: str, name: str, origin: float, scale: float, units: str) -> Iterator[tuple[str, str]]:
    """The lines of an axis."""
    yield from ((f"{key}-name", name), (f"{key}-origin", f"{origin:.9g}"), (f"{key}-scale", f"{scale:.9g}"), (f"{key}-units", units))


def export_envi(dataset: xr.Dataset, path: Path) -> None:
    """The header of ENVI: pixels one after the other, each with all its energies, which have the place of wavelengths."""
    (cube,) = cubes_of(dataset)
    rows, columns, channels = cube.shape
    lines = [
        "ENVI", f"description = {{{cube.name}, {cube.attrs.get('units', '')}, written by detcal}}",
        f"samples = {columns}", f"lines = {rows}", f"bands = {channels}", "header offset = 0", "file type = ENVI Standard",
        f"data type = {ENVI_TYPES[cube.dtype.name]}", "interleave = bip", "byte order = 0",
    ]  # fmt: skip
    if "energy" in cube.coords:
        energies = ", ".join(f"{energy:.9g}" for energy in cube.energy.values)
        lines += [f"wavelength units = {cube.energy.attrs.get('units', 'Unknown')}", f"wavelength = {{{energies}}}"]
    if (size := pixel_size(dataset)) is not None:
        lines.append(f"pixel size = {{{size[1]:.9g}, {size[0]:.9g}, units={size[2]}}}")
    path.write_text("\n".join(lines) + "\n")
