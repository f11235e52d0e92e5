"""The images that frames are corrected with: the dark, gains, and what is filled; lazily."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed

from detcal.errors import InputError
from detcal.frames.averages import Average
from detcal.frames.graph import map_frames
from detcal.frames.limits import find_limit
from detcal.frames.stack import as_image, as_stack
from detcal.frames.valid import as_mask
from detcal.response import correction, filling
from detcal.response.brightness import EXPOSURE, LIGHT, exposures_of, mean_of
from detcal.response.calibration import Response
from detcal.response.flats import as_slice


def filled(frames: xr.DataArray, images: list[da.Array]) -> xr.DataArray:
    """Frames with values for the pixels in which one of the images is not finite, and a coordinate that says which these are."""
    plan = delayed(filling.plan_fill, pure=True)(*images)
    found = map_frames(filling.fill_frames, frames, {"fill": plan}, name=frames.name, attrs=frames.attrs | {"fill": "interpolated"})
    where = da.from_delayed(plan.where(frames.shape[1:]), frames.shape[1:], np.bool_)
    return found.assign_coords(filled=(("y", "x"), where, {"long_name": "filled from its neighbours, not measured"}))


def terms_of(
    response: Response | None, mask: Any, shape: tuple[int, ...]
) -> tuple[list[da.Array], da.Array | None, tuple[float, str, float] | None]:
    """Offset, gain and curvature that multiply frames, bad pixels, and how flats are smoothed; without a response, what does nothing."""
    bad = None if mask is None else da.asarray(as_mask(mask, shape, "frames")).rechunk(-1)
    if response is None:
        return [da.zeros(shape, np.float32, chunks=-1), da.ones(shape, np.float32, chunks=-1)], bad, None
    images = [response.offset, response.gain, response.curvature]
    terms = [da.asarray(image.data).rechunk(-1) for image in images if image is not None]
    known = da.asarray(response.mask.data).rechunk(-1)
    return terms, known if bad is None else known | bad, (response.sigma, response.boundary, response.truncate)


def divided_terms(terms: list[da.Array], mask: da.Array | None, divisor: Any = None) -> list[da.Array]:
    """What multiplies the frames, from one task: fused into the blocks' tasks it would be computed again in each."""
    shape = terms[0].shape
    found = delayed(correction.divided, pure=True, nout=len(terms))(terms, mask, divisor)
    return [da.from_delayed(term, shape, np.float32) for term in found]


def as_dark_image(
    dark: Any,
    mask: Any,
    shape: tuple[int, ...],
    *,
    dummy: float | None = None,
    saturation: float | None = None,
    average: Average = "clipped",
) -> da.Array:
    """The dark in float32, zero if there is none, NaN in masked pixels: NaN is no reading from then on."""
    height, width = shape
    if np.ndim(dark) == 0:
        image: da.Array = da.full(shape, 0 if dark is None else as_number(dark), dtype=np.float32, chunks=-1)
    else:
        limit = find_limit(as_stack(dark, "a dark"), saturation)
        image = as_image(dark, (height, width), "a dark", dummy=dummy, saturation=limit, average=average)
    if mask is None:
        return image
    masked: da.Array = da.where(da.asarray(as_mask(mask, shape, "frames")).rechunk(-1), np.float32(np.nan), image)
    return masked


class Flat(NamedTuple):
    """The mean of some flats, the dark that is to be taken off it, if any, and what frames are divided by."""

    image: da.Array
    dark: da.Array | None
    divisor: Delayed


def as_flat(
    flats: Any,
    darks: dict[float, da.Array],
    shape: tuple[int, int],
    divide: Callable[..., Any],
    terms: list[da.Array],
    bad: da.Array | None,
    *,
    saturation: float | None,
    **options: Any,
) -> Flat:
    """Flats averaged, the dark of their exposure (None, of no darks), and what `divide` makes of them."""
    image = as_image(flats, shape, "a flat", saturation=find_limit(as_stack(flats), saturation), **options)
    dark = dark_at(darks, mean_of(flats, EXPOSURE), "flats") if darks else None
    return Flat(image, dark, delayed(divide, pure=True)(image, dark, terms, bad, light=mean_of(flats, LIGHT)))


def as_number(dark: Any) -> float:
    """A dark that is the same in all pixels."""
    number = np.asarray(dark)
    if number.dtype.kind not in "iuf" or not np.isfinite(number):
        raise InputError(f"expected a dark image, dark frames, or a number of counts, got {dark!r}")
    return float(number)


def darks_by_exposure(dark: Any, exposure: Any, shape: tuple[int, ...], **options: Any) -> dict[float, da.Array]:
    """Dark images by their exposure; of one alone, or whose exposure nobody says, that of all frames and flats is NaN: it does for any."""
    if np.ndim(dark) < 2 or exposure is None or not (isinstance(exposure, str) or "dark" in exposure):
        return {np.nan: as_dark_image(dark, None, shape, **options)}
    stack = as_stack(dark, "a dark")
    times = exposures_of(stack, exposure, "dark").values
    groups = {float(time): as_slice(np.flatnonzero(times == time)) for time in np.unique(times)}
    return {time: as_dark_image(stack[group], None, shape, **options) for time, group in groups.items()}


def dark_at(darks: dict[float, da.Array], times: Any, what: str) -> da.Array:
    """The dark image of frames of an exposure: on a line through those of the nearest two, as what leaks into a pixel grows in time.

    Raises
    ------
    InputError
        Frames of several exposures beside such darks.
    """
    known = list(darks)
    if len(known) == 1:
        if np.isfinite(known[0]) and not np.allclose(known[0], times):
            warnings.warn(
                f"darks of an exposure of {known[0]:g} are taken off {what} of {np.ravel(times)[0]:g} as they are: give darks of both",
                UserWarning, stacklevel=3,
            )  # fmt: skip
        return darks[known[0]]
    wanted = np.unique(times)
    if len(wanted) > 1:
        raise InputError(f"expected {what} of one exposure, beside darks of {len(known)}, got {len(wanted)}: correct one after the other")
    first = int(np.clip(np.searchsorted(known, wanted[0]) - 1, 0, len(known) - 2))
    share = (wanted[0] - known[first]) / (known[first + 1] - known[first])
    found: da.Array = np.float32(1 - share) * darks[known[first]] + np.float32(share) * darks[known[first + 1]]
    return found
