"""How the spectra of a scan make up the pixels of a regular grid."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError


@dataclass(frozen=True, eq=False)
class ScanGrid:
    """A scan's spectra on a grid: counts = W·spectra. From `build_scan_grid`.

    Attributes
    ----------
    data : (entry,) float32
        Share of a spectrum that a pixel gets (drizzle: those of a spectrum add up to 1; the others: those of a pixel do).
    indices : (entry,) int32
        Which spectrum; rising in each pixel.
    indptr : (edge,) int64
        Where each pixel's entries begin, and where the last one's end; pixel = row·columns + column.
    coverage : (row, column) float32
        Sum of the shares: how many spectra a pixel is made of. 0 where there is none.
    y, x : (row,), (column,) float64
        Centres of the pixels, in the unit of the positions; for "selected" mean positions of rows and columns.
    spectra
        Number of spectra in the scan.
    method
        As in `build_scan_grid`.
    step
        Height and width of a pixel, in the unit of the positions.
    line_lag
        By how many columns the recorded positions lagged behind, which was taken out.
    unit
        Of the positions.
    """

    data: xr.DataArray
    indices: xr.DataArray
    indptr: xr.DataArray
    coverage: xr.DataArray
    y: xr.DataArray
    x: xr.DataArray
    spectra: int
    method: str
    step: tuple[float, float]
    line_lag: float
    unit: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.coverage.shape
        return rows, columns

    @cached_property
    def W(self) -> sp.csr_matrix:
        """The matrix (pixels × spectra) in memory."""
        parts = tuple(np.asarray(part) for part in (self.data, self.indices, self.indptr))
        return sp.csr_matrix(parts, shape=(self.coverage.size, self.spectra))


def check_positions(positions: NDArray[Any], spectra: int) -> None:
    """Refuse positions that are not those of a scan.

    Raises
    ------
    InputError
        Another number of positions than of spectra, positions that are no numbers, or all equal.
    """
    if positions.ndim != 2 or len(positions) != spectra or positions.shape[1] < 2:
        raise InputError(f"expected positions of shape ({spectra}, 2 or more): x and y of each spectrum, got {positions.shape}")
    bad = np.flatnonzero(~np.isfinite(positions[:, :2]).all(axis=1))
    if bad.size:
        raise InputError(f"expected positions that are numbers, got {positions[bad[0]]} for spectrum {bad[0]}, and {bad.size} such in all")
    if (positions[:, :2] == positions[0, :2]).all():
        raise InputError(f"all {spectra} positions equal {positions[0, :2].tolist()}: such a scan has no map, only a mean spectrum")


def check_live_times(live_time_s: NDArray[Any], spectra: int, mend: str) -> None:
    """Refuse live times that counts cannot be divided by; `mend` says what can be done about it there.

    Raises
    ------
    InputError
        Another number of them than of spectra, or some that are not positive.
    """
    if live_time_s.shape != (spectra,):
        raise InputError(f"expected a live time for each of {spectra} spectra, got {live_time_s.shape}")
    bad = np.flatnonzero(~((live_time_s > 0) & (live_time_s < np.inf)))
    if bad.size:
        raise InputError(
            f"expected positive live times, got {live_time_s[bad[0]]:g} s for spectrum {bad[0]}, and {bad.size} such in all: {mend}"
        )


def check_selected(selected: NDArray[Any], spectra: int) -> None:
    """Refuse a selection of spectra that there are not.

    Raises
    ------
    InputError
        It is not (row, column) of whole numbers, or an index is out of range.
    """
    if selected.ndim != 2 or selected.dtype.kind not in "iu" or not selected.size:
        raise InputError(f"expected selected spectra (row, column) as whole numbers, got {selected.shape} of {selected.dtype}")
    low, high = int(selected.min()), int(selected.max())
    if low < 0 or high >= spectra:
        raise InputError(f"expected selected spectra from 0 to {spectra - 1}, got {low} to {high}: the index does not belong to this scan")


def check_energy(energy: NDArray[Any], channels: int, mend: str) -> None:
    """Refuse an energy axis that does not rise; `mend` as in `check_live_times`.

    Raises
    ------
    InputError
        Another number of energies than of channels, or two that do not rise.
    """
    if energy.shape != (channels,):
        raise InputError(f"expected an energy for each of {channels} channels, got {energy.shape}")
    steps = np.flatnonzero(~(np.diff(energy) > 0))
    if steps.size:
        first = steps[0]
        raise InputError(
            f"expected energies that rise with the channel, got {energy[first]:g} keV and then {energy[first + 1]:g} keV at channel "
            f"{first + 1}: {mend}"
        )
