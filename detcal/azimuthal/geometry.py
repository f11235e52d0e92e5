"""Rings on a detector. pyFAI does the geometry: where pixels and their corners lie, and what they see of the sphere."""

import json
import warnings
from collections.abc import Callable
from copy import copy
from functools import partial
from numbers import Real
from os import PathLike
from typing import Any, Literal, NamedTuple

import dask
import numpy as np
import pyFAI
import xarray as xr
from dask import is_dask_collection
from numpy.typing import NDArray
from pyFAI.geometry import Geometry
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal.binning import NO_PIXEL, Boxes, Outlines, Pixels, Points, Range, middles, sort_pixels
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.azimuthal.efficiency import Sensor, choose_sensor
from detcal.azimuthal.recorded import geometry_of
from detcal.azimuthal.solid_angle import cosine_of_incidence, solid_angle_of
from detcal.azimuthal.units import SPACINGS, Unit, check_unit, find_unit
from detcal.errors import InputError, are_two_numbers
from detcal.frames.arrays import ArrayLike
from detcal.frames.once import on_first_use
from detcal.frames.stack import as_image
from detcal.frames.valid import as_mask
from detcal.poni import find_dummy, poni_text, read_poni
from detcal.sizes import check_pixels
from detcal.version import __version__

BINS_A_PIXEL = 4  # at most: most bins are then empty already
MOST_BINS = 2**20  # that are no burden to a small detector either
ENTRIES = "indptr", "indices", "data"
SPLITS = ("no", "bbox", "full")
WAVELENGTHS = 1e-13, 1e-8  # m, from gamma rays to the ultraviolet


