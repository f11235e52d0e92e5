"""Integrating, clipping and filtering frames in rings, as lazy graphs."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.azimuthal import clipping, kernels
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.kernels import Rings
from detcal.azimuthal.quantiles import quantile_batch
from detcal.errors import InputError, are_two_numbers
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import refuse_twice
from detcal.frames.graph import map_frames
from detcal.frames.lanes import in_groups
from detcal.frames.readings import ALL_NUMBERS, Floats, Valid
from detcal.frames.stack import DIMS, as_stack_of
from detcal.frames.valid import find_readings, settled

ErrorModel = Literal["no", "poisson", "azimuthal", "hybrid"]
ERROR_MODELS = {"no": kernels.NONE, "poisson": kernels.POISSON, "azimuthal": kernels.AZIMUTHAL, "hybrid": kernels.HYBRID}
LARGEST = 1e18  # reading: of which the square, and sums of many, are still numbers in float32
QUANTITIES = ("intensity", "sem", "std", "count")


def integrate(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    error_model: Literal["no", "poisson", "azimuthal"] = "poisson",
    variance: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame in rings, lazily: ⟨I⟩ = Σc·(raw − dark) / Σc·norm, c the share of a pixel in the ring.

    Parameters
    ----------
    frames : (frame, y, x)
        Counts. Not measured are NaN, what is beyond ±1e18, and flagged numbers (see `detcal.frames.valid`), also those of the bins'
        detector.
    bins
        From `build_bins`.
    error_model
        How a reading's variance is known. "poisson": max(raw, 1) + dark. "azimuthal": from the spread in the ring. "no": not.
    variance : (frame, y, x), optional
        Of each reading, in place of a model; negative, or not measured itself: no reading.
    dummy : number, optional
        Stands for "no reading", in place of all other flags. It and the frames are compared as float32, which has steps of 1 up to 2^24.

    Returns
    -------
    Dataset (frame, radial), or (frame, azimuthal, radial)
        intensity; sem, the standard error of the mean √VV/Σω with ω = c·norm; std, the standard deviation of a pixel √(VV/Σω²), where
        VV = Σc²·variance, or Σω²(I − ⟨I⟩)² for "azimuthal"; count, the number of pixels. In a ring without pixels NaN, and count 0;
        of a single pixel the azimuthal errors are NaN.

    Raises
    ------
    InputError
        Frames of another shape than the bins, or that say they had a dark, flat or parallax corrected which the bins correct too; an
        unknown error model.

    Notes
    -----
    Azimuthal variances: Schubert and Gertz, SSDBM 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, integrate
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> profile = integrate(np.full((2, 20, 20), 50.0), bins)
    >>> profile.intensity.values[0].tolist()
    [50.0, 50.0, 50.0, 50.0]
    >>> profile["count"].values[0].sum()
    np.float32(400.0)
    """
    if error_model == "hybrid":
        raise InputError('the "hybrid" error model is for sigma_clip: here take "poisson" or "azimuthal"')
    return profiles_of(frames, bins, error_model, variance, dummy, threshold=1.0, most=0)


def sigma_clip(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame in rings without outliers, lazily.

    As `integrate`, but up to `max_iterations` times pixels that are further than k·std from the mean are left out, with
    k = max(threshold, √(2·ln(n/√(2π)))), n ≥ 3 the ring's pixels (Chauvenet's criterion: of n normal values half a one is so far out).

    Parameters
    ----------
    frames, bins, variance, dummy
        As for `integrate`.
    threshold
        In standard deviations.
    max_iterations
        0 leaves nothing out.
    error_model
        "azimuthal" or "poisson"; "hybrid" clips by the spread, and gives the errors of "poisson". With "poisson" and a variance, a ring of
        which more than half would go at once is clipped about its median, the lower one of two: its mean had gone to an outlier.

    Returns
    -------
    Dataset
        As `integrate`, of what is kept.

    Raises
    ------
    InputError
        Frames of another shape than the bins, an unknown error model, a threshold that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, sigma_clip
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.random.default_rng(0).normal(50, 1, (1, 20, 20))
    >>> frame[0, 3, 4] = 9999
    >>> sigma_clip(frame, bins).intensity.values.round().tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    check_clipping(threshold, max_iterations, error_model, variance)
    return profiles_of(frames, bins, error_model, variance, dummy, threshold=threshold, most=max_iterations)


