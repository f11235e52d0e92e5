"""Inverting the point-spread matrix as a lazy graph."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of, refuse_twice
from detcal.frames.graph import map_frames
from detcal.frames.maps import over_maps
from detcal.frames.notes import with_notes
from detcal.frames.readings import MOST, Valid
from detcal.frames.stack import as_stack_of
from detcal.frames.valid import as_mask, find_readings, with_flags
from detcal.sensor import inversion, noise, stopping
from detcal.sensor.calibration import SensorPSF, is_mild
from detcal.sensor.hot import spread_of_hot
from detcal.sensor.sparse import Matrix

METHODS = ("auto", "direct", "lsmr", "mlem")
NOTED = dict(zip(inversion.NOTES, (np.int64, np.float64, np.bool_), strict=True))


@over_maps()
def deconvolve(
    frames: ArrayLike,
    psf: SensorPSF,
    *,
    method: Literal["auto", "direct", "lsmr", "mlem"] = "auto",
    max_iterations: int | None = None,
    tolerance: float | None = None,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.DataArray | xr.Dataset:
    """Undo the blur of a thick sensor, lazily: what entered each pixel's front, from what the pixels recorded.

    Parameters
    ----------
    frames : (frame, y, x), or (row, column, y, x) of a map
        What was recorded, in counts. What was not measured (NaN, infinite, and flagged numbers, see `detcal.frames.valid`, and pixels
        that the matrix masks) is unknown, and not dark: light that entered there, and that others have recorded a part of, is taken to be
        what the nearest measured pixels recorded, over what they record of uniform light.
    psf
        From `build_psf`.
    method
        "auto", for counts: "mlem", of as many iterations as each frame is worth. A quarter of the counts is held out by chance, and
        iterations go on as long as those of the others predict it better; then all counts take as many. With a variance it is "direct".
        "direct" solves M·a = b exactly, pixel by pixel outwards from the PONI: without bias, and linear, but it amplifies noise.
        "lsmr" is the least-squares solution by LSMR (Fong and Saunders 2011). "mlem" is the non-negative solution of highest
        Poisson likelihood (Shepp and Vardi 1982); negative counts are taken as 0.
    max_iterations
        At most so many, of "auto" (by default 211), "lsmr" and "mlem" (which ends after 10 000 in any case). For "mlem" without a
        tolerance: just so many from a uniform image; fewer give a smoother result.
    tolerance
        Of "lsmr": its atol and btol, by default 1e-6. Of "mlem": ends once an iteration changes no pixel by more than the tolerance ×
        (its value + the frame's mean), by default 1e-4; the iterations are then accelerated (SQUAREM, Varadhan and Roland 2008).
    variance : (frame, y, x), optional
        Of the recorded frames, for "direct": the result is then a Dataset with its exact propagation, Σ_j (M⁻¹)_ij²·variance_j. What is
        negative or no reading is not known, and NaN is all that rests on it. Beside pixels that were not measured it is nearly exact: the
        light there is taken as independent of the readings.
    mask : (y, x) bool, optional
        True, or not 0: not measured in these frames, beside what the matrix masks: hot pixels, say.
    dummy : number, optional
        Stands for "no reading" in the frames, in place of all other flags, compared as float32; and in the result, which else has NaN.

    Returns
    -------
    DataArray (frame, y, x) float32, or Dataset
        deconvolved, and variance if it was given. Attributes say that parallax and efficiency are corrected; `SensorPSF.conditioning`
        tells how well the blur can be undone. But for "direct", coordinates say of each frame how many iterations it took, its residual
        |M·a − b| / |b|, and whether it converged: came to its tolerance ("auto": to its own end) before the largest number of iterations.

    Raises
    ------
    InputError
        An unknown method, options that it does not have, frames of another shape than the matrix, all pixels masked, frames that say
        they were deconvolved already.

    Warns
    -----
    UserWarning
        As frames are computed: if pixels of a block's first frame are hot, that is record many counts of which others have not their
        share, with their number, and how many others these spoil, how far away; once a matrix, if the exact solution, to which "lsmr" comes
        near, amplifies noise more than tenfold somewhere, and what the rounding to float32 alone makes of that, if it is over 0.1 %; if
        frames end at the largest number of iterations, unless a caller asked for so many and for no tolerance.

    Notes
    -----
    Light is taken as even over each pixel's front. Spots narrower than about 0.6 pixels (rms) are then sharpened too much by "direct";
    "auto", or "mlem" with few iterations, does less. Spots and edges between unmeasured pixels are not seen, and so not in the estimate of
    what entered there.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.sensor import PlanarGeometry, build_psf, deconvolve
    >>> plane = PlanarGeometry(shape=(4, 4), pixel_size_m=(1e-4, 1e-4), distance_m=0.1, poni_m=(0.0, 0.0))
    >>> psf = build_psf(plane, thickness_m=4.5e-4, material="Si", energy_kev=17.4)
    >>> recorded = psf.apply(np.full((1, 4, 4), 100.0))
    >>> deconvolve(recorded, psf, method="direct").values.round(3).mean()
    np.float32(100.0)
    """
    if not isinstance(psf, SensorPSF):
        raise InputError(f"expected a SensorPSF, got {type(psf).__name__}: build it with build_psf, or load it with detcal.load")
    check_options(method, max_iterations, tolerance, variance)
    if method == "auto" and variance is not None:
        method = "direct"
    stack = as_stack_of(psf.shape, "matrix", frames)
    refuse_twice(stack, ["parallax", "efficiency"], "leave deconvolve out")
    check_that_some_are_measured(mask, psf)
    stack, valid = find_readings(with_flags(stack, mask=mask), dummy=dummy, detector=psf.detector_dummy)
    inverses: dict[str, Callable[..., Any]] = {
        "auto": partial(stopping.auto_frames, most=max_iterations, is_mild=partial(is_mild, psf.conditioned)),
        "direct": inversion.solve_frames,
        "lsmr": partial(inversion.lsmr_frames, iterations=max_iterations, tolerance=1e-6 if tolerance is None else tolerance),
        "mlem": partial(
            inversion.mlem_frames, iterations=max_iterations, tolerance=1e-4 if tolerance is max_iterations is None else tolerance
        ),
    }  # fmt: skip
    shared = {"matrix": psf.in_memory, "valid": valid, "dummy": dummy}
    if method in ("direct", "lsmr"):
        shared["warned"] = psf.warned_of_noise.lazily()
    attrs = attributes_of(stack, {"units": "counts", "method": method}, done=("parallax", "efficiency"), dummy=dummy)
    if method != "direct":
        # a caller who says no more than how many iterations means just these
        limited = method == "auto" or (max_iterations is not None and tolerance is None)
        solve = partial(solved_with_notes, inverses[method], limited=limited)
        return with_notes(map_frames(solve, stack, shared, name="deconvolved", attrs=attrs), NOTED)
    sharp = map_frames(partial(solved, inverses[method]), stack, shared, name="deconvolved", attrs=attrs)
    if variance is None:
        return sharp
    recorded = as_stack_of(psf.shape, "matrix", variance, "variance")
    if recorded.shape != stack.shape:
        raise InputError(f"expected a variance of shape {stack.shape} (frame, y, x), as the frames, got {recorded.shape}")
    recorded, noise_valid = find_readings(recorded, dummy=dummy, detector=psf.detector_dummy, beside=True, variance=True)
    propagate = partial(noise.propagate_frames, noise_valid=noise_valid.within(0, MOST))
    attrs = {name: value for name, value in attrs.items() if name != "method"} | {"units": "counts²"}
    variances_of = stack.copy(data=recorded.data.rechunk(stack.data.chunks))
    variances = map_frames(partial(with_dummy, propagate), variances_of, shared, stacks=[stack.data], attrs=attrs)
    return xr.Dataset({"deconvolved": sharp, "variance": variances})


def check_that_some_are_measured(mask: Any, psf: SensorPSF) -> None:
    """Raise if the mask of the frames and that of the matrix leave no pixel; of lazy ones only the run can tell."""
    masked = None if mask is None else as_mask(mask, psf.shape, "frames") | psf.mask.data
    if isinstance(masked, np.ndarray) and masked.all():
        raise InputError("the mask, with what the matrix masks, leaves no pixel: give one that is True, or not 0, where pixels are bad")


def solved(function: Callable[..., Any], frames: Any, matrix: Matrix, valid: Valid, **options: Any) -> Any:
    """A block of frames solved, with the dummy for NaN; with a warning if the first one has hot pixels."""
    spread = spread_of_hot(frames, matrix, valid)
    if spread is not None:
        number, wrong, away = spread
        warnings.warn(
            f"{number} pixels are hot: they record counts of which others have not their share, and the exact solution has {wrong} others"
            f" wrong, up to {away} px away: mask them, by mask= of deconvolve or of build_psf",
            stacklevel=2,
        )
    return with_dummy(function, frames, matrix=matrix, valid=valid, **options)


def solved_with_notes(function: Callable[..., Any], frames: Any, *, limited: bool, **options: Any) -> tuple[Any, Any]:
    """A block of frames solved, and notes on each; with a warning if some ended early that were not limited to so many iterations."""
    notes = np.empty((len(frames), len(inversion.NOTES)))
    found = solved(partial(function, notes=notes), frames, **options)
    if not limited and (notes[:, inversion.NOTES.index("converged")] == 0).any():
        warnings.warn(
            "some frames ended at the largest number of iterations, as their coordinate `converged` says: allow more max_iterations, or a"
            " larger tolerance",
            stacklevel=2,
        )
    return found, notes[:, :, None]  # of as many axes as the frames


def with_dummy(function: Callable[..., Any], *frames: Any, dummy: float | None, warned: None = None, **options: Any) -> Any:
    """What a function makes of frames, with the dummy for NaN; after the warning, where there is one."""
    found = function(*frames, **options)
    if dummy is not None:
        np.copyto(found, np.float32(dummy), where=np.isnan(found))
    return found


def check_options(method: str, max_iterations: Any, tolerance: Any, variance: Any) -> None:
    """Refuse a method that there is not, and options that the method has not."""
    if method not in METHODS:
        raise InputError(f"expected method to be one of {', '.join(METHODS)}, got {method!r}")
    if (method == "direct" or variance is not None) and not max_iterations is tolerance is None:
        raise InputError('max_iterations and tolerance are of "lsmr" and "mlem": the direct solution has none')
    if method == "auto" and tolerance is not None:
        raise InputError('a tolerance is of "lsmr" and "mlem": "auto" finds its own end')
    if method in ("lsmr", "mlem") and variance is not None:
        raise InputError(f'the variance is that of method="direct", not of {method!r}')
    if max_iterations is not None and not (isinstance(max_iterations, int | np.integer) and max_iterations >= 1):
        raise InputError(f"expected max_iterations as a whole number of at least 1, got {max_iterations!r}")
    if tolerance is not None and not (isinstance(tolerance, float | np.floating) and 0 < tolerance < 1):
        raise InputError(f"expected a tolerance between 0 and 1, got {tolerance!r}")
