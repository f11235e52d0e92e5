"""Sorting pixels into bins. pyFAI says where pixels lie; which bins they are in, and with what share, the kernels find.

Its own sparse matrices are not used: they put what lies up to a whole ring below a range into the first ring, whole pixels that only touch
a range into its ends, and what crosses ±180° on one side of it.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import kernels_bins as kernels
from detcal.azimuthal.kernels_bins import Edges
from detcal.azimuthal.units import Unit
from detcal.errors import InputError

Doubles = NDArray[np.float64]
Range = tuple[float, float]
Sorted = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]

MOST_ENTRIES = 64  # of a pixel, on average: rings of a fifteenth of a pixel, each in four parts; more says no more, and fills the memory
ABOVE = float(1 + np.finfo(np.float32).eps)  # the last edge over the largest radius
NO_PIXEL = "no pixel is left in the rings: look at mask, flat, radial_range and azimuth_range"
NONE = np.empty(0)


class Pixels(Protocol):
    """What is sorted: points, boxes or outlines."""

    def radial_limits(self) -> Range:
        """The least and the largest radius, in the unit."""

    def azimuthal_limits(self) -> Range:
        """The same of azimuths, degrees."""

    def sort(self, rings: Doubles, parts: Doubles, floor: float) -> Sorted:
        """Where each bin's entries start, their pixels and shares; edges of rings in the unit, of parts (none, if rings are whole) in
        degrees. What lies below the floor lies on it."""


@dataclass(frozen=True)
class Points:
    """Pixels as their centres: radius in the unit, azimuth in degrees."""

    radius: Doubles
    azimuth: Doubles
    masked: NDArray[np.bool_]

    @classmethod
    def of(
        cls, integrator: AzimuthalIntegrator, radius: Doubles, masked: NDArray[np.bool_], in_parts: bool, azimuth_range: Range | None
    ) -> "Points":
        """Azimuths from −180 to 180 or, if the range goes beyond, from its lower end on."""
        azimuth = np.rad2deg(integrator.array_from_unit(radius.shape, "center", "chi_rad", scale=False)).ravel() if in_parts else NONE
        if azimuth_range is not None and (azimuth_range[0] < -180 or azimuth_range[1] > 180):
            low = azimuth_range[0]
            azimuth = azimuth + 360 * np.ceil((low - azimuth) / 360)  # not by the remainder, which rounds
        return cls(radius.ravel(), azimuth, masked)

    def radial_limits(self) -> Range:
        """Of the centres."""
        return self.limits_of(self.radius)

    def azimuthal_limits(self) -> Range:
        """Of the centres."""
        return self.limits_of(self.azimuth)

    def limits_of(self, values: Doubles) -> Range:
        """The least and the largest that are not masked."""
        least, most, _ = kernels.limits(values[:, None], values[:, None], self.masked)
        return least, most

    def sort(self, rings: Doubles, parts: Doubles, floor: float) -> Sorted:
        """Each pixel in one bin, as by numpy.histogram. Points lie where they lie: the floor is of no use."""
        bins = kernels.bins_of_points(self.radius, self.azimuth, self.masked, Edges.of(rings), Edges.of(parts))
        pixels = np.flatnonzero(bins >= 0).astype(np.int32)
        return kernels.by_bin(bins[pixels], pixels, np.ones(pixels.size, np.float32), bins_of(rings, parts))


@dataclass(frozen=True)
class Boxes:
    """Pixels as boxes around their centres, in pyFAI's own units and radians: as far as their corners are, either way."""

    radius: Doubles
    half: Doubles
    azimuth: Doubles
    half_azimuth: Doubles
    masked: NDArray[np.bool_]
    scale: float

    @classmethod
    def of(cls, integrator: AzimuthalIntegrator, shape: tuple[int, int], unit: Unit, masked: NDArray[np.bool_], in_parts: bool) -> "Boxes":
        """Azimuths if they are needed."""
        spaces = (unit.base, "chi_rad")[: 1 + in_parts]
        arrays = [integrator.array_from_unit(shape, kind, space, scale=False) for space in spaces for kind in ("center", "delta")]
        radius, half, azimuth, half_azimuth = [*(array.astype(float, copy=False).ravel() for array in arrays), NONE, NONE][:4]
        if in_parts and not unit.base.startswith(("log10", "log(q")):  # whose least radius is none
            half_azimuth[radius <= half] = np.pi  # the beam is inside: on all sides
        return cls(radius, half, azimuth, half_azimuth, masked, unit.scale)

    def radial_limits(self) -> Range:
        """Of the boxes."""
        least, most, _ = kernels.limits((self.radius - self.half)[:, None], (self.radius + self.half)[:, None], self.masked)
        return least * self.scale, most * self.scale

    def azimuthal_limits(self) -> Range:
        """Of the boxes; the whole turn if one of them crosses ±180°."""
        low, high = (self.azimuth - self.half_azimuth)[:, None], (self.azimuth + self.half_azimuth)[:, None]
        least, most, _ = kernels.limits(low, high, self.masked)
        return whole_turn_if(least < -np.pi or most > np.pi, least, most)

    def sort(self, rings: Doubles, parts: Doubles, floor: float) -> Sorted:
        """Shares of boxes."""
        places = self.radius, self.half, self.azimuth, self.half_azimuth, self.masked
        where = floor / self.scale, Edges.of(rings / self.scale), Edges.of(np.deg2rad(parts))
        entries = room_for(kernels.count_boxes(*places, *where), self.masked.size)
        return by_bin(entries, kernels.split_boxes(*places, *where, entries), bins_of(rings, parts))


