"""A recipe: TOML read into typed models."""

import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    ByteSize,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from detcal.errors import InputError, RecipeError
from detcal.frames.maps import frames_of_map
from detcal.frames.selection import as_written
from detcal.stores import frame_numbers, open_frames, roles_beside
from detcal.stores.damage import Guard, guarding
from detcal_pipelines.mistakes import describe_mistakes
from detcal_pipelines.steps.registry import UnknownStep, find_step, step_names
from detcal_pipelines.steps.sources import (
    DarkSource,
    Datasets,
    Ends,
    Files,
    FlatSource,
    Flip,
    Frames,
    MaskSource,
    RecipePath,
    Table,
    in_folder,
    opened,
    paths_in,
)
from detcal_pipelines.steps.step import Step

STORES = (".zarr", ".zip")  # outputs whose chunks may hold few rows of many frames: other files are written frame by frame
MOST_WORKERS = 4096  # threads of one process, more than any machine has cores for


def in_folder_that_exists(path: str, info: ValidationInfo) -> str:
    """A path as seen from the recipe's folder, in a folder that is there."""
    found = in_folder(path, info)
    if not (folder := Path(found).parent).is_dir():
        raise ValueError(f"no such folder: {folder}")
    return RecipePath(found)


OutputPath = Annotated[str, AfterValidator(in_folder_that_exists)]


def as_step(given: Any, info: ValidationInfo) -> Step[Any]:
    """The step of a table [[steps]], of the class that its operation names."""
    if isinstance(given, Step):
        return given
    if not isinstance(given, dict):
        raise ValueError(f"expected a table with an operation, got {given!r}")
    if "operation" not in given:
        raise PydanticCustomError("no_operation", "missing; one of {names}", {"names": ", ".join(step_names())})
    try:
        kind = find_step(str(given["operation"]))
    except UnknownStep as error:
        raise PydanticCustomError("unknown_operation", "{error}", {"error": str(error)}) from None
    return kind.model_validate(given, context=info.context)


AnyStep = Annotated[SerializeAsAny[Step[Any]], PlainValidator(as_step)]


SWITCH, FIRST = "[switch]", "[number]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
Newest = Annotated[
    Annotated[bool, Tag(SWITCH)] | Annotated[int, Field(gt=0), Tag(FIRST)],
    Discriminator(lambda given: FIRST if isinstance(given, int) and not isinstance(given, bool) else SWITCH),
]


class Input(Table):
    """The raw frames."""

    path: Files = Field(
        description="HDF5/NeXus, zarr (or a URL), .npy file, or EDF, CBF, TIFF files: a path, a list, a glob, a folder or a text of names",
        examples=["scan.h5"],
    )
    dataset: Datasets = Field(
        None,
        description="where the frames are in an HDF5 or zarr file: a name or a list; default: what the file says, or the only 3-D one",
        examples=["/entry/data/data"],
    )
    frames: Frames = Field(
        None, description='a number, a list, a slice such as "10:50", or by the image_key "projections", "flats", "darks"', examples=["::2"]
    )
    flip: Flip | None = Field(None, description="reverse rows (ud), columns (lr) or both", examples=["ud"])
    newest: Newest = Field(
        False,
        description="of a file that is still written: true: the frames that are there now; a number: the first so many",
        examples=[True],
    )
    chunk_frames: int | None = Field(None, gt=0, description="frames a task; default: chosen from the memory budget", examples=[16])
    mask: MaskSource | None = Field(None, description="what was not measured: an image (not 0), or a response", examples=["mask.edf"])
    dummy: float | Annotated[list[float], Field(min_length=1)] | None = Field(
        None,
        description="number or numbers that stand for no reading, in darks and flats too; default: what the file, or else its type, says",
        examples=[-1],
    )
    valid_range: Ends | None = Field(None, description="(low, high): what is outside is no reading", examples=[[0.0, 60000.0]])

    def numbers(self) -> tuple[NDArray[np.int64], int]:
        """The numbers of the frames in their stack, and how many it has."""
        return frame_numbers(self.path, self.dataset, self.frames, self.newest)

    def open(self, blocks: Mapping[str, int] | None) -> xr.DataArray:
        """The frames, lazily, in blocks of so many frames or rows, as `open_frames` cuts them; those of a map one after the other."""
        ends = None if self.valid_range is None else (self.valid_range[0], self.valid_range[1])
        with guarding(None):  # it is no frame of the input
            mask = opened(self.mask)
        found = open_frames(
            self.path,
            self.dataset,
            chunks=blocks,
            frames=self.frames,
            flip=self.flip,
            mask=mask,
            dummy=self.dummy,
            valid_range=ends,
            newest=self.newest,
        )
        return frames_of_map(found)


