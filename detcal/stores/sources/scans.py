"""What all layouts of X-ray fluorescence scans share: lazy spectra, blocks, and which spectra were measured."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import dask.array as da
import h5py
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.stores.absence import Lacks, warn_of
from detcal.stores.damage import Guarded, guarded
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.hdf5_files import follow
from detcal.stores.sources.readers import Coords, FrameArray
from detcal.stores.targets.zarr_store import NUMBERS
from detcal.xrf.calibration import NO_LIVE_TIME, check_places, leave_out, unmeasured

PathOrName = str | PathLike[str]
Numbers = ArrayLike | Sequence[float]
BLOCK_BYTES = 2**22  # of spectra: parts of lines, since dask reads whole blocks where a tile of a map needs a few lines


def lazy_spectra(path: str, stored: h5py.Dataset, chunks: Mapping[str, int] | None) -> da.Array:
    """Spectra (spectrum, energy) in blocks of whole chunks of the file, energies whole."""
    if stored.ndim != 2 or 0 in stored.shape or stored.dtype.kind not in "iuf":
        raise InputError(f"expected spectra (spectrum, energy) of numbers in {path}, got {stored.shape} of {stored.dtype}")
    block = wanted_rows(chunks, "spectrum", stored.shape[1] * stored.dtype.itemsize, stored.chunks[0] if stored.chunks else 1)
    return lazy_array(Hdf5Array.of(stored), (min(block, len(stored)), -1), "spectra", stored.chunks[0] if stored.chunks else 1)


@dataclass(frozen=True)
class Rows:
    """Spectra (spectrum, energy) as a reader of frames reads these."""

    array: Hdf5Array
    chunk_frames: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def lacks(self) -> Lacks | None:
        return self.array.lacks

    def coords(self) -> Coords:
        return {}

    def attrs(self) -> dict[str, Any]:
        return {}

    def files(self, start: int, stop: int) -> list[str]:
        return self.array.files(start, stop)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.array[start:stop]


def wanted_rows(chunks: Mapping[str, int] | None, dim: str, row_bytes: int, own: int) -> int:
    """How many spectra or rows make a block: whole chunks of the file."""
    wanted = (chunks or {}).get(dim, max(1, BLOCK_BYTES // row_bytes // own * own))
    if set(chunks or ()) - {dim} or wanted < 1:
        raise InputError(f'expected chunks such as {{"{dim}": 16}}, since energies are whole in each block, got {chunks}')
    return -(-wanted // own) * own


def lazy_array(array: Hdf5Array, blocks: tuple[int, ...], unit: str, chunk_rows: int | None = None) -> da.Array:
    """A dataset over dask, behind a path rather than an open file; with a warning of what is missing, and NaN.

    As the input of a run its rows are guarded, if it is said of how many of them a chunk of the file is.
    """
    rows = None if chunk_rows is None else guarded(Rows(array, chunk_rows), unit)
    read = FrameArray(rows) if isinstance(rows, Guarded) else array
    if lacks := array.lacks:
        warn_of(f"{array.path}::{array.name}", {"": lacks}, unit, stacklevel=4)
    return da.from_array(
        read, chunks=blocks, name=f"spectra-{tokenize(read, blocks)}", fancy=False, inline_array=True,
        meta=np.empty((0,) * read.ndim, read.dtype),
    )  # fmt: skip


def left_out_of_file(name: str, variables: Mapping[str, Any], others: Mapping[str, NDArray[np.bool_]] | None = None) -> dict[str, Any]:
    """left_out (spectrum,), if any spectrum of a file was not measured, and live_time_s without what is no time; says so.

    `others` are more reasons than the variables tell.
    """
    positions = variables["positions"][1]
    live = variables["live_time_s"][1] if "live_time_s" in variables else None
    reasons = {**(others or {}), **unmeasured(positions, live)}
    left_out = leave_out(reasons, np.arange(len(positions)), source=f" of {name}")
    check_places(positions[~left_out])
    if not left_out.any():
        return {}
    found: dict[str, Any] = {"left_out": ("spectrum", left_out)}
    if live is not None:
        timeless = unmeasured(positions, live)[NO_LIVE_TIME]
        found["live_time_s"] = ("spectrum", np.where(timeless, np.nan, live), {"units": "s"})
    return found


def read(group: h5py.Group, name: str) -> NDArray[Any] | None:
    """A dataset that may be missing."""
    found = follow(group, name)
    return read_all(found) if isinstance(found, h5py.Dataset) else None


def read_all(stored: h5py.Dataset) -> NDArray[Any]:
    """A dataset, with NaN for numbers that are missing."""
    return values_of(stored) if stored.dtype.kind in NUMBERS else np.asarray(stored)


def fits(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether an optional dataset belongs to the rest of a scan; says so if it does not."""
    if values.shape != shape:
        warnings.warn(
            f"/XRF/{name} is left out: expected values of shape {shape}, as the rest of the scan, got {values.shape}", stacklevel=3
        )
    return values.shape == shape


def channel_axis(channels: int) -> tuple[str, NDArray[np.float64], dict[str, str]]:
    """The axis of spectra without a calibration."""
    return ("energy", np.arange(channels, dtype=np.float64), {"units": "channels"})
