"""Texts in columns for a terminal of 80, and what files say made safe to show there."""

from collections.abc import Sequence
from textwrap import wrap

WIDTH = 80
GAP = 2  # between columns
NARROWEST = 8  # of a column


def cleaned(text: object) -> str:
    """A text from a file, without what would steer a terminal or break a line."""
    found = str(text)
    if found.isprintable():  # as nearly all are: pictures in a page are long
        return found
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in found)


def span(first: int, last: int) -> str:
    """Numbers that follow each other: 3, or 5–7."""
    return f"{first}" if first == last else f"{first}–{last}"


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """A text in lines; what is indented stays so."""
    text = cleaned(text)
    indent = " " * min(len(text) - len(text.lstrip()), width // 2)
    return wrap(text.strip(), width, initial_indent=indent, subsequent_indent=indent) or [""]


def columns(rows: Sequence[tuple[str, ...]], width: int = WIDTH) -> list[str]:
    """Rows of a table as lines; the widest columns are wrapped until all fit."""
    widths = [max(1, *(len(cleaned(each)) for each in column)) for column in zip(*rows, strict=True)]
    room = width - GAP * (len(widths) - 1)
    while sum(widths) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [wrapped(each, size) for each, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = (cell[number] if number < len(cell) else "" for cell in cells)
            lines.append((" " * GAP).join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip())
    return lines
