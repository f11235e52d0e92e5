"""What a recipe has frames divided by: a number, numbers, or an array of a file, of the frames that are taken."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Tag

from detcal.errors import InputError
from detcal.frames.selection import parse_frames, runs_of
from detcal_pipelines.steps.sources import INPUT, LIST, ArraySource, Frames


class FactorsSource(ArraySource):
    """A number for each frame, in an HDF5 file or zarr store."""

    frames: Frames = None

    def open(self) -> NDArray[Any]:
        """The numbers of the frames named; where none are, and the array has one for each frame of the recipe's own file, of those that
        the recipe takes.

        Raises
        ------
        InputError
            No such array, or frames that it has none for.
        """
        values, of_recipe = super().open(), INPUT.get()
        choice = None if self.frames is None else parse_frames(self.frames)
        if isinstance(choice, str):
            raise InputError(
                f"expected frames of {self.dataset} in {self.path} by their numbers, got {choice!r}: an array has no image_key"
            )
        if choice is not None:
            runs = runs_of(choice, values.size, f"{self.dataset} of {self.path}")
            return values.ravel()[np.concatenate([list(run) for run in runs])]
        if of_recipe.numbers is None or not of_recipe.comes_from(self.path):
            return values
        numbers, length = of_recipe.numbers()
        some = values.size == length and not np.array_equal(numbers, np.arange(length))
        return values.ravel()[numbers] if some else values


def kind_of_normalization(given: Any) -> str:
    """Which of the types below is meant."""
    kinds: dict[Any, str] = {str: "[name]", list: LIST, dict: "[dataset]", FactorsSource: "[dataset]"}
    return kinds.get(type(given), "[number]")


Normalization = Annotated[
    Annotated[float, Tag("[number]")]
    | Annotated[str, Tag("[name]")]
    | Annotated[list[float], Tag(LIST)]
    | Annotated[FactorsSource, Tag("[dataset]")],
    Discriminator(kind_of_normalization),
]


def as_factors(given: Any) -> Any:
    """What frames are divided by, as functions take it."""
    return given.open() if isinstance(given, FactorsSource) else given