def outlier_mask(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.DataArray:
    """The pixels that `sigma_clip` with the same options leaves out (frame, y, x) bool, lazily: in any of their rings, if they are split.

    Pixels without a reading, and those in no ring, are no outliers.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, outlier_mask
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.random.default_rng(0).normal(50, 1, (1, 20, 20))
    >>> frame[0, 3, 4] = 9999
    >>> np.argwhere(outlier_mask(frame, bins).values).tolist()
    [[0, 3, 4]]
    """
    check_clipping(threshold, max_iterations, error_model, variance)
    stack, noise, options = clipping_task(frames, bins, error_model, variance, dummy)
    calibration = {"threshold": threshold, "most": max_iterations, **options}
    return map_frames(outlier_block, stack, calibration, stacks=noise, dtype=np.bool_, name="outlier")


def quantile_filter(
    frames: ArrayLike, bins: AzimuthalBins, *, quantiles: tuple[float, float] = (0.4, 0.6), dummy: float | None = None
) -> xr.Dataset:
    """The mean between two quantiles of each ring, lazily; with two equal ones the quantile itself.

    Pixels are sorted by I = (raw − dark)/norm and weigh c·norm, c the share in the ring. On an edge of the range lies part of a pixel's
    weight, so that a narrow range is never empty. A single quantile on the border of two pixels is the mean of both. Weights are rounded
    to 2^-19 of the largest in the ring, or less: pixels that differ by no more may weigh the same.

    Parameters
    ----------
    frames, bins, dummy
        As for `integrate`.
    quantiles
        Rising, from 0 to 1.

    Returns
    -------
    Dataset (frame, radial), or (frame, azimuthal, radial)
        intensity, and count, the number of pixels with a reading. In a ring without any NaN and 0.

    Raises
    ------
    InputError
        Frames of another shape than the bins, quantiles that are none.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, quantile_filter
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, ::4] = 9999
    >>> quantile_filter(frame, bins, quantiles=(0.3, 0.6)).intensity.values.tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    if not are_two_numbers(quantiles) or not 0 <= quantiles[0] <= quantiles[1] <= 1:
        raise InputError(f"expected two rising quantiles from 0 to 1, got {quantiles}")
    stack, valid = readings_for(bins, frames, dummy)
    low, high = map(float, quantiles)
    return as_profiles(("intensity", "count"), quantile_block, stack, bins, {"valid": valid, "quantiles": (low, high)})


def median_filter(frames: ArrayLike, bins: AzimuthalBins, *, dummy: float | None = None) -> xr.Dataset:
    """The weighted median of each ring: `quantile_filter` with quantiles (0.5, 0.5).

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, median_filter
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, ::4] = 9999
    >>> median_filter(frame, bins).intensity.values.tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    return quantile_filter(frames, bins, quantiles=(0.5, 0.5), dummy=dummy)


