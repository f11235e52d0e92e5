"""The point-spread matrix of a thick sensor."""

import warnings
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from os import PathLike
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr
from dask.delayed import Delayed

from detcal.display import as_html, as_text
from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import attributes_of
from detcal.frames.graph import map_frames
from detcal.frames.once import Once, in_memory
from detcal.frames.stack import as_stack_of
from detcal.frames.valid import find_readings
from detcal.sensor import kernels, noise, sparse
from detcal.sensor.geometry import PlanarGeometry

LARGEST_AMPLIFICATION = 10.0  # of noise, of which nothing need be said
ROUNDED = 1e-3  # of the light, by which the rounding of readings may have the exact solution wrong without a word


@dataclass(frozen=True, eq=False)
class SensorPSF:
    """b = M·a: what each pixel records, from what enters each pixel's front; CSR, rows recorded, columns entered.

    Attributes
    ----------
    data : (coefficient,) float32
        Share of what enters a pixel that is absorbed in the recording one.
    indices : (coefficient,) int32
        Entry pixel of each coefficient, row·columns + column; rising in each row of the matrix.
    indptr : (pixel + 1,) int64
        Where each recorded pixel's coefficients begin.
    mask : (y, x) bool
        True: records nothing; its share is lost, and its row is empty.
    shape, pixel_size_m, distance_m, poni_m
        The plane, as in PlanarGeometry.
    thickness_m : m
    attenuation_per_m : 1/m
    detector_dummy : dummy and delta_dummy, or None
        Of pyFAI's detector: the numbers in its frames that are no readings.
    noise_and_diagonal : two numbers, or None
        Of its conditioning, where a file has them: it was computed before the matrix was saved.
    """

    data: da.Array
    indices: da.Array
    indptr: da.Array
    mask: xr.DataArray
    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    distance_m: float
    poni_m: tuple[float, float]
    thickness_m: float
    attenuation_per_m: float
    detector_dummy: tuple[float, float] | None = None
    noise_and_diagonal: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def geometry(self) -> PlanarGeometry:
        """The plane that it was built for."""
        return PlanarGeometry(self.shape, self.pixel_size_m, self.distance_m, self.poni_m)

    @property
    def slab(self) -> kernels.Slab:
        """The plane with its thickness, for the kernels."""
        return kernels.Slab(self.shape, self.pixel_size_m, self.poni_m, self.distance_m, self.thickness_m)

    @cached_property
    def built(self) -> Once[sparse.Matrix]:
        """The matrix as the kernels take it: one copy for all tasks of a process, which is built once and kept with this object."""
        return Once(partial(as_matrix, self.indptr, self.indices, self.data, self.slab))

    @property
    def in_memory(self) -> Delayed:
        """The same, lazily."""
        return self.built.lazily()

    @property
    def efficiency(self) -> xr.DataArray:
        """Share of what enters each pixel that is recorded anywhere (y, x), lazily: the column sums."""
        image = da.from_delayed(dask.delayed(efficiency_of)(self.in_memory), self.shape, np.float32)
        return xr.DataArray(image, dims=("y", "x"), name="efficiency", attrs={"units": "1"})

    def to_scipy(self) -> sp.csr_matrix:
        """The matrix in memory, as a copy."""
        matrix = self.in_memory.compute()
        pixels = self.shape[0] * self.shape[1]
        return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(pixels, pixels), copy=True)

    @property
    def T(self) -> sp.csr_matrix:  # as numpy and scipy name it
        """The transposed matrix in memory: Mᵀ·b spreads what pixels recorded back over those where it may have entered."""
        return self.to_scipy().T.tocsr()

    def save_npz(self, path: str | PathLike[str]) -> None:
        """Write the matrix for `scipy.sparse.load_npz`."""
        sp.save_npz(path, self.to_scipy())

    def apply(self, frames: ArrayLike) -> xr.DataArray:
        """Blur frames (frame, y, x), lazily: what the thick sensor would record; NaN where it records nothing.

        What is not known of them (NaN, infinite, and flagged numbers, see `detcal.frames.valid`) is taken to be as around it: the mean of
        the nearest that are known. Where that is further away than rays reach, NaN is what rests on it.

        Raises
        ------
        InputError
            If the frames have another shape.
        """
        stack = as_stack_of(self.shape, "matrix", frames)
        stack, valid = find_readings(stack, detector=self.detector_dummy)
        attrs = attributes_of(stack, {}, undone=("parallax", "efficiency"))
        return map_frames(sparse.blur_frames, stack, {"matrix": self.in_memory, "valid": valid}, name="blurred", attrs=attrs)

    @property
    def conditioning(self) -> "Conditioning":
        """How well the blur can be undone: half a second a million pixels, the first time.

        White noise goes through the exact inverse of the whole matrix.
        """
        return self.conditioned.get()

    @cached_property
    def conditioned(self) -> "Once[Conditioning]":
        """The conditioning, for tasks: found once and kept with this object."""
        if self.noise_and_diagonal is not None:
            return Once(partial(Conditioning, *self.noise_and_diagonal))
        return Once(partial(find_conditioning, self.slab, self.attenuation_per_m, self.mask.data))

    @cached_property
    def warned_of_noise(self) -> Once[None]:
        """The warning, given once, that the exact solution is noisy."""
        return Once(partial(warn_of_noise, self.conditioned))

    def compute(self) -> "SensorPSF":
        """The same with its arrays in memory."""
        self.built.get()
        return replace(self.at_hand(), mask=self.mask.compute())

    def at_hand(self) -> "SensorPSF":
        """The same with what was computed of it, whoever asked: its matrix in memory, and its conditioning. Nothing is computed for it."""
        known: dict[str, Any] = {}
        kept: dict[str, Any] = {"conditioned": self.conditioned}
        if self.conditioned.done:
            known["noise_and_diagonal"] = astuple(self.conditioned.get())
        if self.built.done:
            matrix = self.built.get()
            known |= {name: da.from_array(getattr(matrix, name), chunks=-1, name=False) for name in ("data", "indices", "indptr")}
            kept["built"] = Once(partial(sparse.Matrix, *matrix))  # which may be sent to other processes
        found = replace(self, **known)
        vars(found).update(kept)
        return found


