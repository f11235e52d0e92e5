"""Overlaps of pixels, and stacks of frames through them and back, as lazy graphs."""

from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from detcal.distortion import resampling
from detcal.distortion.calibration import DistortionMap, OverlapMatrix
from detcal.distortion.matrix import build_overlaps
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of, refuse_twice
from detcal.frames.graph import map_frames
from detcal.frames.maps import over_maps
from detcal.frames.readings import ALL_NUMBERS, MOST, Valid
from detcal.frames.stack import DIMS, as_stack_of
from detcal.frames.valid import find_readings, settled

CONSERVED = ("counts", "mean")
ITERATIONS, TOLERANCE = 200, 1e-6  # of the way back


@over_maps()
def correct_distortion(
    frames: ArrayLike,
    warp: DistortionMap | OverlapMatrix,
    *,
    conserve: Literal["counts", "mean"] = "counts",
    variance: ArrayLike | Literal["poisson"] | None = None,
    coverage: bool = False,
    mask: ArrayLike | None = None,
    shape: tuple[int, int] | Literal["cover"] | None = None,
    pixel_size_m: float | tuple[float, float] | None = None,
    origin_m: tuple[float, float] | None = None,
    dummy: float | None = None,
) -> xr.DataArray | xr.Dataset:
    """Frames as an ideal (undistorted) camera would have recorded them, lazily.

    Each pixel's reading is distributed over the ideal pixels that it overlaps, in proportion to the areas.

    Parameters
    ----------
    frames : (frame, y, x), or (row, column, y, x) of a map
        What was recorded. What was not measured (NaN, infinite, and flagged numbers, see `detcal.frames.valid`) takes no part, as pixels
        that the map masks.
    warp
        From `fit_distortion`; or from `build_overlaps`, which saves building the matrix again.
    conserve
        "counts": an ideal pixel is the sum of the counts that fall in it: none is lost or added except where pixels leave the grid.
        "mean": the mean of the readings over the area of the pixel that is covered; uniform illumination stays uniform.
    variance : (frame, y, x), or "poisson", optional
        Of the frames' readings; what is negative, or no reading, leaves its pixel out. "poisson": the counts, 0 for negative ones. The
        result is then a Dataset. Parts of one reading in neighbouring ideal pixels are correlated, which
        the variance of a single pixel does not tell.
    coverage
        Give coverage and mask too, in a Dataset.
    mask, shape, pixel_size_m, origin_m
        As for `build_overlaps`.
    dummy : number, optional
        Stands for "no reading" in the frames, in place of all other flags, compared as float32; and in the result for NaN, but not in
        the variance.

    Returns
    -------
    DataArray (frame, y, x) float32, or Dataset
        corrected; NaN where nothing measured reaches. With variance: variance (Σ share²·variance; for "mean" Σ area²·variance over the
        square of Σ area). With coverage: coverage, the part of the pixel's area that measured pixels cover, and mask, True where
        it is none.

    Raises
    ------
    InputError
        Frames of another shape than the map, or that say they had their distortion corrected; an unknown `conserve`, and as
        `build_overlaps`.

    Examples
    --------
    >>> from detcal.distortion import correct_distortion, fit_distortion
    >>> from detcal.simulate import hole_grid
    >>> image = hole_grid((160, 160), pitch_px=20, barrel=0.03, missing=0, unevenness=0).image
    >>> warp = fit_distortion(image, pitch_m=5e-3)
    >>> straight = correct_distortion(image, warp)
    >>> straight.dims, straight.shape
    (('frame', 'y', 'x'), (1, 160, 160))
    """
    if conserve not in CONSERVED:
        raise InputError(f"expected conserve to be one of {', '.join(CONSERVED)}, got {conserve!r}")
    grid = {"mask": mask, "shape": shape, "pixel_size_m": pixel_size_m, "origin_m": origin_m}
    matrix = as_overlaps(warp, grid)
    stack = as_stack_of(matrix.camera_shape, "map", frames)
    refuse_twice(stack, ["distortion"], "leave correct_distortion out")
    stack, valid = find_readings(stack, dummy=dummy)
    noise, noise_valid = given_variance(variance, stack, dummy)
    options = {"matrix": matrix.in_memory, "valid": valid, "mean": conserve == "mean"}
    height, width = matrix.shape
    even = {"y": height, "x": width}
    place = {"conserve": conserve, "pixel_size_m": list(matrix.pixel_size_m), "origin_m": list(matrix.origin_m)}
    attrs = attributes_of(stack, {"units": "counts", **place}, done=["distortion"], dummy=dummy)
    count = 1 + (variance is not None) + coverage
    if count == 1:  # without an axis to take them from, values are one task with the reading of their frames, and with what comes next
        return filled(map_frames(resampling.resample_values, stack, options, sizes=even, name="corrected", attrs=attrs), dummy)
    options |= {"noise_valid": noise_valid, "poisson": variance is not None and not noise, "coverage": coverage}
    found = map_frames(
        resampling.resample_frames, stack, options, stacks=noise, dims=("quantity", *DIMS), sizes={"quantity": count, **even}
    )  # fmt: skip
    images = {"corrected": filled(found[0].assign_attrs(attrs), dummy)}
    if variance is not None:
        images["variance"] = found[1].assign_attrs(settled({}) | {"units": "counts²"})
    if coverage:
        images["coverage"] = found[-1].assign_attrs(units="1")
        images["mask"] = found[0].copy(data=da.isnan(found[0].data))
    return xr.Dataset(images)