class Output(Table):
    """Where the result goes."""

    path: OutputPath = Field(
        description=".zarr, .h5 or .nxs (NeXus); frames and maps also .tif or .edf; profiles .xy, .dat, .chi, .fxye",
        examples=["corrected.zarr"],
    )
    overwrite: bool = Field(False, description="replace an output that exists, once the new one is whole")
    shard_frames: int | None = Field(None, gt=0, description="zarr only: frames a shard, with a chunk for each frame", examples=[64])
    precision: float | None = Field(
        None,
        gt=0,
        le=1,
        description="frames of float32 are rounded to at most this fraction of each pixel's noise, so that they compress; default: not",
        examples=[0.125],
    )


class Compute(Table):
    """What the run may use."""

    memory: Annotated[ByteSize, Field(gt=0)] | None = Field(
        None, description="of the whole process; default: half of what is free", examples=["4GiB"]
    )
    workers: int | None = Field(None, gt=0, le=MOST_WORKERS, description="tasks at once; default: one a core", examples=[4])
    scheduler: str | None = Field(None, description="a running Dask cluster, in place of this process", examples=["tcp://host:8786"])

    @model_validator(mode="after")
    def cluster_has_its_own_limits(self) -> "Compute":
        """Memory and workers are of a run in this process."""
        if self.scheduler is not None and (self.memory is not None or self.workers is not None):
            raise ValueError("a scheduler's workers have limits of their own: leave memory and workers out")
        return self


def warn_of_left_out(operation: str, names: list[str], between: str) -> None:
    """Say that darks and flats that lie beside the frames are not those of a step behind one that changes frames."""
    warnings.warn(
        f"{operation} does not take the {' and '.join(names)} that the file of the frames holds, since {between} comes before it: put "
        f"{operation} first, or name them, as they are to be taken",
        stacklevel=2,
    )


def warn_of_others(operation: str, asked: str, others: str, taken: str) -> None:
    """Say that numbers mean frames too that are no projections."""
    warnings.warn(
        f"frames = {asked} counts in the whole stack, and means {others} by its image_key: {operation} takes {taken}", stacklevel=2
    )


