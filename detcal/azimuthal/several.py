"""Several detectors, or places of one, in one profile: their pixels side by side, as those of one detector that has a single row."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr

from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.profiles import as_bins, refuse_what_was_done
from detcal.errors import InputError
from detcal.frames.corrections import ATTRIBUTE, corrections_of
from detcal.frames.graph import map_frames, whole_frames
from detcal.frames.normalization import factors_of
from detcal.frames.readings import readings
from detcal.frames.stack import DIMS, as_stack_of
from detcal.frames.valid import find_readings, settled
from detcal.sizes import check_pixels

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

ALIKE = ("unit", "split", "corrections")  # of bins that go into one profile
SOLID_ANGLE = "solid_angle_sr"  # in the provenance: of a pixel at the PONI


def over_geometries(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function of frames and bins takes a list of each too, and a list of variances, and gives one result of all their pixels."""
    names = list(signature(function).parameters)[:2]
    any_function: Callable[..., Any] = function

    @wraps(any_function)
    def of_any(*arguments: Any, **options: Any) -> Any:
        given = dict(zip(names, arguments, strict=False)) | {name: options[name] for name in names if name in options}
        frames, bins = (given.get(name) for name in names)
        if not isinstance(bins, list | tuple):
            return any_function(*arguments, **options)
        bins = several_bins(bins)
        rest = {name: value for name, value in options.items() if name not in names}
        dummy = rest.pop("dummy", None)
        for name in ("variance", "darks"):
            if rest.get(name) is not None:
                rest[name] = join_frames(rest[name], bins, dummy, name)
        side_by_side = join_frames(frames, bins, dummy)
        of_bins, rest["normalization"] = share_normalization(rest.get("normalization"), frames, bins)
        return any_function(side_by_side, join_bins(bins, of_bins), **rest)

    return of_any


def several_bins(bins: Sequence[Any]) -> list[AzimuthalBins]:
    """A list of bins; an InputError for an empty one, or what are none."""
    if not bins:
        raise InputError("expected a list of bins, got none")
    return [as_bins(each) for each in bins]


def share_normalization(given: Any, frames: Any, bins: Sequence[AzimuthalBins]) -> tuple[Any, Any]:
    """A factor for each of the bins, or None, and what is left for each of the frames.

    Raises
    ------
    InputError
        Factors of frames of which those of one stack are no multiple of those of another.
    """
    if given is None or (not isinstance(given, str) and np.ndim(given) == 0):
        return None, given
    in_turn = [given] * len(bins)
    if not isinstance(given, str) and len(given) == len(bins):
        if all(np.ndim(each) == 0 for each in given):
            return given, None
        in_turn = list(given)
    stacks = [as_stack_of(each.shape, "bins", stack) for stack, each in zip(frames, bins, strict=True)]
    found = [factors_of(stack, each) for stack, each in zip(stacks, in_turn, strict=True)]
    first, of_bins = found[0].values, [float(factors[0] / found[0][0]) for factors in found]
    if not all(np.allclose(factors, first * factor, rtol=1e-6, atol=0) for factors, factor in zip(found, of_bins, strict=True)):
        raise InputError(
            "expected normalizations of frames that change alike in all stacks, got some that do not: average each stack by itself with "
            "sums=True, add sum_signal and sum_normalization up, and divide the one by the other"
        )
    return of_bins, given if isinstance(given, str) else first


def join_frames(frames: Any, bins: Sequence[AzimuthalBins], dummy: float | None, name: str = "frames") -> xr.DataArray:
    """The readings of several stacks side by side (frame, 1, pixel), lazily; NaN where there is none.

    Raises
    ------
    InputError
        Another number of stacks than of bins, stacks of different lengths, or of which not the same was corrected.
    """
    if not isinstance(frames, list | tuple) or len(frames) != len(bins):
        came = f"{len(frames)} of them" if isinstance(frames, list | tuple) else type(frames).__name__
        raise InputError(f"expected a list of {name}, a stack for each of the {len(bins)} bins, got {came}")
    stacks = [as_stack_of(each.shape, "bins", stack, name) for stack, each in zip(frames, bins, strict=True)]
    lengths = [len(stack) for stack in stacks]
    if len({*lengths}) > 1:
        raise InputError(f"expected {name} of as many frames for each of the bins, got {lengths}")
    if len({corrections_of(stack) for stack in stacks}) > 1:
        raise InputError(f"expected {name} of which the same was corrected, got {[list(corrections_of(stack)) for stack in stacks]}")
    rows = []
    for stack, each in zip(stacks, bins, strict=True):
        refuse_what_was_done(stack, each)
        found, valid = find_readings(stack, dummy=dummy, detector=each.detector_dummy, beside=name != "frames", variance=name == "variance")
        known = whole_frames(map_frames(readings, found, {"valid": valid}))
        rows.append(known.reshape((len(stack), 1, each.norm.size)).rechunk({0: stacks[0].data.chunks[0]}))
    first = stacks[0]
    attrs = {key: value for key, value in settled(first.attrs).items() if key != ATTRIBUTE}
    done = {ATTRIBUTE: list(corrections_of(first))} if corrections_of(first) else {}
    coords = {str(key): line for key, line in first.coords.items() if set(line.dims) <= {"frame"}}
    return xr.DataArray(da.concatenate(rows, axis=2).rechunk({2: -1}), coords, DIMS, first.name, attrs | done)


