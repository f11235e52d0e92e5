"""Opening a stack of frames from whatever a detector wrote."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import ATTRIBUTE
from detcal.frames.maps import as_they_lie, cut_by_rows, sizes_of_map
from detcal.frames.notes import KEPT, REGION, RESIZED
from detcal.frames.selection import NUMBER, OF_STACK, Choice, as_choice, parse_frames, runs_of
from detcal.frames.stack import BLOCK_BYTES, DIMS, frames_a_block
from detcal.frames.valid import FLAGS, with_flags
from detcal.response.calibration import Response
from detcal.stores.absence import warn_of
from detcal.stores.damage import guarded, guarding, note_missing
from detcal.stores.sources.choice import Datasets
from detcal.stores.sources.detectors import detector_says
from detcal.stores.sources.exchange import in_role
from detcal.stores.sources.facts import FACTS
from detcal.stores.sources.image_keys import find_key
from detcal.stores.sources.names import PathOrName
from detcal.stores.sources.newest import Newest, first_frames, frames_there
from detcal.stores.sources.nxtomo import KEYS, ImageKey
from detcal.stores.sources.opening import open_reader
from detcal.stores.sources.packed import packing_of, unpacked
from detcal.stores.sources.readers import FrameArray, Reader
from detcal.stores.sources.rows import RowArray, rows_a_chunk
from detcal.stores.sources.scanned import Coords
from detcal.stores.sources.selected import Flip, Flipped, Selected, check_flip, turned_image
from detcal.stores.sources.together import brought_together
from detcal.stores.targets.save import load_calibration

WHOLE = -1  # in place of a number of rows, as dask has it


def open_frames(
    path: PathOrName | Sequence[PathOrName],
    dataset: Datasets = None,
    *,
    chunks: Mapping[str, int] | None = None,
    frames: Choice | None = None,
    flip: Flip | None = None,
    mask: ArrayLike | PathOrName | None = None,
    dummy: float | Sequence[float] | None = None,
    valid_range: tuple[float, float] | None = None,
    newest: Newest = False,
) -> xr.DataArray:
    """Open a stack of frames lazily; nothing but the header, a detector's pixel_mask, and the first image of image files, is read.

    Parameters
    ----------
    path
        An HDF5 or NeXus file (of any name), a zarr store (a zipped one, or behind a URL, too), a .npy file, or EDF, CBF, TIFF and other
        image files that fabio reads: one (multi-page too), a list, in its order, a text file (.txt, .lst) that names one a line, a folder
        of files of one kind, or a glob such as "scan_*.cbf". In the last two numbers in names count as numbers: scan_2 comes before
        scan_10; and one that is left out of a numbered series is missing.
    dataset
        Where the frames are in an HDF5 file or zarr group: a name, or several, which follow each other: a list of names, in its order, or
        in HDF5 a pattern such as "/entry/data/part_*", in the order of the numbers. By default the only 3-D one of numbers; else the only
        one of more dimensions, a map; else the only 2-D one; or of bool if there are no numbers; of several, the one to which @default and
        @signal of a NeXus file lead. Numbered parts (data_000001, …), as in the master file of an Eiger, are one stack, in which a part
        that is not there is NaN.
    chunks
        Frames a block: {"frame": 16}; or rows: {"y": 64}; rounded up to whole chunks of the file, and of a map then down to whole
        rows of it, or cut where these end. By default about 64 MiB of whole frames; or, where the chunks of the file hold so many frames
        that this would be more, of some rows ({"y": -1}: of all).
    frames
        Which frames: a number, a slice (also as text: "10:50", "::2"; ":" takes all), a list of numbers, in its order, or by the
        image_key of an NXtomo file, or the datasets of a Data Exchange file, "projections" (those at alignment positions are none),
        "flats" or "darks". By default a file with an image_key gives its projections, with one warning; any other file all frames.
        Numbers count in the whole stack, in which an image_key says, as a coordinate, which frames are flats and darks.
        Frames of a map are counted row by row, and those that are asked for are a stack, even if all are (":").
    flip : "ud", "lr" or "both", optional
        Turn each frame over: "ud" (up-down) reverses its rows, as numpy.flipud does, "lr" (left-right) its columns, as
        numpy.fliplr does. Coords along y and x are reversed with them.
    mask : (y, x), or a path, optional
        True, or not 0: not measured; of the image as it is given here. A path is that of an image, or of a response that `save` wrote.
        Masked pixels become NaN, and integers reals: float32 if they have up to 16 bits, else float64. So do those of the pixel_mask of a
        NeXus or Eiger file.
    dummy : number or several, optional
        Stand for "no reading". NaN: no number does. By default what the file says: attributes of the frames, or saturation_value,
        underload_value and countrate cutoff of a NeXus or Eiger detector.
    valid_range : (low, high), optional
        What is outside is no reading. dummy and valid_range become attributes (missing_value, valid_min, valid_max), which all operations
        heed, in place of those of the file, of what the detector of a geometry says, and of the largest number of an unsigned type.
    newest : bool or int, optional
        Of a file, or series of files, that is still being written: True takes the frames that are there now, and the attribute `newest`
        says how many these are; a number takes the first so many, and no more. That the file grows is no change then.

    Returns
    -------
    DataArray (frame, y, x), or (row, column, y, x) of a map
        In the file's own type and units, or counts if it names none; x is whole in each block. A 2-D image is a stack of one frame.
        Of several files each one's flags hold for its own frames: where they differ, what is flagged is NaN, with a warning; a file that
        says nothing has those of the others, and one without an axis that the others have NaN in it, with a warning too.
        What has more than 3 dimensions is a map, as of a raster scan, whose first ones have the names that a zarr store gives them, or row
        and column, or, if they are more than two, scan_0, scan_1, …; but images of OME-Zarr, and several files, are a stack.
        Numbers that were packed into integers, by scale_factor and add_offset, are unpacked, as reals.
        Coords are the axes that a zarr group or NeXus NXdata gives, the angles of a scan, say; with an image_key
        also rotation_angle.
        Frames, or parts of them, that are missing (chunks that were never written or are lost, parts of a virtual dataset without a
        source, parts of a master file, files of a numbered series) are NaN, with one MissingWarning that counts them: integers then
        become float32, those of more than 16 bits float64.
        Chunks that zarr left out because they hold nothing but a fill value look the same: `.fillna(0)` puts the value back.

    Raises
    ------
    InputError
        No such file or dataset, no permission to read it, several that could be meant, a damaged file, frames that there are not,
        files whose frames are in different units, or of which some were corrected,
        an image_key of another length than the stack, or without the frames asked for; as frames are computed, chunks
        that are damaged, or are gone since the file was opened. Image files after the
        first are opened only when they are computed: frames of another shape or type are refused then.

    Examples
    --------
    >>> import detcal
    >>> import numpy as np
    >>> np.save("frames.npy", np.ones((5, 4, 4), np.uint16))
    >>> frames = detcal.open_frames("frames.npy", frames=slice(1, 3))
    >>> frames.dims, frames.shape
    (('frame', 'y', 'x'), (2, 4, 4))
    """
    whole, source = open_reader(path, dataset)
    own_flags = dummy is None and valid_range is None
    whole = brought_together(whole, own_flags=own_flags)
    length = frames_there(whole, newest, source) if newest else whole.shape[0]
    part = brought_together(chosen(whole, source, frames, length), own_flags=own_flags)  # flats of several files are several too
    reader = guarded(turned(part, flip), "frames", grows=bool(newest))
    if 0 in reader.shape or reader.dtype.kind not in "biuf":
        raise InputError(f"expected frames of numbers, got shape {reader.shape} of {reader.dtype} in {source}")
    if lacks := reader.lacks:
        warn_of(source, {"": lacks}, "frames", stacklevel=2)
        note_missing(source, lacks, "frames")
    block = block_of(reader, wanted_sizes(chunks))
    kind = FrameArray if block[1] == reader.shape[1] else RowArray
    lines = with_stack(reader.coords(), source)
    sizes = sizes_of_map({name: xr.Variable(*line) for name, line in lines.items()})
    cut = (cut_by_rows(block[0], tuple(sizes.values())) if sizes else block[0], *block[1:])
    array = da.from_array(
        kind(reader), chunks=cut, name=f"frames-{tokenize(reader, block)}", meta=np.empty((0, 0, 0), reader.dtype), asarray=False
    )
    said = detector_says(whole)
    stored = reader.attrs()
    attrs = attributes({**said.attrs, **stored}, source, flip) | ({"newest": length} if newest else {})
    stack = xr.DataArray(array, dims=DIMS, coords=lines, name="frames", attrs=attrs)
    if lacks:
        stack = stack.assign_attrs(lacks=lacks.describe("frames"))
    stack = with_flags(stack, None if said.mask is None or not said.mask.any() else turned_image(said.mask, flip))
    flagged = unpacked(with_flags(stack, read_mask(mask), dummy, valid_range), packing_of(whole, stored, source))
    found: xr.DataArray = as_they_lie(flagged) if frames is None else flagged
    return found


def with_stack(lines: Coords, source: str) -> Coords:
    """Coordinates of which the numbers of frames say in which stack these are, unless they came out of another one."""
    if NUMBER not in lines:
        return lines
    dims, numbers, attrs = lines[NUMBER]
    return {**lines, NUMBER: (dims, numbers, {OF_STACK: source, **attrs})}


def attributes(stored: Mapping[str, Any], source: str, flip: Flip | None) -> dict[str, Any]:
    """What frames take of the attributes in their file: units, which numbers are readings, how they were recorded, what was done to them.
    Regions are those of frames that were not turned over since."""
    texts = {name: str(value) for name, value in stored.items() if name in ("units", "long_name")}
    wanted = {*FLAGS, *FACTS, ATTRIBUTE, *KEPT} - (set() if flip is None else {RESIZED, REGION})
    others = {name: value for name, value in stored.items() if name in wanted}
    return {"units": "counts", **texts, **others, "source": source}


def read_mask(mask: Any) -> Any:
    """A mask that was given as a path: that of a response, or an image; any other as it is."""
    if not isinstance(mask, str | PathLike):
        return mask
    with guarding(None):  # it is no frame of a run's input
        return image_or_mask_in(mask)


def image_or_mask_in(mask: PathOrName) -> Any:
    """The mask of a response that `save` wrote, or else the image in a file."""
    found = load_calibration(mask)
    if found is not None and not isinstance(found, Response):
        raise InputError(f"expected an image or a response as the mask, found {type(found).__name__} in {mask}")
    return open_frames(mask) if found is None else found.mask


def chosen(reader: Reader, source: str, frames: Choice | None, length: int) -> Reader:
    """Of the first frames those asked for, or else the projections of a file that tells them from flats and darks."""
    choice = None if frames is None else parse_frames(frames)
    if choice is not None and not isinstance(choice, str):
        return Selected(reader, runs_of(choice, length, source))
    key = find_key(reader)
    if key is None and choice is None:
        return reader if length == reader.shape[0] else first_frames(reader, length)
    if key is None:
        beside = in_role(reader, str(choice))
        if beside is None:
            raise InputError(f"expected an image_key that names the {choice} in {source}, got none: give frames by their numbers")
        return beside
    numbers = tuple(number for number in key.numbers(choice or "projections") if number < length)
    if not numbers:
        raise InputError(f"none of the first {length} frames in {source} is one of the {choice or 'projections'}: wait for more of them")
    if choice is None and len(numbers) < len(key.values):
        warnings.warn(
            f"{source} has an image_key: of its {len(key.values)} frames ({key.contents()}) the projections are taken; "
            'say so by frames = "projections", or what else to take',
            stacklevel=3,
        )
    return Selected(reader, runs_of(numbers, reader.shape[0], source))


def frame_numbers(
    path: PathOrName | Sequence[PathOrName], dataset: Datasets = None, frames: Choice | None = None, newest: Newest = False
) -> tuple[NDArray[np.int64], int]:
    """The numbers, in their stack, of the frames that `open_frames` takes, and how many that has: what lies apart by its role is one."""
    reader, source = open_reader(path, dataset)
    length = frames_there(reader, newest, source) if newest else reader.shape[0]
    choice = "projections" if frames is None and find_key(reader) is not None else frames
    if choice is None:
        return np.arange(length), reader.shape[0]
    part = chosen(reader, source, choice, length)
    return (part.numbers(), reader.shape[0]) if isinstance(part, Selected) else (np.arange(part.shape[0]), part.shape[0])


def turned(reader: Reader, flip: Flip | None) -> Reader:
    """The frames turned over, if so asked."""
    if flip is None:
        return reader
    check_flip(flip)
    return Flipped(reader, flip)


def roles_in(path: PathOrName | Sequence[PathOrName], dataset: Datasets = None) -> tuple[str, ...]:
    """Which of projections, flats and darks there are in a file that tells them apart; none, if it does not."""
    reader, _ = open_reader(path, dataset)
    return roles_of(reader, find_key(reader))


class Beside(NamedTuple):
    """What lies beside the frames of a file that are chosen.

    Attributes
    ----------
    roles
        As `roles_in`, without those of the frames that are meant: nobody corrects a flat by itself.
    frames
        Those that are meant: of frames that were chosen by their numbers, if projections are among them, these alone.
    others
        What there is in words, if something else was chosen by numbers too; or nothing but that.
    """

    roles: tuple[str, ...]
    frames: Choice | None
    others: str = ""


def roles_beside(path: PathOrName | Sequence[PathOrName], dataset: Datasets = None, frames: Choice | None = None) -> Beside:
    """Which of projections, flats and darks a file has beside the frames that are chosen, and which of these are meant."""
    reader, source = open_reader(path, dataset)
    key, choice = find_key(reader), parse_frames("projections" if frames is None else frames)
    among, meant, others = {choice if isinstance(choice, str) else "projections"}, frames, ""  # which a stack without a key is
    if key is not None and not isinstance(choice, str):
        numbers = [number for run in runs_of(choice, reader.shape[0], source) for number in run]
        kinds = key.values[numbers]
        if (kinds == KEYS["projections"]).any():
            among = {"projections"}
            meant = as_choice(np.array(numbers)[kinds == KEYS["projections"]].tolist())
        else:
            among = {role for role, number in KEYS.items() if number in kinds}
        if (kinds != KEYS["projections"]).any():
            others = ImageKey(kinds, key.place).contents()
    return Beside(tuple(role for role in roles_of(reader, key) if role not in among), meant if others else frames, others)


def roles_of(reader: Reader, key: ImageKey | None) -> tuple[str, ...]:
    """Which of projections, flats and darks a stack with that key has, or has beside it."""
    if key is not None:
        return tuple(role for role, number in KEYS.items() if (key.values == number).any())
    found = tuple(role for role in KEYS if in_role(reader, role) is not None)
    return found if len(found) > 1 else ()


def wanted_sizes(chunks: Mapping[str, int] | None) -> dict[str, int]:
    """Frames and rows a block, as far as they were asked for."""
    wanted = dict(chunks or {})
    rows = wanted.get("y", WHOLE)
    if set(wanted) - {"frame", "y"} or wanted.get("frame", 1) < 1 or (rows < 1 and rows != WHOLE):
        raise InputError(f'expected chunks such as {{"frame": 16}} or {{"y": 64}}, since x is whole in each block, got {chunks}')
    return wanted


def block_of(reader: Reader, wanted: Mapping[str, int]) -> tuple[int, int, int]:
    """Frames, rows and columns a block: whole chunks of the file.

    Frames are whole, unless rows are asked for, or chunks hold so many frames, and so few rows of each, that whole ones would be many.
    """
    own, height, rows = rows_a_chunk(reader), reader.shape[1], wanted.get("y")
    frames = block_frames(reader, wanted.get("frame", reader.chunk_frames if rows not in (None, WHOLE) else None))
    if rows is None and is_deep(reader):
        rows = max(own, frames_a_block(frames * row_bytes(reader)) // own * own)
    rows = height if rows in (None, WHOLE) else min(height, -(-rows // own) * own)
    return frames, rows, reader.shape[2]


def is_deep(reader: Reader) -> bool:
    """Whether the least block of whole frames would be large, since the file's chunks hold few rows of many frames."""
    own, height = rows_a_chunk(reader), reader.shape[1]
    return own < height and min(reader.chunk_frames, reader.shape[0]) * height * row_bytes(reader) > BLOCK_BYTES


def row_bytes(reader: Reader) -> int:
    """Bytes of a row of a frame."""
    return int(reader.dtype.itemsize * reader.shape[2])


def block_frames(reader: Reader, wanted: int | None) -> int:
    """Frames a block: a whole number of the file's chunks."""
    own = reader.chunk_frames
    frames, height, width = reader.shape
    default = frames_a_block(reader.dtype.itemsize * height * width) // own * own
    return min(frames, max(own, default if wanted is None else -(-wanted // own) * own))