class Recipe(Table):
    """A whole recipe."""

    steps: list[AnyStep] = Field(min_length=1)
    input: Input | None = Field(None, validate_default=True)
    output: Output
    compute: Compute = Compute()
    _file: Path | None = PrivateAttr(None)
    _guard: Guard | None = PrivateAttr(None)

    @model_validator(mode="after")
    def what_one_file_holds_is_turned_over_alike(self) -> "Recipe":
        """Darks and flats that lie in the file of the frames were recorded by the same pixels."""
        frames = self.input
        for name, source in [each for step in self.steps for each in step]:
            beside = frames and isinstance(source, DarkSource | FlatSource) and {*paths_in(source.path)} & {*paths_in(frames.path)}
            if frames and beside and source.flip != frames.flip:
                raise ValueError(f"{name} lies in the file of the frames: give it the same flip as [input]")
        return self

    @model_validator(mode="after")
    def what_the_file_of_the_frames_holds_beside_them(self) -> "Recipe":
        """Flats and darks that a file tells from the frames that are chosen are those of the first step that takes some, unless it names
        others; steps before it must leave frames as raw as they are. They are no frames that it corrects."""
        number, step = next(((each, step) for each, step in enumerate(self.steps) if step.beside), (0, self.steps[0]))
        frames = self.input
        if frames is None or not step.beside:
            return self
        try:
            beside = roles_beside(frames.path, frames.dataset, frames.frames)
        except InputError:  # which is told where the frames are opened
            return self
        where = {"path": frames.path, "dataset": frames.dataset, "flip": frames.flip}
        absent = {name: kind for name, kind in step.beside.items() if getattr(step, name) is None}
        found = {name: kind(**where) for name, kind in absent.items() if kind.role in beside.roles}
        between = next((before.operation for before in self.steps[:number] if not before.keeps_raw), None)
        if found and between is not None:
            warn_of_left_out(step.operation, list(found), between)
        else:
            self.steps[number] = step.model_copy(update=found)
        if beside.others:
            taken = "all of them" if beside.frames == frames.frames else f"the projections, frames = {as_written(beside.frames)}"
            warn_of_others(step.operation, as_written(frames.frames), beside.others, taken)
            self.input = frames.model_copy(update={"frames": beside.frames})
        return self

    @property
    def file(self) -> Path | None:
        """Where the recipe was read from."""
        return self._file

    @property
    def guard(self) -> Guard | None:
        """How a run reads its input; None: damage is an error."""
        return self._guard

    @guard.setter
    def guard(self, guard: Guard | None) -> None:
        self._guard = guard

    @property
    def takes_rows(self) -> bool:
        """Whether blocks of rows serve as well as blocks of frames: for all steps, and for the output, which then is stored by rows."""
        asked = self.input is None or self.input.chunk_frames or self.output.shard_frames
        stored = Path(self.output.path).suffix.lower() in STORES
        return stored and not asked and all(step.takes_rows for step in self.steps)

    def of_frames(self, newest: int) -> "Recipe":
        """The recipe of the first so many frames of a file that grows."""
        assert self.input is not None
        return self.model_copy(update={"input": self.input.model_copy(update={"newest": newest})})

    def inputs(self) -> list[str]:
        """Every path that the recipe reads from, in whatever table."""
        return list(dict.fromkeys(paths_in(self)))

    @field_validator("steps")
    @classmethod
    def each_takes_what_the_one_before_gives(cls, steps: list[Step[Any]]) -> list[Step[Any]]:
        """Frames go from step to step; some steps take something else, and can only be the first, or give something else, and the last."""
        alone = [step.operation for step in steps if step.takes != "frames"]
        if len(steps) > 1 and alone:
            raise ValueError(f"{alone[0]} takes no frames, and gives none: make it the only step")
        for step in steps[:-1]:
            if step.gives != "frames":
                raise ValueError(f"{step.operation} gives {step.product}, not frames: make it the last step")
        return steps

    @field_validator("input")
    @classmethod
    def frames_where_they_are_needed(cls, frames: Input | None, info: ValidationInfo) -> Input | None:
        """There must be some, but for steps that begin with something else."""
        for first in info.data.get("steps", [])[:1]:
            if frames is None and first.takes == "frames":
                raise ValueError(f"missing: {first.operation} takes frames")
            if frames is not None and first.takes != "frames":
                raise ValueError(f"{first.operation} takes no frames: leave [input] out")
        return frames


def read_recipe(path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """Read a recipe; `changes` are tables of values from the command line that take the place of its own.

    Raises
    ------
    RecipeError
        With a line for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"no such recipe: {path} (detcal init NAME writes one)") from None
    except RecursionError:
        raise RecipeError(f"{path} is no recipe: its arrays or tables lie hundreds of levels inside each other") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from None
    for table, given in (changes or {}).items():
        if isinstance(values.setdefault(table, {}), dict):
            values[table].update(given)
    try:
        recipe = Recipe.model_validate(values, context={"folder": path.parent})
    except ValidationError as error:
        raise RecipeError(describe_mistakes(error, path, text, Recipe, values)) from None
    recipe._file = path.absolute()
    return recipe
