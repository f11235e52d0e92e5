"""How large what is asked for may be: checked before anything of that size is allocated."""

from collections.abc import Sequence
from math import prod
from typing import Any

from detcal.errors import InputError

MOST_PIXELS = 2**28  # of a detector or an image: 16384 × 16384, above any that there is; an image of it in float64 has 2 GiB
MOST_ROWS = 2**28  # frames, or spectra of an array of which something is missing: a byte or more is kept of each
MOST_CHUNKS = 2**24  # of an array in a file, each of which is looked for when it is opened
MOST_RADIUS = 2**16  # of a gaussian, pixels or channels: four times the side of such an image, beyond which all is one mean


def check_pixels(shape: Sequence[Any], name: str) -> None:
    """Raise if an image of a shape (y, x) would be larger than any detector.

    Raises
    ------
    InputError
        For more than 2^28 pixels.
    """
    pixels = prod(map(int, shape))
    if pixels > MOST_PIXELS:
        raise InputError(
            f"expected {name} of up to {MOST_PIXELS} pixels (2^28), got {pixels}, shape {tuple(shape)}: a slip, or a damaged file?"
        )


def check_number(number: int, most: int, unit: str, name: str) -> None:
    """Raise if there would be more chunks, rows, … of something than anyone has.

    Raises
    ------
    InputError
        For more than `most`.
    """
    if number > most:
        raise InputError(f"expected {name} with up to {most} {unit}, got {number}: a slip, or a damaged file?")


def check_radius(sigma: float, truncate: float) -> None:
    """Raise if a gaussian reaches further than across any image.

    Raises
    ------
    InputError
        For a radius truncate·sigma of more than 2^16.
    """
    if sigma * truncate > MOST_RADIUS:
        raise InputError(f"expected a gaussian of a radius, truncate·sigma, of up to {MOST_RADIUS}, got {truncate:g}·{sigma:g}")
