"""Integrating, clipping and filtering frames in rings, as lazy graphs."""

from typing import Literal

import numpy as np
import xarray as xr

from detcal.azimuthal.blocks import outlier_block, quantile_block
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.normalization import find_normalization, normalized
from detcal.azimuthal.profiles import (
    as_bins,
    as_profiles,
    check_averaging,
    check_clipping,
    clipping_task,
    profiles_of,
    readings_for,
    rings_for,
)
from detcal.errors import InputError, are_two_numbers
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import map_frames

OUTLIER = {"long_name": "to be left out: outliers, and all of a frame of which nothing was measured"}
ErrorModel = Literal["no", "poisson", "azimuthal", "hybrid"]


def integrate(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    error_model: Literal["no", "poisson", "azimuthal"] = "poisson",
    variance: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    sums: bool = False,
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
    normalization : (frame,), or a number, optional
        What the intensities of each frame, and their errors, are divided by: a monitor, a transmission or an exposure; numbers above 0, or
        the name of a coordinate of the frames. It becomes a coordinate of the profiles.
    sums
        Give the sums too that profiles are made of, so that those of several runs can be added up.
    dummy : number, optional
        Stands for "no reading", in place of all other flags. It and the frames are compared as float32, which has steps of 1 up to 2^24.

    Returns
    -------
    Dataset (frame, radial), or (frame, azimuthal, radial)
        intensity; sem, the standard error of the mean √VV/Σω with ω = c·norm; std, the standard deviation of a pixel √(VV/Σω²), where
        VV = Σc²·variance, or Σω²(I − ⟨I⟩)² for "azimuthal"; count, the number of pixels. In a ring without pixels NaN, and count 0;
        of a single pixel the azimuthal errors are NaN.
        With sums also sum_signal Σc·(raw − dark), sum_variance VV and sum_normalization Σω·normalization: all 0 in a ring without pixels;
        intensity is sum_signal/sum_normalization, and sem √sum_variance/sum_normalization.

    Raises
    ------
    InputError
        Frames of another shape than the bins, or that say they had a dark, flat or parallax corrected which the bins correct too; an
        unknown error model; a normalization that is not positive, of another length, or of no coordinate.

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
    check_averaging(error_model)
    return profiles_of(frames, bins, error_model, variance, dummy, normalization, sums, threshold=1.0, most=0)


def integrate_azimuthal(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    error_model: Literal["no", "poisson", "azimuthal"] = "poisson",
    variance: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    sums: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame along one ring, lazily: intensity over azimuth, as for texture.

    Parameters
    ----------
    frames, error_model, variance, normalization, sums, dummy
        As for `integrate`.
    bins
        From `build_bins` with npt=1 and npt_azimuth; radial_range says how wide the ring is.

    Returns
    -------
    Dataset (frame, azimuthal)
        As `integrate`; the ring's middle is the coordinate radial.

    Raises
    ------
    InputError
        As `integrate`, or bins of several rings, or of no parts of them.

    Examples
    --------
    >>> import numpy as np
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins, integrate_azimuthal
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=1, npt_azimuth=4, unit="r_mm", solid_angle=False, azimuth_range=(-180, 180))
    >>> integrate_azimuthal(np.full((1, 20, 20), 50.0), bins).intensity.values.tolist()
    [[50.0, 50.0, 50.0, 50.0]]
    """
    if as_bins(bins).azimuths is None or len(bins.centres) != 1:
        parts = "no parts" if bins.azimuths is None else f"{len(bins.azimuths)} parts of each"
        raise InputError(
            f"expected bins of one ring in parts, got {len(bins.centres)} rings and {parts}: build them with npt=1, npt_azimuth"
        )
    found = integrate(
        frames, bins, error_model=error_model, variance=variance, normalization=normalization, sums=sums, dummy=dummy
    )  # fmt: skip
    return found.isel(radial=0)


def sigma_clip(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    sums: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame in rings without outliers, lazily.

    As `integrate`, but up to `max_iterations` times pixels that are further than k·std from the mean are left out, with
    k = max(threshold, √(2·ln(n/√(2π)))), n ≥ 3 the ring's pixels (Chauvenet's criterion: of n normal values half a one is so far out).

    Parameters
    ----------
    frames, bins, variance, normalization, sums, dummy
        As for `integrate`.
    threshold
        In standard deviations. 0: Chauvenet's criterion alone.
    max_iterations
        How often outliers are left out, at most. 0 leaves nothing out.
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
        Frames of another shape than the bins, an unknown error model, a threshold below 0, a normalization as for `integrate`.

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
    return profiles_of(frames, bins, error_model, variance, dummy, normalization, sums, threshold=threshold, most=max_iterations)


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

    Pixels without a reading, and those in no ring, are no outliers. But a frame of which nothing was measured, or could be read, is True
    in all its pixels: nothing of it may be used, and bool has no NaN to say so.

    Parameters
    ----------
    frames, bins, variance, dummy
        As for `integrate`.
    threshold
        Pixels further from the mean than so many standard deviations are left out. 0: Chauvenet's criterion alone.
    max_iterations
        How often outliers are left out, at most.
    error_model
        How the standard deviation is known. "azimuthal": variance from the spread in the ring. "poisson": that of counts. "hybrid": clips
        as "azimuthal" does; they differ in the errors that `sigma_clip` gives.

    Returns
    -------
    DataArray (frame, y, x) bool
        outlier, with the frames' coordinates: True in what is to be left out.

    Raises
    ------
    InputError
        As `sigma_clip`.

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
    return map_frames(outlier_block, stack, calibration, stacks=noise, dtype=np.bool_, name="outlier", attrs=OUTLIER)


def quantile_filter(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    quantiles: tuple[float, float] = (0.4, 0.6),
    normalization: ArrayLike | float | str | None = None,
    dummy: float | None = None,
) -> xr.Dataset:
    """The mean between two quantiles of each ring, lazily; with two equal ones the quantile itself.

    Pixels are sorted by I = (raw − dark)/norm and weigh c·norm, c the share in the ring. On an edge of the range lies part of a pixel's
    weight, so that a narrow range is never empty. A single quantile on the border of two pixels is the mean of both. Weights are rounded
    to 2^-19 of the largest in the ring, or less: pixels that differ by no more may weigh the same.

    Parameters
    ----------
    frames, bins, normalization, dummy
        As for `integrate`.
    quantiles
        The lower and the upper one, from 0 to 1; two equal ones give that quantile itself.

    Returns
    -------
    Dataset (frame, radial), or (frame, azimuthal, radial)
        intensity, and count, the number of pixels with a reading. In a ring without any NaN and 0.

    Raises
    ------
    InputError
        Frames of another shape than the bins, quantiles that are none, a normalization as for `integrate`.

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
    factors = find_normalization(stack, normalization)
    options = {"rings": rings_for(stack, bins), "valid": valid, "quantiles": (low, high)}
    found = as_profiles(("intensity", "count"), quantile_block, stack, bins, options)
    return normalized(found, factors)


def median_filter(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    normalization: ArrayLike | float | str | None = None,
    dummy: float | None = None,
) -> xr.Dataset:
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
    return quantile_filter(frames, bins, quantiles=(0.5, 0.5), normalization=normalization, dummy=dummy)
