"""Stacks in image files: EDF, CBF, TIFF and whatever else fabio reads.

The libraries only log, or do not notice, that a file is cut short: then they give zeros, or fewer frames. So that is
checked here.
"""

import bz2
import gzip
import re
import warnings
from base64 import b64encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

import fabio
import numpy as np
import tifffile
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from PIL import Image

from detcal.errors import InputError
from detcal.sizes import check_pixels
from detcal.stores.sources.facts import facts_in_header, is_limit
from detcal.stores.sources.readers import Block, clear_errors, fingerprint
from detcal.stores.sources.scanned import Coords

UNPACKERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
HEADER_BYTES = 4096  # of an image file, within which detectors write their names
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how TIFF and BigTIFF files begin


class Images(NamedTuple):
    """An open file: how many frames it holds, what reads one of them, and what of it is left out."""

    held: int
    frame: Callable[[int], Block]
    left_out: str = ""


@dataclass(frozen=True)
class ImageFilesReader:
    """Frames in one or more image files, each of which may hold several.

    Files after the first are taken to hold one frame, as the first, or are counted if the first holds several; what a
    file really holds is checked when it is read.
    """

    paths: tuple[str, ...]
    starts: tuple[int, ...]  # first frame of each file, and the number of frames at the end
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: str
    chunk_frames: int = 1
    lacks: None = None  # a file that is cut short is an error

    @classmethod
    def open(cls, paths: tuple[str, ...]) -> "ImageFilesReader":
        version = fingerprint(paths)
        with open_images(paths[0]) as images:
            held, first, left_out = images.held, images.frame(0), images.left_out
        if left_out:
            warnings.warn(f"{paths[0]}: {left_out}", stacklevel=2)
        if first.ndim != 2:
            raise InputError(f"expected grey frames, got an image of shape {first.shape} in {paths[0]}")
        counts = [held, *(1 if held == 1 else count_frames(path) for path in paths[1:])]
        starts = (0, *np.cumsum(counts).tolist())
        return cls(paths, starts, (starts[-1], *first.shape), first.dtype.newbyteorder("="), version)

    def coords(self) -> Coords:
        return {}

    def attrs(self) -> dict[str, Any]:
        """What Dectris detectors write into the headers of their files. They write -1 in gaps and -2 in dead pixels."""
        header = header_of(self.paths[0])
        if not any(name in header.upper() for name in ("PILATUS", "EIGER")):
            return {}
        facts = facts_in_header(header)
        if not is_limit(facts.get("valid_max", np.inf), "valid_max", self.dtype):
            facts.pop("valid_max", None)
        return ({"missing_value": [-2, -1]} if self.dtype.kind == "i" else {}) | facts

    def files(self, start: int, stop: int) -> list[str]:
        first, last = (bisect_right(self.starts, number) - 1 for number in (start, stop - 1))
        return list(self.paths[first : last + 1])

    def read(self, start: int, stop: int) -> Block:
        frames = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for path, first, last in zip(self.paths, self.starts[:-1], self.starts[1:], strict=True):
            low, high = max(start, first), min(stop, last)
            if low < high:
                self.read_file(path, last - first, low - first, frames[low - start : high - start])
        return frames

    def read_file(self, path: str, expected: int, start: int, frames: Block) -> None:
        """Fill `frames` from one file, from its frame `start` on."""
        with open_images(path) as images:
            if images.held != expected:
                raise InputError(f"expected {expected} frames in {path}, as in {self.paths[0]} or when it was opened, got {images.held}")
            for number, place in enumerate(frames, start):
                image = images.frame(number)
                if image.shape != self.shape[1:] or image.dtype.newbyteorder("=") != self.dtype:
                    raise InputError(
                        f"expected frames of shape {self.shape[1:]} and type {self.dtype}, as in {self.paths[0]}, "
                        f"got {image.shape} and {image.dtype} in {path}"
                    )
                place[...] = image


def header_of(path: str) -> str:
    """The beginning of a file, where detectors write how its frames were recorded; of a compressed one of what is in it."""
    with clear_errors(path), UNPACKERS.get(Path(path).suffix.lower(), open)(path, "rb") as file:
        return str(file.read(HEADER_BYTES).decode("latin-1"))


def count_frames(path: str) -> int:
    """How many frames an image file holds."""
    with open_images(path) as images:
        return images.held


@contextmanager
def open_images(path: str) -> Iterator[Images]:
    """An image file, opened by the library for its kind."""
    with clear_errors(path), opener_of(path)(path) as images:
        yield images


