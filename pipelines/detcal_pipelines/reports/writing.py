"""Writing the report of an output beside it."""

import warnings
from pathlib import Path
from uuid import uuid4

from detcal.errors import OutputError
from detcal_pipelines.recipe import Recipe
from detcal_pipelines.reports.gathering import report_of
from detcal_pipelines.reports.page import MARK, as_page
from detcal_pipelines.unfinished import Places

HEAD_BYTES = 500  # of a page, in which the mark is


def write_report(output: Path, recipe: Recipe | None = None) -> Path:
    """Write the report of an output as OUT.html beside it; the recipe is that of the run, if it has just ended.

    Raises
    ------
    OutputError
        A page of somebody else's has this name.
    InputError
        There is nothing to tell of.
    """
    page = Places.of(output).report
    if page.exists() and MARK.encode() not in head_of(page):
        raise OutputError(f"{page} exists already, and is no report of detcal: move it away")
    text = as_page(report_of(output, recipe))
    new = page.with_name(f".{page.name}.{uuid4().hex[:8]}.partial")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(page)
    finally:
        new.unlink(missing_ok=True)
    return page


def head_of(page: Path) -> bytes:
    """The beginning of a file."""
    with open(page, "rb") as file:
        return file.read(HEAD_BYTES)


def write_report_if_possible(recipe: Recipe, output: Path) -> Path | None:
    """The same at the end of a run, which does not fail for it: whatever goes wrong is one warning.

    Raises
    ------
    KeyboardInterrupt
        With the news that the output is there.
    """
    try:
        return write_report(output, recipe)
    except KeyboardInterrupt as stop:
        raise type(stop)(f"{output} was written, its report was not") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"{output} was written, its report was not: {reason}", stacklevel=2)
        return None