def build_bins(
    geometry: Geometry | str | PathLike[str] | xr.DataArray,
    *,
    npt: int = 1000,
    unit: str = "q_nm^-1",
    split: Literal["no", "bbox", "full"] = "no",
    mask: ArrayLike | None = None,
    radial_range: Range | None = None,
    azimuth_range: Range | None = None,
    polarization: float | None = None,
    solid_angle: bool = True,
    flat: ArrayLike | None = None,
    dark: ArrayLike | None = None,
    npt_azimuth: int | None = None,
    shape: tuple[int, int] | None = None,
    parallax: bool | None = None,
    sensor_efficiency: bool | None = None,
) -> AzimuthalBins:
    """Sort the pixels of a detector into rings: at once, or, if mask, flat or dark is over dask, when the bins are first asked for.

    Parameters
    ----------
    geometry
        .poni file, pyFAI's .json file with the same in it, or pyFAI geometry. What its detector flags pixels with that were not
        measured (dummy, delta_dummy), is kept. Or frames of a NeXus file, opened by `open_frames`, whose attributes have of its NXdetector
        where it stood: upright to the beam, with azimuths from columns to rows.
    npt
        Number of rings.
    unit
        Unit of the radius: scattering vector ("q_nm^-1", "q_A^-1"; s = q/2π in "s_nm^-1", "s_A^-1"), angle ("2th_deg", "2th_rad"), distance
        from the beam on the detector ("r_mm", "r_m", or "r_px" of square pixels), lattice spacing ("d_nm", "d_A", for pixels that are not
        split), and others of pyFAI's; or its unit itself. A pixel with no finite radius, as the beam's in d, is in no ring.
    split
        "no": a pixel belongs to the ring of its centre. "bbox", "full": to all rings that its bounding box, or its outline, lies in, by
        parts of its area in radius and azimuth, of which what lies outside of a range is in no ring.
    mask : (y, x) bool, optional
        True: in no ring. By default that of pyFAI's detector.
    radial_range : in the unit, optional
        Smallest and largest radius. Rings have the same pixels as in any wider range. By numpy.histogram's rule a ring has its lower edge,
        the last one its upper edge too. Rings without a pixel are empty: NaN, and count 0.
    azimuth_range : degrees, optional
        Smallest and largest azimuth, of up to a whole turn: (-180, 180), (0, 360), (-5, 355), … A part has its
        lower edge, the last one its upper edge too.
    polarization : −1 … 1, optional
        Polarisation factor, 1 for a beam that is polarised horizontally.
    solid_angle
        Divide by the solid angle that a pixel covers, relative to one at the PONI.
    flat, dark : (y, x) or (frame, y, x), optional
        Frames are averaged; what was not measured in them (see `detcal.frames.valid`) takes no part.
    npt_azimuth
        Cut each ring in so many parts, for 2-D integration.
    shape : rows, columns
        Of a detector that the geometry gives no model for, but pixel sizes; by default of the mask, flat or dark.
    parallax
        Whether radii are corrected for the depth at which rays are absorbed in the sensor. By default if the geometry says so (pyFAI's
        parallax). False: not, for frames from which `sensor.deconvolve` took it already.
    sensor_efficiency
        Divide by what the sensor absorbs, relative to rays along its normal: (1 − exp(−µt/cos θ))/(1 − exp(−µt)). By default if the
        geometry names its sensor (thickness and material; the wavelength gives µ), and no flat is given, which has it in it. False: not,
        for frames in which it was done. True: also with a flat, and with the only sensor that the detector's model has.

    Raises
    ------
    InputError
        An unknown unit or split, no wavelength for a unit that needs one, images of another shape, no pixel left, more bins than 4 a pixel
        (or 2^20), a detector of more than 2^28 pixels, parallax=True for a geometry without it,
        sensor_efficiency=True where nothing says which sensor it is.

    Warns
    -----
    UserWarning
        For more rings, or parts of them, than pixels that are not masked; and for pixels that are left out because flat, solid angle or
        polarisation is 0 or below. For a sensor that the geometry names, but for its thickness or a wavelength.

    Examples
    --------
    >>> from pyFAI.detectors import Detector
    >>> from pyFAI.geometry import Geometry
    >>> from detcal.azimuthal import build_bins
    >>> geometry = Geometry(0.1, 1e-3, 1e-3, detector=Detector(1e-4, 1e-4, max_shape=(20, 20)))
    >>> bins = build_bins(geometry, npt=4, unit="r_mm")
    >>> bins.to_scipy().shape
    (4, 400)
    """
    unit = str(unit)  # pyFAI's own have their name as that
    check_options(npt, npt_azimuth, unit, split)
    check_polarization(polarization)
    radial_range = None if radial_range is None else rising(radial_range, "radial_range")
    azimuth_range = None if azimuth_range is None else within_a_turn(azimuth_range)
    npt, npt_azimuth = int(npt), npt_azimuth and int(npt_azimuth)
    integrator = as_integrator(geometry, unit, shape, (mask, flat, dark))
    choose_parallax(integrator, parallax)
    height, width = map(int, integrator.detector.shape)
    shape = height, width
    check_size(shape, npt * (npt_azimuth or 1))
    detector_dummy = find_dummy(integrator.detector)
    masked = as_mask(integrator.detector.mask if mask is None else mask, shape, "detector")
    given = (flat, "a flat"), (dark, "a dark")
    images = [None if image is None else as_image(image, shape, name, detector=detector_dummy) for image, name in given]
    sensor = choose_sensor(integrator, sensor_efficiency, flat is not None)
    done = {
        "dark": dark is not None, "flat": flat is not None, "parallax": integrator.parallax is not None, "efficiency": sensor is not None,
    }  # fmt: skip
    known: dict[str, Any] = {
        "unit": unit, "split": split, "detector_dummy": detector_dummy, "corrections": tuple(name for name, there in done.items() if there),
        "geometry": poni_text(integrator), "provenance": provenance_of(integrator, polarization, solid_angle, sensor),
    }  # fmt: skip
    wanted = Wanted(npt, npt_azimuth, radial_range, azimuth_range, polarization, solid_angle, sensor)
    sort = partial(sort_detector, integrator, wanted, known)
    if any(map(is_dask_collection, (mask, flat, dark))):
        return on_first_use(AzimuthalBins, partial(sort_later, sort, masked, images), shape=shape, **known)
    return sort_later(sort, masked, images)


