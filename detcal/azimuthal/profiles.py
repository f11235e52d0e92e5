"""A profile of a ring each, as Datasets, from frames and bins that were checked."""

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from detcal.azimuthal import kernels
from detcal.azimuthal.blocks import clip_block
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.darks import take_off
from detcal.azimuthal.normalization import normalized
from detcal.azimuthal.rejected import clip_and_count
from detcal.azimuthal.unweighted import counted_by_weight, without_weights
from detcal.errors import InputError
from detcal.frames.corrections import ATTRIBUTE, corrections_of, refuse_twice
from detcal.frames.graph import map_frames
from detcal.frames.normalization import find_normalization
from detcal.frames.readings import ALL_NUMBERS, Valid
from detcal.frames.stack import as_stack_of, threads_a_block
from detcal.frames.valid import find_readings

ERROR_MODELS = {"no": kernels.NONE, "poisson": kernels.POISSON, "azimuthal": kernels.AZIMUTHAL, "hybrid": kernels.HYBRID}
LARGEST = 1e18  # reading: of which the square, and sums of many, are still numbers in float32
QUANTITIES = ("intensity", "sem", "std", "count")
WEIGHT = "sum_normalization"  # Σω, what the intensity was divided by
LEFT_OUT = "rejected"  # how many of the pixels are not counted
UNITLESS = ("count", WEIGHT, LEFT_OUT)


def as_bins(bins: Any) -> AzimuthalBins:
    """Refuse what are no bins."""
    if not isinstance(bins, AzimuthalBins):
        raise InputError(f"expected AzimuthalBins, got {bins!r:.100}: build them with build_bins, or load them with detcal.load")
    return bins


def check_averaging(error_model: str) -> None:
    """Refuse the model that is for clipping alone."""
    if error_model == "hybrid":
        raise InputError('the "hybrid" error model is for sigma_clip: here take "poisson" or "azimuthal"')


def warn_of_split_pixels(bins: AzimuthalBins) -> None:
    """Say what clipping does with pixels that lie in several rings."""
    if bins.split != "no":
        warnings.warn(
            f"outliers among pixels that are split ({bins.split}): a pixel is judged in each of its rings alone, may be left out of one "
            'and kept in the next, and rings share the noise of theirs; split="no" leaves out whole pixels',
            stacklevel=3,
        )


def check_clipping(threshold: float, max_iterations: int, error_model: str, variance: Any) -> None:
    """Refuse what clips nothing, or everything."""
    if not isinstance(threshold, Real) or not threshold >= 0:
        raise InputError(f"expected a threshold of 0 or more, got {threshold!r}")
    if not isinstance(max_iterations, Integral) or max_iterations < 0:
        raise InputError(f"expected max_iterations of 0 or more, got {max_iterations!r}")
    if error_model == "no" and variance is None:
        raise InputError('sigma-clipping needs an error model: "azimuthal", "poisson" or "hybrid", or a variance')


def profiles_of(
    frames: Any,
    bins: AzimuthalBins,
    error_model: str,
    variance: Any,
    dummy: float | None,
    normalization: Any,
    sums: bool,
    *,
    darks: Any,
    threshold: float,
    most: int,
    rejected: bool = False,
    weighted: bool = True,
) -> xr.Dataset:
    """Clipped statistics of each ring."""
    bins = bins if weighted else without_weights(as_bins(bins))
    stack, noise, options = clipping_task(frames, bins, error_model, variance, dummy)
    factors = find_normalization(stack, normalization)
    options |= {"threshold": threshold, "most": most} | ({"entries": bins.entries_in_memory} if rejected else {})
    names = (*QUANTITIES, WEIGHT) + (LEFT_OUT,) * rejected
    kernel, stack, noise, options = take_off(clip_and_count if rejected else clip_block, stack, bins, noise, options, darks)
    found = as_profiles(names, kernel, stack, bins, options, noise)
    if not weighted:
        found = counted_by_weight(found, bins, WEIGHT, alone_is_unknown=variance is None and error_model == "azimuthal")
    return normalized(with_sums(found) if sums else found.drop_vars(WEIGHT), factors)


def with_sums(profiles: xr.Dataset) -> xr.Dataset:
    """Profiles with the sums that they are made of, which add up: 0 in rings without a pixel."""
    weight, empty = profiles[WEIGHT], profiles["count"] == 0
    attrs = profiles["intensity"].attrs
    signal = (profiles["intensity"] * weight).where(~empty, 0).assign_attrs(attrs)
    variance = ((profiles["sem"] * weight) ** 2).where(~empty, 0).assign_attrs(attrs | {"units": f"({attrs['units']})²"})
    return profiles.assign(sum_signal=signal, sum_variance=variance)


