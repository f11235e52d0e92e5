"""The contract of a step: one class declares its keys in a recipe, what it takes and gives, what it holds in memory, and what it does.

A new step is a subclass of `Step` with a docstring, `operation`, fields with types, and the three methods `prepare`, `build` and
`task_bytes`; all else has a default. Steps of other packages are found by their entry points in the group detcal.steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from math import ceil
from typing import Any, ClassVar, Generic, Self, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict

from detcal.frames.needs import Needs
from detcal.frames.simd import LANES
from detcal_pipelines.pictures import Picture, pictures_of
from detcal_pipelines.steps.blocks import Block, Work
from detcal_pipelines.steps.declaration import Cut, Kind, check_declaration
from detcal_pipelines.steps.sources import (
    ArraySource,
    CalibrationSource,
    DarkSource,
    FlatSource,
    FramesSource,
    GeometrySource,
    ImageSource,
    InputFile,
    MaskSource,
    ScanSource,
    Source,
    opened,
)

__all__ = [
    "ArraySource", "Block", "CalibrationSource", "Cut", "DarkSource", "FlatSource", "FramesSource", "GeometrySource", "ImageSource", "Kind",
    "MaskSource", "Needs", "ReadyRecipe", "ScanSource", "Step", "Work", "opened",
]  # fmt: skip

Ready = TypeVar("Ready")
SETTINGS: dict[Cut, str] = {"frames": "chunk_frames", "rows": "tile_rows", "lines": "tile_rows", "spectra": "chunk_spectra"}
PRODUCTS: dict[Kind, str] = {"calibration": "a calibration", "table": "a table", "cube": "a cube", "scan": "a scan", "nothing": "nothing"}


@dataclass(frozen=True)
class ReadyRecipe:
    """What the ready recipe of a step says beside its keys.

    Attributes
    ----------
    purpose
        One line: from what to what. Default: the step's docstring.
    input, output
        Names of files.
    sets
        Keys that it sets to their examples although they may be left out.
    writes
        What the output holds, for the table in pipelines/README.md.
    """

    purpose: str = ""
    input: str = "scan.h5"
    output: str = ""
    sets: tuple[str, ...] = ()
    writes: str = ""


class Step(BaseModel, ABC, Generic[Ready]):
    """One operation of a recipe: its fields are the recipe's keys. `Ready` is what it prepares once a run."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="constants")

    operation: str

    takes: ClassVar[Kind] = "frames"  # frames, scan, nothing
    cut: ClassVar[Cut] = "frames"  # what a task takes some of: frames, rows, lines, spectra
    mirrors: ClassVar[tuple[Callable[..., Any], ...]] = ()  # functions whose options are keys of the step; help is taken from them
    pixelwise: ClassVar[bool] = False  # whether each pixel is worked on by itself: blocks of rows serve as well as blocks of frames
    fills_lanes: ClassVar[bool] = False  # whether it works on detcal.frames.simd.LANES frames together
    beside: ClassVar[dict[str, type[FramesSource]]] = {}  # keys that, left out, are what the file of the frames holds beside them
    keeps_raw: ClassVar[bool] = False  # whether a dark and a flat of the frames that it takes serve for those that it gives too
    ready_recipe: ClassVar[ReadyRecipe] = ReadyRecipe()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        check_declaration(cls)

    @property
    def gives(self) -> Kind:
        """What comes out: frames, table, calibration, cube; it may depend on options."""
        return "frames"

    @property
    def takes_rows(self) -> bool:
        """Whether, with these options, blocks of rows serve as well as blocks of frames."""
        return self.pixelwise

    @property
    def product(self) -> str:
        """The same in words, where it is no frames."""
        return PRODUCTS.get(self.gives, self.gives)

    @abstractmethod
    def prepare(self) -> Ready:
        """What is made once a run, from the step's own files: bins, overlaps, a matrix."""

    @abstractmethod
    def build(self, data: Any, ready: Ready) -> Any:
        """The lazy result for lazy frames or a scan, or for None, and what was prepared."""

    @abstractmethod
    def task_bytes(self, block: Block, ready: Ready) -> int | Needs:
        """Bytes that a task holds at its peak, without what it takes to write its result; `Needs` says what is kept beside tasks too."""

    def for_data(self, data: Any) -> Self:
        """The step with those options set that are left out and that the data decide. Before `prepare`."""
        return self

    def in_blocks(self, depth: int | None, begun: int) -> Self:
        """The step for tasks of so many frames, rows, lines or spectra (None: the default), of which so many are begun at once.

        Before `build`. The recipe's own wish is heeded by the plan, which asks `work`.
        """
        setting = SETTINGS[self.cut]
        return self.model_copy(update={setting: depth}) if setting in type(self).model_fields else self

    def speed(self, depth: int) -> float:
        """How fast a frame is in blocks of so many frames, beside the fastest."""
        return depth / LANES / ceil(depth / LANES) if self.fills_lanes else 1.0

    def open_input(self) -> Any:
        """What it takes where that is no frames, which [input] names."""
        return None

    def work(self, data: Any, ready: Ready, result: Any) -> Work:
        """What there is to do, and the sizes of blocks to try, where no frames are cut; `data` and `result` are in blocks of any size."""
        raise NotImplementedError

    def contents(self, result: Any) -> str:
        """What a calibration that it gives is made of."""
        return f"{len(arrays_of(result))} images {result.shape}"

    def try_out(self, data: Any) -> Any:
        """The step on a few pixels, lazily, so that its kernels are compiled before a run; `data` (2, 4, 4), or a scan.

        What it gives is what the next step tries.
        """
        return np.asarray(data, np.float32)

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], Ready]) -> Mapping[str, Sequence[Picture | str]]:
        """What a report shows of a run that ended in this step, by title: a few frames, profiles, maps, as `pictures_of` finds them; texts.

        Parameters
        ----------
        data
            What the run took: frames, a scan, or None; lazily.
        result
            What it wrote, as it is stored; lazily.
        ready
            Gives what the step has prepared.
        """
        return {"What went in": pictures_of(data), "What came out": pictures_of(result)}

    def options_of(self, function: Callable[..., Any], *without: str) -> dict[str, Any]:
        """The step's keys that are options of a function, with their values; not files, which have to be opened."""
        names = [name for name in signature(function).parameters if name in type(self).model_fields and name not in without]
        values = {name: getattr(self, name) for name in names}
        return {name: as_option(value) for name, value in values.items() if not isinstance(value, Source | ArraySource | InputFile)}


def arrays_of(calibration: Any) -> list[xr.DataArray | da.Array]:
    """The arrays that a calibration is made of."""
    values = [getattr(calibration, field.name) for field in fields(calibration)]
    return [value for value in values if isinstance(value, xr.DataArray | da.Array)]


def as_option(value: Any) -> Any:
    """A value as functions take it: TOML has lists alone."""
    return tuple(value) if isinstance(value, list) else value
