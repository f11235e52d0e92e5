"""Cubes (row, column, energy): as plain numbers beside a header, Lispix' .rpl with .raw and ENVI's .hdr with .img, and for HyperSpy."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.targets.images import MAP, pixel_size
from detcal.stores.targets.nexus_file import open_new, plain_attributes
from detcal.stores.targets.streaming import blocks

DIMS = (*MAP, "energy")
KINDS = {"i": "signed", "u": "unsigned", "f": "float"}
ENVI_TYPES = {
    "uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13, "int64": 14, "uint64": 15,
}  # fmt: skip
COORDS = dict(zip(DIMS, ("y", "x", "energy"), strict=True))
HYPERSPY = "3.1"  # the version of the layout, which HyperSpy reads since 1.6


class Axis(NamedTuple):
    """The places along an axis, their step if it is the same everywhere, name and unit."""

    name: str
    places: NDArray[np.float64]
    step: float | None
    units: str


def cubes_of(dataset: xr.Dataset) -> list[xr.DataArray]:
    """The variables that are cubes of numbers."""
    return [variable for variable in dataset.values() if variable.dims == DIMS and variable.dtype.name in ENVI_TYPES and variable.size]


def axis_of(cube: xr.DataArray, dim: str) -> Axis | None:
    """The axis along a dimension; None if nothing is known of it."""
    line = cube.coords.get(COORDS[dim])
    if line is None or line.dims != (dim,):
        return None
    places = np.asarray(line, np.float64)
    steps = np.diff(places)
    equal = bool(len(steps)) and np.allclose(steps, steps.mean(), rtol=1e-3)
    return Axis(COORDS[dim].replace("energy", "Energy"), places, float(steps.mean()) if equal else None, str(line.attrs.get("units", "")))


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
    energy = axis_of(cube, "energy")
    if energy is not None and energy.step is not None:
        yield from lines_of("depth", energy)
        if energy.units == "keV":
            yield "ev-per-chan", f"{1000 * energy.step:.9g}"
    if pixel_size(dataset) is not None:
        for key, dim in (("height", "row"), ("width", "column")):
            if (axis := axis_of(cube, dim)) is not None:
                yield from lines_of(key, axis)


def lines_of(key: str, axis: Axis) -> Iterator[tuple[str, str]]:
    """The lines of an axis with equal steps."""
    values = (axis.name, f"{axis.places[0]:.9g}", f"{axis.step:.9g}", axis.units)
    yield from ((f"{key}-{what}", value) for what, value in zip(("name", "origin", "scale", "units"), values, strict=True))


def export_envi(dataset: xr.Dataset, path: Path) -> None:
    """The header of ENVI: pixels one after the other, each with all its energies, which have the place of wavelengths."""
    (cube,) = cubes_of(dataset)
    rows, columns, channels = cube.shape
    told = ", ".join(str(part) for part in (cube.name, cube.attrs.get("units"), "written by detcal") if part)
    lines = [
        "ENVI", f"description = {{{told}}}",
        f"samples = {columns}", f"lines = {rows}", f"bands = {channels}", "header offset = 0", "file type = ENVI Standard",
        f"data type = {ENVI_TYPES[cube.dtype.name]}", "interleave = bip", "byte order = 0",
    ]  # fmt: skip
    if "energy" in cube.coords:
        energies = ", ".join(f"{energy:.9g}" for energy in cube.energy.values)
        lines += [f"wavelength units = {cube.energy.attrs.get('units', 'Unknown')}", f"wavelength = {{{energies}}}"]
    if (size := pixel_size(dataset)) is not None:
        lines.append(f"pixel size = {{{size[1]:.9g}, {size[0]:.9g}, units={size[2]}}}")
    path.write_text("\n".join(lines) + "\n")


def export_hyperspy(dataset: xr.Dataset, path: Path) -> None:
    """HyperSpy's layout of HDF5: an experiment with the numbers, an axis for each dimension, and what is known of them."""
    (cube,) = cubes_of(dataset)
    with open_new(path) as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": HYPERSPY})
        group = file.create_group(f"Experiments/{cube.name}")
        for number, dim in enumerate(DIMS):
            add_axis(group.create_group(f"axis-{number}"), axis_of(cube, dim), cube.sizes[dim], navigate=dim in MAP)
        stored = group.create_dataset("data", cube.shape, cube.dtype, chunks=True, compression="gzip", shuffle=True)
        for place, block in blocks(cube):
            stored[place] = block
        group.create_group("metadata/General").attrs["title"] = str(cube.name)
        group.create_group("metadata/Signal").attrs.update({"signal_type": "", "quantity": str(cube.attrs.get("units", ""))})
        group.create_group("original_metadata/detcal").attrs.update(plain_attributes(dataset.attrs))
        group.create_group("learning_results")


def add_axis(group: h5py.Group, axis: Axis | None, size: int, *, navigate: bool) -> None:
    """An axis of HyperSpy's, by its first place and step, or by all places if the steps differ."""
    known = axis or Axis("", np.arange(float(size)), 1.0, "")
    group.attrs.update({"name": known.name, "units": known.units, "navigate": navigate, "size": size, "is_binned": not navigate})
    if known.step is None:
        group.attrs["_type"] = "DataAxis"
        group["axis"] = known.places
    else:
        group.attrs.update({"_type": "UniformDataAxis", "offset": known.places[0], "scale": known.step})
