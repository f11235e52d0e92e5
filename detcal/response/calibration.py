"""What the response fit gives, and what the correction needs."""

from dataclasses import dataclass, fields, replace
from typing import Any

import dask
import numpy as np
import xarray as xr

from detcal.display import as_html, as_text
from detcal.frames.images import check_gains, one_image


@dataclass(frozen=True, eq=False)
class Response:
    """Pixel-wise response of a detector: true signal = offset + gain·V + curvature·V², V the dark-subtracted reading.

    The images are DataArrays (y, x); they are lazy until `compute` or `detcal.save`.

    Attributes
    ----------
    gain : float32
        Neighbours' signal over the pixel's own. NaN: never lit, or the fit has no solution.
    offset : float32, counts
        0 unless fitted with `intercept=True`.
    gain_error : float32
        Standard error of the gain, for a variance proportional to the signal (photon noise).
    r_squared : float32
        Share of the smoothed signal's variation that the fit explains: about 0 if the fit goes through the origin, about
        the mean if it has an intercept.
    frames_used : int32
        Frames whose smoothed signal was above the cutoff.
    frames_saturated : int32, or None
        Frames that were left out because readings in the pixel, or around it, were saturated. None: not known.
    mask : bool
        True: bad for one of the reasons. Such pixels become NaN in the correction.
    reasons : uint8, or None
        Why a pixel is bad, bits that add up: 1 never lit, or too few readings for a fit; 2 dead; 4 hot; 8 stuck; 16 nonlinear; 32 blinking.
        0 in good pixels. Its attributes flag_masks and flag_meanings say so too (CF conventions). None: not known.
    curvature : float32, 1/counts, or None
        Only of order 2.
    sigma, boundary, truncate
        The smoothing that defined the expected signal; the correction smooths its flat in the same way.
    cutoff : counts
        Smallest smoothed signal that took part.
    order, intercept
        The model that was fitted.
    """

    gain: xr.DataArray
    offset: xr.DataArray
    gain_error: xr.DataArray
    r_squared: xr.DataArray
    frames_used: xr.DataArray
    mask: xr.DataArray
    curvature: xr.DataArray | None = None
    frames_saturated: xr.DataArray | None = None
    reasons: xr.DataArray | None = None
    sigma: float = 50.0
    cutoff: float = 300.0
    order: int = 1
    intercept: bool = False
    boundary: str = "nearest"
    truncate: float = 4.0

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @classmethod
    def from_gain(cls, gain: Any, *, sigma: float = 50.0, boundary: str = "nearest", truncate: float = 4.0) -> "Response":
        """A Response from gains (y, x) that were fitted elsewhere, detectorcal's coefficients for instance.

        Pixels whose gain is not finite and positive are masked; errors and R² are unknown (NaN).

        Raises
        ------
        InputError
            If `gain` is not one image, or of counts: integers other than 0 and 1, or with a median above 100.
        """
        found = one_image(gain, "gains")
        check_gains(found)
        values = np.asarray(found, dtype=np.float32)

        def image(data: Any) -> xr.DataArray:
            return xr.DataArray(data, dims=("y", "x"))

        unknown = np.full_like(values, np.nan)
        return cls(
            gain=image(values), offset=image(np.zeros_like(values)), gain_error=image(unknown), r_squared=image(unknown),
            frames_used=image(np.zeros(values.shape, np.int32)), mask=image(~(np.isfinite(values) & (values > 0))),
            sigma=sigma, cutoff=0.0, boundary=boundary, truncate=truncate,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the detector."""
        return self.gain.shape  # type: ignore[return-value]

    def compute(self) -> "Response":
        """The same with its images in memory; one pass over the sweep."""
        images = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), xr.DataArray)}
        return replace(self, **dict(zip(images, dask.compute(*images.values()), strict=True)))
