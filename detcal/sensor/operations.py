"""Building, applying and inverting the point-spread matrix as lazy graphs."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed

from detcal.errors import InputError
from detcal.sensor import kernels
from detcal.sensor.attenuation import attenuation_per_m as find_attenuation
from detcal.sensor.calibration import SensorPSF
from detcal.sensor.geometry import as_planar, energy_of, mask_of, open_geometry

STEEPEST = np.cos(np.radians(89))  # beyond it a ray crosses more of the sensor than any detector has
BAND_PIXELS = 2**18  # of the detector a task: some ten MiB of coefficients


def build_psf(
    geometry: Any,
    thickness_m: float = 450e-6,
    material: str = "Si",
    energy_kev: float | None = None,
    attenuation_per_m: float | None = None,
    *,
    absorption: str = "total",
    density_g_cm3: float | None = None,
    mask: Any = None,
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
    thickness_m : m
        Of the sensor.
    material, density_g_cm3, absorption
        As for `attenuation_per_m` of detcal.sensor: its material, density in g/cm³, and "total" µ or "energy" µ_en.
    energy_kev : keV
        By default the geometry's.
    attenuation_per_m : 1/m
        In place of a material and an energy.
    mask : (y, x) bool, optional
        True: records nothing. By default that of pyFAI's detector.
    tile_rows
        Rows of the detector a task, by default about 2¹⁸ pixels; the matrix does not depend on it.

    Returns
    -------
    SensorPSF
        data, indices, indptr are lazy.

    Raises
    ------
    InputError
        No energy, an unknown material, a thickness that is not positive, a detector that is not plane, rays beyond 89°, a mask
        of another shape.
    """
    found = open_geometry(geometry)
    plane = as_planar(found)
    if not 0 < thickness_m < np.inf:
        raise InputError(f"expected a positive thickness in m, got {thickness_m}")
    if plane.incidence().min() < STEEPEST:
        raise InputError("expected rays within 89° of the normal everywhere: further out the sensor is crossed lengthwise")
    if attenuation_per_m is None:
        energy = energy_kev if energy_kev is not None else energy_of(found)
        if energy is None:
            raise InputError("the geometry has no wavelength: give energy_kev, or attenuation_per_m")
        attenuation_per_m = find_attenuation(material, energy, absorption=absorption, density_g_cm3=density_g_cm3)
    if not 0 < attenuation_per_m < np.inf:
        raise InputError(f"expected a positive attenuation in 1/m, got {attenuation_per_m}")
    if tile_rows is not None and tile_rows < 1:
        raise InputError(f"expected tile_rows of at least 1, got {tile_rows}")
    masked = as_mask(mask_of(found) if mask is None else mask, plane.shape)
    slab = kernels.Slab(plane.shape, plane.pixel_size_m, plane.poni_m, plane.distance_m, thickness_m)
    data, indices, indptr = build_bands(slab, attenuation_per_m, masked, tile_rows or max(1, BAND_PIXELS // plane.shape[1]))
    return SensorPSF(
        data, indices, indptr, xr.DataArray(masked, dims=("y", "x")), plane.shape, plane.pixel_size_m, plane.distance_m, plane.poni_m,
        thickness_m, attenuation_per_m,
    )  # fmt: skip


def build_bands(slab: kernels.Slab, mu: float, masked: Any, tile_rows: int) -> tuple[da.Array, da.Array, da.Array]:
    """data, indices and indptr, a chunk a band. How many coefficients a band has is counted here, which is quick."""
    height, width = slab.shape
    parts = []
    offset = 0
    for start in range(0, height, tile_rows):
        rows = (start, min(start + tile_rows, height))
        band_mask = masked[rows[0] : rows[1]]
        count = int(kernels.count_band(rows, slab, band_mask).sum())
        task = delayed(partial(kernels.fill_band, rows, slab, mu), pure=True, nout=3)(band_mask, offset)
        shapes = ((count,), np.float32), ((count,), np.int32), (((rows[1] - rows[0]) * width,), np.int64)
        parts.append([da.from_delayed(part, shape, dtype) for part, (shape, dtype) in zip(task, shapes, strict=True)])
        offset += count
    data, indices, ends = (da.concatenate(list(part)) for part in zip(*parts, strict=True))
    return data, indices, da.concatenate([da.zeros(1, dtype=np.int64), ends])


def as_mask(mask: Any, shape: tuple[int, int]) -> Any:
    """The mask as an array of booleans; none is all False."""
    if mask is None:
        return np.zeros(shape, np.bool_)
    masked = np.asarray(mask).astype(bool)
    if masked.shape != tuple(shape):
        raise InputError(f"expected a mask of shape {tuple(shape)} (y, x), as the detector, got {masked.shape}")
    if masked.all():
        raise InputError("the mask leaves no pixel")
    return masked
