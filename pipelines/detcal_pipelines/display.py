"""How a plan shows itself in a notebook: its steps, and the memory of the run against its budget."""

from html import escape

from detcal_pipelines.plan import Plan, size
from detcal_pipelines.report import HEADINGS, cells_of, peak_in_words, work_in_words

BAR = "display:flex; width:30em; height:1em; border:1px solid currentColor; box-sizing:content-box"
PROCESS, DATA, TOO_MUCH = "#8a8f98", "#2f7fd1", "#c81e1e"  # what the process holds before any data; data; data that do not fit


def as_html(planned: Plan) -> str:
    """A table of the steps, and a bar of the budget."""
    head = "".join(f"<th style='text-align:left'>{heading}</th>" for heading in HEADINGS)
    rows = "".join(f"<tr>{''.join(map(cell, cells_of(step)))}</tr>" for step in planned.steps)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div><strong>Plan</strong>: {escape(work_in_words(planned))}{table}{bar(planned)}{escape(peak_in_words(planned))}</div>"


def cell(text: str) -> str:
    """One cell of the table."""
    return f"<td style='text-align:left'>{escape(text)}</td>"


def bar(planned: Plan) -> str:
    """The budget as a bar, filled with what the process holds by itself, and with data."""
    own = min(planned.tightest.own_bytes, planned.peak_bytes)
    parts = (
        (PROCESS, own, "the process before it holds any data"),
        (DATA if planned.fits else TOO_MUCH, planned.peak_bytes - own, "data, at the peak"),
    )
    filled = "".join(
        f"<div style='width:{min(100.0, 100 * held / planned.budget):.1f}%; background:{colour}' title='{size(held)}: {what}'></div>"
        for colour, held, what in parts
    )
    return f"<div style='{BAR}'>{filled}</div>"