def filled(frames: xr.DataArray, dummy: float | None) -> xr.DataArray:
    """Frames with a dummy for NaN, if there is one."""
    return frames if dummy is None else frames.copy(data=da.where(da.isnan(frames.data), np.float32(dummy), frames.data))


def as_overlaps(warp: DistortionMap | OverlapMatrix, grid: dict[str, Any]) -> OverlapMatrix:
    """The matrix, built for the grid if it is not yet."""
    if isinstance(warp, DistortionMap):
        return build_overlaps(warp, **grid)
    if not isinstance(warp, OverlapMatrix):
        raise InputError(f"expected a DistortionMap or OverlapMatrix, got {type(warp).__name__}")
    given = [name for name, value in grid.items() if value is not None]
    if given:
        raise InputError(f"the matrix has its grid and mask already: give {', '.join(given)} to build_overlaps")
    return warp


def given_variance(variance: Any, stack: xr.DataArray, dummy: float | None) -> tuple[list[da.Array], Valid]:
    """The variance of the frames that was given, and which of it is known; none, if it is Poisson's or not wanted."""
    if variance is None or (isinstance(variance, str) and variance == "poisson"):
        return [], ALL_NUMBERS
    if isinstance(variance, str):
        raise InputError(f'expected a variance of the shape of the frames, or "poisson", got {variance!r}')
    given = as_stack_of((stack.shape[1], stack.shape[2]), "map", variance, "variance")
    if given.shape != stack.shape:
        raise InputError(f"expected a variance of shape {stack.shape} (frame, y, x), as the frames, got {given.shape}")
    given, valid = find_readings(given, dummy=dummy, beside=True, variance=True)
    return [given.data], valid.within(0, MOST)


def uncorrect(
    frames: ArrayLike,
    warp: DistortionMap | OverlapMatrix,
    *,
    conserve: Literal["counts", "mean"] = "counts",
    max_iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    shape: tuple[int, int] | Literal["cover"] | None = None,
    pixel_size_m: float | tuple[float, float] | None = None,
    origin_m: tuple[float, float] | None = None,
    dummy: float | None = None,
) -> xr.DataArray:
    """What the distorted camera would have recorded of frames on the regular grid, lazily: the inverse of `correct_distortion`.

    Parameters
    ----------
    frames : (frame, y, x)
        On the regular grid. Not known is what `correct_distortion` takes as not measured.
    warp, conserve, mask, shape, pixel_size_m, origin_m
        As for `correct_distortion`. Give those with which the frames were made.
    max_iterations
        How many iterations LSMR, which solves for each frame, may take.
    tolerance
        LSMR ends once the result explains the frame with a relative error below this.
    dummy : number, optional
        Stands for "no reading" in the frames, in place of all other flags, compared as float32; and in the result for NaN.

    Returns
    -------
    DataArray (frame, y, x) float32
        The least-squares solution, by the matrix and its adjoint (LSMR, Fong and Saunders 2011); NaN for pixels that took no part.

    Raises
    ------
    InputError
        As `correct_distortion`; iterations or tolerance out of range.

    Examples
    --------
    >>> from detcal.distortion import correct_distortion, fit_distortion, uncorrect
    >>> from detcal.simulate import hole_grid
    >>> image = hole_grid((160, 160), pitch_px=20, barrel=0.03, missing=0, unevenness=0).image
    >>> warp = fit_distortion(image, pitch_m=5e-3)
    >>> straight = correct_distortion(image, warp)
    >>> again = uncorrect(straight, warp)
    >>> again.shape
    (1, 160, 160)
    """
    if conserve not in CONSERVED:
        raise InputError(f"expected conserve to be one of {', '.join(CONSERVED)}, got {conserve!r}")
    if max_iterations < 1 or not 0 < tolerance < 1:
        raise InputError(f"expected max_iterations of at least 1 and a tolerance between 0 and 1, got {max_iterations} and {tolerance}")
    matrix = as_overlaps(warp, {"mask": mask, "shape": shape, "pixel_size_m": pixel_size_m, "origin_m": origin_m})
    stack, valid = find_readings(as_stack_of(matrix.shape, "map's regular grid", frames), dummy=dummy)
    height, width = matrix.camera_shape
    options = {
        "matrix": matrix.in_memory, "valid": valid, "mean": conserve == "mean", "iterations": max_iterations, "tolerance": tolerance,
    }  # fmt: skip
    attrs = attributes_of(stack, {"units": "counts"}, undone=["distortion"], dummy=dummy)
    sizes = {"y": height, "x": width}
    return filled(map_frames(resampling.unresample_frames, stack, options, sizes=sizes, name="uncorrected", attrs=attrs), dummy)
