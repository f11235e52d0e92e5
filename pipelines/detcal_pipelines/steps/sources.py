"""What a recipe names that is read: each kind of file has a type, by which a recipe's inputs are found and opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from glob import escape, glob, has_magic
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, ValidationInfo, model_validator
from pydantic_core import CoreSchema, core_schema

from detcal.errors import InputError
from detcal.frames.beside import with_flags_of
from detcal.frames.images import mask_of_image, one_image
from detcal.frames.maps import frames_of_map
from detcal.frames.selection import parse_frames
from detcal.frames.valid import check_nothing_lacks
from detcal.response import Response
from detcal.stores import find_paths, get_array, load_calibration, open_frames, roles_in
from detcal.stores.sources.urls import is_url

CalibrationType = TypeVar("CalibrationType")


def in_folder(path: str, info: ValidationInfo) -> str:
    """A path as seen from the recipe's folder; absolute, because workers may run in another."""
    if "\0" in path:
        raise ValueError(f"expected a path, got one with a NUL character, which no file has: {path!r}")
    if not path.strip():
        raise ValueError("expected a path, got an empty one")
    folder = Path((info.context or {}).get("folder", ".")).absolute()
    plain = folder / expanduser(path)
    return str(plain) if plain.exists() or not has_magic(path) else str(Path(escape(str(folder)), expanduser(path)))


class RecipePath(str):
    """A path in a recipe, absolute: names of datasets begin with a slash too."""


class InputFile(RecipePath):
    """The path of something that a recipe reads: every such value in a recipe is found by its type."""

    @classmethod
    def existing(cls, path: str, info: ValidationInfo) -> Self:
        """A path as seen from the recipe's folder, of files that must be there; frames may lie behind a URL."""
        if is_url(path):
            if cls is not InputFile:
                raise ValueError(f"expected a file on a disk, got {path}: copy it to one; only frames of a zarr store are read by a URL")
            return cls(path)
        found = in_folder(path, info)
        if not (Path(found).exists() or glob(found)):
            raise ValueError(f"no such file: {found}")
        return cls(found)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(cls.existing, core_schema.str_schema())


LIST = "[list]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
Files = Annotated[
    Annotated[InputFile, Tag("[file]")] | Annotated[list[InputFile], Field(min_length=1), Tag(LIST)],
    Discriminator(lambda given: LIST if isinstance(given, list) else "[file]"),
]


class GeometrySource(InputFile):
    """A .poni file."""


class ScanSource(InputFile):
    """The file of an X-ray fluorescence scan."""


class CalibrationSource(InputFile):
    """A calibration that detcal wrote."""

    def load(self, kind: type[CalibrationType], name: str, maker: str, read: Callable[[str], Any] = load_calibration) -> CalibrationType:
        """The calibration of the file, which must be of a kind.

        Raises
        ------
        InputError
            Of another kind, or none: what was expected (`name`) and the operation that writes one (`maker`).
        """
        found = read(self)
        if not isinstance(found, kind):
            came = "no calibration" if found is None or isinstance(found, xr.Dataset) else type(found).__name__
            raise InputError(f"expected {name} in {self}, found {came}: {maker} writes one")
        return found


def known_frames(choice: Any) -> Any:
    """A choice of frames as it is written, if it is one."""
    if choice is not None:
        parse_frames(choice)
    return choice


def known_datasets(names: Any) -> Any:
    """The name of a dataset, or a list of names."""
    listed = names if isinstance(names, list) else [names]
    if names is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise ValueError(f"expected the name of a dataset, or a list of names, got {names!r}")
    return names


Frames = Annotated[Any, AfterValidator(known_frames)]
Flip = Literal["ud", "lr", "both"]
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
Datasets = Annotated[Any, AfterValidator(known_datasets)]
Shape = Annotated[list[int], Field(min_length=2, max_length=2)]


