"""How the spectra of a scan make up the pixels of a regular grid, and which of them were measured."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import dask
import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from detcal.display import as_html, as_text
from detcal.errors import InputError


@dataclass(frozen=True, eq=False)
class ScanGrid:
    """A scan's spectra on a grid: counts = W·spectra, W in CSR (rows are pixels, columns spectra). From `build_scan_grid`.

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

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.coverage.shape
        return rows, columns

    @cached_property
    def in_memory(self) -> sp.csr_matrix:
        """The matrix W: one copy, kept with this object."""
        parts = tuple(np.asarray(part) for part in dask.compute(self.data.data, self.indices.data, self.indptr.data))
        return sp.csr_matrix(parts, shape=(self.coverage.size, self.spectra))

    def to_scipy(self) -> sp.csr_matrix:
        """The matrix W (pixels × spectra) in memory."""
        return self.in_memory

    def compute(self) -> "ScanGrid":
        """The same with its arrays in memory."""
        arrays = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), xr.DataArray)}
        return replace(self, **dict(zip(arrays, dask.compute(*arrays.values()), strict=True)))

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which spectra (spectrum,) have a share in any pixel."""
        return np.bincount(np.asarray(self.indices), minlength=self.spectra) > 0

    def without(self, left_out: NDArray[np.bool_]) -> "ScanGrid":
        """The grid without the shares of some spectra (spectrum,): what is left is not made up for."""
        kept = ~left_out[np.asarray(self.indices)]
        before = np.concatenate([[0], np.cumsum(kept)])
        rest = sp.csr_matrix(
            (np.asarray(self.data)[kept], np.asarray(self.indices)[kept], before[np.asarray(self.indptr)]), shape=self.in_memory.shape
        )
        coverage = np.asarray(rest.sum(axis=1), np.float32).reshape(self.shape)
        return replace(
            self, data=xr.DataArray(rest.data, dims="entry"), indices=xr.DataArray(rest.indices, dims="entry"),
            indptr=xr.DataArray(before[np.asarray(self.indptr)], dims="edge"), coverage=self.coverage.copy(data=coverage),
        )  # fmt: skip


def check_positions(positions: NDArray[Any], spectra: int) -> None:
    """Refuse positions that are not those of a scan.

    Raises
    ------
    InputError
        Another number of positions than of spectra.
    """
    if positions.ndim != 2 or len(positions) != spectra or positions.shape[1] < 2:
        raise InputError(f"expected positions of shape ({spectra}, 2 or more): x and y of each spectrum, got {positions.shape}")


def check_live_times(live_time_s: NDArray[Any], spectra: int) -> None:
    """Refuse live times that are not those of a scan.

    Raises
    ------
    InputError
        Another number of them than of spectra.
    """
    if live_time_s.shape != (spectra,):
        raise InputError(f"expected a live time for each of {spectra} spectra, got {live_time_s.shape}")


NO_POSITION = "without a position that is a number"
NO_LIVE_TIME = "without a positive live time"


def unmeasured(positions: NDArray[Any], live_time_s: NDArray[Any] | None = None) -> dict[str, NDArray[np.bool_]]:
    """Which spectra have nothing that a map could show, by reason: where they were taken, or for how long, is not known.

    The one rule for readers and operations. Positions (spectrum, axis), of which x and y count; live times (spectrum,), if there are any.
    """
    found = {NO_POSITION: ~np.isfinite(positions[:, :2]).all(axis=1)}
    if live_time_s is not None:
        found[NO_LIVE_TIME] = ~((live_time_s > 0) & (live_time_s < np.inf))
    return found


def leave_out(
    reasons: Mapping[str, NDArray[np.bool_]], numbers: NDArray[Any], *, known: NDArray[np.bool_] | None = None, source: str = ""
) -> NDArray[np.bool_]:
    """Which spectra (spectrum,) are left out, for any of some reasons or as is known: one warning for all that are new.

    It says how many there are for each reason, and what their numbers are; `source` names the file, if it is one's.

    Raises
    ------
    InputError
        Every spectrum is left out.
    """
    out = np.zeros(len(numbers), np.bool_) if known is None else known.copy()
    parts = []
    for reason, which in reasons.items():
        if (new := which & ~out).any():
            parts.append(f"{new.sum()} {reason} (number {listed(numbers[new])})")
            out |= new
    counted = f"of {len(out)} spectra{source}, {' and '.join(parts) or 'all'} are left out"
    if out.all():
        raise InputError(f"no spectrum is left to make a map of: {counted}")
    if parts:
        warnings.warn(f"{counted}: they keep their numbers, and take part in no map", stacklevel=3)
    return out


def left_out_of(scan: xr.Dataset, positions: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Which spectra of a scan are left out: for its positions and live times, so far as they are given, and those of its `left_out`."""
    spectra = scan.sizes["spectrum"]
    places = np.zeros((spectra, 2)) if positions is None else positions
    live = live_times_of(scan) if "live_time_s" in scan else None
    known = scan.left_out.fillna(False).values.astype(np.bool_) if "left_out" in scan else None
    return leave_out(unmeasured(places, live), scan.spectrum.values, known=known)


def live_times_of(scan: xr.Dataset) -> NDArray[np.float64]:
    """Live times (spectrum,) of a scan in s; NaN for those that are no times.

    Raises
    ------
    InputError
        None at all, or another number of them than of spectra.
    """
    if "live_time_s" not in scan:
        raise InputError(
            'expected a scan with live_time_s (spectrum,), got one without: for counts alone take regrid, and quantity="counts" of '
            'element_maps (in a recipe quantity = "counts" is both), or give live times to the scan'
        )
    live = np.asarray(scan.live_time_s.values, np.float64)
    check_live_times(live, scan.sizes["spectrum"])
    return np.where((live > 0) & (live < np.inf), live, np.nan)


def check_places(positions: NDArray[Any]) -> None:
    """Refuse positions (spectrum, axis) that are all the same.

    Raises
    ------
    InputError
        As said.
    """
    if (positions[:, :2] == positions[0, :2]).all():
        raise InputError(f"all {len(positions)} positions equal {positions[0, :2].tolist()}: such a scan has no map, only a mean spectrum")


def listed(numbers: NDArray[Any], most: int = 5) -> str:
    """Some numbers as a text: the first ones and the last where there are many."""
    texts = [str(number) for number in numbers]
    return ", ".join(texts if len(texts) <= most + 1 else [*texts[:most], "…", texts[-1]])


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
    """Refuse an energy axis that does not rise; `mend` says what can be done about it there.

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
