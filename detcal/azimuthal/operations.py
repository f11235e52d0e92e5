"""Integrating and clipping frames in rings, as lazy graphs."""

from typing import Literal

import numpy as np
import xarray as xr

from detcal.azimuthal.blocks import outlier_block
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.darks import take_off
from detcal.azimuthal.profiles import (
    as_bins,
    check_averaging,
    check_clipping,
    clipping_task,
    profiles_of,
    warn_of_split_pixels,
)
from detcal.azimuthal.several import over_geometries
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import map_frames
from detcal.frames.maps import over_maps

OUTLIER = {"long_name": "to be left out: outliers, and all of a frame of which nothing was measured"}
ErrorModel = Literal["no", "poisson", "azimuthal", "hybrid"]


@over_geometries
@over_maps()
def integrate(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    error_model: Literal["no", "poisson", "azimuthal"] = "poisson",
    variance: ArrayLike | None = None,
    darks: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    weighted: bool = True,
    sums: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame in rings, lazily: ⟨I⟩ = Σc·(raw − dark) / Σc·norm, c the share of a pixel in the ring.

    Parameters
    ----------
    frames : (frame, y, x), or (row, column, y, x)
        Counts; of a map results are (row, column, …), and likewise of more dimensions. Not measured are NaN, what is beyond ±1e18, and
        flagged numbers (see `detcal.frames.valid`), also those of the bins' detector.
    bins
        From `build_bins`. Or a list of several detectors' bins, or of one that moved, of the same rings, with a list of their frames, as
        many for each: then profiles are those of all pixels, in units of the first one's solid angle.
    error_model
        How a reading's variance is known. "poisson": max(raw, 1) + dark. "azimuthal": from the spread in the ring. "no": not.
    variance : as the frames, optional
        Of each reading, in place of a model; negative, or not measured itself: no reading.
    darks : (frame, y, x), optional
        Taken off the frames: one for each, or for each of groups of as many frames that follow each other; with variances of Poisson's too.
        In place of the bins' dark. What is no reading in one of them, is none.
    normalization : (frame,), or a number, optional
        What the intensities of each frame, and their errors, are divided by: a monitor, a transmission or an exposure; numbers above 0, or
        the name of a coordinate of the frames. It becomes a coordinate of the profiles, with a list of bins that of the first one's frames:
        there it may be a number for each of the bins too, or for each of the frames of each, which change alike.
    weighted
        By what pixels are expected to count, norm: the mean of least noise. False: each the same, ⟨I⟩ = Σc·(raw − dark)/norm / Σc.
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
        Frames of another shape than the bins, or that say they had a dark, flat or parallax corrected which the bins correct too; darks
        beside bins with a dark, or of another number than frames can be shared out to; an unknown error model; a normalization that is
        not positive, of another length, or of no coordinate.

    Warns
    -----
    UserWarning
        Frames that had a flat divided out, where the bins divide by the sensor's efficiency, which flats have in them.

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
    return profiles_of(
        frames, bins, error_model, variance, dummy, normalization, sums, darks=darks, threshold=1.0, most=0, weighted=weighted
    )


@over_geometries
@over_maps()
def integrate_azimuthal(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    error_model: Literal["no", "poisson", "azimuthal"] = "poisson",
    variance: ArrayLike | None = None,
    darks: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    weighted: bool = True,
    sums: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame along one ring, lazily: intensity over azimuth, as for texture.

    Parameters
    ----------
    frames, error_model, variance, darks, normalization, weighted, sums, dummy
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
        frames, bins, error_model=error_model, variance=variance, darks=darks, normalization=normalization, weighted=weighted,
        sums=sums, dummy=dummy,
    )  # fmt: skip
    return found.isel(radial=0)


@over_geometries
@over_maps()
def sigma_clip(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    darks: ArrayLike | None = None,
    normalization: ArrayLike | float | str | None = None,
    sums: bool = False,
    rejected: bool = False,
    dummy: float | None = None,
) -> xr.Dataset:
    """Average each frame in rings without outliers, lazily.

    As `integrate`, but up to `max_iterations` times pixels that are further than k·std from the mean are left out, with
    k = max(threshold, √(2·ln(n/√(2π)))), n ≥ 3 the ring's pixels (Chauvenet's criterion: of n normal values half a one is so far out).

    Parameters
    ----------
    frames, bins, variance, darks, normalization, sums, dummy
        As for `integrate`.
    threshold
        In standard deviations. 0: Chauvenet's criterion alone.
    max_iterations
        How often outliers are left out, at most. 0 leaves nothing out.
    error_model
        "azimuthal" or "poisson"; "hybrid" clips by the spread, and gives the errors of "poisson". With "poisson" and a variance, a ring of
        which more than half would go at once is clipped about its median, the lower one of two: its mean had gone to an outlier.
    rejected
        Give the number of pixels with a reading that are left out too: `outlier_mask` says which.

    Returns
    -------
    Dataset
        As `integrate`, of what is kept; rejected, if it is asked for, in the same units as count.

    Raises
    ------
    InputError
        Frames of another shape than the bins, an unknown error model, a threshold below 0, a normalization as for `integrate`.

    Warns
    -----
    UserWarning
        Pixels that are split: each is judged in each of its rings alone; and as `integrate`.

    Notes
    -----
    However bright, one pixel of n lies no further than √(n − 1) standard deviations from their mean: a threshold of 5 leaves it in a ring
    of up to 26 pixels. A lower threshold, or 0, finds it there.

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
    warn_of_split_pixels(as_bins(bins))
    return profiles_of(
        frames, bins, error_model, variance, dummy, normalization, sums,
        darks=darks, threshold=threshold, most=max_iterations, rejected=rejected,
    )  # fmt: skip


@over_maps()
def outlier_mask(
    frames: ArrayLike,
    bins: AzimuthalBins,
    *,
    threshold: float = 5.0,
    max_iterations: int = 5,
    error_model: ErrorModel = "azimuthal",
    variance: ArrayLike | None = None,
    darks: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.DataArray:
    """The pixels that `sigma_clip` with the same options leaves out (frame, y, x) bool, lazily: in any of their rings, if they are split.

    Pixels without a reading, and those in no ring, are no outliers. But a frame of which nothing was measured, or could be read, is True
    in all its pixels: nothing of it may be used, and bool has no NaN to say so.

    Parameters
    ----------
    frames, bins, variance, darks, dummy
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
    warn_of_split_pixels(as_bins(bins))
    stack, noise, options = clipping_task(frames, bins, error_model, variance, dummy)
    kernel, stack, noise, options = take_off(outlier_block, stack, bins, noise, options, darks)
    calibration = {"threshold": threshold, "most": max_iterations, **options}
    return map_frames(kernel, stack, calibration, stacks=noise, dtype=np.bool_, name="outlier", attrs=OUTLIER)