class Table(BaseModel):
    """A table of a recipe: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


class FileTable(Table):
    """A table {path, …} for which a path alone may stand."""

    @model_validator(mode="before")
    @classmethod
    def path_alone(cls, value: Any) -> Any:
        """A plain string, or a list of them, in place of the table."""
        if isinstance(value, str | list):
            return {"path": value}
        if not isinstance(value, dict | cls):
            raise ValueError(f"expected a path, or {{ {', '.join(cls.model_fields)} }}, got {value!r}")
        return value


class Source(FileTable):
    """A file or several, where in it the frames are, which of them are meant, and how they are turned over."""

    role: ClassVar[str | None] = None  # the frames of a file with an image_key that are meant where none are named

    path: Files
    dataset: Datasets = None
    frames: Frames = None
    flip: Flip | None = None


class FramesOfRecipe(NamedTuple):
    """The frames of a recipe; where they come from, and their numbers there, with how many there are."""

    frames: xr.DataArray | None = None
    path: Any = None
    numbers: Callable[[], tuple[NDArray[np.int64], int]] | None = None

    def comes_from(self, path: str) -> bool:
        """Whether they lie in this file, by whatever name."""
        return Path(path).resolve() in {Path(file).resolve() for file in find_paths(self.path)}


NO_FRAMES = FramesOfRecipe()
INPUT: ContextVar[FramesOfRecipe] = ContextVar("detcal_input", default=NO_FRAMES)


@contextmanager
def taken_with(of_recipe: FramesOfRecipe) -> Iterator[None]:
    """Darks and flats that are opened meanwhile are of these frames: they have their flags, where they say nothing themselves. So are the
    numbers of each frame that their file holds."""
    token = INPUT.set(of_recipe)
    try:
        yield
    finally:
        INPUT.reset(token)


class FramesSource(Source):
    """Frames, of files with an image_key those of the role."""

    def open(self, chunk_frames: int | None = None) -> xr.DataArray:
        """The frames (frame, y, x), lazily, in blocks of so many; those of a map one after the other.

        Raises
        ------
        InputError
            What cannot be opened, or lacks a part: all results rest on it.
        """
        chunks = None if chunk_frames is None else {"frame": chunk_frames}
        frames = self.role if self.frames is None and self.role and roles_in(self.path, self.dataset) else self.frames
        found = frames_of_map(open_frames(self.path, self.dataset, chunks=chunks, frames=frames, flip=self.flip))
        check_nothing_lacks(found, "frames")
        of_input = INPUT.get().frames
        return found if self.role is None or of_input is None else with_flags_of(of_input, found, self.role)


class DarkSource(FramesSource):
    """A dark image or frames, which are averaged."""

    role = "darks"


class FlatSource(FramesSource):
    """A flat image or frames, which are averaged."""

    role = "flats"


NUMBER = "[number]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
DarkOrNumber = Annotated[
    Annotated[float, Tag(NUMBER)] | Annotated[DarkSource, Tag("[frames]")],
    Discriminator(lambda given: NUMBER if isinstance(given, int | float) else "[frames]"),
]
POISSON = "[poisson]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
Variance = Annotated[
    Annotated[Literal["poisson"], Tag(POISSON)] | Annotated[FramesSource, Tag("[frames]")],
    Discriminator(lambda given: POISSON if given == "poisson" else "[frames]"),
]


class ArraySource(Table):
    """One array of an HDF5 file or zarr store, of any dimensions."""

    path: InputFile
    dataset: str

    def open(self) -> NDArray[Any]:
        """The values."""
        return np.asarray(get_array(self.path, self.dataset))


class ImageSource(Source):
    """One image, which is never the mean of several frames."""

    path: InputFile

    def open_image(self, name: str = "an image", advice: str = "") -> xr.DataArray:
        """The only image (y, x) of the file; `advice` says what else to do where it is a stack.

        Raises
        ------
        InputError
            What cannot be opened, lacks a part, or is a stack of several frames: what it is called there is `name`.
        """
        frames = frames_of_map(open_frames(self.path, self.dataset, frames=self.frames, flip=self.flip))
        check_nothing_lacks(frames, self.path)
        return one_image(frames, name, f'choose one by {{ path = "{self.path}", frames = 0 }}, or give another file{advice}')

    def open(self) -> Any:
        """What it is, if no step says what to call it: an image."""
        return self.open_image()

    def find_response(self) -> Response | None:
        """The response in the file, if it holds one and no single array of it is asked for.

        Raises
        ------
        InputError
            A calibration of another kind, or frames of a response, which has none.
        """
        found = None if self.dataset is not None else load_calibration(self.path)
        if found is not None and not isinstance(found, Response):
            raise InputError(f"expected a response in {self.path}, found {type(found).__name__}: fit_response writes one")
        if found is not None and (self.frames is not None or self.flip is not None):
            raise InputError(f"a response has no frames to choose or to turn over, as {self.path} is: leave frames and flip out")
        if found is not None:
            read_through(found.offset, found.gain, found.curvature, found.mask)
        return found


class MaskSource(Source):
    """Images that are not 0 in bad pixels, or the masks of responses: a pixel is bad if one of them says so."""

    def open(self) -> Any:
        """The mask (y, x), True in bad pixels; that of one response is lazy.

        Raises
        ------
        InputError
            What cannot be opened or is no mask, or masks of different shapes.
        """
        paths = self.path if isinstance(self.path, list) else [self.path]
        masks = [mask_in(ImageSource.model_construct(**dict(self) | {"path": path})) for path in paths]
        for mask, path in zip(masks, paths, strict=True):
            if mask.shape != masks[0].shape:
                raise InputError(f"expected masks of one shape, got {masks[0].shape} in {paths[0]} and {mask.shape} in {path}")
        return masks[0] if len(masks) == 1 else np.any(masks, axis=0)


def mask_in(image: ImageSource) -> Any:
    """The mask that one file holds."""
    response = image.find_response()
    return mask_of_image(image.open_image("a mask")) if response is None else response.mask


def read_through(*images: xr.DataArray | None) -> None:
    """Read images of a calibration once, one at a time, so that damage to its file is found by a check already, and told by its name."""
    for image in images:
        np.asarray(image)


def opened(source: Any, *how: Any) -> Any:
    """What a source holds, if there is one; a number stands for itself."""
    return source if source is None or isinstance(source, float) else source.open(*how)


def paths_in(value: Any) -> Iterator[str]:
    """The paths to read from in a table, list or value."""
    if isinstance(value, InputFile):
        yield str(value)
    elif isinstance(value, BaseModel | list | tuple):
        for each in value:
            yield from paths_in(each[1] if isinstance(value, BaseModel) else each)


def modified_times(table: BaseModel) -> tuple[int, ...]:
    """When the files that a table names were modified, whatever they are."""
    return tuple(Path(file).stat().st_mtime_ns for path in paths_in(table) for file in find_paths(path) if not is_url(file))
