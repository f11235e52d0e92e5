"""Image files: stacks of frames, and maps of elements with their names and the size of their pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import xarray as xr
from fabio.edfimage import EdfFrame
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.stack import DIMS
from detcal.frames.valid import float_dtype, readings_alone
from detcal.stores.sources.coefficient_files import describe
from detcal.stores.targets.streaming import frames

MAP = ("row", "column")
PER_CM = {"um": 1e4, "mm": 10.0, "m": 1e-2}
IN_METRES = {"um": 1e-6, "mm": 1e-3, "m": 1.0}


def check_pages(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what does not fit into an image file.

    Raises
    ------
    InputError
        Several variables that are no maps of elements, or one that is no stack or image of numbers.
    """
    variables = pages_of(dataset)
    if not variables:
        raise InputError(
            f"a {suffix} holds one stack or image, maps of elements, or coefficients of a response, not {', '.join(map(str, dataset))}: "
            "save one of them, or save to .zarr or .h5"
        )
    for variable in variables:
        if variable.ndim not in (2, 3) or 0 in variable.shape or variable.dtype.kind not in "iuf":
            raise InputError(f"a {suffix} holds (frame, y, x) or (y, x) numbers, not {variable.dims} {variable.shape} of {variable.dtype}")


def pages_of(dataset: xr.Dataset) -> list[xr.DataArray]:
    """What an image file has pages of: maps of elements, images of a detector, or the only variable; else nothing. A mask is 0 and 1."""
    maps = [variable for variable in dataset.values() if variable.dims == ("element", *MAP)]
    coefficients = all(variable.dims == DIMS[1:] for variable in dataset.values())
    alone = list(dataset.values()) if len(dataset) == 1 or coefficients else []
    return maps or [image.astype(np.uint8) if image.ndim == 2 and image.dtype == np.bool_ else image for image in alone]


def labelled(dataset: xr.Dataset) -> Iterator[tuple[str, NDArray[Any]]]:
    """All pages with their names: of the element, and of what of it, if there is more than one thing. What is no reading is NaN."""
    variables = pages_of(dataset)
    for variable in variables:
        names = [str(name) for name in variable.element.values] if variable.dims[0] == "element" else [""] * max(1, len(variable))
        kind = str(variable.name) if len(variables) > 1 else ""
        for name, frame in zip(names, frames(variable), strict=False):
            yield " ".join(part for part in (name, kind) if part), readings_alone(frame, variable)


def pixel_size(dataset: xr.Dataset) -> tuple[float, float, str] | None:
    """Height and width of a pixel of a map and their unit; None if it is not a length, or pixels differ."""
    sizes = []
    for axis, dim in zip("yx", MAP, strict=True):
        line = dataset.coords.get(axis)
        if line is None or line.dims != (dim,) or line.size < 2 or line.attrs.get("units") not in PER_CM:
            return None
        steps = np.diff(line.values)
        if not np.allclose(steps, steps[0], rtol=1e-3):
            return None
        sizes.append(abs(float(steps.mean())))
    return sizes[0], sizes[1], str(dataset.coords["x"].attrs["units"])


def export_tiff(dataset: xr.Dataset, path: Path) -> None:
    """A page for each frame, map or coefficient: these with their names, maps with the resolution."""
    size = pixel_size(dataset)
    options: dict[str, Any] = {}
    if size is not None:
        per_cm = PER_CM[size[2]]
        options = {"resolution": (per_cm / size[1], per_cm / size[0]), "resolutionunit": "CENTIMETER"}
    nbytes = sum(variable.size * float_dtype(variable.dtype).itemsize for variable in pages_of(dataset))
    with tifffile.TiffWriter(path, bigtiff=nbytes > 2**31) as file:
        for label, frame in labelled(dataset):
            if label:
                text = describe(label, frame, dataset) if "detcal_type" in dataset.attrs else label
                file.write(frame, description=text, metadata=None, software=False, **options)
            else:
                file.write(frame, contiguous=True, **options)


def export_edf(dataset: xr.Dataset, path: Path) -> None:
    """A block of ESRF's data format for each frame, or map: these with their names, and the size of pixels in metres."""
    size = pixel_size(dataset)
    sizes = {} if size is None else {"PSize_1": f"{size[1] * IN_METRES[size[2]]:g}", "PSize_2": f"{size[0] * IN_METRES[size[2]]:g}"}
    with open(path, "wb") as file:
        for number, (label, frame) in enumerate(labelled(dataset)):
            block = EdfFrame(data=frame, header={"Title": label, **sizes} if label else sizes)
            block._index = number  # as fabio numbers the frames of a file itself
            file.write(block.get_edf_block())


def check_maps(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what are no maps.

    Raises
    ------
    InputError
        No (element, row, column) or (row, column) numbers.
    """
    variables = pages_of(dataset)
    if not variables or any(variable.dims[-2:] != MAP or 0 in variable.shape for variable in variables):
        raise InputError(f"a {suffix} is a picture of maps (element, row, column), not of {', '.join(map(str, dataset))}")


def export_png(dataset: xr.Dataset, path: Path) -> None:
    """One picture of all maps, each with its name and a scale of its values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because workers that write frames need none
    from matplotlib.figure import Figure

    pages = list(labelled(dataset))
    size = pixel_size(dataset)
    across = int(np.ceil(np.sqrt(len(pages))))
    down = -(-len(pages) // across)
    figure = Figure((4 * across, 3.6 * down), layout="constrained")
    extent = None if size is None else extent_of(dataset, size)
    units = str(pages_of(dataset)[0].attrs.get("units", ""))
    for place, (label, values) in enumerate(pages, 1):
        axes = figure.add_subplot(down, across, place)
        shown = axes.imshow(values, extent=extent, origin="upper", interpolation="nearest")
        axes.set_title(label or str(pages_of(dataset)[0].name))
        axes.set_xlabel("column" if size is None else f"x ({size[2]})")
        axes.set_ylabel("row" if size is None else f"y ({size[2]})")
        figure.colorbar(shown, ax=axes, label=units)
    FigureCanvasAgg(figure).print_png(str(path))


def extent_of(dataset: xr.Dataset, size: tuple[float, float, str]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a map whose first row is at the top."""
    height, width, _ = size
    y, x = dataset.coords["y"].values, dataset.coords["x"].values
    return x[0] - width / 2, x[-1] + width / 2, y[-1] + height / 2, y[0] - height / 2
