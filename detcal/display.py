"""How calibrations show themselves: on one screen, without computing anything."""

import struct
import zlib
from base64 import b64encode
from dataclasses import fields
from html import escape
from textwrap import shorten
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.utils import format_bytes
from numpy.typing import NDArray

from detcal.frames.once import is_found

SIDE = 96  # largest of a thumbnail, pixels
MOST_LETTERS = 100  # of a text
UNKNOWN = 200, 30, 30  # the colour of NaN


def as_text(calibration: Any) -> str:
    """A line a field: what arrays are, and options as they are."""
    rows = {name: describe(value) for name, value in known_fields(calibration).items()}
    width = max(map(len, rows), default=0)
    return "\n".join([headline(calibration), *(f"    {name:<{width}}  {text}" for name, text in rows.items())])


def as_html(calibration: Any) -> str:
    """The same as a table, with thumbnails of the images that are in memory."""
    rows = []
    for name, value in known_fields(calibration).items():
        cells = f"<th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(describe(value))}</td>"
        rows.append(f"<tr>{cells}<td>{thumbnail(value) if is_image(value) else ''}</td></tr>")
    return f"<div><strong>{escape(headline(calibration))}</strong><table>{''.join(rows)}</table></div>"


def known_fields(calibration: Any) -> dict[str, Any]:
    """The fields that are there: of what is found on its first use only those that are known before."""
    names = [field.name for field in fields(calibration)]
    return {name: getattr(calibration, name) for name in names if is_found(calibration) or name in vars(calibration)}


def headline(calibration: Any) -> str:
    """Its kind, its shape and whether anything of it is still to be computed."""
    if not is_found(calibration):
        shape, state = vars(calibration).get("shape"), ", found on first use"
    else:
        lazy = any(map(is_lazy, known_fields(calibration).values()))
        shape, state = calibration.shape, ", lazy: compute() or detcal.save computes it" if lazy else ""
    return f"{type(calibration).__name__}{'' if shape is None else ', {} × {}'.format(*shape)}{state}"


def describe(value: Any) -> str:
    """An array by its dimensions, type and size; anything else as it is."""
    if isinstance(value, xr.DataArray):
        sizes = ", ".join(f"{dim}: {size}" for dim, size in value.sizes.items())
        unit = f" {value.attrs['units']}" if "units" in value.attrs else ""
    elif isinstance(value, da.Array):
        sizes, unit = ", ".join(map(str, value.shape)), ""
    else:
        return shorten(str(value), MOST_LETTERS, placeholder=" …")
    held = "lazy" if is_lazy(value) else "in memory"
    size = "" if np.isnan(value.size) else f", {format_bytes(value.nbytes)}"  # parts of lazy matrices do not know it before
    return f"({sizes}) {value.dtype}{unit}{size}, {held}"


def is_lazy(value: Any) -> bool:
    """Whether an array is more than one block in memory behind a dask array."""
    array = value.data if isinstance(value, xr.DataArray) else value
    return isinstance(array, da.Array) and len(array.dask.layers) > 1


def is_image(value: Any) -> bool:
    """Whether something is an image (y, x) in memory."""
    return isinstance(value, xr.DataArray) and value.ndim == 2 and value.size > 0 and isinstance(value.data, np.ndarray)


def thumbnail(image: xr.DataArray) -> str:
    """An image in grey, from its 1st to its 99th percentile; red where it is NaN."""
    step = -(-max(image.shape) // SIDE)
    values = np.asarray(image.values[::step, ::step], np.float64)
    colours = in_greys(values, limits_of(values, 1, 99))
    return f"<img alt='' src='data:image/png;base64,{b64encode(png(colours)).decode()}'>"


def limits_of(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Two percentiles of what is known, never the same number."""
    known = values[np.isfinite(values)]
    first, last = (float(each) for each in np.percentile(known, [low, high])) if known.size else (0.0, 1.0)
    room = max(0.5, 1e-6 * abs(first))
    return (first, last) if last > first else (first - room, first + room)


def in_greys(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """An image as colours (y, x, 3), black at the lower limit and white at the upper one; red where it is NaN."""
    known = np.isfinite(values)
    low, high = limits
    grey = 255 * ((np.where(known, values, low) - low) / (high - low)).clip(0, 1)
    colours = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    colours[~known] = UNKNOWN
    return colours


def png(colours: NDArray[np.uint8]) -> bytes:
    """An image (y, x, 3) as a PNG file."""
    height, width, _ = colours.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), colours.reshape(height, -1)], axis=1)  # each begins with its filter: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(lines.tobytes()),
        b"IEND": b"",
    }
    parts = (struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
