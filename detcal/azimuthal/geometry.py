"""Rings on a detector. pyFAI does the geometry: where pixels lie, how they are cut, what they see of the sphere."""

import warnings
from copy import copy
from difflib import get_close_matches
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyFAI import units
from pyFAI.geometry import Geometry
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal.calibration import AzimuthalBins
from detcal.errors import InputError, are_two_numbers
from detcal.frames.stack import as_image
from detcal.frames.valid import as_mask
from detcal.poni import find_dummy, read_poni

UNITS = (
    "q_nm^-1", "q_A^-1", "2th_deg", "2th_rad", "r_mm", "r_m", "d*2_nm^-2", "d*2_A^-2", "log10(q.m)_None", "log(q.nm)_None",
    "log(1+q.nm)_None", "log(1+q.A)_None", "arcsinh(q.nm)_None",
)  # fmt: skip
SPLITS = ("no", "bbox", "full")
Range = tuple[float, float]
WAVELENGTHS = 1e-13, 1e-8  # m, from gamma rays to the ultraviolet


def build_bins(
    geometry: Any,
    npt: int = 1000,
    unit: str = "q_nm^-1",
    split: str = "no",
    mask: Any = None,
    radial_range: Range | None = None,
    azimuth_range: Range | None = None,
    polarization: float | None = None,
    solid_angle: bool = True,
    flat: Any = None,
    dark: Any = None,
    *,
    npt_azimuth: int | None = None,
    shape: tuple[int, int] | None = None,
    parallax: bool | None = None,
) -> AzimuthalBins:
    """Sort the pixels of a detector into rings.

    Parameters
    ----------
    geometry
        .poni file, or pyFAI geometry. What its detector flags pixels with that were not measured (dummy, delta_dummy), is kept.
    npt
        Number of rings.
    unit
        Of the radius: scattering vector ("q_nm^-1", "q_A^-1"), angle ("2th_deg", "2th_rad"), distance from the beam on the detector
        ("r_mm", "r_m"), and others of pyFAI's; or its unit itself.
    split
        "no": a pixel belongs to the ring of its centre. "bbox", "full": to all that its bounding box, or its outline, lies in, with
        shares.
    mask : (y, x) bool, optional
        True: in no ring. By default that of pyFAI's detector.
    radial_range : in the unit, optional
    azimuth_range : degrees, optional
        From −180 to 180, or from 0 to 360.
    polarization : −1 … 1, optional
        Polarisation factor, 1 for a beam that is polarised horizontally.
    solid_angle
        Divide by the solid angle that a pixel covers, relative to one at the PONI.
    flat, dark : (y, x) or (frame, y, x), optional
        Frames are averaged; what was not measured in them (see `detcal.frames.valid`) takes no part.
    npt_azimuth
        Cut each ring in so many parts, for 2-D integration. With "full" splitting pyFAI may misplace single pixels on an end of
        `azimuth_range`, and leaves out some where azimuths are cut.
    shape : rows, columns
        Of a detector that the geometry gives no model for, but pixel sizes; by default of the mask, flat or dark.
    parallax
        Whether radii are corrected for the depth at which rays are absorbed in the sensor. By default if the geometry says so (pyFAI's
        parallax). False: not, for frames from which `sensor.deconvolve` took it already.

    Raises
    ------
    InputError
        An unknown unit or split, no wavelength for a unit that needs one, images of another shape, no pixel left, parallax=True for a
        geometry without it.

    Warns
    -----
    UserWarning
        For more rings, or parts of them, than pixels that are not masked.
    """
    unit = str(unit)  # pyFAI's own have their name as that
    check_options(npt, npt_azimuth, unit, split)
    npt, npt_azimuth = int(npt), npt_azimuth and int(npt_azimuth)
    integrator = as_integrator(geometry, unit, shape, (mask, flat, dark))
    choose_parallax(integrator, parallax)
    height, width = map(int, integrator.detector.shape)
    shape = height, width
    masked = np.array(as_mask(integrator.detector.mask if mask is None else mask, shape, "detector"))
    detector_dummy = find_dummy(integrator.detector)
    norm = np.ones(shape) if flat is None else as_image(flat, shape, "a flat", detector=detector_dummy).compute().astype(float)
    if solid_angle:
        norm *= integrator.solidAngleArray(shape)
    if polarization is not None:
        norm *= polarisation(integrator, shape, polarization)
    offset = np.zeros(shape) if dark is None else as_image(dark, shape, "a dark", detector=detector_dummy).compute()
    masked |= ~(np.isfinite(norm) & (norm > 0) & np.isfinite(offset))
    scale = units.to_unit(unit).scale
    engine = integrator.setup_sparse_integrator(
        shape, npt if npt_azimuth is None else (npt, npt_azimuth), mask=masked, unit=unit, split=split, algo="CSR", scale=False,
        pos0_range=None if radial_range is None else tuple(value / scale for value in rising(radial_range, "radial_range")),
        pos1_range=None if azimuth_range is None else azimuths_within(azimuth_range, integrator, npt_azimuth),
    )  # fmt: skip
    if not engine.indptr[-1]:
        raise InputError("no pixel is left in the rings: look at mask, flat, radial_range and azimuth_range")
    count, left = npt * (npt_azimuth or 1), int((~masked).sum())
    if count > left:
        warnings.warn(f"{count} bins for {left} pixels that are not masked: many will be empty", stacklevel=2)
    flat_rings = npt_azimuth is None
    centres = np.asarray(engine.bin_centers if flat_rings else engine.bin_centers0, float) * scale
    azimuths = None if flat_rings else xr.DataArray(np.rad2deg(np.asarray(engine.bin_centers1, float)), dims="azimuthal")
    entries = {"pixels": np.asarray(engine.indices, np.int32), "shares": np.asarray(engine.data, np.float32)}
    radius = integrator.array_from_unit(shape, "center", unit)
    images = {"norm": np.where(masked, 1, norm), "dark": np.where(masked, 0, offset), "radius": radius}
    arrays = {name: xr.DataArray(values, dims="entry") for name, values in entries.items()}
    arrays |= {name: xr.DataArray(image.astype(np.float32), dims=("y", "x")) for name, image in images.items()}
    starts, radial = xr.DataArray(np.asarray(engine.indptr, np.int64), dims="edge"), xr.DataArray(centres, dims="radial")
    done = {"dark": dark is not None, "flat": flat is not None, "parallax": integrator.parallax is not None}
    return AzimuthalBins(
        starts=starts, centres=radial, azimuths=azimuths, unit=unit, split=split, detector_dummy=detector_dummy,
        corrections=tuple(name for name, there in done.items() if there), **arrays,
    )  # fmt: skip


