"""A report as one HTML file, which needs nothing else: pictures lie in it, and there are no scripts."""

from detcal_pipelines.pictures import Image, Lines
from detcal_pipelines.reports.document import Document, Listing, Section, Table, caption_of
from detcal_pipelines.reports.drawing import as_svg, text

MARK = '<meta name="generator" content="detcal report">'  # by which a report is told from a page of somebody else's
STYLE = """
body { max-width: 920px; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #222; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; padding-top: 0.8rem; border-top: 1px solid #ddd; }
p { margin: 0.4rem 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; margin: 0.6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #e4e4e4; }
td { overflow-wrap: anywhere; }
th { font-weight: 600; color: #555; }
td:first-child { color: #555; }
pre { background: #f6f6f4; padding: 0.8rem; font-size: 0.85rem; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { font-size: 0.9rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: #555; }
"""


def as_page(document: Document) -> str:
    """The report as HTML."""
    title = text(document.title)
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f"<h1>{title}</h1>\n<p>{text(document.summary)}</p>",
            *map(as_section, document.sections),
            "</body>\n</html>\n",
        ]
    )


def as_section(section: Section) -> str:
    """A title and its parts."""
    return "\n".join([f"<h2>{text(section.title)}</h2>", *map(as_part, section.parts)])


def as_part(part: str | Table | Listing | Image | Lines) -> str:
    """A paragraph, a table, a listing or a picture."""
    if isinstance(part, str):
        return f"<p>{text(part)}</p>"
    if isinstance(part, Listing):
        lines = "\n".join(map(text, part.text.splitlines()))
        return f"<pre>{lines}</pre>"
    if isinstance(part, Table):
        return as_table(part)
    return f"<figure><figcaption>{text(caption_of(part))}</figcaption>{as_svg(part)}</figure>"


def as_table(table: Table) -> str:
    """Rows below their headings."""
    head = "".join(f"<th>{text(each)}</th>" for each in table.headings)
    rows = ("".join(f"<td>{text(each)}</td>" for each in row) for row in table.rows)
    return "\n".join(["<table>", *([f"<tr>{head}</tr>"] if head else []), *(f"<tr>{row}</tr>" for row in rows), "</table>"])
