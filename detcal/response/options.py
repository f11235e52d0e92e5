"""Options of the operations that are none, and what does not go together: refused before a graph is built."""

from typing import Any

import numpy as np

from detcal.errors import InputError
from detcal.frames.images import FIT
from detcal.response.calibration import Response
from detcal.response.defects import Limits
from detcal.response.smoothing import BOUNDARIES
from detcal.sizes import check_radius


def check_correction(
    shape: tuple[int, ...],
    response: Response | None,
    dark: Any,
    flat: Any,
    flat_positions: Any,
    residual_sigma: float | None,
    fill: Any,
) -> None:
    """Refuse what does not go together."""
    if response is None and dark is None and flat is None:
        raise InputError("expected a response, a dark or a flat to correct frames with: give one of them")
    if response is not None and not isinstance(response, Response):
        raise InputError(f"expected a Response, got {type(response).__name__}: Response.from_gain makes one of an image of gains{FIT}")
    if response is not None and response.shape != shape:
        raise InputError(f"expected frames of shape {response.shape} (y, x), as the response, got {shape}")
    if response is not None:
        check_radius(response.sigma, response.truncate)
    if flat_positions is not None and flat is None:
        raise InputError("flat_positions needs a flat: give flat=, or leave flat_positions out")
    if fill not in (None, "interpolate"):
        raise InputError(f'expected fill = "interpolate", or none, got {fill!r}')
    if residual_sigma is None:
        return
    if not residual_sigma >= 0:
        raise InputError(f"expected residual_sigma of 0 or more, got {residual_sigma}")
    if flat is None or response is None:
        raise InputError("residual_sigma needs a flat and a response: give both, or leave residual_sigma out")


def checked_limits(**limits: float) -> Limits:
    """What a good pixel is within.

    Raises
    ------
    InputError
        What is no positive number, or a part of the signal that is dead and hot at once.
    """
    for name, limit in limits.items():
        if isinstance(limit, bool | str) or not limit > 0:
            raise InputError(f"expected {name} as a positive number, or infinity for no limit, got {limit!r}")
    if not limits["dead"] < limits["hot"]:
        raise InputError(f"expected hot above dead, got dead = {limits['dead']:g} and hot = {limits['hot']:g}")
    return Limits(**{name: float(limit) for name, limit in limits.items()})


def check_smoothing(sigma: float, boundary: str, truncate: float) -> None:
    """Refuse a gaussian that is none."""
    if not 0 < sigma < np.inf or not 0 < truncate < np.inf:
        raise InputError(f"expected a positive sigma and truncate, got {sigma} and {truncate}")
    check_radius(sigma, truncate)
    if boundary not in BOUNDARIES:
        raise InputError(f"expected boundary to be one of {', '.join(BOUNDARIES)}, got {boundary!r}")


def check_order(order: int) -> None:
    """Refuse a model that there is not."""
    if order not in (1, 2):
        raise InputError(f"expected order 1 or 2, got {order}")
