"""Frames that were packed into integers, as CF has it: a number is what is stored, times scale_factor, plus add_offset."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.graph import map_frames
from detcal.frames.valid import MISSING, float_dtype, spectra_readings
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Reader

SCALE, OFFSET, FILL = "scale_factor", "add_offset", "_FillValue"


class Packing(NamedTuple):
    """How numbers were packed, and which of those that are stored stands for none."""

    scale: float
    offset: float
    fill: float | None


def packing_of(reader: Reader, stored: Mapping[str, Any], source: str) -> Packing | None:
    """How the frames of a reader were packed, by its attributes; None if they were not.

    Raises
    ------
    InputError
        Attributes that are no numbers, or others in each of several files.
    """
    if not isinstance(reader, Joined):
        return packing_in(stored, source)
    each = [packing_in(part.attrs(), source) for part in reader.readers if not isinstance(part, MissingPart)]
    found = each[0]
    if any(other != found for other in each):
        raise InputError(f"expected frames with the same {SCALE} and {OFFSET} in all files of {source}: open each apart, and join them")
    return found


def packing_in(stored: Mapping[str, Any], source: str) -> Packing | None:
    """How frames with these attributes were packed."""
    if not {SCALE, OFFSET} & set(stored):
        return None
    numbers = [stored.get(SCALE, 1.0), stored.get(OFFSET, 0.0)]
    try:
        scale, offset = (float(np.asarray(number).item()) for number in numbers)
    except (TypeError, ValueError):
        raise InputError(f"expected {SCALE} and {OFFSET} of {source} to be numbers, got {numbers[0]!r} and {numbers[1]!r}") from None
    fill = stored.get(FILL)
    return Packing(scale, offset, float(fill) if isinstance(fill, int | float | np.number) else None)


def unpacked(frames: xr.DataArray, packing: Packing | None) -> xr.DataArray:
    """Frames as they were before they were packed, lazily, as reals; NaN for stored numbers that are no reading."""
    if packing is None:
        return frames
    if packing.fill is not None:
        frames = frames.assign_attrs({MISSING: [*np.ravel(frames.attrs.get(MISSING, [])).tolist(), packing.fill]})
    known = spectra_readings(frames)
    kind = float_dtype(frames.dtype)
    attrs = {**known.attrs, MISSING: np.nan}
    return map_frames(unpack_block, known, {"packing": packing}, whole=False, dtype=kind, name=frames.name, attrs=attrs)


def unpack_block(block: NDArray[Any], packing: Packing) -> NDArray[np.floating[Any]]:
    """What is stored, times the scale, plus the offset; computed in float64."""
    found: NDArray[np.floating[Any]] = (block * np.float64(packing.scale) + packing.offset).astype(float_dtype(block.dtype))
    return found
