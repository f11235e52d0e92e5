"""cronomaxrf's five arrays, from a Crono file."""

from os import PathLike
from pathlib import Path
from time import perf_counter, sleep

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import get_scheduler
from dask.diagnostics.progress import ProgressBar

import detcal
from detcal.errors import InputError, OutputError
from detcal.xrf.grid import build_scan_grid
from detcal.xrf.operations import smooth_spectra, spread, summary_spectra

PathOrName = str | PathLike[str]


def convert_scan(scan: xr.Dataset, *, sigma_channels: float = 7.0, tile_rows: int | None = None) -> xr.Dataset:
    """The arrays of `convert_crono`, lazily, from a scan with spectra and selected (row, column); `tile_rows` as for `regrid`.

    What `build_scan_grid` leaves out is NaN in the cube.

    Raises
    ------
    InputError
        No selection.
    """
    if "selected" not in scan:
        raise InputError("expected a scan with selected (row, column), got one without: regrid it by its positions instead")
    smoothed = smooth_spectra(scan.spectra, sigma_channels=sigma_channels)
    grid = build_scan_grid(scan, method="selected")
    cube = spread(smoothed, grid, grid.W, tile_rows=tile_rows, once=True)
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


def convert_crono(
    path: PathOrName,
    output: PathOrName,
    *,
    sigma_channels: float = 7.0,
    motor_step_um: float = 1.0,
    overwrite: bool = False,
    progress: bool = True,
    chunks: dict[str, int] | None = None,
) -> Path:
    """Convert a Crono file to cronomaxrf's arrays, under its names, in one pass over the file.

    Parameters
    ----------
    path
        The Crono file.
    output
        A zarr directory, or a zip of one if the name ends in .zip.
    sigma_channels
        Of the gaussian along the energy.
    motor_step_um, chunks
        As for `open_crono`.
    overwrite
        Replace an output that exists.
    progress
        Show a bar, of the tasks here or on the cluster of the current client.

    Returns
    -------
    Path
        The output. maxrf_all_spectra (spectrum, energy) float32, the smoothed spectra; maxrf_cube (row, column, energy) float32, those that
        the instrument selected; maxrf_max_spectrum and maxrf_sum_spectrum (energy,) float32, its largest and its mean (so cronomaxrf's
        "sum") values; maxrf_energies (energy,) in keV; and maxrf_total_spectrum (energy,) float64, the true sum of all raw spectra.

    Raises
    ------
    InputError, OutputError
        As `open_crono` and `save`; a file without selected spectra; an output that would take the file's place.
    """
    source, target = Path(path).resolve(), Path(output).resolve()
    if target in (source, *source.parents):
        raise OutputError(f"the output {output} would take the place of the Crono file {path}: choose another name")
    arrays = convert_scan(detcal.xrf.open_crono(path, motor_step_um=motor_step_um, chunks=chunks), sigma_channels=sigma_channels)
    if not progress:
        return detcal.save(arrays, output, overwrite=overwrite)
    if hasattr(getattr(get_scheduler(), "__self__", None), "persist"):
        return detcal.save(arrays, output, overwrite=overwrite, compute=watch_cluster)
    with ProgressBar():
        return detcal.save(arrays, output, overwrite=overwrite)


def watch_cluster(writes: list[da.Array]) -> None:
    """Compute on the cluster whose client is at work here, with a bar: dask's own knows of this process alone."""
    computed = dask.persist(*writes)
    blocks = [block for array in computed for block in dict(array.__dask_graph__()).values() if hasattr(block, "done")]
    start = perf_counter()
    while True:
        done = sum(block.done() for block in blocks)
        share = done / max(1, len(blocks))
        print(f"\r[{'#' * int(40 * share):<40}] | {share:.0%} Completed | {perf_counter() - start:.1f} s", end="", flush=True)
        if done == len(blocks):
            break
        sleep(0.1)
    print()
    dask.compute(*computed)  # which raises what a task has raised
