"""cronomaxrf's five arrays, from a scan."""

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.xrf.grid import build_scan_grid
from detcal.xrf.operations import spread
from detcal.xrf.spectra import smooth_spectra, summary_spectra


def convert_scan(scan: xr.Dataset, *, sigma_channels: float = 7.0, tile_rows: int | None = None) -> xr.Dataset:
    """The arrays of `detcal.convert_crono`, lazily, from a scan with spectra and selected (row, column); `tile_rows` as for `regrid`.

    What `build_scan_grid` leaves out is NaN in the cube.

    Raises
    ------
    InputError
        No selection.

    Examples
    --------
    >>> from detcal import simulate
    >>> from detcal.xrf import convert_scan
    >>> scan = simulate.maxrf_scan(4, 6, channels=512, counts=1.0)
    >>> convert_scan(scan).maxrf_cube.shape
    (4, 6, 512)
    """
    if "selected" not in scan:
        raise InputError("expected a scan with selected (row, column), got one without: regrid it by its positions instead")
    smoothed = smooth_spectra(scan.spectra, sigma_channels=sigma_channels)
    grid = build_scan_grid(scan, method="selected")
    cube = spread(smoothed, grid, grid.to_scipy(), tile_rows=tile_rows, once=True)
    summary = summary_spectra(cube)
    total = summary_spectra(scan.spectra)["sum"]
    told = {
        "maxrf_all_spectra": (smoothed, "every spectrum in the order of the scan, smoothed along the energy"),
        "maxrf_cube": (cube, "smoothed spectra that the instrument selected for each point of its grid"),
        "maxrf_max_spectrum": (summary["max"].astype(np.float32), "largest value of each channel in maxrf_cube"),
        "maxrf_sum_spectrum": (summary["mean"].astype(np.float32), "mean, whatever the name says, of each channel of maxrf_cube"),
        "maxrf_total_spectrum": (total, "sum of every spectrum of the scan, as counted: not smoothed, none left out"),
        "maxrf_energies": (xr.DataArray(scan.energy.values, dims="energy"), "energy of each channel"),
    }
    units = {"maxrf_energies": scan.energy.attrs.get("units", "keV")}
    variables = {
        name: values.drop_vars(list(values.coords)).assign_attrs(long_name=text, units=units.get(name, "counts"))
        for name, (values, text) in told.items()
    }
    return xr.Dataset(variables, attrs={"source": scan.attrs.get("source", ""), "sigma_channels": float(sigma_channels)})
