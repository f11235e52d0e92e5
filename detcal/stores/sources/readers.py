"""Lazy readers of one stack each, and what they share.

A reader holds paths, never an open file, so that it pickles in a few bytes and can be sent to any worker. It opens the
file for each read and closes it again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import prod
from os import R_OK, access, stat, supports_effective_ids
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detcal.errors import DetcalError, InputError, MissingWarning
from detcal.frames.valid import RECORDED
from detcal.sizes import MOST_ROWS, check_number, check_pixels
from detcal.stores.absence import Lacks
from detcal.stores.sources.scanned import NO_MAP, Coords, Scanned
from detcal.stores.sources.urls import is_url

Block = NDArray[np.generic]
COLOURS = 3, 4  # numbers for each pixel of a photograph, the fourth its opacity


class Reader(Protocol):
    """A stack in files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows and columns."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunk_frames(self) -> int:
        """Frames in a chunk of the file."""

    @property
    def version(self) -> str:
        """Changes when the files do."""

    @property
    def lacks(self) -> Lacks | None:
        """What is missing of the frames, and read as NaN; None if nothing is."""

    def coords(self) -> Coords:
        """What the file says of the frames, rows and columns: angles, say."""

    def attrs(self) -> dict[str, Any]:
        """What the file says of the values: units, say."""

    def files(self, start: int, stop: int) -> list[str]:
        """The files that these frames lie in; first the one that is to be named where they are damaged."""

    def read(self, start: int, stop: int) -> Block:
        """Whole frames, from start up to but not including stop."""


@dataclass(frozen=True)
class Around:
    """The stack of another reader, as it is: readers that lie around one say what is different in theirs."""

    reader: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    @property
    def chunk_frames(self) -> int:
        return self.reader.chunk_frames

    @property
    def version(self) -> str:
        return self.reader.version

    @property
    def lacks(self) -> Lacks | None:
        return self.reader.lacks

    def coords(self) -> Coords:
        return self.reader.coords()

    def attrs(self) -> dict[str, Any]:
        return self.reader.attrs()

    def files(self, start: int, stop: int) -> list[str]:
        return self.reader.files(start, stop)

    def read(self, start: int, stop: int) -> Block:
        return self.reader.read(start, stop)


@dataclass(frozen=True)
class AsArray:
    """What dask asks of an array, of a reader."""

    reader: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


class FrameArray(AsArray):
    """A reader as dask takes it: for any index, of which only the frames between the first and last are read."""

    def __getitem__(self, key: tuple[Any, ...]) -> Block:
        frames, *inside = key
        wanted = np.arange(self.shape[0])[frames]
        start, stop = (int(wanted.min()), int(wanted.max()) + 1) if wanted.size else (0, 0)
        place = slice(None, None, frames.step) if isinstance(frames, slice) else wanted - start
        read = self.reader.read(start, stop)
        found = read[place][..., *inside]
        return found if found.nbytes == read.nbytes else found.copy()  # a view would keep all that was read


@contextmanager
def clear_errors(path: str, array: str | None = None) -> Iterator[None]:
    """Turn what a library says of a damaged file, or of an array in it that was good when it was opened, into one line that names it."""
    try:
        yield
    except (DetcalError, MemoryError, MissingWarning):
        raise
    except Exception as error:  # of any kind: a decoder that meets garbage may stumble over anything
        check_readable(path)
        what = path if array is None else f"{array} in {path}"
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        told = reason.replace(path, "")  # what folders and files are called is no reason
        raise InputError(f"cannot read {what}: {reason}. {advice(error, told, array)}".rstrip()) from error


