"""Building, applying and inverting the point-spread matrix as lazy graphs."""

import warnings
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from os import PathLike
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed
from numpy.typing import NDArray
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of, refuse_twice
from detcal.frames.graph import map_frames
from detcal.frames.once import Once, in_memory, in_own_threads, on_first_use
from detcal.frames.readings import MOST
from detcal.frames.stack import as_stack_of
from detcal.frames.valid import as_mask, find_readings
from detcal.sensor import inversion, kernels
from detcal.sensor.calibration import Conditioning, SensorPSF, as_matrix
from detcal.sensor.geometry import PlanarGeometry, as_planar, dummy_of, mask_of, open_geometry
from detcal.sensor.layers import Layer, find_layer

STEEPEST = np.cos(np.radians(89))  # beyond it a ray crosses more of the sensor than any detector has
BAND_PIXELS = 2**18  # of the detector a task: some ten MiB of coefficients


def build_psf(
    geometry: Geometry | PlanarGeometry | str | PathLike[str],
    *,
    thickness_m: float | None = None,
    material: str | None = None,
    energy_kev: float | None = None,
    attenuation_per_m: float | None = None,
    absorption: Literal["total", "energy"] = "total",
    density_g_cm3: float | None = None,
    mask: ArrayLike | None = None,
    tile_rows: int | None = None,
) -> SensorPSF:
    """The blur of a thick sensor as a CSR matrix, lazily, a task a band of rows.

    Rays from the sample go on through the sensor and are absorbed at a depth; so what enters a pixel is recorded there and in
    pixels further out. The integral over the depth is taken piece by piece between the depths at which an edge of the pixel's
    image crosses a border, with the obliquity expanded to second order over the pixel: no rays are cast.

    Parameters
    ----------
    geometry
        pyFAI geometry, .poni file, or PlanarGeometry.
    thickness_m : m, optional
        Of the sensor. By default what a pyFAI geometry or its detector says: the sensor of its parallax correction, or of the detector,
        or the only one with which pyFAI knows the detector's model.
    material : optional
        As for `attenuation_per_m` of detcal.sensor. By default that of the same sensor.
    density_g_cm3, absorption
        As for `attenuation_per_m` of detcal.sensor: density in g/cm³ in place of the tabulated one, and "total" µ or "energy" µ_en.
    energy_kev : keV, optional
        By default the geometry's.
    attenuation_per_m : 1/m, optional
        In place of a material and an energy.
    mask : (y, x) bool, optional
        True: records nothing. By default that of pyFAI's detector.
    tile_rows
        Rows of the detector a task, by default about 2¹⁸ pixels; the matrix does not depend on it.

    Returns
    -------
    SensorPSF
        data, indices, indptr are lazy, and how many coefficients there are is counted when one of these is first asked for.

    Raises
    ------
    InputError
        A thickness, a material or an energy that neither the caller nor the geometry says, or that pyFAI leaves open; an unknown
        material, a thickness that is not positive, a detector that is not plane, rays beyond 89°, a mask of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.sensor import PlanarGeometry, build_psf
    >>> plane = PlanarGeometry(shape=(4, 4), pixel_size_m=(1e-4, 1e-4), distance_m=0.1, poni_m=(0.0, 0.0))
    >>> psf = build_psf(plane, thickness_m=4.5e-4, material="Si", energy_kev=17.4)
    >>> psf.to_scipy().shape
    (16, 16)
    >>> round(float(psf.efficiency[0, 0]), 2)
    0.5
    """
    found = open_geometry(geometry)
    plane = as_planar(found)
    thickness, mu = find_layer(found, Layer(thickness_m, material, attenuation_per_m), energy_kev, absorption, density_g_cm3)
    if plane.incidence().min() < STEEPEST:
        raise InputError("expected rays within 89° of the normal everywhere: further out the sensor is crossed lengthwise")
    if tile_rows is not None and tile_rows < 1:
        raise InputError(f"expected tile_rows of at least 1, got {tile_rows}")
    masked = as_mask(mask_of(found) if mask is None else mask, plane.shape, "detector")
    if isinstance(masked, np.ndarray):
        check_some_left(masked)
    slab = kernels.Slab(plane.shape, plane.pixel_size_m, plane.poni_m, plane.distance_m, thickness)
    known: dict[str, Any] = {
        "mask": xr.DataArray(masked, dims=("y", "x")), "shape": plane.shape, "pixel_size_m": plane.pixel_size_m,
        "distance_m": plane.distance_m, "poni_m": plane.poni_m, "thickness_m": thickness, "attenuation_per_m": mu,
        "detector_dummy": dummy_of(found),
    }  # fmt: skip
    bands = Once(partial(build_bands, slab, mu, masked, tile_rows or max(1, BAND_PIXELS // plane.shape[1])))
    shared = Once(partial(matrix_of_bands, bands, slab)).lazily()
    return on_first_use(SensorPSF, partial(psf_of_bands, bands, known), in_memory=shared, **known)


def check_some_left(masked: NDArray[np.bool_]) -> None:
    """Raise if the mask leaves nothing."""
    if masked.all():
        raise InputError("the mask leaves no pixel")


def psf_of_bands(bands: Once[tuple[da.Array, ...]], known: dict[str, Any]) -> SensorPSF:
    """The matrix with its coefficients, lazily."""
    data, indices, indptr = bands.get()
    return SensorPSF(data, indices, indptr, **known)


def matrix_of_bands(bands: Once[tuple[da.Array, ...]], slab: kernels.Slab) -> inversion.Matrix:
    """The matrix in memory."""
    data, indices, indptr = bands.get()
    return as_matrix(indptr, indices, data, slab)


def build_bands(slab: kernels.Slab, mu: float, mask: Any, tile_rows: int) -> tuple[da.Array, ...]:
    """data, indices and indptr, a chunk a band. How many coefficients a band has is counted here."""
    height, width = slab.shape
    (masked,) = in_memory(mask)
    check_some_left(masked)
    bands = [(start, min(start + tile_rows, height)) for start in range(0, height, tile_rows)]
    counts = in_own_threads([delayed(count_coefficients)(rows, slab, mu, masked[slice(*rows)]) for rows in bands])
    parts = []
    for rows, count, offset in zip(bands, counts, accumulate(counts, initial=0), strict=False):
        task = delayed(partial(kernels.fill_band, rows, slab, mu), pure=True, nout=3)(masked[slice(*rows)], offset)
        shapes = ((count,), np.float32), ((count,), np.int32), (((rows[1] - rows[0]) * width,), np.int64)
        parts.append([da.from_delayed(part, shape, dtype) for part, (shape, dtype) in zip(task, shapes, strict=True)])
    data, indices, ends = (da.concatenate(list(part)) for part in zip(*parts, strict=True))
    return data, indices, da.concatenate([da.zeros(1, dtype=np.int64), ends])


def count_coefficients(rows: tuple[int, int], slab: kernels.Slab, mu: float, masked: NDArray[np.bool_]) -> int:
    """Of a band of the matrix."""
    return int(kernels.count_band(rows, slab, mu, masked).sum())


METHODS = ("direct", "lsmr", "mlem")
LARGEST_AMPLIFICATION = 10.0


def deconvolve(
    frames: ArrayLike,
    psf: SensorPSF,
    *,
    method: Literal["direct", "lsmr", "mlem"] = "direct",
    max_iterations: int | None = None,
    tolerance: float | None = None,
    variance: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.DataArray | xr.Dataset:
    """Undo the blur of a thick sensor, lazily: what entered each pixel's front, from what the pixels recorded.

    Parameters
    ----------
    frames : (frame, y, x)
        What was recorded. What was not measured (NaN, infinite, and flagged numbers, see `detcal.frames.valid`) takes no part in what is
        found for others, and nothing is taken to enter there, as for pixels that the matrix masks.
    psf
        From `build_psf`.
    method
        "direct" solves M·a = b exactly, pixel by pixel outwards from the PONI: without bias, and linear, but it amplifies noise.
        "lsmr" is the least-squares solution by LSMR (Fong and Saunders 2011). "mlem" is the non-negative solution of highest
        Poisson likelihood (Shepp and Vardi 1982); negative counts are taken as 0.
    max_iterations
        At most so many, of "lsmr" and "mlem" (which ends after 10 000 in any case). For "mlem" without a tolerance: just so many from an
        uniform image; fewer give a smoother result.
    tolerance
        Of "lsmr": its atol and btol, by default 1e-6. Of "mlem": ends once an iteration changes no pixel by more than the tolerance ×
        (its value + the frame's mean), by default 1e-4; the iterations are then accelerated (SQUAREM, Varadhan and Roland 2008).
    variance : (frame, y, x), optional
        Of the recorded frames, for "direct": the result is then a Dataset with its exact propagation, Σ_j (M⁻¹)_ij²·variance_j. What is
        negative or no reading is not known, and NaN is all that rests on it.
    dummy : number, optional
        Stands for "no reading" in the frames, in place of all other flags, compared as float32; and in the result, which else has NaN.

    Returns
    -------
    DataArray (frame, y, x) float32, or Dataset
        deconvolved, and variance if it was given. Attributes say that parallax and efficiency are corrected; `SensorPSF.conditioning`
        tells how well the blur can be undone.

    Raises
    ------
    InputError
        An unknown method, options that it does not have, frames of another shape than the matrix, all pixels masked, frames that say
        they were deconvolved already.

    Warns
    -----
    UserWarning
        As frames are computed, if the exact solution amplifies noise more than tenfold somewhere.

    Notes
    -----
    Light is taken as even over each pixel's front. Spots narrower than about 0.6 pixels (rms) are then sharpened too much by "direct";
    "mlem" with few iterations does less. Behind a gap in the mask, pixels have recorded light that entered in the gap: if it is
    known, take `psf.apply(light)` off the frames first.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.sensor import PlanarGeometry, build_psf, deconvolve
    >>> plane = PlanarGeometry(shape=(4, 4), pixel_size_m=(1e-4, 1e-4), distance_m=0.1, poni_m=(0.0, 0.0))
    >>> psf = build_psf(plane, thickness_m=4.5e-4, material="Si", energy_kev=17.4)
    >>> recorded = psf.apply(np.full((1, 4, 4), 100.0))
    >>> deconvolve(recorded, psf).values.round(3).mean()
    np.float32(100.0)
    """
    check_options(method, max_iterations, tolerance, variance)
    stack = as_stack_of(psf.shape, "matrix", frames)
    refuse_twice(stack, ["parallax", "efficiency"], "leave deconvolve out")
    stack, valid = find_readings(stack, dummy=dummy, detector=psf.detector_dummy)
    inverses: dict[str, Callable[..., Any]] = {
        "direct": inversion.solve_frames,
        "lsmr": partial(inversion.lsmr_frames, iterations=max_iterations, tolerance=1e-6 if tolerance is None else tolerance),
        "mlem": partial(
            inversion.mlem_frames, iterations=max_iterations, tolerance=1e-4 if tolerance is max_iterations is None else tolerance
        ),
    }  # fmt: skip
    shared = {"matrix": psf.in_memory, "valid": valid, "dummy": dummy}
    if method == "direct":
        shared["warned"] = delayed(warn_of_noise, pure=False)(psf.conditioned.lazily())
    attrs = attributes_of(stack, {"units": "counts", "method": method}, done=("parallax", "efficiency"), dummy=dummy)
    sharp = map_frames(partial(with_dummy, inverses[method]), stack, shared, name="deconvolved", attrs=attrs)
    if variance is None:
        return sharp
    recorded = as_stack_of(psf.shape, "matrix", variance, "variance")
    if recorded.shape != stack.shape:
        raise InputError(f"expected a variance of shape {stack.shape} (frame, y, x), as the frames, got {recorded.shape}")
    recorded, noise_valid = find_readings(recorded, dummy=dummy, detector=psf.detector_dummy, beside=True)
    propagate = partial(inversion.propagate_frames, noise_valid=noise_valid.within(0, MOST))
    attrs = {name: value for name, value in attrs.items() if name != "method"} | {"units": "counts²"}
    noise = stack.copy(data=recorded.data.rechunk(stack.data.chunks))
    variances = map_frames(partial(with_dummy, propagate), noise, shared, stacks=[stack.data], attrs=attrs)
    return xr.Dataset({"deconvolved": sharp, "variance": variances})


def warn_of_noise(condition: Conditioning) -> None:
    """Say, as frames are computed, that the exact solution is noisy."""
    if condition.noise_amplification > LARGEST_AMPLIFICATION:
        warnings.warn(
            f"the exact solution amplifies noise {condition.noise_amplification:.3g} times somewhere: "
            'method="mlem" with few iterations is smoother',
            stacklevel=2,
        )


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
    if method == "direct" and not max_iterations is tolerance is None:
        raise InputError('max_iterations and tolerance are of "lsmr" and "mlem": the direct solution has none')
    if method != "direct" and variance is not None:
        raise InputError(f'the variance is that of method="direct", not of {method!r}')
    if max_iterations is not None and not (isinstance(max_iterations, int | np.integer) and max_iterations >= 1):
        raise InputError(f"expected max_iterations as a whole number of at least 1, got {max_iterations!r}")
    if tolerance is not None and not (isinstance(tolerance, float | np.floating) and 0 < tolerance < 1):
        raise InputError(f"expected a tolerance between 0 and 1, got {tolerance!r}")