def provenance_of(integrator: AzimuthalIntegrator, polarization: float | None, solid_angle: bool, sensor: Sensor | None) -> str:
    """What counts are corrected for, how, and by what, as JSON; and the solid angle of a pixel at the PONI, which all are relative to."""
    named = None if sensor is None else sensor._asdict()
    at_the_poni = integrator.detector.pixel1 * integrator.detector.pixel2 / integrator.dist**2
    factors = {"polarization": polarization, "solid_angle": solid_angle, "solid_angle_sr": at_the_poni, "sensor_efficiency": named}
    return json.dumps(factors | {"detcal_version": __version__, "pyFAI_version": pyFAI.version}, default=float)


class Wanted(NamedTuple):
    """Which bins, and what counts are divided by; as in `build_bins`."""

    npt: int
    npt_azimuth: int | None
    radial_range: Range | None
    azimuth_range: Range | None
    polarization: float | None
    solid_angle: bool
    sensor: Sensor | None


def sort_later(sort: Callable[..., AzimuthalBins], masked: Any, images: list[Any]) -> AzimuthalBins:
    """The bins of images that may be lazy and are computed before, on the scheduler that is active."""
    return sort(*dask.compute(masked, *images))


def sort_detector(
    integrator: AzimuthalIntegrator,
    wanted: Wanted,
    known: dict[str, Any],
    mask: NDArray[np.bool_],
    flat: NDArray[np.float32] | None,
    dark: NDArray[np.float32] | None,
) -> AzimuthalBins:
    """The pixels of a detector in bins."""
    shape, masked, unit = mask.shape, mask.copy(), find_unit(known["unit"], integrator.detector)
    npt, npt_azimuth, radial_range, azimuth_range, polarization, solid_angle, sensor = wanted
    factors: dict[str, NDArray[Any]] = {} if flat is None else {"flat": flat.astype(float)}
    if solid_angle:
        factors["solid angle"] = solid_angle_of(integrator, shape)
    if polarization is not None:
        factors["polarisation"] = np.asarray(integrator.polarization(shape, factor=polarization))
    if sensor is not None:
        factors["efficiency"] = sensor.efficiency(cosine_of_incidence(integrator, shape))
    norm, lines = product(factors, masked)
    offset = np.zeros(shape) if dark is None else dark
    with np.errstate(over="ignore"):
        norm = norm.astype(np.float32)
    masked |= ~(np.isfinite(norm) & (norm > 0) & np.isfinite(offset))
    radius = integrator.array_from_unit(shape, "center", unit.base, scale=False) * unit.scale
    masked |= ~np.isfinite(radius)
    if npt_azimuth is None and azimuth_range is not None and azimuth_range[1] - azimuth_range[0] == 360:
        azimuth_range = None  # all around
    pixels = pixels_as(known["split"], integrator, radius, unit, masked.ravel(), npt_azimuth, azimuth_range)
    entries, rings, parts = sort_pixels(pixels, unit, npt, npt_azimuth, radial_range, azimuth_range)
    starts = entries[0]
    if not starts[-1]:
        raise InputError(NO_PIXEL)
    count, left = npt * (npt_azimuth or 1), int((~masked).sum())
    if count > left:
        lines.append(f"{count} bins for {left} pixels that are not masked: many will be empty")
    for line in lines:
        warnings.warn(line, stacklevel=4)
    azimuths = None if npt_azimuth is None else xr.DataArray(middles(parts), dims="azimuthal")
    images = {"norm": np.where(masked, 1, norm), "dark": np.where(masked, 0, offset), "radius": radius}
    arrays: dict[str, Any] = {name: xr.DataArray(image.astype(np.float32), dims=("y", "x")) for name, image in images.items()}
    arrays |= {name: xr.DataArray(values, dims=dim) for name, dim, values in zip(ENTRIES, ("edge", "entry", "entry"), entries, strict=True)}
    return AzimuthalBins(centres=xr.DataArray(middles(rings), dims="radial"), azimuths=azimuths, **arrays, **known)


def pixels_as(
    split: str, integrator: AzimuthalIntegrator, radius: NDArray[np.float64], unit: Unit, masked: NDArray[np.bool_],
    npt_azimuth: int | None, azimuth_range: Range | None,
) -> Pixels:  # fmt: skip
    """Pixels as they are split: where they are not masked, they are sorted."""
    in_parts = not (npt_azimuth is None and azimuth_range is None)
    if split == "no":
        return Points.of(integrator, radius, masked, in_parts, azimuth_range)
    if split == "bbox":
        return Boxes.of(integrator, radius.shape, unit, masked, in_parts)
    return Outlines.of(integrator, radius, unit, masked)