def check_options(npt: int, npt_azimuth: int | None, unit: str, split: str) -> None:
    """Refuse what there is not."""
    for number in (npt, 1 if npt_azimuth is None else npt_azimuth):
        if not isinstance(number, Real) or not float(number).is_integer() or number < 1:
            raise InputError(f"expected at least 1 ring, and 1 part of each, got {npt} and {npt_azimuth}")
    if unit not in UNITS:
        near = get_close_matches(str(unit), UNITS, n=3, cutoff=0.3) or UNITS
        raise InputError(f"unknown unit {unit!r}; near are {', '.join(near)}")
    if split not in SPLITS:
        raise InputError(f"expected split to be one of {', '.join(SPLITS)}, got {split!r}")


def as_integrator(geometry: Any, unit: str, shape: tuple[int, int] | None, images: tuple[Any, ...]) -> AzimuthalIntegrator:
    """A pyFAI integrator of our own at a geometry that fits the unit; a detector without a model has the shape of the images."""
    if isinstance(geometry, str | PathLike):
        geometry = read_poni(geometry)
    if not isinstance(geometry, Geometry):
        raise InputError(f"expected a .poni file or a pyFAI geometry, got {type(geometry).__name__}")
    detector = copy(geometry.detector)
    if detector.shape is None:
        detector.shape = shape or next((np.shape(image)[-2:] for image in images if image is not None), None)
    if detector.shape is None:
        raise InputError(
            f"expected a detector with a shape, got {detector.name}: name its model in the .poni file, or give shape= or mask="
        )
    if shape is not None and tuple(detector.shape) != tuple(shape):
        raise InputError(f"expected the shape {tuple(detector.shape)} of {detector.name}, got {tuple(shape)}: leave shape= out")
    if geometry.wavelength is None and not unit.startswith(("2th", "r_")):
        raise InputError(f"the geometry has no wavelength, which {unit} needs: add it, or take 2th_deg or r_mm")
    place = geometry.dist, geometry.poni1, geometry.poni2, geometry.rot1, geometry.rot2, geometry.rot3
    if not (np.isfinite(place).all() and geometry.dist > 0):
        raise InputError(f"expected a distance above 0, and numbers for PONI and rotations, got {place}")
    if geometry.wavelength is not None and not WAVELENGTHS[0] <= geometry.wavelength <= WAVELENGTHS[1]:
        raise InputError(f"expected a wavelength from 1e-13 to 1e-8 m, got {geometry.wavelength}: is the .poni file whole?")
    integrator = AzimuthalIntegrator(*place, detector=detector, wavelength=geometry.wavelength)
    if geometry.parallax is not None:
        integrator.parallax = geometry.parallax
    return integrator


def choose_parallax(integrator: AzimuthalIntegrator, wanted: bool | None) -> None:
    """Leave out the geometry's parallax, or see that there is one."""
    if wanted is False:
        integrator.parallax = None
    elif wanted and integrator.parallax is None:
        raise InputError("expected a geometry with parallax, got one without: switch it on (enable_parallax), or leave parallax= out")


def polarisation(integrator: AzimuthalIntegrator, shape: tuple[int, ...], factor: float) -> NDArray[np.floating[Any]]:
    """What polarisation leaves of the scattering."""
    if not isinstance(factor, Real) or not -1 <= factor <= 1:
        raise InputError(f"expected a polarisation factor between -1 and 1, got {factor!r}")
    return np.asarray(integrator.polarization(shape, factor=factor))


def azimuths_within(limits: Range, integrator: AzimuthalIntegrator, parts: int | None) -> Range | None:
    """A range of azimuths in radians; the integrator's are cut where the range is not. None if it is all around and its parts do not
    matter: pixels that are split where azimuths are cut would be lost."""
    low, high = rising(limits, "azimuth_range")
    if low < -180 or high > 360 or (low < 0 and high > 180):
        raise InputError(f"expected azimuth_range in degrees from -180 to 180, or from 0 to 360, got {limits}")
    if high > 180:
        integrator.setChiDiscAtZero()
    if high - low == 360 and parts is None:
        return None
    return float(np.deg2rad(low)), float(np.deg2rad(high))


def rising(limits: Range, name: str) -> Range:
    """The two ends of a range."""
    if not are_two_numbers(limits) or not -np.inf < limits[0] < limits[1] < np.inf:
        raise InputError(f"expected {name} as two rising numbers, got {limits}")
    return float(limits[0]), float(limits[1])