def clipping_task(
    frames: Any, bins: AzimuthalBins, error_model: str, variance: Any, dummy: float | None
) -> tuple[xr.DataArray, list[da.Array], dict[str, Any]]:
    """The frames, their variance if it is given, and what the kernels need to know."""
    if error_model not in ERROR_MODELS:
        raise InputError(f"expected error_model to be one of {', '.join(ERROR_MODELS)}, got {error_model!r}")
    stack, valid = readings_for(bins, frames, dummy)
    noise, noise_valid = [], ALL_NUMBERS
    if variance is not None:
        given = as_stack_of(bins.shape, "bins", variance, "variance")
        if given.shape != stack.shape:
            raise InputError(f"expected a variance of shape {stack.shape} (frame, y, x), as the frames, got {given.shape}")
        given, noise_valid = find_readings(given, dummy=dummy, detector=bins.detector_dummy, beside=True, variance=True)
        noise = [given.data]
    model = ERROR_MODELS[error_model] if variance is None else kernels.GIVEN
    known = {"valid": valid, "noise_valid": noise_valid.within(0, LARGEST)}
    return stack, noise, known | {"model": model} | rings_for(stack, bins, frames)


def refuse_what_was_done(stack: xr.DataArray, bins: AzimuthalBins) -> None:
    """Refuse frames that had corrected what the bins correct, and warn of a flat with the efficiency in it that the bins divide by."""
    refuse_twice(stack, bins.corrections, "build the bins without it (parallax=False, sensor_efficiency=False; no dark=, no flat=)")
    if "efficiency" in bins.corrections and "flat" in corrections_of(stack):
        warnings.warn(
            "frames had a flat divided out, which has the sensor's efficiency in it unless it was of other rays, and the bins divide by "
            "that efficiency too: build them with sensor_efficiency=False",
            stacklevel=5,
        )


def readings_for(bins: AzimuthalBins, frames: Any, dummy: float | None) -> tuple[xr.DataArray, Valid]:
    """Frames of the bins' shape that need what the bins correct, and which of their numbers are readings."""
    stack = as_stack_of(as_bins(bins).shape, "bins", frames, shared_out=True)  # each frame's profile is the same in any block
    refuse_what_was_done(stack, bins)
    found, valid = find_readings(stack, dummy=dummy, detector=bins.detector_dummy)
    return found, valid.within(-LARGEST, LARGEST)


def rings_for(stack: xr.DataArray, bins: AzimuthalBins, frames: Any) -> dict[str, Any]:
    """The bins as the kernels take them, for the blocks of a stack, and how many threads work on each: see `threads_a_block`."""
    return {"rings": bins.rings_for(max(stack.data.chunks[0])), "threads": threads_a_block(stack, frames)}


def as_profiles(
    names: tuple[str, ...],
    kernel: Callable[..., Any],
    stack: xr.DataArray,
    bins: AzimuthalBins,
    calibration: dict[str, Any],
    noise: Sequence[da.Array] = (),
) -> xr.Dataset:
    """The profiles that a kernel makes of each block (frame, quantity, ring)."""
    sizes = {"quantity": len(names), "ring": len(bins.indptr) - 1}
    profiles = map_frames(kernel, stack, calibration, stacks=noise, dims=("frame", *sizes), sizes=sizes)
    coords: dict[str, Any] = {str(name): line for name, line in profiles.coords.items()}
    taken = {*names, "radial", "azimuthal"} & set(coords)
    if taken:
        raise InputError(f"expected frames' coordinates with names that profiles do not have, got {', '.join(sorted(taken))}: rename them")
    coords["radial"] = bins.centres.assign_attrs(units=bins.unit, long_name=bins.unit.rpartition("_")[0])
    dims: tuple[str, ...] = ("frame", "radial")
    if bins.azimuths is not None:
        coords["azimuthal"] = bins.azimuths.assign_attrs(units="deg")
        dims = ("frame", "azimuthal", "radial")
    found = apart(profiles.data, len(names), tuple(coords[dim].size for dim in dims[1:]))
    corrected = [*corrections_of(stack), *bins.corrections]
    done = {ATTRIBUTE: corrected} if corrected else {}
    unit = {"units": stack.attrs.get("units", "counts")}
    attrs = [done | ({"units": "1"} if name in UNITLESS else unit) for name in names]
    known = {name: text for name in ("geometry", "provenance") if (text := getattr(bins, name)) is not None}
    return xr.Dataset({name: (dims, *each) for name, *each in zip(names, found, attrs, strict=True)}, coords, known)


def apart(profiles: da.Array, count: int, sizes: tuple[int, ...]) -> list[da.Array]:
    """Each quantity of profiles (frame, quantity, ring), of sizes that are (radial,) or (azimuthal, radial).

    Indexing, reshaping and exchanging axes by dask, of each of them, would take longer to prepare than to average a small frame.
    """
    chunks, meta, found = (profiles.chunks[0], *((size,) for size in sizes)), np.empty((0,) * (1 + len(sizes)), profiles.dtype), []
    for number in range(count):
        name = f"quantity-{number}-{profiles.name}"
        tasks: dict[Any, Any] = {
            (name, block, *(0,) * len(sizes)): (quantity_of, (profiles.name, block, 0, 0), number, sizes) for block in range(len(chunks[0]))
        }
        graph = HighLevelGraph.from_collections(name, tasks, dependencies=[profiles])  # type: ignore[list-item]
        found.append(da.Array(graph, name, chunks, meta=meta))
    return found


def quantity_of(profiles: NDArray[Any], number: int, sizes: tuple[int, ...]) -> NDArray[Any]:
    """One of the quantities of a block; bins go by radius, then by azimuth."""
    line = profiles[:, number]
    return line if len(sizes) == 1 else line.reshape(len(line), *sizes[::-1]).swapaxes(1, 2)
