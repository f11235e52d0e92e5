"""Figures of each frame."""

from typing import Literal

import xarray as xr
from detcal_pipelines.steps import Block, Kind, Step, measured


def frame_statistics(frames: xr.DataArray) -> xr.Dataset:
    """Mean and largest reading of each frame, lazily; what was not measured takes no part."""
    known = measured(frames)
    return xr.Dataset({"mean": known.mean(["y", "x"]), "highest": known.max(["y", "x"])})


class FrameStatistics(Step[None]):
    """Mean and largest reading of each frame."""

    operation: Literal["frame_statistics"] = "frame_statistics"

    @property
    def gives(self) -> Kind:
        return "table"

    def prepare(self) -> None:
        pass

    def build(self, data: xr.DataArray, ready: None) -> xr.Dataset:
        return frame_statistics(data)

    def task_bytes(self, block: Block, ready: None) -> int:
        return 4 * block.nbytes
