"""Profiles as text: columns of radius, intensity and its error, below a header that says what they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.targets.nexus_file import ERRORS

Columns = dict[str, NDArray[np.float64]]
SIGNAL = "intensity"
CENTIDEGREES = {"2th_deg": 100.0, "2th_rad": 100 * 180 / np.pi}


def check_profile(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what is not one profile.

    Raises
    ------
    InputError
        No intensity along radial, or that of several frames or azimuths.
    """
    if SIGNAL not in dataset or "radial" not in dataset[SIGNAL].dims:
        raise InputError(f"a {suffix} holds a profile, intensity over radial, not {', '.join(map(str, dataset))}: save to .zarr or .h5")
    sizes = {str(dim): size for dim, size in dataset[SIGNAL].sizes.items() if dim != "radial" and size > 1}
    if sizes:
        several = " and ".join(f"{size} along {dim}" for dim, size in sizes.items())
        raise InputError(
            f"a {suffix} holds one profile, not {several}: choose one, .isel({next(iter(sizes))}=0), in a recipe one frame of [input] by "
            "frames = 0, or save all to .nxs or .zarr"
        )


def check_powder(dataset: xr.Dataset, suffix: str) -> None:
    """Refuse what is not one profile over 2θ with errors.

    Raises
    ------
    InputError
        Another unit of the radius, or no errors.
    """
    check_profile(dataset, suffix)
    if unit_of(dataset) not in CENTIDEGREES:
        raise InputError(f'a {suffix} is over 2θ, and these profiles are over {unit_of(dataset)}: integrate with unit = "2th_deg"')
    if error_of(dataset) is None:
        raise InputError(f"a {suffix} has a column of errors, and these profiles have none: integrate with an error_model, or save to .xy")


def unit_of(dataset: xr.Dataset) -> str:
    """Unit of the radius, by pyFAI's name."""
    return str(dataset["radial"].attrs.get("units", ""))


def error_of(dataset: xr.Dataset) -> xr.DataArray | None:
    """The standard errors of the intensity, if there are any."""
    return next((dataset[error] for name, error, _ in ERRORS if name == SIGNAL and error in dataset), None)


def columns_of(dataset: xr.Dataset) -> Columns:
    """The one profile's columns, without bins that have no intensity."""
    error = error_of(dataset)
    found = {"radial": np.asarray(dataset["radial"], np.float64), SIGNAL: np.asarray(dataset[SIGNAL], np.float64).ravel()}
    found |= {} if error is None else {"error": np.asarray(error, np.float64).ravel()}
    there = np.isfinite(found[SIGNAL])
    return {name: values[there] for name, values in found.items()}


def header_of(dataset: xr.Dataset) -> Iterator[str]:
    """What is known of a profile, a line each."""
    yield f"detcal {dataset.attrs.get('detcal_version', '')}".rstrip()
    geometry = json.loads(dataset.attrs.get("geometry", "{}"))
    for name, value in geometry.items():
        text = json.dumps(value) if isinstance(value, dict | list) else value
        yield f"{name}: {text} {'rad' if name.startswith('Rot') else 'm' if isinstance(value, int | float) else ''}".rstrip()
    for name, value in json.loads(dataset.attrs.get("provenance", "{}")).items():
        yield f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
    yield f"unit: {unit_of(dataset)}"
    if (units := dataset[SIGNAL].attrs.get("units")) is not None:
        yield f"intensity: {units}"


def export_columns(dataset: xr.Dataset, path: Path) -> None:
    """Radius, intensity and, if it is known, its error, below lines that begin with #."""
    columns = columns_of(dataset)
    lines = [*header_of(dataset), f"columns: {' '.join(columns)}"]
    write_table(path, [f"# {line}" for line in lines], columns.values())


def export_chi(dataset: xr.Dataset, path: Path) -> None:
    """Fit2D's: a title, the axes' names, the number of points, and two columns. What else is known goes into the title."""
    columns = columns_of(dataset)
    columns.pop("error", None)
    lines = ["; ".join(header_of(dataset)), unit_of(dataset), SIGNAL, f" {len(columns['radial'])}"]
    write_table(path, lines, columns.values())


def export_fxye(dataset: xr.Dataset, path: Path) -> None:
    """GSAS' FXYE: records of 2θ in hundredths of a degree, intensity and error, below a title, comments and one record of the bank."""
    columns = columns_of(dataset)
    columns["radial"] = columns["radial"] * CENTIDEGREES[unit_of(dataset)]
    first, step, points = columns["radial"][0], float(np.mean(np.diff(columns["radial"]))), len(columns["radial"])
    title, *others = header_of(dataset)
    bank = f"BANK 1 {points} {points} CONS {first:.6f} {step:.6f} 0 0 FXYE"
    lines = [f"{title:<80.80}", *(f"# {line}"[:80].ljust(80) for line in others), f"{bank:<80}"]
    write_table(path, lines, columns.values())


def write_table(path: Path, lines: list[str], columns: Any) -> None:
    """A header, and columns."""
    np.savetxt(path, np.stack(list(columns), axis=1), fmt="%.8g", header="\n".join(lines), comments="")
