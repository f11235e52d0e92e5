"""What all layouts of X-ray fluorescence scans share: lazy spectra, blocks, and which spectra were measured."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from os import PathLike
from os.path import abspath
from typing import Any, Protocol

import dask.array as da
import h5py
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.stores.absence import Absence, Lacks, warn_of
from detcal.stores.damage import Guarded, guarded, note_missing
from detcal.stores.indexing import box_around, take
from detcal.stores.sources.hdf5_data import Hdf5Array, values_of
from detcal.stores.sources.hdf5_files import follow
from detcal.stores.sources.readers import FrameArray
from detcal.stores.sources.scanned import Coords
from detcal.stores.targets.zarr_store import NUMBERS
from detcal.xrf.calibration import NO_LIVE_TIME, check_places, leave_out, unmeasured

PathOrName = str | PathLike[str]
Numbers = ArrayLike | Sequence[float]
BLOCK_BYTES = 2**22  # of spectra: parts of lines, since dask reads whole blocks where a tile of a map needs a few lines


class Stored(Protocol):
    """An array in a file, behind a path."""

    @property
    def path(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def version(self) -> str:
        """Changes when the file does."""

    @property
    def lacking(self) -> bool:
        """Whether something is missing."""

    @property
    def absence(self) -> Absence | None:
        """What is missing."""

    def files(self, start: int, stop: int) -> list[str]:
        """The files of some rows."""

    def __getitem__(self, key: Any) -> NDArray[Any]: ...


@dataclass(frozen=True)
class StoredSpectra:
    """Spectra (spectrum, energy) of one element of a detector, as a reader of frames reads these, from a dataset of any dimensions."""

    array: Stored
    dims: tuple[str, ...]  # of the dataset: "energy"; "spectrum", or "row" and "column"; "detector", if it holds several elements
    chunks: tuple[int, ...] | None  # in which the file has it
    element: int = 0

    @classmethod
    def of(cls, stored: h5py.Dataset, dims: tuple[str, ...], element: int = 0) -> "StoredSpectra":
        """A dataset of an open file.

        Raises
        ------
        InputError
            It holds no spectra.
        """
        if stored.ndim != len(dims) or 0 in stored.shape or stored.dtype.kind not in "iuf":
            place = f"{abspath(stored.file.filename)}::{stored.name}"
            raise InputError(f"expected spectra ({', '.join(dims)}) of numbers in {place}, got {stored.shape} of {stored.dtype}")
        return cls(Hdf5Array.of(stored), dims, stored.chunks, element)

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the dimensions."""
        return dict(zip(self.dims, self.array.shape, strict=True))

    @property
    def points(self) -> tuple[int, ...]:
        """Number of points, or rows and columns of them."""
        return tuple(self.sizes[dim] for dim in ("spectrum", "row", "column") if dim in self.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        return prod(self.points), self.sizes["energy"]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def version(self) -> str:
        return self.array.version

    @property
    def chunk_frames(self) -> int:
        """Spectra in a chunk of the file: whole rows of a map, unless one of them is cut into several."""
        chunks = dict(zip(self.dims, self.chunks or (), strict=False))
        if "spectrum" in self.dims:
            return chunks.get("spectrum", 1)
        columns = self.sizes["column"]
        return chunks["row"] * columns if chunks.get("row", 1) > 1 else chunks.get("column", columns)

    @property
    def lacks(self) -> Lacks | None:
        """What is missing of each spectrum; None if nothing is."""
        if not self.array.lacking or self.array.absence is None:
            return None
        flags = np.zeros((2, self.shape[0]), np.bool_)
        for start in range(0, self.shape[0], self.block(None)):
            stop = min(start + self.block(None), self.shape[0])
            box, first = self.box(start, stop)
            ends = tuple((part.start, part.stop) for part in box)
            if (missing := self.array.absence.mask(ends)) is not None:
                inside = self.in_order(missing)[start - first : stop - first]
                flags[:, start:stop] = inside.all(axis=1), inside.any(axis=1)
        whole, some = flags
        found = Lacks(whole, some & ~whole, self.array.absence.lacks().hint)
        return found if found.any() else None

    def coords(self) -> Coords:
        return {}

    def attrs(self) -> dict[str, Any]:
        return {}

    def files(self, start: int, stop: int) -> list[str]:
        box, _ = self.box(start, stop)
        return self.array.files(box[0].start, box[0].stop)

    @property
    def ndim(self) -> int:
        return 2

    def __getitem__(self, key: Any) -> NDArray[Any]:
        (span, channels), inside = box_around(key, self.shape)
        return take(self.part(span, channels), inside)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.part((start, stop), (0, self.shape[1]))

    def part(self, span: tuple[int, int], channels: tuple[int, int]) -> NDArray[Any]:
        """Some spectra, of which no other channels are read."""
        box, first = self.box(*span)
        wanted = tuple(slice(*channels) if dim == "energy" else part for dim, part in zip(self.dims, box, strict=True))
        return self.in_order(self.array[wanted])[span[0] - first : span[1] - first]

    def box(self, start: int, stop: int) -> tuple[tuple[slice, ...], int]:
        """The part of the dataset that has some spectra, of a map whole rows or a part of one, and the number of the first in it."""
        parts = {dim: slice(0, size) for dim, size in self.sizes.items()} | {"detector": slice(self.element, self.element + 1)}
        first = start
        if "spectrum" in self.dims:
            parts["spectrum"] = slice(start, stop)
        else:
            columns = self.sizes["column"]
            rows = slice(start // columns, -(-stop // columns))
            first = rows.start * columns
            if rows.stop - rows.start == 1:
                parts["column"], first = slice(start - first, stop - first), start
            parts["row"] = rows
        return tuple(parts[dim] for dim in self.dims), first

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """A part of the dataset as (spectrum, energy)."""
        order = [self.dims.index(dim) for dim in ("detector", "spectrum", "row", "column", "energy") if dim in self.dims]
        return values.transpose(order).reshape(-1, values.shape[self.dims.index("energy")])

    def block(self, chunks: Mapping[str, int] | None) -> int:
        """How many spectra make a block: whole chunks of the file, and whole rows of a map where these are not larger."""
        row = self.sizes["column"] if "row" in self.dims else 1
        units = {"spectrum": 1} | ({"row": row} if "row" in self.dims else {})
        given = dict(chunks or {})
        if set(given) - set(units) or len(given) > 1 or any(number < 1 for number in given.values()):
            example = " or ".join(f'{{"{unit}": 16}}' for unit in units)
            raise InputError(f"expected chunks such as {example}, since energies are whole in each block, got {chunks}")
        own = self.chunk_frames
        spectrum = self.shape[1] * self.dtype.itemsize
        wanted = max(1, BLOCK_BYTES // spectrum // own * own) if not given else sum(units[unit] * number for unit, number in given.items())
        block = -(-wanted // own) * own
        return min(block // row * row if block > row else block, self.shape[0])

    def lazy(self, chunks: Mapping[str, int] | None) -> da.Array:
        """The spectra over dask, behind a path rather than an open file; with a warning of what is missing, and NaN.

        As the input of a run they are guarded.
        """
        rows, blocks = guarded(self, "spectra"), (self.block(chunks), -1)
        read = FrameArray(rows) if isinstance(rows, Guarded) else self
        if lacks := self.lacks:
            source = f"{self.array.path}::{self.array.name}"
            warn_of(source, {"": lacks}, "spectra", stacklevel=4)
            note_missing(source, lacks, "spectra")
        return da.from_array(
            read, chunks=blocks, name=f"spectra-{tokenize(read, blocks)}", fancy=False, inline_array=True,
            meta=np.empty((0, 0), read.dtype),
        )  # fmt: skip


def left_out_of_file(name: str, variables: Mapping[str, Any], others: Mapping[str, NDArray[np.bool_]] | None = None) -> dict[str, Any]:
    """left_out (spectrum,), if any spectrum of a file was not measured, and live_time_s without what is no time; says so.

    `others` are more reasons than the variables tell.
    """
    positions = variables["positions"][1]
    live = variables["live_time_s"][1] if "live_time_s" in variables else None
    reasons = {**(others or {}), **unmeasured(positions, live)}
    left_out = leave_out(reasons, np.arange(len(positions)), source=f" of {name}")
    if len(positions) > 1:  # a single spectrum is one, though it is no map
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


def as_many(values: NDArray[np.float64], number: int, axis: int = 0) -> NDArray[np.float64]:
    """Numbers of each spectrum, or row of them, that there is: NaN for the last ones, if there are too few; those of none are left out."""
    shape = (*values.shape[:axis], number, *values.shape[axis + 1 :])
    found = np.full(shape, np.nan)
    kept = (slice(None),) * axis + (slice(min(number, values.shape[axis])),)
    found[kept] = values[kept]
    return found


def warn_of_surplus(kind: str, held: tuple[int, ...], used: tuple[int, ...], source: str) -> None:
    """Say so where there are more numbers than spectra. Spectra that lack some are told together with all that are left out."""
    if prod(held) > prod(used):
        number, kept = next((one, other) for one, other in zip(held, used, strict=True) if one != other)
        warnings.warn(f"{number} {kind} but {kept} spectra, or rows of them, in {source}: only those are used", stacklevel=4)


def channel_axis(channels: int) -> tuple[str, NDArray[np.float64], dict[str, str]]:
    """The axis of spectra without a calibration."""
    return ("energy", np.arange(channels, dtype=np.float64), {"units": "channels"})
