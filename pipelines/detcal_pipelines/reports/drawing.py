"""Pictures as SVG, drawn of images, lines and texts: a report costs a run neither the time nor the memory of a library for figures."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

from detcal.display import in_greys, limits_of, png
from detcal_pipelines.columns import cleaned
from detcal_pipelines.pictures import Image, Lines, Picture

Values = NDArray[np.number]

WIDTH, IMAGE_HEIGHT, LINES_HEIGHT = 900, 360, 280
LONGEST = 4  # an image whose sides differ more is not drawn with square pixels
BAR_WIDTH = 12
RINGS = 8
BINS = 60
TICKS = 6  # at most, along a side
LETTER = 7  # width, about
INK, GREY, MARK = "#1f5f99", "#888", "#d62728"
COLOURS = (INK, "#e07b00", "#2a8c4a")
RING = 255, 153, 51


@dataclass(frozen=True)
class Axes:
    """A rectangle of a picture, in its units, and what its sides stand for: x from left to right, y from below."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def right(self) -> float:
        return self.left + self.width

    def across(self, x: Values) -> Values:
        """Where values of x are in the picture."""
        return self.left + (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0]) * self.width

    def down(self, y: Values) -> Values:
        """Where values of y are in the picture."""
        return self.bottom - (np.asarray(y) - self.y[0]) / (self.y[1] - self.y[0]) * self.height


def as_svg(picture: Picture) -> str:
    """An image with the histogram of its values, or lines."""
    height, drawn = (LINES_HEIGHT, lines(picture)) if isinstance(picture, Lines) else (IMAGE_HEIGHT, image_and_histogram(picture))
    return element("svg", *drawn, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=picture.title)


def element(name: str, *inside: str, **attributes: object) -> str:
    """An element of a page; names of attributes have - for _."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return f"<{name}{given}>{''.join(inside)}</{name}>"


def text(value: object) -> str:
    """A text that is nothing but text, whatever is in it."""
    return escape(cleaned(value))


# ---------------------------------------------------------------------------------------------------------- images


def image_and_histogram(picture: Image) -> Iterator[str]:
    """An image in greys from its 1st to its 99th percentile, red where it is NaN, with a bar of these greys, and a histogram."""
    limits = limits_of(picture.values, 1, 99)
    axes = place_of(picture)
    colours = in_greys(picture.values, limits)
    if picture.rings is not None:
        colours[edges_between(picture.rings)] = RING
    yield pixels(colours, axes)
    if picture.points is not None:
        y, x = picture.points
        yield crosses(axes.across(x), axes.down(y))
    yield from below(axes)
    yield from beside(axes)
    bar = Axes(axes.right + 14, axes.top, BAR_WIDTH, axes.height, (0, 1), limits)
    yield pixels(in_greys(np.linspace(1, 0, 256)[:, None], (0, 1)), bar)
    yield from beside(bar, on_the_right=True)
    yield from histogram(picture)


def place_of(picture: Image) -> Axes:
    """Where an image is drawn: as large as there is room for."""
    height, width = picture.shape
    most_x, most_y = 410.0, IMAGE_HEIGHT - 40.0
    scale = min(most_x / width, most_y / height)
    square = max(width, height) <= LONGEST * min(width, height)
    x, y = (width * scale, height * scale) if square else (most_x, most_y)
    return Axes(60, 10, x, y, (-0.5, width - 0.5), (height - 0.5, -0.5))


def pixels(colours: NDArray[np.uint8], axes: Axes) -> str:
    """An image in its place; pixels that are enlarged stay squares."""
    sharp = {"style": "image-rendering:pixelated"} if colours.shape[1] < axes.width else {}
    return element(
        "image", href=f"data:image/png;base64,{b64encode(png(colours)).decode()}", x=round(axes.left, 1), y=axes.top,
        width=round(axes.width, 1), height=round(axes.height, 1), preserveAspectRatio="none", **sharp,
    )  # fmt: skip


def edges_between(values: Values) -> NDArray[np.bool_]:
    """Where values pass from one of a few levels to the next."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    levels = np.floor((values - low) / ((high - low) or 1.0) * (RINGS + 1))
    edges = np.zeros(values.shape, np.bool_)
    edges[:-1] = levels[:-1] != levels[1:]
    edges[:, :-1] |= levels[:, :-1] != levels[:, 1:]
    return edges


def crosses(x: Values, y: Values) -> str:
    """Marks."""
    path = "".join(f"M{across - 3:.1f} {down:.1f}h6m-3-3v6" for across, down in zip(x, y, strict=True))
    return element("path", d=path, stroke=MARK, fill="none")


def histogram(picture: Image) -> Iterator[str]:
    """How often values occur."""
    known = picture.values[np.isfinite(picture.values)]
    edges = edges_of(known)
    counts, _ = np.histogram(known, edges)
    axes = Axes(645, 20, 225, IMAGE_HEIGHT - 70, (edges[0], edges[-1]), (0, max(1, counts.max()) * 1.05))
    x, y = axes.across(edges), axes.down(counts)
    bars = "".join(f"H{left:.1f}V{top:.1f}H{right:.1f}" for left, right, top in zip(x, x[1:], y, strict=False))
    yield element("path", d=f"M{axes.left} {axes.bottom}{bars}V{axes.bottom}Z", fill=INK)
    yield from below(axes, picture.unit or "value")
    yield from beside(axes, "values that are drawn")


