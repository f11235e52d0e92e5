"""Fly scans of the APS: a dataset of channels × rows × columns for each detector."""

from collections.abc import Mapping, Sequence
from os import fspath

import xarray as xr

from detcal.frames.arrays import ArrayLike
from detcal.stores.sources.any_scan import find_layout, open_layout
from detcal.stores.sources.scans import PathOrName


def open_maps(
    path: PathOrName,
    *,
    detector: int | Sequence[int] | None = None,
    positions: ArrayLike | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Open a fly scan of the APS (/MAPS_RAW: a dataset of channels × rows × columns for each detector) lazily.

    Not MDA files of step maps: no maintained library reads them without a graphical interface or on today's Python; convert them to HDF5.

    Parameters
    ----------
    path
        The HDF5 file.
    detector
        Numbers of detectors, from 0, or of one. Default: all that have counted. One that has no live time where others have one, in more
        of the points than its share of the counts is worth, or has not a single count, is left out, with a warning.
    positions : (spectrum, 2), optional
        x and y of each point, row by row. Default: columns and rows, since the file itself has none.
    chunks
        Rows of the map a block: {"row": 4}. Default: about 4 MiB.

    Returns
    -------
    Dataset
        As from `open_crono`. spectra are the sums of the detectors' counts, in a type that holds them; live_time_s and real_time_s their
        mean times; selected every point. detectors_live_s (spectrum, detector) and, of several, detector_spectra (detector, spectrum,
        energy) are those of each, by which `regrid_rate` and `element_maps` add up rates; coord detector tells their numbers. Points
        without a live time of all these detectors are left out.

    Raises
    ------
    InputError
        No such file or group, no such detector, none that has counted, positions of another number or all equal.

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("fly.h5", "w") as file:
    ...     file["MAPS_RAW/data_a"] = np.ones((64, 2, 3), np.uint16)
    >>> detcal.open_maps("fly.h5").selected.shape
    (2, 3)
    """
    name = fspath(path)
    layout = find_layout(name, "maps")
    assert layout is not None, "a layout that has names"
    return open_layout(name, layout, positions=positions, detector=detector, chunks=chunks)
