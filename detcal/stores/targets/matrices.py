"""The matrix of a sensor as scipy writes sparse matrices (.npz), with what else detcal knows of it beside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.stores.sources.matrix_files import ATTRS, MASK, PARTS


def check_psf(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what is no matrix of a sensor.

    Raises
    ------
    InputError
        As said.
    """
    if dataset.attrs.get("detcal_type") != "SensorPSF":
        raise InputError(f"a {suffix} holds the matrix of a sensor, not {', '.join(map(str, dataset))}")


def export_npz(dataset: xr.Dataset, path: Path) -> None:
    """A matrix as `scipy.sparse.load_npz` reads it."""
    mask = dataset["mask"].values
    attrs = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in dataset.attrs.items()}
    parts: dict[str, Any] = {name: dataset[name].values for name in PARTS}
    with path.open("wb") as file:  # numpy would add a suffix to a path
        more: dict[str, Any] = {MASK: mask, ATTRS: np.array(json.dumps(attrs))}
        np.savez_compressed(file, format=b"csr", shape=np.array([mask.size] * 2), **parts, **more)
