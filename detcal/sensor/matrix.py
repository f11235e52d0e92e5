"""The point-spread matrix of a detector, built in bands of rows."""

from functools import partial
from itertools import accumulate
from numbers import Integral
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
from detcal.frames.once import Once, in_memory, in_own_threads, on_first_use
from detcal.frames.valid import as_mask
from detcal.sensor import kernels, sparse
from detcal.sensor.calibration import SensorPSF, as_matrix
from detcal.sensor.geometry import PlanarGeometry, as_planar, dummy_of, mask_of, module_gaps_of, open_geometry
from detcal.sensor_layers import Layer, find_layer

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
    gaps: ArrayLike | Literal["modules"] | None = None,
    frames: xr.DataArray | None = None,
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
        Thickness of the sensor. By default what a pyFAI geometry or its detector says: the sensor of its parallax correction, or of the
        detector, or that of the frames' file, or the only one with which pyFAI knows the detector's model.
    material : optional
        As for `attenuation_per_m` of detcal.sensor. By default that of the same sensor.
    density_g_cm3, absorption
        As for `attenuation_per_m` of detcal.sensor.
    energy_kev : keV, optional
        Photon energy. By default the geometry's, or that of the frames' file.
    attenuation_per_m : 1/m, optional
        Linear attenuation coefficient, in place of a material and an energy.
    mask : (y, x) bool, optional
        True: records nothing, but has silicon like all others: a dead counter. By default that of pyFAI's detector, and the gaps.
    gaps : (y, x) bool, or "modules", optional
        True: no silicon that counts. What enters there is recorded nowhere, as in the guard rings of a module. "modules": what lies between
        the modules, as pyFAI knows the detector's model. By default none.
    frames : (frame, y, x), optional
        Frames that the detector took, as `open_frames` gives them: their file may say of what the sensor is, and the energy.
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
        material, a thickness that is not positive, or of another unit than m, a detector that is not plane, rays beyond 89°, a mask of
        another shape, gaps that the mask says record.

    Warns
    -----
    UserWarning
        A thickness, a material or an energy is not what the geometry or the file says.

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
    if frames is not None and not isinstance(frames, xr.DataArray):
        raise InputError(f"expected frames as open_frames gives them, with what their file says, got {type(frames).__name__}")
    said = {} if frames is None else frames.attrs
    thickness, mu = find_layer(found, Layer(thickness_m, material, attenuation_per_m), energy_kev, absorption, density_g_cm3, said)
    if plane.incidence().min() < STEEPEST:
        raise InputError("expected rays within 89° of the normal everywhere: further out the sensor is crossed lengthwise")
    if tile_rows is not None and not (isinstance(tile_rows, Integral) and tile_rows >= 1):
        raise InputError(f"expected tile_rows as a whole number of at least 1, got {tile_rows!r}")
    empty = as_mask(module_gaps_of(found) if isinstance(gaps, str) and gaps == "modules" else gaps, plane.shape, "detector")
    masked = as_mask(mask_of(found), plane.shape, "detector") | empty if mask is None else as_mask(mask, plane.shape, "detector")
    if isinstance(masked, np.ndarray) and isinstance(empty, np.ndarray):
        check_masks(masked, empty)
    slab = kernels.Slab(plane.shape, plane.pixel_size_m, plane.poni_m, plane.distance_m, thickness)
    known: dict[str, Any] = {
        "mask": xr.DataArray(masked, dims=("y", "x")), "shape": plane.shape, "pixel_size_m": plane.pixel_size_m,
        "distance_m": plane.distance_m, "poni_m": plane.poni_m, "thickness_m": thickness, "attenuation_per_m": mu,
        "detector_dummy": dummy_of(found), "noise_and_diagonal": None,
    }  # fmt: skip
    bands = Once(partial(build_bands, slab, mu, masked, empty, tile_rows or max(1, BAND_PIXELS // plane.shape[1])))
    built = Once(partial(matrix_of_bands, bands, slab))
    return on_first_use(SensorPSF, partial(psf_of_bands, bands, known), built=built, **known)


def check_masks(masked: NDArray[np.bool_], gaps: NDArray[np.bool_]) -> None:
    """Raise if the mask leaves nothing, or what has no silicon."""
    if masked.all():
        raise InputError("the mask leaves no pixel")
    if (gaps & ~masked).any():
        raise InputError(
            f"expected gaps that the mask masks too, got {(gaps & ~masked).sum()} pixels without silicon that the mask says record:"
            " add them to the mask, or leave the mask out"
        )


def psf_of_bands(bands: Once[tuple[da.Array, ...]], known: dict[str, Any]) -> SensorPSF:
    """The matrix with its coefficients, lazily."""
    data, indices, indptr = bands.get()
    return SensorPSF(data, indices, indptr, **known)


def matrix_of_bands(bands: Once[tuple[da.Array, ...]], slab: kernels.Slab) -> sparse.Matrix:
    """The matrix in memory."""
    data, indices, indptr = bands.get()
    return as_matrix(indptr, indices, data, slab)


def build_bands(slab: kernels.Slab, mu: float, mask: Any, gaps: Any, tile_rows: int) -> tuple[da.Array, ...]:
    """data, indices and indptr, a chunk a band. How many coefficients a band has is counted here."""
    height, width = slab.shape
    masked, empty = in_memory(mask, gaps)
    check_masks(masked, empty)
    bands = [(start, min(start + tile_rows, height)) for start in range(0, height, tile_rows)]
    counts = in_own_threads([delayed(count_coefficients)(rows, slab, mu, masked[slice(*rows)], empty) for rows in bands])
    parts = []
    for rows, count, offset in zip(bands, counts, accumulate(counts, initial=0), strict=False):
        task = delayed(partial(kernels.fill_band, rows, slab, mu), pure=True, nout=3)(masked[slice(*rows)], empty, offset)
        shapes = ((count,), np.float32), ((count,), np.int32), (((rows[1] - rows[0]) * width,), np.int64)
        parts.append([da.from_delayed(part, shape, dtype) for part, (shape, dtype) in zip(task, shapes, strict=True)])
    data, indices, ends = (da.concatenate(list(part)) for part in zip(*parts, strict=True))
    return data, indices, da.concatenate([da.zeros(1, dtype=np.int64), ends])


def count_coefficients(rows: tuple[int, int], slab: kernels.Slab, mu: float, masked: NDArray[np.bool_], gaps: NDArray[np.bool_]) -> int:
    """Of a band of the matrix."""
    return int(kernels.count_band(rows, slab, mu, masked, gaps).sum())
