"""A report as plain text, for terminals of 80 columns."""

import numpy as np
from numpy.typing import NDArray

from detcal_pipelines.columns import columns, wrapped
from detcal_pipelines.pictures import Image, Lines
from detcal_pipelines.reports.document import Document, Listing, Section, Table, caption_of

BARS = " ▁▂▃▄▅▆▇█"
SPARKS = 60  # letters of a line or histogram


def as_text(document: Document) -> str:
    """The report as text."""
    parts = [*wrapped(document.title), *wrapped(document.summary)]
    for section in document.sections:
        parts += ["", *as_section(section)]
    return "\n".join(line.rstrip() for line in parts)


def as_section(section: Section) -> list[str]:
    """A title and its parts."""
    lines = [section.title.upper()]
    for part in section.parts:
        lines += as_part(part)
    return lines


def as_part(part: str | Table | Listing | Image | Lines) -> list[str]:
    """A paragraph, a table, a listing, or what a picture shows in a line."""
    if isinstance(part, str):
        return wrapped(part)
    if isinstance(part, Listing):
        return [short for line in part.text.splitlines() for short in wrapped(line)]
    if isinstance(part, Table):
        return columns([*([part.headings] if part.headings else []), *part.rows])
    return [*wrapped(caption_of(part)), *(histogram(part) if isinstance(part, Image) else sparklines(part))]


def histogram(picture: Image) -> list[str]:
    """How often the values of an image occur, as bars between its ends."""
    known = picture.values[np.isfinite(picture.values)]
    if not known.size or known.min() == known.max():
        return [f"  {known.min():.4g} {picture.unit}".rstrip() + ", all alike"] if known.size else []
    low, high = (float(each) for each in np.percentile(known, [0.5, 99.5]))
    counts, _ = np.histogram(known, bins=SPARKS // 2, range=(low, high) if high > low else None)
    return [f"  {low:.4g} {sparks(counts)} {high:.4g} {picture.unit}".rstrip()]


def sparklines(picture: Lines) -> list[str]:
    """Each line as bars, and the ends of its values."""
    lines = []
    for name, values in picture.lines.items():
        known = values[np.isfinite(values)]
        if known.size:
            parts = [part[np.isfinite(part)] for part in np.array_split(values, min(SPARKS, len(values)))]
            heights = np.array([part.mean() if part.size else known.min() for part in parts])
            lines += [*wrapped(f"  {name}: {known.min():.4g} … {known.max():.4g} {picture.unit}".rstrip()), f"  {sparks(heights)}"]
    return lines


def sparks(heights: NDArray[np.number]) -> str:
    """A bar a number."""
    low, high = float(heights.min()), float(heights.max())
    steps = (heights - low) / ((high - low) or 1.0) * (len(BARS) - 1)
    return "".join(BARS[round(float(step))] for step in steps)