def as_matrix(indptr: da.Array, indices: da.Array, data: da.Array, slab: kernels.Slab) -> sparse.Matrix:
    """The matrix of a slab, of its parts, which may be lazy.

    Raises
    ------
    InputError
        They are not of this slab: kernels rely on where its rays go.
    """
    ends, pixels, shares = in_memory(indptr, indices, data)
    size = slab.shape[0] * slab.shape[1]
    if len(ends) != size + 1 or ends[0] != 0 or (np.diff(ends) < 0).any() or not ends[-1] == len(pixels) == len(shares):
        raise InputError(
            f"expected indptr that rises from 0 to the number of coefficients, {len(shares)}, and is one longer than {size} pixels"
        )
    matrix = sparse.Matrix.of(ends, pixels, shares, slab)
    if not sparse.goes_outwards(matrix):
        raise InputError(
            f"expected a matrix of a sensor of {1e6 * slab.thickness:.4g} µm, got coefficients of pixels that its rays do not go to, or"
            " that are negative or above 1: build it with build_psf"
        )
    return matrix


def efficiency_of(matrix: sparse.Matrix) -> Any:
    """What of each pixel's light is recorded anywhere (y, x)."""
    return matrix.sensitivity.reshape(matrix.shape)


def find_conditioning(slab: kernels.Slab, attenuation_per_m: float, mask: Any) -> "Conditioning":
    """The conditioning of a matrix, of which the mask may be lazy."""
    (masked,) = in_memory(mask)
    return Conditioning(*noise.noise_and_diagonal(slab, attenuation_per_m, masked))


def is_mild(conditioned: "Once[Conditioning]") -> bool:
    """Whether the exact solution amplifies little noise."""
    return conditioned.get().noise_amplification <= LARGEST_AMPLIFICATION


def warn_of_noise(conditioned: "Once[Conditioning]") -> None:
    """Say if the exact solution is noisy."""
    amplification = conditioned.get().noise_amplification
    if is_mild(conditioned):
        return
    rounded = amplification * np.finfo(np.float32).eps
    alone = f", and has the rounding to float32 alone make errors of about {min(rounded, 1):.1%} there" if rounded > ROUNDED else ""
    warnings.warn(
        f'the exact solution amplifies noise {amplification:.3g} times somewhere{alone}: method="auto" is smoother',
        stacklevel=2,
    )


@dataclass(frozen=True)
class Conditioning:
    """How well a blur can be undone.

    Attributes
    ----------
    noise_amplification
        Largest noise of the exact solution where the recorded noise is white, over that of dividing by the efficiency:
        the largest over squares of 8 × 8 pixels. Infinite if it outgrows float32.
    smallest_diagonal
        Smallest share of what enters a pixel that the pixel itself records.
    """

    noise_amplification: float
    smallest_diagonal: float
