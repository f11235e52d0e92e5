"""What makes one frame brighter than another beside the sample: the beam, by a monitor or a free region of each frame, and exposures."""

import re
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.graph import map_frames
from detcal.frames.normalization import ATTRIBUTE, NAME, factors_of
from detcal.frames.notes import with_notes
from detcal.frames.readings import Floats
from detcal.frames.stack import as_stack

EXPOSURE = "exposure"
LIGHT = "light"  # coordinate of flats: what each is divided by
REGION = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*,\s*(-?\d+)?\s*:\s*(-?\d+)?\s*")
Region = tuple[slice, slice]


def as_region(given: Any, shape: tuple[int, ...]) -> Region | None:
    """The rows and columns that "y0:y1, x0:x1", or two slices, mean in frames of a shape; None if that is no region.

    Numbers below 0 count from the end, as in numpy; the slices that come back have none.

    Raises
    ------
    InputError
        A region that is not in the frames, or empty.
    """
    if isinstance(given, str) and (found := REGION.fullmatch(given)):
        ends = [int(end) if end else None for end in found.groups()]
        region = slice(*ends[:2]), slice(*ends[2:])
    elif isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, slice) for each in given):
        region = given
    else:
        return None
    spans = [span_of(part, size) for part, size in zip(region, shape, strict=True)]
    inside = all(0 <= first < last <= size for (first, last), size in zip(spans, shape, strict=True))
    if not inside or any(part.step not in (None, 1) for part in region):
        raise InputError(f'expected a region "y0:y1, x0:x1" inside frames of {tuple(shape)}, got {given!r}')
    rows, columns = spans
    return slice(*rows), slice(*columns)


def span_of(part: slice, size: int) -> tuple[int, int]:
    """The first place of a slice, and the one behind its last, counted from the beginning."""
    first, last = part.start or 0, size if part.stop is None else part.stop
    return first + size if first < 0 else first, last + size if last < 0 else last


def light_of_frames(frames: xr.DataArray, normalization: Any, exposure: Any) -> xr.DataArray | None:
    """What frames are divided by, a number each: a monitor's counts, times an exposure; None: nothing.

    Parameters
    ----------
    frames : (frame, y, x)
        From `as_stack`.
    normalization
        A number, one for each frame, or the name of a coordinate or attribute.
    exposure
        Such a name, or such numbers by "frames", "flat" and "dark".

    Raises
    ------
    InputError
        As `factors_of` and `exposures_of`.
    """
    factors = [] if normalization is None else [factors_of(frames, normalization)]
    factors += [] if exposure is None else [exposures_of(frames, exposure)]
    return product(factors)


def with_light(flat: Any, normalization: Any, exposure: Any) -> Any:
    """Flats with what each is divided by as a coordinate, and their exposures: names alone say what a monitor was for flats too."""
    if exposure is None and not isinstance(normalization, str):
        return flat
    found = as_stack(flat, "a flat")
    light = np.ones(len(found)) if not isinstance(normalization, str) else factors_of(found, normalization, "flats").values
    if exposure is not None:
        times = exposures_of(found, exposure, "flat").values
        found, light = found.assign_coords({EXPOSURE: ("frame", times)}), light * times
    return found.assign_coords({LIGHT: ("frame", light)})


def mean_of(flat: Any, name: str) -> float | None:
    """The mean of a coordinate of flats, if they have it."""
    return float(flat.coords[name].mean()) if name in getattr(flat, "coords", {}) else None


def exposures_of(stack: xr.DataArray, exposure: Any, what: Literal["frames", "flat", "dark"] = "frames") -> xr.DataArray:
    """The exposures of frames, flats or darks: a name is common to all.

    Raises
    ------
    InputError
        As `factors_of`, and for numbers that do not say what they are of.
    """
    if not isinstance(exposure, str) and (not isinstance(exposure, Mapping) or set(exposure) - {"frames", "flat", "dark"}):
        raise InputError(f"expected exposure as the name of a coordinate, or numbers by frames, flat and dark, got {exposure!r:.60}")
    if not isinstance(exposure, str) and what not in exposure:
        raise InputError(f"expected the exposure of {what} too, got that of {', '.join(exposure) or 'nothing'}")
    given = exposure if isinstance(exposure, str) else exposure[what]
    return factors_of(stack, given, what if what == "frames" else f"{what}s", EXPOSURE)


def product(factors: list[xr.DataArray]) -> xr.DataArray | None:
    """All factors in one, with their units."""
    if len(factors) < 2:
        return factors[0] if factors else None
    units = [str(each.attrs["units"]) for each in factors if "units" in each.attrs]
    found = factors[0] * factors[1].values
    return found.rename(NAME).assign_attrs({"units": "·".join(units)} if units else {})


def divided_by(frames: xr.DataArray, factors: xr.DataArray, *, relative: bool) -> xr.DataArray:
    """Frames over their factors, which become a coordinate; `relative`: flats were divided by theirs, so that units cancel."""
    lazy = da.from_array(factors.values.astype(np.float32).reshape(-1, 1, 1), chunks=(frames.data.chunks[0], 1, 1), name=False)
    attrs = frames.attrs | {ATTRIBUTE: str(factors.name)}
    if "units" in factors.attrs and not relative:
        attrs["units"] = f"{attrs['units']}/({factors.attrs['units']})"
    found = map_frames(np.divide, frames, stacks=[lazy], whole=False, name=frames.name, attrs=attrs)
    return found.assign_coords({str(factors.name): factors})


def divided_by_region(frames: xr.DataArray, region: Region) -> xr.DataArray:
    """Frames over their means in a region, which become a coordinate."""
    attrs = frames.attrs | {ATTRIBUTE: NAME, "units": "1"}
    pairs = map_frames(divide_by_mean, frames, {"region": region}, name=frames.name, attrs=attrs)
    return with_notes(pairs, {NAME: np.float64})


def divide_by_mean(frames: Floats, *, region: Region) -> tuple[Floats, NDArray[np.float64]]:
    """Frames (frame, y, x) over the mean of what was measured in a region, and these means (frame, 1, 1); NaN where one is not above 0."""
    part = frames[:, *region]
    known = ~np.isnan(part)
    counts = known.sum(axis=(1, 2))
    sums = np.sum(part, axis=(1, 2), dtype=float, where=known)
    means = np.divide(sums, counts, out=np.full(len(frames), np.nan), where=(counts > 0) & (sums > 0))[:, None, None]
    dark = int(np.isnan(means).sum())
    if dark:
        warnings.warn(f"{dark} frames are NaN: nothing in their region is above 0, or was measured", UserWarning, stacklevel=2)
    found: Floats = frames / means.astype(np.float32)
    return found, means
