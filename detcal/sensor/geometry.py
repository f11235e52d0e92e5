"""Where a plane detector stands: all that the thickness blur needs to know of the experiment."""

from dataclasses import dataclass, fields
from numbers import Real
from os import PathLike
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from detcal.poni import find_dummy, read_poni
from detcal.sizes import check_pixels

# pyFAI's orientations in which the PONI is counted from the last row, and from the last column
FLIPPED = ((1, 2), (1, 4))

SAMPLES = 512  # rows, and columns, whose pixels are looked up: all of a large detector would take a GB
PLACE_PX = 0.01  # pyFAI keeps corners in float32, good to 0.001 of a pixel


@dataclass(frozen=True)
class PlanarGeometry:
    """A plane detector of equal pixels.

    The blur depends on the foot of the normal from the sample on the plane (the PONI) and its distance alone: rotations turn
    the plane and its normal together, and drop out.

    Attributes
    ----------
    shape : rows, columns
    pixel_size_m : (y, x), m
    distance_m : m
        From the sample to the plane, along the normal.
    poni_m : (y, x), m
        The foot of that normal, from the outer corner of the first pixel.
    rotation_rad
        Rotations about the axes 1, 2, 3, for the record.
    """

    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    distance_m: float
    poni_m: tuple[float, float]
    rotation_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        shape = as_floats(self.shape, (2,), "a shape (rows, columns)")
        pixel_size = as_floats(self.pixel_size_m, (2,), "pixel_size_m as two numbers (y, x) in m")
        (distance,) = as_floats(self.distance_m, (), "distance_m as a number in m")
        poni = as_floats(self.poni_m, (2,), "poni_m as two numbers (y, x) in m")
        rotation = as_floats(self.rotation_rad, (3,), "rotation_rad as three numbers in rad")
        if not all(size >= 1 and size.is_integer() for size in shape):
            raise InputError(f"expected a shape (rows, columns), got {tuple(self.shape)}: both are whole numbers from 1 on")
        if not all(0 < length < np.inf for length in (*pixel_size, distance)):
            raise InputError(f"expected positive pixel sizes and distance, got {pixel_size} m and {self.distance_m} m")
        if not np.isfinite([*poni, *rotation]).all():
            raise InputError(f"expected a finite poni_m (y, x) and rotation_rad, got {poni} m and {rotation} rad")
        # as floats, whatever came: for an int the kernels would be compiled anew
        whole = tuple(map(int, shape))
        check_pixels(whole, "a detector")
        for name, value in zip(FIELDS, (whole, pixel_size, distance, poni, rotation), strict=True):
            object.__setattr__(self, name, value)

    def incidence(self) -> NDArray[np.float64]:
        """Cosine of the angle between ray and normal at each pixel's centre (y, x)."""
        y, x = (
            (np.arange(size) + 0.5) * pitch - poni for size, pitch, poni in zip(self.shape, self.pixel_size_m, self.poni_m, strict=True)
        )
        return np.asarray(1 / np.sqrt(1 + (y[:, None] ** 2 + x**2) / self.distance_m**2))


FIELDS = tuple(field.name for field in fields(PlanarGeometry))


def as_floats(given: Any, shape: tuple[int, ...], expected: str) -> tuple[float, ...]:
    """The numbers of a tuple, list or array of that shape; of shape () the one number."""
    numbers = np.asarray(given, dtype=object)
    if numbers.shape != shape or not all(isinstance(number, Real) for number in numbers.flat):
        raise InputError(f"expected {expected}, got {shorten(repr(given), 200)}")
    return tuple(map(float, numbers.flat))


def open_geometry(geometry: Any) -> Any:
    """A PlanarGeometry or pyFAI geometry as it is; a .poni file as a pyFAI geometry.

    Raises
    ------
    InputError
        Something else, no such file, or a file without distance and PONI.
    """
    if isinstance(geometry, PlanarGeometry | Geometry):
        return geometry
    if not isinstance(geometry, str | PathLike):
        raise InputError(f"expected a pyFAI geometry, a .poni file or a PlanarGeometry, got {type(geometry).__name__}")
    return read_poni(geometry)


def as_planar(geometry: Any) -> PlanarGeometry:
    """The plane of a pyFAI geometry.

    Raises
    ------
    InputError
        The detector is curved, or not one plane of equal pixels, or has no shape.
    """
    if isinstance(geometry, PlanarGeometry):
        return geometry
    detector = geometry.detector
    if detector.shape is None or len(detector.shape) != 2:
        raise InputError(f"expected a detector with a shape, got {detector.name}: name its model in the .poni file, or use PlanarGeometry")
    if detector.pixel1 is None or detector.pixel2 is None:
        raise InputError(f"expected a detector with a pixel size, got {detector.name}: give it in the .poni file, or use PlanarGeometry")
    if not (detector.IS_FLAT and detector.uniform_pixel and is_regular(detector)):
        raise InputError(f"expected a plane detector of equal pixels, got {detector.name}: give each plane part of it as a PlanarGeometry")
    pixel_size, poni = (detector.pixel1, detector.pixel2), [geometry.poni1, geometry.poni2]
    for axis in range(2):
        if detector.orientation in FLIPPED[axis]:
            poni[axis] = detector.shape[axis] * pixel_size[axis] - poni[axis]
    return PlanarGeometry(detector.shape, pixel_size, geometry.dist, (poni[0], poni[1]), (geometry.rot1, geometry.rot2, geometry.rot3))


def is_regular(detector: Any) -> bool:
    """Whether pixels lie where equal ones would: a copy of a distorted pyFAI detector is flagged plane and uniform again."""
    lines = [np.unique(np.linspace(0, size - 1, SAMPLES).astype(int)) for size in detector.shape]
    index = [numbers.ravel() for numbers in np.meshgrid(*lines, indexing="ij")]
    if detector._pixel_corners is None:
        y, x, z = detector.calc_cartesian_positions(*index)
    else:  # some detectors' positions do not heed their corners
        z, y, x = detector.get_pixel_corners(correct_binning=True)[tuple(index)].mean(axis=1).T
    near = z is None or bool((np.abs(z) <= PLACE_PX * detector.pixel1).all())
    for axis, (place, pitch) in enumerate(((y, detector.pixel1), (x, detector.pixel2))):
        count = detector.shape[axis] - 1 - index[axis] if detector.orientation in FLIPPED[axis] else index[axis]
        near = near and bool((np.abs(place - (count + 0.5) * pitch) <= PLACE_PX * pitch).all())
    return near


def dummy_of(geometry: Any) -> tuple[float, float] | None:
    """dummy and delta_dummy of a pyFAI detector that has them: what its frames hold where nothing was measured."""
    return None if isinstance(geometry, PlanarGeometry) else find_dummy(geometry.detector)


def mask_of(geometry: Any) -> NDArray[np.bool_] | None:
    """Pixels that a pyFAI detector masks, where it knows any."""
    if isinstance(geometry, PlanarGeometry) or geometry.detector.mask is None:
        return None
    return np.asarray(geometry.detector.mask != 0)


def module_gaps_of(geometry: Any) -> NDArray[np.bool_]:
    """Pixels between the modules of a pyFAI detector, whatever else its mask holds.

    Raises
    ------
    InputError
        Nothing tells which these are.
    """
    found = None if isinstance(geometry, PlanarGeometry) else geometry.detector.calc_mask()
    if found is None:
        name = "a PlanarGeometry" if isinstance(geometry, PlanarGeometry) else f"the model {geometry.detector.name}"
        raise InputError(f"{name} does not tell where the gaps between modules are: give gaps as a mask")
    return np.asarray(found != 0)
