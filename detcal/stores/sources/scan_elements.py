"""The elements of a scan's detector: which of them are used, and what they counted together."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.scans import StoredSpectra
from detcal.xrf.calibration import listed

Times = NDArray[np.float64]  # (element, spectrum), s


def wanted_elements(name: str, detector: int | Sequence[int] | None, number: int) -> NDArray[np.int64]:
    """The numbers of the elements that are asked for.

    Raises
    ------
    InputError
        There are no such elements.
    """
    if detector is None:
        return np.arange(number)
    wanted = np.atleast_1d(np.asarray(detector))
    whole = wanted.ndim == 1 and wanted.size and wanted.dtype.kind in "iu"
    if not whole or not ((wanted >= 0) & (wanted < number)).all() or len(set(wanted.tolist())) < len(wanted):
        raise InputError(f"expected a detector from 0 to {number - 1} in {name}, or several different ones, got {detector}")
    return wanted.astype(np.int64)


def elements_that_counted(
    name: str, elements: Sequence[StoredSpectra], live_time_s: Times | None, numbers: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which elements are worth more than the points that they have not counted in; says of the others that they are left out.

    An element of n is an n-th of the counts: it is left out if it has no live time in more than an n-th of the points in which any has one,
    or if it has not a single count while others have. Else those points are.
    """
    counted = np.ones(len(elements), np.bool_)
    if len(elements) == 1:
        return counted
    timeless = counted & False
    if live_time_s is not None:
        there = (live_time_s > 0) & (live_time_s < np.inf)
        reached = there.any(axis=0)
        timeless = (reached & ~there).sum(axis=1) > reached.sum() / len(elements)
    silent = np.array([not gone and is_silent(element) for element, gone in zip(elements, timeless, strict=True)])
    if (timeless | silent).all():  # nobody can tell from another's counts that an element is dead
        silent[:] = False
    parts = [
        f"{listed(numbers[which])} {reason}"
        for which, reason in ((timeless, "without a live time in too many points"), (silent, "without a single count"))
        if which.any()
    ]
    if parts:
        warnings.warn(
            f"of {len(elements)} detectors of {name}, {(timeless | silent).sum()} are left out: {' and '.join(parts)}", stacklevel=3
        )
    alive: NDArray[np.bool_] = ~(timeless | silent)
    return alive


def is_silent(spectra: StoredSpectra) -> bool:
    """Whether spectra hold no count at all: those of an element that counts are read to the first count only."""
    depth = spectra.block({"spectrum": 1})
    return not any((spectra.read(start, min(start + depth, len_of(spectra))) > 0).any() for start in range(0, len_of(spectra), depth))


def len_of(spectra: StoredSpectra) -> int:
    """How many spectra there are."""
    return spectra.shape[0]


def sum_of(spectra: list[da.Array]) -> da.Array:
    """Sums of the elements' counts in a type that holds them: whole numbers stay whole, reals keep fractions and NaN."""
    kind = np.result_type(*(part.dtype for part in spectra))
    if len(spectra) == 1:
        return spectra[0]
    if kind.kind == "f":
        kind = np.result_type(kind, np.float32)
    elif kind != np.uint64:
        kind = np.dtype(np.int32 if kind.itemsize <= 2 else np.int64)
    total: da.Array = sum((part.astype(kind) for part in spectra[1:]), spectra[0].astype(kind))
    return total


def counted_together(
    name: str,
    elements: Sequence[StoredSpectra],
    times: Mapping[str, Times],
    detector: int | Sequence[int] | None,
    chunks: Mapping[str, int] | None,
) -> tuple[dict[str, Any], NDArray[np.int64], dict[str, NDArray[np.bool_]]]:
    """Sums of the wanted elements' counts, their mean times, and those of each, as variables of a scan.

    Also the numbers of these elements, and which spectra are left out since not all of them were live.
    """
    wanted = wanted_elements(name, detector, len(elements))
    given = {kind: values[wanted] for kind, values in times.items()}
    counted = elements_that_counted(name, [elements[number] for number in wanted], given.get("live_time_s"), wanted)
    wanted, given = wanted[counted], {kind: values[counted] for kind, values in given.items()}
    parts = [elements[number].lazy(chunks) for number in wanted]
    variables: dict[str, Any] = {"spectra": (("spectrum", "energy"), sum_of(parts), {"units": "counts"})}
    variables |= {kind: ("spectrum", values.mean(axis=0), {"units": "s"}) for kind, values in given.items()}
    if len(parts) > 1:
        variables["detector_spectra"] = (("detector", "spectrum", "energy"), da.stack(parts), {"units": "counts"})
    if "live_time_s" not in given:
        return variables, wanted, {}
    there = (given["live_time_s"] > 0) & (given["live_time_s"] < np.inf)
    live = np.where(there, given["live_time_s"], np.nan)
    variables["live_time_s"] = ("spectrum", live.mean(axis=0), {"units": "s"})
    if len(elements) > 1:
        variables["detectors_live_s"] = (("spectrum", "detector"), live.T, {"units": "s"})
    return variables, wanted, {"without a live time of every detector": np.asarray(there.any(axis=0) & ~there.all(axis=0))}
