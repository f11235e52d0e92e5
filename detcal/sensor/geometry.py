"""Where a plane detector stands: all that the thickness blur needs to know of the experiment."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pyFAI
from numpy.typing import NDArray
from pyFAI.geometry import Geometry

from detcal.errors import InputError

KEV_M = 1.239841984332e-9  # hc

# pyFAI's orientations in which the PONI is counted from the last row, and from the last column
FLIPPED = ((1, 2), (1, 4))


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
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise InputError(f"expected a shape (rows, columns), got {tuple(self.shape)}")
        lengths = [*self.pixel_size_m, self.distance_m]
        if not all(0 < length < np.inf for length in lengths):
            raise InputError(f"expected positive pixel sizes and distance, got {tuple(self.pixel_size_m)} m and {self.distance_m} m")
        if not np.isfinite(self.poni_m).all():
            raise InputError(f"expected a poni (y, x) in m, got {tuple(self.poni_m)}")
        # lists and arrays are taken too
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        for name in ("pixel_size_m", "poni_m", "rotation_rad"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    def incidence(self) -> NDArray[np.float64]:
        """Cosine of the angle between ray and normal at each pixel's centre (y, x)."""
        y, x = (
            (np.arange(size) + 0.5) * pitch - poni for size, pitch, poni in zip(self.shape, self.pixel_size_m, self.poni_m, strict=True)
        )
        return np.asarray(1 / np.sqrt(1 + (y[:, None] ** 2 + x**2) / self.distance_m**2))


def open_geometry(geometry: Any) -> Any:
    """A PlanarGeometry or pyFAI geometry as it is; a .poni file as a pyFAI geometry."""
    if isinstance(geometry, PlanarGeometry | Geometry):
        return geometry
    if not isinstance(geometry, str | PathLike):
        raise InputError(f"expected a pyFAI geometry, a .poni file or a PlanarGeometry, got {type(geometry).__name__}")
    try:
        return pyFAI.load(str(geometry))
    except FileNotFoundError:
        raise InputError(f"no such file: {geometry}") from None
    except Exception as error:  # of any kind: a file that is no .poni may trip the reader anywhere
        raise InputError(f"cannot read {geometry} as a .poni file: {' '.join(str(error).split())}") from error


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
    if not (detector.IS_FLAT and detector.uniform_pixel):
        raise InputError(f"expected a plane detector of equal pixels, got {detector.name}: treat its modules one by one")
    if detector.shape is None or len(detector.shape) != 2:
        raise InputError(f"expected a detector with a shape, got {detector.name}: name its model in the .poni file, or use PlanarGeometry")
    if detector.pixel1 is None or detector.pixel2 is None:
        raise InputError(f"expected a detector with a pixel size, got {detector.name}: give it in the .poni file, or use PlanarGeometry")
    poni = [geometry.poni1, geometry.poni2]
    for axis, pitch in enumerate((detector.pixel1, detector.pixel2)):
        if detector.orientation in FLIPPED[axis]:
            poni[axis] = detector.shape[axis] * pitch - poni[axis]
    return PlanarGeometry(
        detector.shape, (detector.pixel1, detector.pixel2), geometry.dist, (poni[0], poni[1]),
        (geometry.rot1, geometry.rot2, geometry.rot3),
    )  # fmt: skip


def energy_of(geometry: Any) -> float | None:
    """Photon energy in keV of a geometry that has a wavelength."""
    wavelength = getattr(geometry, "wavelength", None)
    return None if wavelength is None else KEV_M / wavelength


def mask_of(geometry: Any) -> NDArray[np.bool_] | None:
    """Pixels between modules, where a pyFAI detector knows them."""
    if isinstance(geometry, PlanarGeometry) or geometry.detector.mask is None:
        return None
    return np.asarray(geometry.detector.mask != 0)
