"""Steps of CT frames beside their correction."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from detcal.frames.needs import Needs
from detcal.response import crop, minus_log, rebin, remove_zingers
from detcal.response.cleaning import Method
from detcal.response.memory import minus_log_bytes, remove_zingers_bytes, resized_bytes
from detcal.response.resizing import How
from detcal_pipelines.steps.sources import Shape
from detcal_pipelines.steps.step import Block, ReadyRecipe, Step


class RemoveZingers(Step[None]):
    """Replace readings that stand out from their neighbours, or from those before and after."""

    operation: Literal["remove_zingers"] = "remove_zingers"
    mirrors = (remove_zingers,)
    keeps_raw = True
    ready_recipe = ReadyRecipe(
        "From raw CT frames to ones without the hits of gamma rays.", "ct.h5", "cleaned.zarr", writes="float32 (frame, y, x), counts"
    )

    method: Method = Field("spatial", description="a reading is compared with its eight neighbours, or with the frames before and after it")
    threshold: float = Field(8.0, gt=0, description="standard deviations by which a zinger exceeds what it is compared with")
    dummy: float | None = Field(None, examples=[-1])

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: Any, ready: None) -> Any:
        return remove_zingers(data, **self.options_of(remove_zingers))

    def task_bytes(self, block: Block, ready: None) -> Needs:
        return remove_zingers_bytes(block.image_shape, block.depth, block.itemsize, in_time=self.method == "temporal")

    def try_out(self, data: Any) -> Any:
        return remove_zingers(data, method=self.method)


class MinusLog(Step[None]):
    """Take −ln of transmissions: the attenuation along each ray."""

    operation: Literal["minus_log"] = "minus_log"
    mirrors = (minus_log,)
    pixelwise = True
    ready_recipe = ReadyRecipe(
        "From transmissions to attenuations, which tomography reconstructs from.", "corrected.zarr", "attenuation.zarr",
        writes="float32 (frame, y, x)",
    )  # fmt: skip

    floor: float | None = Field(
        None, gt=0, description="transmissions below it are taken for it; default: those of 0 and less are NaN", examples=[1e-4]
    )

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: Any, ready: None) -> Any:
        return minus_log(data, **self.options_of(minus_log))

    def task_bytes(self, block: Block, ready: None) -> Needs:
        return minus_log_bytes(block.image_shape, block.depth, block.itemsize)


class Crop(Step[None]):
    """Take a part of each frame."""

    operation: Literal["crop"] = "crop"
    mirrors = (crop,)
    keeps_raw = True
    ready_recipe = ReadyRecipe("From frames to a part of each.", "ct.h5", "cropped.zarr", writes="as the frames (frame, y, x)")

    region: str = Field(description='rows and columns that are kept, "y0:y1, x0:x1"; below 0 from the end', examples=["0:20, 0:30"])

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: Any, ready: None) -> Any:
        return crop(data, self.region)

    def task_bytes(self, block: Block, ready: None) -> Needs:
        return resized_bytes(block.image_shape, block.depth, block.itemsize, block.nbytes)

    def try_out(self, data: Any) -> Any:
        return crop(data, ":, :")


class Rebin(Step[None]):
    """Join pixels to groups."""

    operation: Literal["rebin"] = "rebin"
    mirrors = (rebin,)
    keeps_raw = True
    ready_recipe = ReadyRecipe(
        "From frames to ones of fewer, larger pixels.", "ct.h5", "binned.zarr", writes="sums or means, float32 (frame, y, x)"
    )

    factors: int | Shape = Field(description="pixels to a group: a number, or two (y, x)", examples=[2])
    how: How = Field("sum", description="of the readings: sum, for counts, or mean, for transmissions")
    dummy: float | None = Field(None, examples=[-1])

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: Any, ready: None) -> Any:
        return rebin(data, **self.options_of(rebin))

    def task_bytes(self, block: Block, ready: None) -> Needs:
        return resized_bytes(block.image_shape, block.depth, block.itemsize, 4 * int(np.prod(block.shape)))

    def try_out(self, data: Any) -> Any:
        return rebin(data, 1, how=self.how)