def is_tiff(path: str) -> bool:
    """Whether a file begins as TIFF files do, whatever it is called."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF


def opener_of(path: str) -> Callable[[str], AbstractContextManager[Images]]:
    """What opens a file: by its name, or because it is a TIFF file of another name, such as a mask of Dioptas."""
    return open_tiff if is_tiff(path) else OPENERS.get(Path(path).suffix.lower(), open_fabio)


@contextmanager
def open_tiff(path: str) -> Iterator[Images]:
    """The pages of a TIFF file, or the frames that ImageJ and tifffile put behind a single page."""
    with tifffile.TiffFile(path) as file:
        check_last_page(path, file)
        pages = pages_of_frames(file)
        others = f"of {len(file.pages)} pages the {len(pages)} of shape {pages[0].shape} are taken" if len(pages) < len(file.pages) else ""
        stack = file.series[0] if len(file.pages) == 1 else None
        planes = pages[0].shape[0] if pages[0].axes == "SYX" else 1  # tifffile's guess of three images: the planes of a colour one
        if stack is None or stack.dataoffset is None or stack.size == pages[0].size:
            yield Images(
                len(pages) * planes,
                lambda number: read_page(path, pages[number // planes], number % planes if planes > 1 else None),
                others,
            )
        else:
            kind = np.dtype(stack.dtype).newbyteorder(file.byteorder)
            mapped = np.memmap(path, kind, mode="r", offset=stack.dataoffset, shape=stack.shape).reshape(-1, *pages[0].shape)
            yield Images(len(mapped), mapped.__getitem__)


def pages_of_frames(file: tifffile.TiffFile) -> Sequence[Any]:
    """The pages of a TIFF file; of one with pages of other shapes at its end (a preview, a label) those of the shape that most have."""
    if file.pages[-1].shape == file.pages.first.shape:
        return file.pages
    (shape, most), (_, next_most), *_ = Counter(page.shape for page in file.pages).most_common()
    # where none has the majority, they are refused when they are read
    return [page for page in file.pages if page.shape == shape] if most > next_most else file.pages


def read_page(path: str, page: Any, plane: int | None) -> Block:
    """A page of a TIFF file, or a plane of it."""
    check_pixels(page.shape[:2] if plane is None else page.shape[1:], f"an image in {path}")
    return np.asarray(page.asarray() if plane is None else page.asarray()[plane])


def check_last_page(path: str, file: tifffile.TiffFile) -> None:
    """Refuse a TIFF file whose last page points to one that is not there."""
    file.filehandle.seek(file.pages.next_page_offset or 0)
    if any(file.filehandle.read(file.tiff.offsetsize)):
        raise InputError(f"{path} is cut short after {len(file.pages)} pages: it names another one that it does not hold")


@contextmanager
def open_cbf(path: str) -> Iterator[Images]:
    """The frame of a CBF file."""
    check_cbf(path)
    frame = CbfImage().read(path, check_MD5=False).data
    yield Images(1, lambda _: frame)


def check_cbf(path: str) -> None:
    """Refuse a CBF file whose data are cut short, or do not have the checksum that its header gives; and one of too many pixels."""
    header, _, data = Path(path).read_bytes().partition(CbfImage.STARTER)
    fields = dict(re.findall(rb"^(X-Binary-Size[-\w]*|Content-MD5):\s*(\S+)", header, re.MULTILINE))
    check_pixels([int(fields[f"X-Binary-Size-{axis}-Dimension".encode()]) for axis in ("Second", "Fastest")], f"an image in {path}")
    size = int(fields[b"X-Binary-Size"])
    if len(data) < size:
        raise InputError(f"{path} is cut short: expected {size} bytes of data, got {len(data)}")
    checksum = fields.get(b"Content-MD5")
    if checksum is not None and checksum != b64encode(md5(data[:size], usedforsecurity=False).digest()):
        raise InputError(f"{path} is damaged: its data do not have the checksum in its header")


@contextmanager
def open_png(path: str) -> Iterator[Images]:
    """The image of a PNG file, as masks are drawn by hand."""
    with Image.open(path) as image:
        check_pixels((image.height, image.width), f"an image in {path}")
        frame = np.asarray(image)
    yield Images(1, lambda _: frame)


@contextmanager
def open_fabio(path: str) -> Iterator[Images]:
    """The frames of a file that fabio reads."""
    with fabio.open(path) as image:
        left_out = what_is_behind(path, image) if getattr(image, "incomplete_file", False) else ""
        check_pixels(image.shape, f"an image in {path}")
        yield Images(image.nframes, lambda number: image.get_frame(number).data, left_out)


def what_is_behind(path: str, image: EdfImage) -> str:
    """What stands behind the last frame of an EDF file, that frame being whole.

    Raises
    ------
    InputError
        The last frame, or a header behind it, is not whole.
    """
    last = image.get_frame(image.nframes - 1)
    with UNPACKERS.get(Path(path).suffix.lower(), open)(path, "rb") as file:
        file.seek(last.start + last.blobsize)
        tail = file.read(HEADER_BYTES)
    if last.incomplete_data or b"{" in tail:
        raise InputError(f"{path} is cut short: its last frame is not whole")
    return "what stands behind its last frame is left out"


OPENERS: dict[str, Callable[[str], AbstractContextManager[Images]]] = {
    ".cbf": open_cbf,
    ".png": open_png,
    ".tif": open_tiff,
    ".tiff": open_tiff,
}
