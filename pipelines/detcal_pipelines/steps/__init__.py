"""The steps of recipes: one declaration each, a file a subject; and those of other packages, by the entry points detcal.steps."""

from detcal_pipelines.steps.frames import measured
from detcal_pipelines.steps.step import (
    ArraySource,
    Block,
    CalibrationSource,
    Cut,
    DarkSource,
    FlatSource,
    FramesSource,
    GeometrySource,
    ImageSource,
    Kind,
    MaskSource,
    Needs,
    ReadyRecipe,
    ScanSource,
    Step,
    Work,
    opened,
)

__all__ = [
    "ArraySource", "Block", "CalibrationSource", "Cut", "DarkSource", "FlatSource", "FramesSource", "GeometrySource", "ImageSource", "Kind",
    "MaskSource", "Needs", "ReadyRecipe", "ScanSource", "Step", "Work", "measured", "opened",
]  # fmt: skip
