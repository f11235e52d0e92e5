"""Frames with fewer pixels, lazily: a part of each, or pixels in groups."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of
from detcal.frames.graph import map_frames
from detcal.frames.notes import REGION, RESIZED
from detcal.frames.readings import Frames
from detcal.frames.single import images_too
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response.binning import bin_block
from detcal.response.brightness import Region, as_region

How = Literal["sum", "mean"]
YX = {"y", "x"}


@images_too
def crop(frames: ArrayLike, region: str | tuple[slice, slice]) -> xr.DataArray:
    """Take a part of each frame, lazily.

    Parameters
    ----------
    frames : (frame, y, x), or an image (y, x), which gives one
        Of any integer or real type.
    region : "y0:y1, x0:x1", or two slices
        Rows and columns that are kept; an end that is left out is that of the frames, and one below 0 counts from it.

    Returns
    -------
    DataArray (frame, y, x)
        Of the same type, with the attributes of the frames, flags included, and `region`. Coords of rows and columns are cropped too.
        A dark, flat, mask or response of the shape before is cropped likewise where it is given beside them.

    Raises
    ------
    InputError
        A region that is none, empty, or not inside the frames.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import crop
    >>> crop(np.zeros((2, 6, 8)), "1:4, :5").shape
    (2, 3, 5)
    """
    stack = as_stack(frames)
    shape = stack.shape[1:]
    found = as_region(region, shape)
    if found is None:
        raise InputError(f'expected a region "y0:y1, x0:x1", got {region!r}')
    rows, columns = (slice(*part.indices(size)) for part, size in zip(found, shape, strict=True))
    sizes = {"y": rows.stop - rows.start, "x": columns.stop - columns.start}
    kept_region = f"{rows.start}:{rows.stop}, {columns.start}:{columns.stop}"
    attrs = noted(stack, stack.attrs | {REGION: kept_region}, f"crop {kept_region}")
    cropped = map_frames(part_of, stack, {"region": (rows, columns)}, sizes=sizes, dtype=stack.dtype, name=stack.name, attrs=attrs)
    kept = {name: line.isel(y=rows, x=columns, missing_dims="ignore") for name, line in lines_of_pixels(stack).items()}
    return cropped.assign_coords(kept)


def noted(stack: xr.DataArray, attrs: Mapping[Any, Any], step: str) -> dict[Any, Any]:
    """Attributes with what is done to frames, and their shape before: images of the whole detector are brought to their pixels by it."""
    height, width = stack.shape[1:]
    return {**attrs, RESIZED: [*stack.attrs.get(RESIZED, ()), f"{step} of {height} x {width}"]}


def lines_of_pixels(stack: xr.DataArray) -> dict[str, xr.DataArray]:
    """The coordinates of rows, columns and pixels."""
    return {str(name): line.drop_vars(line.coords) for name, line in stack.coords.items() if line.dims and YX.issuperset(line.dims)}


def part_of(block: Frames, *, region: Region) -> Frames:
    """A part of each frame of a block, which does not keep the others."""
    return block[:, *region].copy()


@images_too
def rebin(frames: ArrayLike, factors: int | tuple[int, int], *, how: How = "sum", dummy: float | None = None) -> xr.DataArray:
    """Join pixels to groups of factors[0] rows and factors[1] columns, lazily.

    Parameters
    ----------
    frames : (frame, y, x), or an image (y, x), which gives one
        Of any integer or real type.
    factors : number, or two (y, x)
        Pixels to a group. Rows and columns at the end that fill none are left out.
    how : "sum" or "mean"
        Of the readings: counts are added up, and of transmissions the mean is taken.
    dummy : number, optional
        Stands for "no reading", in place of all other flags.

    Returns
    -------
    DataArray (frame, y, x), float32
        A pixel that was not measured takes no part in the mean, and in a sum is taken to be as the others of its group; NaN where none was.
        Coords of rows and columns are averaged, those that are true or false are true where one of the group is. A dark, flat or mask of
        the shape before is rebinned likewise where it is given beside them.

    Raises
    ------
    InputError
        Factors that are no positive whole numbers, or larger than the frames.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import rebin
    >>> frames = np.array([[[1.0, 2.0, 5.0, 5.0], [3.0, np.nan, 5.0, 5.0]]])
    >>> rebin(frames, 2).values
    array([[[ 8., 20.]]], dtype=float32)
    """
    if how not in get_args(How):
        raise InputError(f"expected how to be one of {', '.join(get_args(How))}, got {how!r}")
    stack = as_stack(frames)
    down, across = checked_factors(factors, stack.shape[1:])
    stack, valid = find_readings(stack, dummy=dummy)
    sizes = {"y": stack.shape[1] // down, "x": stack.shape[2] // across}
    options: dict[str, Any] = {"valid": valid, "factors": (down, across), "mean": how == "mean"}
    binning = f"{how} of {down} x {across}"
    attrs = noted(stack, attributes_of(stack, {"binning": binning}), binning)
    binned = map_frames(bin_block, stack, options, sizes=sizes, name=stack.name, attrs=attrs)
    return binned.assign_coords({name: binned_line(line, {"y": down, "x": across}) for name, line in lines_of_pixels(stack).items()})


def checked_factors(factors: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a group."""
    both = (factors, factors) if np.ndim(factors) == 0 else tuple(factors)
    whole = len(both) == 2 and all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in both)
    if not whole or not all(1 <= each <= size for each, size in zip(both, shape, strict=True)):
        raise InputError(f"expected factors (y, x) as whole numbers from 1 to the size of the frames {tuple(shape)}, got {factors!r}")
    return int(both[0]), int(both[1])


def binned_line(line: xr.DataArray, factors: dict[str, int]) -> xr.DataArray:
    """A coordinate of rows, columns or pixels, in groups."""
    groups = line.coarsen({dim: factors[str(dim)] for dim in line.dims}, boundary="trim")
    return (groups.max() if line.dtype == np.bool_ else groups.mean()).astype(line.dtype if line.dtype == np.bool_ else float)
