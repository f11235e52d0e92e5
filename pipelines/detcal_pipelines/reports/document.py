"""What a report consists of, whether it becomes a page or a text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from detcal_pipelines.pictures import Image, Lines, Picture


@dataclass(frozen=True)
class Table:
    """Rows of texts, below headings if there are any."""

    rows: Sequence[tuple[str, ...]]
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Text whose lines stay as they are."""

    text: str


@dataclass(frozen=True)
class Section:
    """A part of a report: sentences, tables, listings and pictures below a title."""

    title: str
    parts: list[str | Table | Listing | Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """A report; `summary` says in one sentence how things are."""

    title: str
    summary: str
    sections: list[Section]


def some(rows: Iterable[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    """The first of many rows, and how many are left out."""
    found = list(rows)
    if len(found) <= most:
        return found
    return [*found[: most - 1], (f"… and {len(found) - most + 1} more", *("" for _ in found[0][1:]))]


def caption_of(picture: Picture) -> str:
    """What a picture shows, in words."""
    if isinstance(picture, Lines):
        unknown = f"; {picture.missing} values are NaN" if picture.missing else ""
        return f"{picture.title}{unknown}"
    return f"{picture.title}: {picture.shape[0]} × {picture.shape[1]}, {lacking(picture)}"


def lacking(picture: Image) -> str:
    """How much of an image is NaN."""
    size = picture.shape[0] * picture.shape[1]
    if not picture.missing:
        return "none masked"
    return f"{picture.missing} of {size} masked or not measured ({100 * picture.missing / size:.3g} %)"