def radial_background(profile: xr.DataArray, bins: AzimuthalBins) -> xr.DataArray:
    """Profiles drawn back on the image, lazily: the counts that a frame would have if it were the same all around.

    Parameters
    ----------
    profile : (frame, radial)
        As `intensity` of a filter with these bins; linear between the bins' centres, NaN beyond them and next to NaN.
    bins
        Not those of a 2-D integration.

    Returns
    -------
    DataArray (frame, y, x) float32
        profile·norm + dark, with the frames' coordinates: frames − background are the spots.

    Raises
    ------
    InputError
        If the profile has other dimensions, or the bins are of a 2-D integration.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, median_filter, radial_background
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm", solid_angle=False)
    >>> frame = np.full((1, 20, 20), 50.0)
    >>> frame[0, 10, 14] = 9999
    >>> spots = frame - radial_background(median_filter(frame, bins).intensity, bins)
    >>> float(spots.max())
    9949.0
    """
    if as_bins(bins).azimuths is not None:
        raise InputError("expected bins of rings, got those of a 2-D integration: build them without npt_azimuth")
    rings = len(bins.centres)
    if not isinstance(profile, xr.DataArray) or set(profile.dims) != {"frame", "radial"} or profile.sizes["radial"] != rings:
        came = dict(profile.sizes) if isinstance(profile, xr.DataArray) else type(profile).__name__
        raise InputError(f"expected a DataArray (frame, radial) of {rings} rings, as intensity of a filter with these bins, got {came}")
    profile = profile.transpose("frame", "radial")
    lazy = profile.copy(data=da.asarray(profile.data))
    return map_frames(
        draw, lazy, {"images": bins.images_in_memory}, dims=DIMS, sizes=dict(zip(DIMS[1:], bins.shape, strict=True)), name="background",
        attrs=settled({"units": "counts"}),
    )  # fmt: skip


