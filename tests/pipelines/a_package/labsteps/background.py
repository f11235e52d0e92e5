"""Frames without a background."""

from typing import Literal

import xarray as xr
from detcal_pipelines.steps import Block, ImageSource, Step, measured
from pydantic import Field


def subtract_background(frames: xr.DataArray, background: xr.DataArray, *, factor: float = 1.0) -> xr.DataArray:
    """Frames less a background, lazily.

    Parameters
    ----------
    factor
        What the background is multiplied by.
    """
    known = measured(frames)
    return known.copy(data=known.data - factor * background.data.astype("float32"))


class SubtractBackground(Step[xr.DataArray]):
    """Take a background off the frames."""

    operation: Literal["subtract_background"] = "subtract_background"
    mirrors = (subtract_background,)
    background: ImageSource = Field(description="image of the background", examples=["background.h5"])
    factor: float = 1.0

    def prepare(self) -> xr.DataArray:
        return self.background.open_image("a background")

    def build(self, data: xr.DataArray, ready: xr.DataArray) -> xr.DataArray:
        return subtract_background(data, ready, factor=self.factor)

    def task_bytes(self, block: Block, ready: xr.DataArray) -> int:
        return 4 * block.nbytes
