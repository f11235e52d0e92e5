"""What a report shows of data: a few frames, profiles, spectra and maps, read one at a time and thinned, so that any size may be shown."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.frames.stack import DIMS
from detcal.frames.valid import find_readings, without

SIDE = 512  # largest of an image, values
POINTS = 2000  # most of a line
MOST = 6  # pictures of one thing
MAP_BYTES, FEWEST_TILES = 256 * 2**20, 8  # of a cube, that are read for its map
SERIES = ("frame", "spectrum")  # dimensions along which a few are chosen
LINES = ("radial", "azimuthal", "energy")  # dimensions along which a line is drawn


@dataclass(frozen=True)
class Image:
    """An image or a map.

    Attributes
    ----------
    title, unit
        What it shows.
    values : (y, x)
        Thinned; NaN is what was not measured.
    shape
        Before it was thinned.
    missing
        How many of all values are NaN.
    points : y, x
        To be marked.
    rings : (y, x)
        Lines of equal values of this are drawn upon it; thinned likewise.
    """

    title: str
    values: NDArray[Any]
    shape: tuple[int, int]
    missing: int = 0
    unit: str = ""
    points: tuple[NDArray[Any], NDArray[Any]] | None = None
    rings: NDArray[Any] | None = None


@dataclass(frozen=True)
class Lines:
    """Lines over one axis, by their names; `missing` of their values are NaN."""

    title: str
    x: NDArray[Any]
    lines: dict[str, NDArray[Any]]
    x_label: str = ""
    unit: str = ""
    missing: int = 0


Picture = Image | Lines


def pictures_of(data: Any) -> list[Picture]:
    """The first pictures of frames, of a scan, or of whatever else a dataset holds; none of anything else, or of nothing."""
    if isinstance(data, xr.DataArray):
        data = xr.Dataset({data.name or "frames": data})
    if not isinstance(data, xr.Dataset):
        return []
    shown = [data.spectra] if "spectra" in data else data.values()
    return list(islice((picture for variable in shown for picture in of_variable(variable)), MOST))


def of_variable(variable: xr.DataArray) -> Iterator[Picture]:
    """The pictures of one variable, by its dimensions."""
    dims, name = tuple(map(str, variable.dims)), str(variable.name)
    if variable.dtype.kind not in "biuf" or variable.size == 0 or not dims:
        return
    if dims[-1] in LINES:
        if len(dims) == 1:
            yield line(name, variable, {name: variable})
        elif len(dims) == 2 and dims[0] in SERIES:
            yield line(name, variable, {f"{dims[0]} {place}": variable[place] for place in few(variable.shape[0])})
        elif len(dims) == 3 and dims[0] not in SERIES:
            yield from of_cube(variable)
    if len(dims) == 2 and dims[0] not in SERIES and min(variable.shape) > 1:
        yield image(name, variable)
    elif len(dims) == 3 and (dims[0] in SERIES or dims[-1] not in LINES) and min(variable.shape[1:]) > 1:
        along = dims[0]
        if dims == DIMS and variable.chunks is not None and len(variable.chunks[1]) > 1:  # to read a frame would be to read all
            variable, along = variable.transpose("y", "frame", "x"), "row"
        for place in few(variable.shape[0])[:2]:
            member = variable[place : place + 1]
            yield image(f"{name}, {along} {label_of(variable, place)}", (without(*find_readings(member)) if dims == DIMS else member)[0])


def few(length: int) -> list[int]:
    """The first, the one in the middle and the last, if they are several."""
    return sorted({0, length // 2, length - 1})


def label_of(variable: xr.DataArray, place: int) -> str:
    """What a member of a series is called: by its coordinate where that is a text."""
    coords = variable.coords.get(str(variable.dims[0]))
    return f"{place} of {variable.shape[0]}" if coords is None or coords.dtype.kind not in "OUT" else str(coords.values[place])


def image(title: str, shown: xr.DataArray) -> Image:
    """An image, read a block of rows at a time and thinned; of a mask, what is masked is NaN."""
    height, width = shown.shape
    row, column = every(height), every(width)
    bands, missing, start = [], 0, 0
    for rows in shown.chunks[0] if shown.chunks else (height,):
        found = np.asarray(shown[start : start + rows].compute(scheduler="synchronous").values)
        absent = found if found.dtype == np.bool_ else np.isnan(found)
        missing += int(absent.sum())
        kept = slice(-start % row, None, row), slice(None, None, column)
        bands.append(np.where(absent[kept], np.float32(np.nan), 0 if absent is found else found[kept]).astype(np.float32))
        start += rows
    return Image(title, np.concatenate(bands), (height, width), missing, unit_of(shown))


def every(size: int) -> int:
    """The step at which a side of so many pixels keeps no more than SIDE of them."""
    return -(-size // SIDE)


def thinned(values: NDArray[Any]) -> NDArray[Any]:
    """Every so-manieth value, so that no side is longer than SIDE."""
    return values[tuple(slice(None, None, every(size)) for size in values.shape)]


def line(title: str, variable: xr.DataArray, members: dict[str, xr.DataArray]) -> Lines:
    """Lines along the last dimension."""
    along = str(variable.dims[-1])
    axis = variable.coords.get(along)
    step = -(-variable.shape[-1] // POINTS)
    x = np.arange(variable.shape[-1], dtype=np.float64) if axis is None else np.asarray(axis.values, np.float64)
    values = {name: np.asarray(member.compute(scheduler="synchronous").values, np.float32) for name, member in members.items()}
    unit = "" if axis is None or not unit_of(axis) else f" ({unit_of(axis)})"
    missing = sum(int(np.isnan(each).sum()) for each in values.values())
    return Lines(title, x[::step], {name: each[::step] for name, each in values.items()}, along + unit, unit_of(variable), missing)


def of_cube(cube: xr.DataArray) -> list[Picture]:
    """Of a map of spectra (row, column, energy), or of profiles: means along the last, and of all; of some rows, if it is large."""
    rows, columns, _ = cube.shape
    tile = rows if cube.chunks is None else cube.chunks[0][0]
    tiles = -(-rows // tile)
    most = max(FEWEST_TILES, MAP_BYTES // max(1, int(cube[:tile].nbytes)))
    places = [slice(start, start + tile) for start in range(0, rows, tile)]
    if tiles > most:
        places = [slice(start * tile, start * tile + 1) for start in np.linspace(0, tiles - 1, most).round().astype(int)]
    maps, sums, number = [], np.zeros(cube.shape[2]), np.zeros(cube.shape[2])
    for place in places:
        values = np.asarray(cube[place].compute(scheduler="synchronous").values, np.float32)
        known = np.isfinite(values)
        values[~known] = 0
        seen = known.sum(axis=2)
        maps.append(np.where(seen > 0, values.sum(axis=2) / np.maximum(seen, 1), np.nan))
        sums += values.sum(axis=(0, 1))
        number += known.sum(axis=(0, 1))
    found = np.concatenate(maps)
    part = "" if len(found) == rows else f" ({len(found)} of its {rows} rows)"
    spectrum = xr.DataArray(sums / np.maximum(number, 1), dims=cube.dims[-1:], coords={
        name: coord for name, coord in cube.coords.items() if coord.dims == cube.dims[-1:]
    }, attrs=cube.attrs)  # fmt: skip
    mean = Image(
        f"{cube.name}, mean along {cube.dims[-1]}{part}", thinned(found), (rows, columns), int(np.isnan(found).sum()), unit_of(cube)
    )
    return [mean, line(f"{cube.name}, mean of the map{part}", spectrum, {"mean": spectrum})]


def unit_of(variable: xr.DataArray) -> str:
    """Its unit, if it tells."""
    found = str(variable.attrs.get("units", ""))
    return "" if found == "1" else found


def with_rings(picture: Picture, radius: NDArray[Any]) -> Picture:
    """An image with lines of equal radius, if it is one of that shape."""
    if isinstance(picture, Image) and picture.shape == radius.shape:
        return replace(picture, rings=thinned(np.asarray(radius, np.float32)))
    return picture


def with_points(picture: Picture, y: NDArray[Any], x: NDArray[Any]) -> Picture:
    """An image with marks at some places, rows and columns."""
    return replace(picture, points=(np.asarray(y), np.asarray(x))) if isinstance(picture, Image) else picture