def product(factors: dict[str, NDArray[Any]], masked: NDArray[np.bool_]) -> tuple[NDArray[np.float64], list[str]]:
    """What counts are divided by, NaN where one of its factors is not above 0; and a line on each factor that leaves pixels out so."""
    norm, lines = np.ones(masked.shape), []
    for name, factor in factors.items():
        norm *= factor
        good = factor > 0
        if not good.all():
            norm[~good] = np.nan
            if lost := int(((factor <= 0) & ~masked).sum()):
                lines.append(f"{lost} pixels that are not masked have a {name} of 0 or below: they are in no ring")
    return norm, lines


def check_options(npt: int, npt_azimuth: int | None, unit: str, split: str) -> None:
    """Raise an InputError for options that do not exist."""
    for number in (npt, 1 if npt_azimuth is None else npt_azimuth):
        if not isinstance(number, Real) or not float(number).is_integer() or number < 1:
            raise InputError(f"expected whole numbers of at least 1 as npt and npt_azimuth, got {npt!r} and {npt_azimuth!r}")
    check_unit(unit)
    if split not in SPLITS:
        raise InputError(f"expected split to be one of {', '.join(SPLITS)}, got {split!r}")
    if split != "no" and unit in SPACINGS:
        raise InputError(f'pixels cannot be split in {unit}, which has no end at the beam: take split="no", or q with d = 2π/q')


def check_size(shape: tuple[int, int], bins: int) -> None:
    """Refuse, before there is any array of such a size, a detector or bins that are a slip."""
    check_pixels(shape, "the detector")
    most = max(MOST_BINS, BINS_A_PIXEL * shape[0] * shape[1])
    if bins > most:
        pixels = shape[0] * shape[1]
        raise InputError(
            f"expected up to {most} rings, or parts of them, for {pixels} pixels, got {bins}: take a smaller npt or npt_azimuth"
        )


def as_integrator(geometry: Any, unit: str, shape: tuple[int, int] | None, images: tuple[Any, ...]) -> AzimuthalIntegrator:
    """A pyFAI integrator of our own at a geometry that fits the unit; a detector without a model has the shape of the images."""
    if isinstance(geometry, str | PathLike):
        geometry = read_poni(geometry)
    elif isinstance(geometry, xr.DataArray):
        geometry = geometry_of(geometry)
    if not isinstance(geometry, Geometry):
        raise InputError(f"expected a .poni file or a pyFAI geometry, got {type(geometry).__name__}")
    detector = copy(geometry.detector)
    if detector.shape is None:
        detector.shape = shape or next((np.shape(image)[-2:] for image in images if image is not None), None)
    if detector.shape is None:
        raise InputError(
            f"expected a detector with a shape, got {detector.name}: name its model in the .poni file, or give shape= or mask="
        )
    if None in (detector.pixel1, detector.pixel2):
        raise InputError(
            f"expected a detector with pixel sizes, got {detector.name}: name its model, or pixel1 and pixel2, in the geometry"
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


def check_polarization(factor: float | None) -> None:
    """Raise if it is no factor."""
    if factor is not None and not (isinstance(factor, Real) and -1 <= factor <= 1):
        raise InputError(f"expected a polarisation factor between -1 and 1, got {factor!r}")


def within_a_turn(limits: Range) -> Range:
    """A range of azimuths, degrees."""
    low, high = rising(limits, "azimuth_range")
    if low < -360 or high > 720 or high - low > 360:
        raise InputError(f"expected azimuth_range in degrees, no wider than 360 and between -360 and 720, got {limits}")
    return low, high


def rising(limits: Range, name: str) -> Range:
    """The two ends of a range."""
    if not are_two_numbers(limits) or not -np.inf < limits[0] < limits[1] < np.inf:
        raise InputError(f"expected {name} as two rising numbers, got {limits}")
    return float(limits[0]), float(limits[1])
