"""What may be given where frames, an image or spectra are expected."""

from typing import Any, TypeAlias

import dask.array as da
import xarray as xr
from numpy.typing import NDArray

ArrayLike: TypeAlias = xr.DataArray | da.Array | NDArray[Any]
