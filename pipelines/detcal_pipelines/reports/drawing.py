"""Pictures as PNG files."""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from detcal_pipelines.pictures import Image, Lines, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 9.0  # inches, of 100 pixels each
LONGEST = 4  # an image whose sides differ more is not drawn with square pixels
RINGS = 8
BINS = 60
UNKNOWN = "#d62728"  # what is NaN
INK, GREY = "#1f5f99", "0.45"


def as_png(picture: Picture) -> bytes:
    """A picture as a PNG file: an image with the histogram of its values, or lines."""
    from matplotlib.figure import Figure  # here, because it takes its time, and most commands need none of it

    if isinstance(picture, Lines):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        draw_lines(figure.subplots(), picture)
    else:
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        drawn = draw_image(left, picture)
        figure.colorbar(drawn, ax=left, shrink=0.9).ax.tick_params(labelsize=8, colors=GREY)
        draw_histogram(right, picture)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def draw_image(axis: "Axes", picture: Image) -> Any:
    """An image in greys from its 1st to its 99th percentile, red where it is NaN."""
    from matplotlib import colormaps

    low, high = percentiles(picture.values, 1, 99)
    height, width = picture.shape
    ends = (-0.5, width - 0.5, height - 0.5, -0.5)
    shape: Literal["equal", "auto"] = "equal" if max(width, height) <= LONGEST * min(width, height) else "auto"
    greys = colormaps["gray"].with_extremes(bad=UNKNOWN)
    drawn = axis.imshow(picture.values, cmap=greys, vmin=low, vmax=high, extent=ends, aspect=shape, interpolation="nearest")
    if picture.points is not None:
        axis.plot(picture.points[1], picture.points[0], "+", color=UNKNOWN, markersize=4, markeredgewidth=0.8)
    if picture.rings is not None:
        rows, columns = (np.linspace(0, size - 1, count) for size, count in zip(picture.shape, picture.rings.shape, strict=True))
        axis.contour(columns, rows, picture.rings, levels=RINGS, colors="#ff9933", linewidths=0.6)
    axis.set(xlim=ends[:2], ylim=ends[2:])
    axis.tick_params(labelsize=8, colors=GREY)
    return drawn


def draw_histogram(axis: "Axes", picture: Image) -> None:
    """How often values occur."""
    known = picture.values[np.isfinite(picture.values)]
    axis.hist(known, bins=edges_of(known).tolist(), color=INK)
    axis.set_xlabel(picture.unit or "value", fontsize=8)
    axis.set_ylabel("values that are drawn", fontsize=8)
    plain(axis)


def edges_of(known: NDArray[Any]) -> NDArray[Any]:
    """Edges of the bars of a histogram; of whole numbers each bar has as many."""
    low, high = percentiles(known, 0.5, 99.5)
    if not (known == np.round(known)).all():
        return np.linspace(low, high, BINS + 1)
    width = max(1.0, np.ceil((high - low) / BINS))
    return np.arange(np.floor(low), high + 1 + width, width) - 0.5


def draw_lines(axis: "Axes", picture: Lines) -> None:
    """Lines over one axis."""
    for name, values in picture.lines.items():
        axis.plot(picture.x, values, linewidth=0.9, label=name)
    axis.set_xlabel(picture.x_label, fontsize=8)
    axis.set_ylabel(picture.unit, fontsize=8)
    if len(picture.lines) > 1:
        axis.legend(fontsize=8, frameon=False)
    plain(axis)


def plain(axis: "Axes") -> None:
    """No more lines than are needed."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def percentiles(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Two percentiles of what is known, never the same number."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    first, last = (float(each) for each in np.percentile(known, [low, high]))
    return (first, last) if last > first else (first - 0.5, first + 0.5)