def join_bins(bins: Sequence[AzimuthalBins], factors: Any = None) -> AzimuthalBins:
    """The bins of several detectors as those of one with a single row, in the units of the first one's solid angle.

    Raises
    ------
    InputError
        Bins of other rings, units or corrections, or other numbers of factors; bins that do not say what solid angle they divide by.
    """
    parts = [each.compute() for each in bins]
    first, count = parts[0], len(parts)
    for each in parts[1:]:
        for name in ALIKE:
            if getattr(each, name) != getattr(first, name):
                raise InputError(f"expected bins of one {name} for one profile, got {getattr(first, name)!r} and {getattr(each, name)!r}")
        if not same_places(first.centres, each.centres) or not same_places(first.azimuths, each.azimuths):
            raise InputError(
                "expected bins of the same rings for one profile: build them with the same npt, radial_range, npt_azimuth and azimuth_range"
            )
    pixels = sum(each.norm.size for each in parts)
    check_pixels((1, pixels), "all detectors together")
    whole = sp.hstack([each.to_scipy() for each in parts], format="csr")
    norms = [each.norm.values * np.float32(by) for each, by in zip(parts, scales_of(parts, factors), strict=True)]
    images = {"norm": norms, "dark": [each.dark.values for each in parts], "radius": [each.radius.values for each in parts]}
    in_a_row: dict[str, Any] = {
        name: xr.DataArray(np.concatenate([image.ravel() for image in some])[None], dims=DIMS[1:]) for name, some in images.items()
    }
    entries = {"data": whole.data, "indices": whole.indices.astype(np.int32)}
    arrays: dict[str, Any] = {name: xr.DataArray(values, dims="entry") for name, values in entries.items()}
    edges = xr.DataArray(whole.indptr.astype(np.int64), dims="edge")
    told = [json.loads(each.geometry) for each in parts if each.geometry]
    wavelengths = {known.get("Wavelength") for known in told}
    geometry = {"Geometries": told} | ({"Wavelength": wavelengths.pop()} if len(wavelengths) == 1 else {})
    return replace(
        first, **in_a_row, **arrays, indptr=edges, detector_dummy=None, geometry=json.dumps(geometry) if len(told) == count else None
    )


def same_places(one: xr.DataArray | None, other: xr.DataArray | None) -> bool:
    """Whether bins lie where others do."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-9, atol=0))


def scales_of(bins: Sequence[AzimuthalBins], factors: Any) -> list[float]:
    """By what the norms of each are multiplied: the solid angle of its pixel at the PONI, relative to the first one's, and its factor."""
    told = [json.loads(each.provenance or "{}") for each in bins]
    angles = [known.get(SOLID_ANGLE) if known.get("solid_angle", True) else 1.0 for known in told]
    if None in angles or len({bool(known.get("solid_angle")) for known in told}) > 1:
        raise InputError(
            "expected bins that all say by what solid angle they divide, or by none: build them anew, with the same solid_angle"
        )
    if factors is None:
        return [angle / angles[0] for angle in angles]
    by = np.asarray(factors, float) if np.asarray(factors).dtype.kind in "iuf" else np.empty(0)
    if by.shape != (len(bins),) or not (np.isfinite(by) & (by > 0)).all():
        raise InputError(f"expected a positive number as normalization for each of the {len(bins)} bins, got {factors!r:.80}")
    return [angle / angles[0] * float(factor) for angle, factor in zip(angles, by, strict=True)]
