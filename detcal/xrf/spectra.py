"""Spectra by themselves, wherever they were taken: smoothing and sums, as lazy graphs."""

from functools import partial
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.graph import map_frames
from detcal.frames.stack import native
from detcal.frames.valid import spectra_readings
from detcal.sizes import check_radius
from detcal.xrf import kernels
from detcal.xrf.tiles import TILE_BYTES

Boundary = Literal["reflect", "nearest", "mirror", "wrap"]


def smooth_spectra(
    spectra: ArrayLike, *, sigma_channels: float = 7.0, boundary: Boundary = "reflect", truncate: float = 4.0
) -> xr.DataArray:
    """Gaussian along the energy of spectra (…, energy), lazily: that of scipy.ndimage.gaussian_filter1d on float32.

    Parameters
    ----------
    spectra : (spectrum, energy) or (row, column, energy)
        Counts of any type: whole numbers become float32 first, since scipy would cut the result's fractions off. Channels that are not
        finite take no part: those beside them are the mean of the others, with the gaussian's weights.
    sigma_channels
        Standard deviation of the gaussian, in channels.
    boundary
        "reflect", "nearest", "mirror" or "wrap", as scipy's mode.
    truncate
        Where the gaussian is cut, in standard deviations.

    Returns
    -------
    DataArray float32
        Of the same shape; NaN in channels that were not measured.

    Raises
    ------
    InputError
        No numbers, a sigma that is not positive, an unknown boundary.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.xrf import smooth_spectra
    >>> spectra = np.zeros((1, 9))
    >>> spectra[0, 4] = 100
    >>> smooth_spectra(spectra, sigma_channels=1.0).values.round().tolist()
    [[0.0, 0.0, 5.0, 24.0, 40.0, 24.0, 5.0, 0.0, 0.0]]
    """
    data = as_spectra(spectra)
    if boundary not in kernels.BOUNDARIES:
        raise InputError(f"expected boundary to be one of {', '.join(kernels.BOUNDARIES)}, got {boundary!r}")
    if not 0 < sigma_channels < np.inf or not 0 < truncate < np.inf:
        raise InputError(f"expected a positive sigma_channels and truncate, got {sigma_channels} and {truncate}")
    check_radius(sigma_channels, truncate)
    kernel = partial(kernels.smooth, sigma=float(sigma_channels), boundary=boundary, truncate=float(truncate))
    whole = data.copy(data=data.data.rechunk({data.ndim - 1: -1}))
    return map_frames(kernel, whole, whole=False, name=data.name, attrs=data.attrs)


def summary_spectra(spectra: ArrayLike) -> xr.Dataset:
    """Sum, mean and maximum of all spectra (…, energy), lazily and in one pass; what is not finite takes no part, channel by channel.

    Returns
    -------
    Dataset (energy,)
        sum and max, in the unit of the spectra, mean; NaN in channels that no spectrum has. float64.

    Raises
    ------
    InputError
        No numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.xrf import summary_spectra
    >>> summary = summary_spectra(np.array([[0.0, 1.0], [2.0, np.nan]]))
    >>> summary["sum"].values.tolist(), summary["mean"].values.tolist()
    ([2.0, 1.0], [1.0, 1.0])
    """
    data = as_spectra(spectra)
    whole = data.data.rechunk({data.ndim - 1: -1})
    lines = tuple((1,) * len(sizes) for sizes in whole.chunks[:-1])
    parts = da.map_blocks(
        summary_block, whole, dtype=np.float64, chunks=(*lines, (3,), whole.chunks[-1]), new_axis=whole.ndim - 1,
        meta=np.empty((0,) * (whole.ndim + 1)),
    )  # fmt: skip
    merged = da.reduction(
        parts, keep_block, merge_summaries, axis=tuple(range(whole.ndim - 1)), dtype=np.float64, concatenate=True, split_every=16,
    )  # fmt: skip
    coords = {name: values for name, values in data.coords.items() if values.dims == ("energy",)}
    total, highest, number = da.where(merged[2] > 0, merged, np.nan)
    names = {"sum": total, "mean": total / number, "max": highest}
    return xr.Dataset({name: ("energy", values, data.attrs) for name, values in names.items()}, coords)


def summary_block(block: NDArray[Any]) -> NDArray[np.float64]:
    """Sums, maxima and numbers of spectra (…, 3, energy) of a block."""
    lines = np.ascontiguousarray(block).reshape(-1, block.shape[-1])
    found = np.zeros((3, block.shape[-1]))
    found[1] = -np.inf
    kernels.add_to_summary(lines, *found)
    return found.reshape((1,) * (block.ndim - 1) + found.shape)


def keep_block(block: NDArray[Any], axis: Any, keepdims: bool) -> NDArray[Any]:
    """What is merged is what came."""
    return block


def merge_summaries(parts: NDArray[Any], axis: tuple[int, ...], keepdims: bool) -> NDArray[Any]:
    """Summaries of several blocks as one."""
    flat = parts.reshape(-1, *parts.shape[-2:])
    found = np.stack([flat[:, 0].sum(axis=0), flat[:, 1].max(axis=0), flat[:, 2].sum(axis=0)])
    return found.reshape((1,) * len(axis) + found.shape) if keepdims else found


def as_spectra(data: Any) -> xr.DataArray:
    """Spectra (…, energy) as a DataArray over dask, of a type that kernels are compiled for.

    Raises
    ------
    InputError
        Of other dimensions than (energy,), (spectrum, energy) or (row, column, energy), or no numbers.
    """
    dims = ("row", "column", "energy")
    if not isinstance(data, xr.DataArray):
        names = {1: ("energy",), 2: ("spectrum", "energy"), 3: dims}.get(np.ndim(data))
        if names is None:
            raise InputError(f"expected spectra (spectrum, energy) or (row, column, energy), got {np.shape(data)}")
        data = xr.DataArray(data, dims=names)
    if data.dtype.kind not in "iuf" or not data.sizes.get("energy"):
        raise InputError(f"expected numbers with a dimension energy, got {data.dtype} {dict(data.sizes)}")
    data = data.transpose(..., "energy").astype(native(data.dtype), copy=False)
    if isinstance(data.data, da.Array):
        return spectra_readings(data)
    size = max(1, TILE_BYTES // max(1, data[..., :1].size and data.nbytes // len(data)))
    blocks = (size, *(-1,) * (data.ndim - 1))
    return spectra_readings(data.copy(data=da.from_array(data.values, chunks=blocks, name=False)))
