"""Frames of a beam that moves, corrected by eigenflats, lazily: two passes over the flats, and a search of weights for each frame."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed

from detcal.errors import InputError
from detcal.frames.averages import append_readings
from detcal.frames.graph import fold_blocks, map_frames, whole_frames
from detcal.frames.notes import with_notes
from detcal.frames.readings import Valid
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response import eigenflats, variation


def check_eigenflats(flat_model: Any, components: Any, flat: Any, flat_positions: Any) -> None:
    """Refuse what does not go with eigenflats, or without them."""
    if flat_model not in (None, "eigenflats"):
        raise InputError(f'expected flat_model = "eigenflats", or none, got {flat_model!r}')
    if flat_model is None:
        if components is not None:
            raise InputError('flat_components are those of eigenflats: give flat_model = "eigenflats" too, or leave flat_components out')
        return
    if flat_positions is not None:
        raise InputError("expected flat_model or flat_positions, got both: eigenflats need no positions, leave one of them out")
    flats = 0 if flat is None else 1 if np.ndim(flat) == 2 else np.shape(flat)[0]
    if flats < 3:
        raise InputError(f"expected at least 3 flats to find eigenflats in, got {flats}: give more, or leave flat_model out")
    most = min(flats - 1, eigenflats.MOST)
    if components is not None and (isinstance(components, bool) or not isinstance(components, int) or not 1 <= components <= most):
        raise InputError(f"expected flat_components from 1 to {most}, of {flats} flats, got {components!r}")


def find_eigenflats(flat: Any, average: da.Array, dark: Any, bad: Any, components: int | None, block_bytes: int, **options: Any) -> Delayed:
    """The `Eigenflats` of flats, lazily.

    Parameters
    ----------
    flat : (flat, y, x)
        Flat frames.
    average : (y, x)
        Their average, of which `dark` is not taken off.
    dark, bad : (y, x), optional
        What to take off it, and pixels that take no part.
    components
        How many; None: as many as are above noise.
    block_bytes
        Of the frames that are corrected: so many of the flats may be held too.
    options
        `dummy` and `saturation`, as for `as_image`.
    """
    stack, valid = find_readings(as_stack(flat, "a flat"), dummy=options["dummy"], beside=True)
    if options["saturation"] is not None:
        valid = valid.below(options["saturation"])
    image = delayed(average)
    light = delayed(eigenflats.light_of, pure=True)(image, dark, bad)
    most = max(eigenflats.STRIP_BYTES, block_bytes)
    products = in_strips(stack, valid, most, eigenflats.add_products, light, image, light)
    basis = delayed(eigenflats.find_basis, pure=True)(products, light, components)
    strips = in_strips(stack, valid, most, eigenflats.add_eigenflats, basis, image, light, basis)
    return delayed(eigenflats.as_eigenflats, pure=True)(strips, basis)


def in_strips(flats: xr.DataArray, valid: Valid, most: int, add: Callable[..., Any], first: Delayed, *shared: Delayed) -> Delayed:
    """add(so far, readings, *shared, top=…) over strips of rows of all flats, of so many bytes, one after the other, once `first` is there.

    Each strip decodes all flats anew: few rows of all are held, however many there are.
    """
    so_far, turn = None, first
    rows = eigenflats.strip_rows(flats.shape, flats.dtype.itemsize, most)
    for top, bottom in pairwise([*range(0, flats.shape[1], rows), flats.shape[1]]):
        held = fold_blocks(whole_frames(flats[:, top:bottom]), eigenflats.hold, append_readings, turn, partial_sums=1)
        so_far = turn = delayed(partial(eigenflats.in_pieces, add=add, valid=valid, top=top), pure=True)(so_far, held, *shared)
    return turn


def correct_by_eigenflats(frames: xr.DataArray, images: list[da.Array], model: Delayed, valid: Valid, **options: Any) -> xr.DataArray:
    """Frames corrected by images, and by as much of each eigenflat as each has; the coordinate `flat_change` says how much that is."""
    pairs = map_frames(variation.correct_moved, frames, {"eigenflats": model, "valid": valid}, images=images, **options)
    return with_notes(pairs, {"flat_change": np.float64})
