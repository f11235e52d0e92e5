"""Flats in time: which were taken together, and between which of them each frame lies."""

import warnings
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.selection import BEFORE, NUMBER, OF_STACK

Numbers = NDArray[np.float64]


def flats_in_time(frames: xr.DataArray, flat: Any, positions: Any = None) -> tuple[list[Any], da.Array | None]:
    """Flats in groups, each taken without a frame between, and the place of each frame among these; one group and None where all are one.

    Parameters
    ----------
    frames : (frame, y, x)
        From `as_stack`.
    flat
        As the caller gave it.
    positions : str or numbers, optional
        A coordinate of frames and flats, a time or an angle say; or a number for each flat: 0 where the first of the frames was taken, 1
        where the next was, negative before. By default the numbers of both in the file that they come from, if it is one.

    Returns
    -------
    groups
        Stacks of flats.
    places : (frame, 1, 1)
        0 at the mean position of the first group, 1 at the second's, and so on; before the first and after the last as there.

    Raises
    ------
    InputError
        Positions that are no numbers, not as many as flats, or that frames or flats do not have.
    """
    found = find_positions(frames, flat, positions)
    if found is None:
        return [flat], None
    own, theirs = found
    passed = flat.coords[BEFORE] if positions is None and BEFORE in flat.coords else np.searchsorted(np.sort(own), theirs)
    groups = [np.flatnonzero(passed == number) for number in np.unique(passed)]
    if len(groups) == 1:
        if positions is not None:
            warnings.warn(
                "all flats were taken without a frame between them: their average serves for all frames", UserWarning, stacklevel=4
            )
        return [flat], None
    places = np.interp(own, [theirs[group].mean() for group in groups], np.arange(len(groups)))
    lazy = da.from_array(places.reshape(-1, 1, 1), chunks=(frames.chunks[0], 1, 1), name=False)  # type: ignore[index]
    return [flat[as_slice(group)] for group in groups], lazy


def find_positions(frames: xr.DataArray, flat: Any, positions: Any) -> tuple[Numbers, Numbers] | None:
    """The positions of frames and flats; None if nobody says where the flats were taken."""
    if np.ndim(flat) < 2:
        raise InputError(f"expected a flat image or flat frames, got {flat!r:.60}")
    flats = 1 if np.ndim(flat) == 2 else np.shape(flat)[0]
    if positions is None:
        stacks = {stack_of(frames), stack_of(flat)}
        if flats == 1 or len(stacks) > 1 or None in stacks:
            return None
        positions = NUMBER
    if isinstance(positions, str):
        return coordinate(frames, positions, "frames"), coordinate(flat, positions, "flats")
    found = np.asarray(positions)
    if found.shape != (flats,) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise InputError(f"expected flat_positions as {flats} numbers, one a flat, or the name of a coordinate, got {positions!r:.100}")
    return np.arange(len(frames), dtype=float), found.astype(float)


def stack_of(frames: Any) -> str | None:
    """The stack in a file in which frames have numbers; None, if they have none there."""
    numbers = getattr(frames, "coords", {}).get(NUMBER)
    return None if numbers is None or not numbers.ndim else numbers.attrs.get(OF_STACK, frames.attrs.get("source"))


def coordinate(stack: Any, name: str, what: str) -> Numbers:
    """A coordinate along the frames, in numbers; times in seconds.

    Raises
    ------
    InputError
        If there is none, or it lacks a number.
    """
    coords = getattr(stack, "coords", {})
    if name not in coords or coords[name].shape != stack.shape[:1]:
        known = ", ".join(str(each) for each in coords if coords[each].shape == stack.shape[:1]) or "none"
        raise InputError(f"expected flat_positions as a coordinate of the {what}, got {name!r}: they have {known}")
    values = np.asarray(coords[name])
    numbers = values.astype("datetime64[ns]").astype(np.int64) * 1e-9 if values.dtype.kind == "M" else values
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise InputError(f"expected numbers or times in the coordinate {name!r} of the {what}, got {values.dtype}, or not all are known")
    return numbers.astype(float)


def as_slice(numbers: NDArray[np.intp]) -> Any:
    """Numbers of frames as a slice, where they follow each other: it is read as one."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers
