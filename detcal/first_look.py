"""The first look at a file of frames: a few of them, the histogram, and what of them was measured, in one figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.frames.arrays import ArrayLike
from detcal.frames.corrections import corrections_of
from detcal.frames.flags import by_attributes
from detcal.frames.limits import find_limit
from detcal.frames.maps import frames_of_map
from detcal.frames.negative import ADVICE
from detcal.frames.readings import Floats, values_and_known
from detcal.frames.stack import DIMS, as_stack
from detcal.frames.valid import find_readings, recorded_dtype
from detcal.stores.sources.choice import Datasets
from detcal.stores.sources.facts import FACTS
from detcal.stores.sources.frames import open_frames, roles_in
from detcal.stores.sources.names import PathOrName

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES, SAMPLE_BYTES = 9, 2**28  # of the sample: most frames, and most bytes, but for the three that are drawn
SIDE = 1024  # largest of an image that is drawn, pixels
BINS = 200  # most of the histogram
LONG_TAIL = 20  # the largest reading beside what 99 % are below, from which the histogram is drawn over powers of ten
UNMEASURED = "lightcoral"  # the colour of it


@dataclass(frozen=True)
class Sample:
    """A few frames of a stack.

    Attributes
    ----------
    numbers : (n,)
        Of the frames: the first and the last, and others evenly between them.
    readings : (n, y, x)
        NaN is what was not measured.
    lines
        What there is to say of them, by name.
    """

    numbers: NDArray[np.int64]
    readings: Floats
    lines: dict[str, str]

    @property
    def text(self) -> str:
        """A line each."""
        width = max(map(len, self.lines))
        return "\n".join(f"{name:<{width}}  {said}" for name, said in self.lines.items())


def preview(frames: PathOrName | ArrayLike, dataset: Datasets = None) -> "Figure":
    """Draw the first, the middle and the last frame of a file, their histogram, and what can be said of them without reading the rest.

    No more is read than the chunks of nine frames, or of three where nine are more than 256 MiB.

    Parameters
    ----------
    frames
        A file, or files, as for `open_frames`; or frames (frame, y, x), with the mask that they were opened with, or an array.
    dataset
        Where the frames are in the file, as for `open_frames`.

    Returns
    -------
    matplotlib Figure
        Three frames in the same greys (1 to 99.5 % of their readings), light red where nothing was measured; the histogram of
        all readings that were looked at; and in words: shape and type, shares of pixels that were not measured (NaN, masked, flagged
        numbers, see `detcal.frames.valid`), saturated (what the file says, or the largest number of an integer of up to 16 bits, which
        from 16 bits on is no reading either) and 0, what the file says of darks, flats, positions of the frames (angles) and how they
        were recorded, and what was corrected.

    Raises
    ------
    InputError
        As `open_frames`.

    Examples
    --------
    >>> import detcal
    >>> import numpy as np
    >>> np.save("frames.npy", np.random.default_rng(0).poisson(100, (20, 8, 8)).astype(np.uint16))
    >>> figure = detcal.preview("frames.npy")
    >>> [axis.get_title() for axis in figure.axes[:3]]
    ['frame 0', 'frame 10', 'frame 19']
    """
    return draw_sample(look_at(frames, dataset))


def look_at(frames: PathOrName | ArrayLike, dataset: Datasets = None) -> Sample:
    """Read a few frames, and say what there is to say of them."""
    given, beside = (frames, {}) if isinstance(frames, xr.DataArray | np.ndarray | da.Array) else opened(frames, dataset)
    stack = as_stack(given)
    limit = find_limit(stack, None)
    numbers = few(len(stack), stack[0].nbytes)
    alone = [find_readings(stack[number : number + 1]) for number in numbers]  # of several together, dask would read whole blocks
    values = np.concatenate([frame.compute(scheduler="synchronous").values for frame, _ in alone])
    _, valid = alone[0]
    found, known = values_and_known(values, valid)
    found[~known] = np.nan
    dtype = recorded_dtype(stack)
    is_counted = dtype.kind == "i" and by_attributes(stack.attrs, dtype) is None
    saturated = None if limit is None else values >= limit
    return Sample(numbers, found, in_general(stack, numbers) | shares(found, saturated, limit, is_counted) | beside | of_attributes(stack))


def opened(path: PathOrName, dataset: Datasets) -> tuple[xr.DataArray, dict[str, str]]:
    """The frames of a file in blocks as small as its chunks are, and how many darks and flats it has beside them."""
    roles = roles_in(path, dataset)
    found = {
        role: open_frames(path, dataset, frames=role, chunks={"frame": 1}) for role in ("projections", "flats", "darks") if role in roles
    }
    counts = [f"{len(stack)} {role}" for role, stack in found.items() if role != "projections"]
    frames = found["projections"] if "projections" in found else frames_of_map(open_frames(path, dataset, chunks={"frame": 1}))
    return frames, {"beside them": ", ".join(counts) or "no darks or flats that the file names as such"}


def few(length: int, frame_bytes: int) -> NDArray[np.int64]:
    """The numbers of the frames that are looked at: with the one in the middle where there are three."""
    most = 3 if FRAMES * frame_bytes > SAMPLE_BYTES else FRAMES
    return np.unique([length * place // (most - 1) - (place == most - 1) for place in range(most)])


def in_general(stack: xr.DataArray, numbers: NDArray[np.int64]) -> dict[str, str]:
    """How many frames there are, and of which kind."""
    frames, height, width = stack.shape
    return {
        "frames": f"{frames} of {height} x {width} pixels (y, x), {stack.dtype}, {stack.attrs.get('units', 'counts')}",
        "looked at": f"{len(numbers)} of them: {', '.join(map(str, numbers))}",
    }


def shares(found: Floats, saturated: NDArray[np.bool_] | None, limit: float | None, is_counted: bool) -> dict[str, str]:
    """What part of the pixels was not measured, is saturated, and is zero; of counts that nobody explains, is negative; the readings."""
    known = found[~np.isnan(found)]
    below = known[known < 0]
    negative = {"negative": f"{share(found < 0)} ({below.min():.6g} to {below.max():.6g}): flags? Then say {ADVICE}"} if below.size else {}
    return {
        "not measured": share(np.isnan(found)),
        **(negative if is_counted else {}),
        "saturated": "no limit is known" if saturated is None else f"{share(saturated)} ({limit:.7g} or more)",
        "zero": share(found == 0),
        "readings": f"{known.min():.6g} to {known.max():.6g}, half of them up to {np.median(known):.6g}" if known.size else "none",
    }


def share(of: NDArray[np.bool_]) -> str:
    """A part of all pixels in per cent; what is there at all is not 0."""
    return "none" if not of.any() else f"{max(100 * of.mean(), 0.0001):.4g} %"


def of_attributes(stack: xr.DataArray) -> dict[str, str]:
    """What the frames say of their positions, of what was done to them, and of how they were recorded."""
    lines = {str(name): line for name, line in stack.coords.items() if line.dims == DIMS[:1] and line.dtype.kind in "iuf"}
    places = {name: f"{line.values[0]:.6g} to {line.values[-1]:.6g} {line.attrs.get('units', '')}".rstrip() for name, line in lines.items()}
    recorded = {name: str(stack.attrs[name]) for name in FACTS if name in stack.attrs}
    return {
        **(places or {"positions": "no angles, no others"}),
        **({"missing": str(stack.attrs["lacks"])} if "lacks" in stack.attrs else {}),
        "corrected": ", ".join(corrections_of(stack)) or "nothing that the frames say",
        **recorded,
    }


# ------------------------------------------------------------------------------------------------------------ figure


def draw_sample(sample: Sample) -> "Figure":
    """The figure of `preview`."""
    from matplotlib import pyplot  # here, because workers need not carry it

    figure, axes = pyplot.subplot_mosaic("abc;hht", figsize=(13, 8), height_ratios=(5, 4), layout="constrained")
    drawn = [0, len(sample.numbers) // 2, -1] if len(sample.numbers) > 2 else range(len(sample.numbers))
    known = sample.readings[~np.isnan(sample.readings)]
    low, high = np.percentile(known, (1, 99.5)) if known.size else (0, 1)
    for axis, place in zip((axes[name] for name in "abc"), drawn, strict=False):
        picture = draw_image(axis, sample.readings[place], low, max(high, np.nextafter(low, np.inf)))
        axis.set_title(f"frame {sample.numbers[place]}")
    figure.colorbar(picture, ax=[axes[name] for name in "abc"], fraction=0.02, shrink=0.7)
    for name in "abc"[len(sample.numbers) :]:
        axes[name].set_axis_off()
    draw_histogram(axes["h"], known)
    axes["t"].set_axis_off()
    axes["t"].text(0, 1, sample.text, family="monospace", fontsize="small", va="top", transform=axes["t"].transAxes)
    return figure


def draw_image(axis: "Axes", image: Floats, low: float, high: float) -> Any:
    """A frame, thinned, with what was not measured in a colour."""
    step = -(-max(image.shape) // SIDE)
    height, width = image.shape
    axis.set_facecolor(UNMEASURED)
    return axis.imshow(image[::step, ::step], cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0), interpolation="nearest")


def draw_histogram(axis: "Axes", known: Floats) -> None:
    """How many pixels read how much; over powers of ten where few read far more than all others."""
    if not known.size:
        axis.set_title("nothing was measured")
        return
    low, high, most = known.min(), known.max(), np.percentile(known, 99)
    positive = known[known > 0]
    if positive.size and high > LONG_TAIL * max(most, positive.min()):
        axis.set_xscale("log")
        edges = np.geomspace(positive.min(), 1.01 * high, BINS)
    else:
        edges = np.linspace(low, max(1.01 * high, low + 1e-6), BINS)
    if np.array_equal(known, np.rint(known)):  # bins of as many whole numbers each as may be: else they make a comb
        edges = np.unique(np.ceil(edges)) - 0.5
        edges = np.append(edges, edges[-1] + 1)
    axis.hist(known, edges.tolist(), histtype="stepfilled", color="C0")
    axis.set_yscale("log")
    axis.set(xlabel="reading", ylabel="pixels", title="histogram of all readings that were looked at")