def advice(error: Exception, reason: str, array: str | None) -> str:
    """What may help against an error. It is damage only where nothing else is known to be the reason."""
    if isinstance(error, BlockingIOError) or "unable to lock file" in reason:
        return (
            "It is locked: a program, mostly the one that writes it, has it open. Wait until it is closed; or, to read what is there, set "
            "HDF5_USE_FILE_LOCKING=FALSE in the environment."
        )
    if isinstance(error, TimeoutError) or type(error).__module__.startswith("aiohttp"):
        return "Does its server run, and is the address right?"
    if "imagecodecs" in reason:
        return "pip install imagecodecs"
    if "plugin" in reason or ("filter" in reason and "regist" in reason):
        return "Its HDF5 filter has no plugin on this machine: install it, and name its folder in HDF5_PLUGIN_PATH."
    if isinstance(error, ImportError | NotImplementedError) or (isinstance(error, OSError) and error.errno is not None):
        return ""  # which says it all
    if array is not None:
        return "It may be damaged: copy or write it again."
    return "It may be cut short, or of another kind than its name says."


def check_readable(path: str) -> None:
    """Refuse a file that is not there, or that may not be read: libraries do not tell one from the other, or from damage."""
    if is_url(path):  # whose server answers, or does not
        return
    if "\0" in path:
        raise InputError(f"expected a path, got one with a NUL character, which no file has: {path!r}")
    try:
        stat(path)
    except PermissionError:
        raise InputError(f"no permission to read {path}") from None
    except OSError:
        raise InputError(f"no such file: {path}") from None
    if not access(path, R_OK, effective_ids=access in supports_effective_ids):
        raise InputError(f"no permission to read {path}")


def fingerprint(paths: Iterable[str]) -> str:
    """What changes when one of the files does, so that the same dask name never stands for other data."""
    status = [stat(path) for path in paths]
    return blake2b(repr([(file.st_mtime_ns, file.st_size) for file in status]).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class NpyReader:
    """A .npy file, mapped into memory for each read; a 2-D one is a stack of one frame, one of more than 3 dimensions a map."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: str
    scanned: Scanned = NO_MAP
    chunk_frames: int = 1
    lacks: None = None  # a file that is cut short is an error

    @classmethod
    def open(cls, path: str) -> "NpyReader":
        version, mapped = fingerprint([path]), mapped_npy(path)
        check_ndim(mapped.shape, path)
        return cls(path, stack_shape(mapped.shape), mapped.dtype, version, Scanned.of(mapped.shape))

    def next_in_series(self, path: str) -> "NpyReader":
        """Another file; one that cannot be read is taken to hold as many frames as this one, and is an error when these are read."""
        try:
            mapped_npy(path)
        except InputError:
            return replace(self, path=path, version=fingerprint([path]))
        return NpyReader.open(path)

    def coords(self) -> Coords:
        return {**self.scanned.numbers()}

    def attrs(self) -> dict[str, Any]:
        return {}

    def files(self, start: int, stop: int) -> list[str]:
        return [self.path]

    def read(self, start: int, stop: int) -> Block:
        mapped = mapped_npy(self.path)
        with clear_errors(self.path):
            return np.array(mapped.reshape(self.shape)[start:stop])


def mapped_npy(path: str) -> Block:
    """The numbers of a .npy file, mapped into memory.

    Raises
    ------
    InputError
        It is cut short, or damaged where it says what it holds.
    """
    with clear_errors(path):
        return np.lib.format.open_memmap(path, mode="r")


def recorded_as(stored: np.dtype[Any], given: np.dtype[Any]) -> dict[str, Any]:
    """What says of which type frames were that are reals since some are missing: its largest number may be no reading."""
    return {} if given == stored else {RECORDED: stored.str}


def stack_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """An image as a stack of one frame, a map (row, column, y, x) as one of all its frames."""
    return (prod(shape[:-2]), *shape[-2:])


def check_ndim(shape: tuple[int, ...] | None, place: str) -> None:
    """Refuse what is neither a map, a stack nor an image, or one of frames larger than any detector."""
    if shape is None or len(shape) < 2:
        raise InputError(f"expected an array of shape (frame, y, x) or (y, x), or (row, column, y, x), got {shape} in {place}")
    if len(shape) > 3 and shape[-1] in COLOURS:
        raise InputError(f"expected a number for each pixel, got {shape} in {place}: images of {shape[-1]} colours; save one or the mean")
    check_pixels(shape[-2:], f"frames in {place}")
    check_number(stack_shape(shape)[0], MOST_ROWS, "frames", place)
