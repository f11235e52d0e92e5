"""Scans of electron microscopes and table-top instruments, through rosettasciio, which is imported only when one is opened.

It is GPL-3, and so no part of detcal: pip install "detcal[formats]" adds it.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.sources.placed import ENERGIES, LENGTHS, Parts
from detcal.stores.sources.readers import check_readable, clear_errors, fingerprint
from detcal.stores.sources.scans import StoredSpectra, channel_axis

# rosettasciio's readers, by the suffixes of files.
READERS = {
    ".bcf": "bruker", ".spx": "bruker", ".rpl": "ripple", ".spd": "edax", ".spc": "edax", ".msa": "msa", ".emsa": "msa",
    ".hspy": "hspy", ".zspy": "zspy",
}  # fmt: skip


def is_foreign(name: str) -> bool:
    """Whether a file is one for rosettasciio, by its suffix."""
    return Path(name).suffix.lower() in READERS


@dataclass(frozen=True)
class ForeignArray:
    """The numbers of a file as dask takes them, behind a path; each process opens it once."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: str
    lacking: bool = False  # such files do not say
    absence: None = None

    name = "data"

    def files(self, start: int, stop: int) -> list[str]:
        return files_of(self.path)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with clear_errors(self.path):
            part = opened(self.path, self.version)["data"].reshape(self.shape)[key]
            return np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)


def files_of(path: str) -> list[str]:
    """A file, and the one with its numbers if it is a header."""
    numbers = [str(each) for suffix in (".raw", ".RAW") if (each := Path(path).with_suffix(suffix)).exists()]
    return [path, *numbers] if Path(path).suffix.lower() == ".rpl" else [path]


def metadata_of(path: str) -> list[str]:
    """What a folder of HyperSpy's says of its arrays: it changes when they are written anew, and the folder need not."""
    return sorted(str(each) for each in Path(path).rglob(".z*")) if Path(path).is_dir() else []


@lru_cache(maxsize=2)
def opened(path: str, version: str) -> dict[str, Any]:
    """What rosettasciio makes of a file as it was in some version: the first thing in it that has spectra.

    Raises
    ------
    InputError
        rosettasciio is not installed, or the file holds no spectra.
    """
    try:
        reader = import_module(f"rsciio.{READERS[Path(path).suffix.lower()]}")
    except ImportError as error:
        raise InputError(f'{path} needs rosettasciio ({error}): pip install "detcal[formats]"; it is GPL-3') from None
    options = {"mode": "r"} if Path(path).suffix.lower() == ".zspy" else {}  # which else would be opened to be written
    with clear_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is told of microscopes
        try:
            found = reader.file_reader(path, lazy=True, **options)
        except NotImplementedError:  # single spectra are read at once
            found = reader.file_reader(path)
    spectra = [each for each in found if energy_place(each) is not None]
    if not spectra:
        raise InputError(f"expected spectra in {path}, found {len(found)} things without an axis of energies")
    return dict(spectra[0])


def energy_place(found: dict[str, Any]) -> int | None:
    """Which axis is that of energies: by its name or unit, or else the only one that is no place; None if there is none."""
    axes = found["axes"]
    named = [place for place, axis in enumerate(axes) if is_energy(axis)]
    signal = [place for place, axis in enumerate(axes) if not axis.get("navigate", False)]
    return named[0] if named else signal[0] if len(signal) == 1 else None


def is_energy(axis: dict[str, Any]) -> bool:
    """Whether an axis says that it is one of energies."""
    return str(axis.get("name")).lower() == "energy" or str(axis.get("units")).lower() in ENERGIES


def read_foreign(name: str) -> Parts:
    """What such a file holds of a scan; its positions are those of a regular grid.

    Raises
    ------
    InputError
        What `opened` raises, or spectra of more than a map.
    """
    check_readable(name)
    path = str(Path(name).absolute())
    version = fingerprint([*files_of(path), *metadata_of(path)])
    found = opened(path, version)
    axes, data, place = found["axes"], found["data"], energy_place(found)
    others = [axis for number, axis in enumerate(axes) if number != place]
    if len(others) > 2:
        raise InputError(f"expected spectra of points or of a map in {name}, got {data.shape}")
    inside = ("row", "column") if len(others) == 2 else ("spectrum",)
    dims = [*inside[: len(others)]] if others else ["spectrum"]
    dims.insert(place if others and place is not None else 1, "energy")
    shape = tuple(data.shape) if others else (1, *data.shape)
    spectra = StoredSpectra(ForeignArray(path, shape, np.dtype(data.dtype), version), tuple(dims), None)
    lines = [line_of(axis) for axis in others] or [np.zeros(1)]
    y, x = np.meshgrid(*lines, indexing="ij") if len(lines) == 2 else (np.zeros_like(lines[0]), lines[0])
    factors = {LENGTHS.get(str(axis.get("units")), 0.0) for axis in others}
    known = len(factors) == 1 and 0.0 not in factors
    places = np.stack([x.ravel(), y.ravel()], axis=1) * (max(factors) if known else 1.0)
    return Parts([spectra], places, "um" if known else "pixels", energies_of(axes[place or 0]), {}, ["spectra"])


def line_of(axis: dict[str, Any]) -> NDArray[np.float64]:
    """The places along an axis."""
    if "axis" in axis:
        return np.asarray(axis["axis"], np.float64)
    return np.asarray(axis.get("offset", 0) + axis.get("scale", 1) * np.arange(axis["size"]), np.float64)


def energies_of(axis: dict[str, Any]) -> Any:
    """The axis of energies in keV, or of channels where no unit is known."""
    factor = ENERGIES.get(str(axis.get("units")).lower())
    return channel_axis(axis["size"]) if factor is None else ("energy", line_of(axis) * factor, {"units": "keV"})
