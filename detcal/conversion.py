"""From file to file: what joins a reader, a subject and a writer, which know nothing of each other."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from time import perf_counter, sleep

import dask
import dask.array as da
from dask.base import get_scheduler
from dask.diagnostics.progress import ProgressBar

from detcal.errors import OutputError
from detcal.stores import save
from detcal.stores.sources.crono import open_crono
from detcal.xrf.convert import convert_scan

PathOrName = str | PathLike[str]


def convert_crono(
    path: PathOrName,
    output: PathOrName,
    *,
    sigma_channels: float = 7.0,
    motor_step_um: float = 1.0,
    overwrite: bool = False,
    progress: bool = True,
    chunks: Mapping[str, int] | None = None,
) -> Path:
    """Convert a Crono file to cronomaxrf's arrays, under its names, in one pass over the file.

    Parameters
    ----------
    path
        The Crono file.
    output
        A zarr directory, or a zip of one if the name ends in .zip.
    sigma_channels
        Standard deviation of the gaussian along the energy, in channels.
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

    Examples
    --------
    >>> import detcal
    >>> from detcal import simulate
    >>> from detcal.stores.targets.crono_writer import write_crono
    >>> path = write_crono(simulate.maxrf_scan(4, 6, channels=64), "map.HDF5")
    >>> store = detcal.convert_crono(path, "map.zarr", progress=False)
    >>> detcal.get_array(store, "maxrf_cube").shape
    (4, 6, 64)
    """
    source, target = Path(path).resolve(), Path(output).resolve()
    if target in (source, *source.parents):
        raise OutputError(f"the output {output} would take the place of the Crono file {path}: choose another name")
    arrays = convert_scan(open_crono(path, motor_step_um=motor_step_um, chunks=chunks), sigma_channels=sigma_channels)
    if not progress:
        return save(arrays, output, overwrite=overwrite)
    if hasattr(getattr(get_scheduler(), "__self__", None), "persist"):
        return save(arrays, output, overwrite=overwrite, compute=watch_cluster)
    with ProgressBar():
        return save(arrays, output, overwrite=overwrite)


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
