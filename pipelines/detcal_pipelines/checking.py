"""What is wrong with a recipe whose keys are right: each part is tried by itself, so that all mistakes are told at once."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from detcal.errors import DetcalError, RecipeError
from detcal_pipelines.chain import build, check_result, check_target, open_first
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.steps.sources import ArraySource, Source, opened


def check_recipe(recipe: Recipe) -> None:
    """Raise what a run would raise before its first block.

    Raises
    ------
    DetcalError
        The only mistake as it is; or a line for each of several.
    """
    found = list({str(error): error for error in mistakes_in(recipe)}.values())
    if len(found) > 1:
        raise RecipeError("\n".join([f"{len(found)} mistakes in {recipe.file}:", *(f"  {error}" for error in found)]))
    for error in found:
        raise error


def mistakes_in(recipe: Recipe) -> Iterator[DetcalError]:
    """The mistakes of parts that do not rest on each other: output, input, and images that steps are given; at last of all together."""
    yield from failed(check_target, recipe)
    if unread := [*failed(open_first, recipe, None)]:
        yield from unread
    for _, source in chain(*recipe.steps):
        yield from failed(opened, source if isinstance(source, Source | ArraySource) else None)
    if not unread:
        yield from failed(put_together, recipe)


def failed(action: Callable[..., Any], *arguments: Any) -> Iterator[DetcalError]:
    """The error of something that fails."""
    try:
        action(*arguments)
    except DetcalError as error:
        yield error


def put_together(recipe: Recipe) -> None:
    """All steps, and where their result goes."""
    check_result(recipe, build(recipe), overwrite=recipe.output.overwrite)