def draw(profiles: NDArray[Any], images: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    """Profiles (frame, radial) on the detector."""
    centres, radius, norm, dark = images
    drawn = [np.interp(radius, centres, profile, left=np.nan, right=np.nan) * norm + dark for profile in profiles]
    return np.asarray(drawn, np.float32)


# ------------------------------------------------------------------------------------------------- from blocks to rings


def as_bins(bins: Any) -> AzimuthalBins:
    """Refuse what are no bins."""
    if not isinstance(bins, AzimuthalBins):
        raise InputError(f"expected AzimuthalBins, got {bins!r:.100}: build them with build_bins, or load them with detcal.load")
    return bins


def check_clipping(threshold: float, max_iterations: int, error_model: str, variance: Any) -> None:
    """Refuse what clips nothing, or everything."""
    if not isinstance(threshold, Real) or not threshold > 0:
        raise InputError(f"expected a positive threshold, got {threshold!r}")
    if not isinstance(max_iterations, Integral) or max_iterations < 0:
        raise InputError(f"expected max_iterations of 0 or more, got {max_iterations!r}")
    if error_model == "no" and variance is None:
        raise InputError('sigma-clipping needs an error model: "azimuthal", "poisson" or "hybrid", or a variance')


def profiles_of(
    frames: Any, bins: AzimuthalBins, error_model: str, variance: Any, dummy: float | None, *, threshold: float, most: int
) -> xr.Dataset:
    """Clipped statistics of each ring."""
    stack, noise, options = clipping_task(frames, bins, error_model, variance, dummy)
    return as_profiles(QUANTITIES, clip_block, stack, bins, {"threshold": threshold, "most": most, **options}, noise)


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
        given, noise_valid = find_readings(given, dummy=dummy, detector=bins.detector_dummy, beside=True)
        noise = [given.data]
    model = ERROR_MODELS[error_model] if variance is None else kernels.GIVEN
    known = {"valid": valid, "noise_valid": noise_valid.within(0, LARGEST)}
    return stack, noise, known | {"model": model, "rings": bins.in_memory}


def readings_for(bins: AzimuthalBins, frames: Any, dummy: float | None) -> tuple[xr.DataArray, Valid]:
    """Frames of the bins' shape that need what the bins correct, and which of their numbers are readings."""
    stack = as_stack_of(as_bins(bins).shape, "bins", frames)
    refuse_twice(stack, bins.corrections, "build the bins without it (parallax=False; no dark=, no flat=)")
    found, valid = find_readings(stack, dummy=dummy, detector=bins.detector_dummy)
    return found, valid.within(-LARGEST, LARGEST)


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
    profiles = map_frames(kernel, stack, {"rings": bins.in_memory, **calibration}, stacks=noise, dims=("frame", *sizes), sizes=sizes)
    found = profiles.data
    coords: dict[str, Any] = {str(name): line for name, line in profiles.coords.items()}
    taken = {*names, "radial", "azimuthal"} & set(coords)
    if taken:
        raise InputError(f"expected frames' coordinates with names that profiles do not have, got {', '.join(sorted(taken))}: rename them")
    coords["radial"] = bins.centres.assign_attrs(units=bins.unit)
    dims: tuple[str, ...] = ("frame", "radial")
    if bins.azimuths is not None:  # bins go by radius, then by azimuth
        found = found.reshape((len(stack), len(names), len(bins.centres), -1)).swapaxes(2, 3)
        coords["azimuthal"] = bins.azimuths.assign_attrs(units="deg")
        dims = ("frame", "azimuthal", "radial")
    return xr.Dataset({name: (dims, found[:, k]) for k, name in enumerate(names)}, coords)


def clip_block(
    frames: NDArray[Any],
    noise: NDArray[Any] | None = None,
    *,
    rings: Rings,
    valid: Valid,
    noise_valid: Valid = ALL_NUMBERS,
    model: int,
    threshold: float,
    most: int,
) -> NDArray[np.float32]:
    """Statistics (frame, quantity, ring) of a block."""
    profiles, _ = clip(frames, noise, rings, (valid, noise_valid), model, threshold, most)
    return profiles


def clip(
    frames: NDArray[Any], noise: NDArray[Any] | None, rings: Rings, valid: tuple[Valid, Valid], model: int, threshold: float, most: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Statistics (frame, quantity, ring) of a block, and the interval (frame, end, ring) of I that is kept."""
    profiles, intervals = (
        np.empty((len(frames), 4, len(rings.starts) - 1), np.float32),
        np.empty((len(frames), 2, len(rings.starts) - 1), np.float32),
    )
    for group, batch, image, spread in in_batches(frames, noise, rings, valid):
        clipping.clip_batch(image, spread, rings, batch, model, threshold, most, profiles[group], intervals[group])
    return profiles, intervals


def in_batches(
    frames: NDArray[Any], noise: NDArray[Any] | None, rings: Rings, valid: tuple[Valid, Valid]
) -> Iterator[tuple[slice, int, Floats, Floats]]:
    """raw − dark of groups of frames, batch of rings by batch, and the variance if there is one: the same two arrays each time.

    `valid` is of the frames, and of the variance.
    """
    image = kernels.room(rings)
    spread = image if noise is None else kernels.room(rings)
    for some, group in in_groups(frames):
        for batch in range(len(rings.batches) - 1):
            kernels.load_batch(some, valid[0], rings.dark, rings, batch, image)
            if noise is not None:
                kernels.load_batch(noise[group].reshape(some.shape), valid[1], None, rings, batch, spread)
                kernels.leave_out(image, spread)
            yield group, batch, image, spread


def outlier_block(
    frames: NDArray[Any],
    noise: NDArray[Any] | None = None,
    *,
    rings: Rings,
    valid: Valid,
    noise_valid: Valid,
    model: int,
    threshold: float,
    most: int,
) -> NDArray[np.bool_]:
    """What is left out of a block."""
    _, intervals = clip(frames, noise, rings, (valid, noise_valid), model, threshold, most)
    marked = np.zeros((len(frames), frames[0].size), np.bool_)
    for group, batch, image, _ in in_batches(frames, noise, rings, (valid, noise_valid)):
        marks = np.zeros_like(image)
        clipping.mark_batch(image, rings, batch, intervals[group], marks)
        clipping.unload_marks(marks, rings, batch, marked[group])
    return marked.reshape(frames.shape)


def quantile_block(frames: NDArray[Any], *, rings: Rings, valid: Valid, quantiles: tuple[float, float]) -> NDArray[np.float32]:
    """The mean between two quantiles, and the number of pixels (frame, quantity, ring), of a block."""
    profiles = np.empty((len(frames), 2, len(rings.starts) - 1), np.float32)
    for group, batch, image, _ in in_batches(frames, None, rings, (valid, ALL_NUMBERS)):
        quantile_batch(image, rings, batch, quantiles, profiles[group])
    return profiles