def edges_of(known: Values) -> Values:
    """Edges of the bars of a histogram; of whole numbers each bar has as many."""
    low, high = limits_of(known, 0.5, 99.5)
    if not (known == np.round(known)).all():
        return np.linspace(low, high, BINS + 1)
    width = max(1.0, np.ceil((high - low) / BINS))
    return np.arange(np.floor(low), high + 1 + width, width) - 0.5


# ----------------------------------------------------------------------------------------------------------- lines


def lines(picture: Lines) -> Iterator[str]:
    """Lines over one axis, with their names above them if they are several."""
    low, high = limits_of(np.concatenate(list(picture.lines.values())), 0, 100)
    room = 0.04 * (high - low)
    axes = Axes(90, 26, WIDTH - 110, LINES_HEIGHT - 76, limits_of(picture.x, 0, 100), (low - room, high + room))
    yield from below(axes, picture.x_label)
    yield from beside(axes, picture.unit)
    left = axes.left
    for number, (name, values) in enumerate(picture.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        yield element("path", d=path_of(axes.across(picture.x), axes.down(values)), stroke=colour, fill="none", stroke_linejoin="round")
        if len(picture.lines) > 1:
            yield element("path", d=f"M{left} {axes.top - 12}h18", stroke=colour, stroke_width=2)
            yield label(name, left + 24, axes.top - 8)
            left += 50 + LETTER * len(name)


def path_of(x: Values, y: Values) -> str:
    """A line through points, broken where one is NaN; a point between two of these is a dot."""
    known = np.isfinite(x) & np.isfinite(y)
    parts = []
    for number in np.flatnonzero(known):
        joined = number > 0 and known[number - 1]
        parts.append(f"{'L' if joined else 'M'}{x[number]:.1f} {y[number]:.1f}{'' if joined else 'h.1'}")
    return "".join(parts)


# ------------------------------------------------------------------------------------------------------------ axes


def below(axes: Axes, title: str = "") -> Iterator[str]:
    """The lower side of axes, with numbers."""
    found = next(few for most in range(TICKS, 0, -1) if room_for(few := ticks(*axes.x, most)) <= axes.width or most == 1)
    places = axes.across(np.array(found))
    yield side(f"M{axes.left:.1f} {axes.bottom:.1f}H{axes.right:.1f}" + "".join(f"M{x:.1f} {axes.bottom:.1f}v4" for x in places))
    for value, x in zip(found, places, strict=True):
        yield label(number_text(value, found), x, axes.bottom + 17, "middle")
    if title:
        yield label(title, axes.left + axes.width / 2, axes.bottom + 37, "middle")


def beside(axes: Axes, title: str = "", *, on_the_right: bool = False) -> Iterator[str]:
    """The left or right side of axes, with numbers."""
    found = ticks(*axes.y, TICKS)
    places = axes.down(np.array(found))
    x, step, anchor = (axes.right, 4, "start") if on_the_right else (axes.left, -4, "end")
    yield side(f"M{x:.1f} {axes.top:.1f}V{axes.bottom:.1f}" + "".join(f"M{x:.1f} {y:.1f}h{step}" for y in places))
    for value, y in zip(found, places, strict=True):
        yield label(number_text(value, found), x + 1.75 * step, y + 4, anchor)
    if title:
        away = axes.left - 16 - LETTER * longest_of(found)
        yield label(title, 0, 0, "middle", transform=f"translate({away:.1f} {axes.top + axes.height / 2:.1f}) rotate(-90)")


def side(path: str) -> str:
    """A side of axes with its ticks."""
    return element("path", d=path, stroke=GREY, fill="none")


def label(words: str, x: float, y: float, anchor: str = "start", **attributes: object) -> str:
    """A few words."""
    return element("text", text(words), x=round(float(x), 1), y=round(float(y), 1), text_anchor=anchor, **attributes)


def ticks(first: float, last: float, most: int) -> list[float]:
    """Round numbers between two, a few."""
    low, high = sorted((first, last))
    least = (high - low) / most
    power = 10.0 ** floor(log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def room_for(numbers: list[float]) -> float:
    """The width that numbers beside each other take."""
    return len(numbers) * LETTER * (longest_of(numbers) + 2)


def longest_of(numbers: list[float]) -> int:
    """Most letters of a number."""
    return max((len(number_text(each, numbers)) for each in numbers), default=0)


def number_text(value: float, others: list[float]) -> str:
    """A number, with as many digits as tell it from those beside it."""
    step = others[1] - others[0] if len(others) > 1 else 1.0
    largest = max(map(abs, others)) or 1.0
    return f"{value:.{max(6, floor(log10(largest)) - floor(log10(step)) + 2)}g}"