@dataclass(frozen=True)
class Outlines:
    """Pixels as the lines through their corners (pixel, corner, (radius, azimuth)), in pyFAI's own units and radians."""

    corners: NDArray[np.floating[Any]]
    centres: Doubles
    masked: NDArray[np.bool_]
    scale: float

    @classmethod
    def of(cls, integrator: AzimuthalIntegrator, radius: Doubles, unit: Unit, masked: NDArray[np.bool_]) -> "Outlines":
        """Radius as of centres, in the unit."""
        corners = np.ascontiguousarray(integrator.array_from_unit(radius.shape, "corner", unit.base, scale=False)).reshape(-1, 4, 2)
        return cls(corners, radius.ravel() / unit.scale, masked, unit.scale)

    def radial_limits(self) -> Range:
        """Of the corners."""
        least, most, _ = kernels.limits(self.corners[..., 0], self.corners[..., 0], self.masked)
        return least * self.scale, most * self.scale

    def azimuthal_limits(self) -> Range:
        """Of the corners; the whole turn if a pixel crosses ±180°."""
        least, most, widest = kernels.limits(self.corners[..., 1], self.corners[..., 1], self.masked)
        return whole_turn_if(widest > np.pi, least, most)

    def sort(self, rings: Doubles, parts: Doubles, floor: float) -> Sorted:
        """Shares of the areas within the outlines."""
        places = self.corners, self.centres, self.masked
        where = floor / self.scale, Edges.of(rings / self.scale), Edges.of(np.deg2rad(parts))
        entries = room_for(kernels.count_outlines(*places, *where), self.masked.size)
        return by_bin(entries, kernels.split_outlines(*places, *where, entries), bins_of(rings, parts))


def sort_pixels(
    pixels: Pixels, unit: Unit, npt: int, npt_azimuth: int | None, radial_range: Range | None, azimuth_range: Range | None
) -> tuple[Sorted, Doubles, Doubles]:
    """The entries of all bins, and the edges of rings and of parts; without parts of rings and azimuth_range azimuths do not matter."""
    floor = 0.0 if unit.positive else -np.inf
    if radial_range is None:
        least, most = pixels.radial_limits()
        floor = least = max(least, floor)
        radial_range = least, above(least, most)
    if azimuth_range is None and npt_azimuth is not None:
        left, right = pixels.azimuthal_limits()
        azimuth_range = left, min(180.0, above(left, right))
    rings = np.linspace(*radial_range, npt + 1)
    parts = NONE if azimuth_range is None else np.linspace(*azimuth_range, (npt_azimuth or 1) + 1)
    return pixels.sort(rings, parts, floor), rings, parts


def above(least: float, most: float) -> float:
    """A little above the largest number; all are in front of it, and it is above the least."""
    if not least <= most:
        raise InputError(NO_PIXEL)
    higher = most * ABOVE if most > 0 else most / ABOVE
    return higher if higher > least else least + float(np.finfo(np.float32).eps)


def whole_turn_if(crossed: bool, least: float, most: float) -> Range:
    """Limits of azimuths in degrees."""
    return (-180.0, 180.0) if crossed else (float(np.rad2deg(least)), float(np.rad2deg(most)))


def room_for(count: int, pixels: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Arrays for the bins, pixels and shares of so many entries."""
    if count > MOST_ENTRIES * pixels:
        raise InputError(
            f"expected rings, or parts of them, that cut a pixel into up to {MOST_ENTRIES} on average, got {count / pixels:.3g}: "
            'take a smaller npt or npt_azimuth, or split="no"'
        )
    return np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.float32)


def by_bin(entries: tuple[NDArray[Any], ...], written: int, count: int) -> Sorted:
    """The entries that were written, by bin."""
    bins, pixels, shares = (array[:written] for array in entries)
    return kernels.by_bin(bins, pixels, shares, count)


def bins_of(rings: Doubles, parts: Doubles) -> int:
    """How many bins there are."""
    return (len(rings) - 1) * max(1, len(parts) - 1)


def middles(edges: Doubles) -> Doubles:
    """The centres of bins."""
    return 0.5 * (edges[1:] + edges[:-1])
