"""Reading .poni files, which say where a detector stands, and what pyFAI knows of its frames."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from os import PathLike, path
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from pyFAI.geometry import Geometry

from detcal.errors import InputError
from detcal.sizes import check_pixels

KEV_M = 1.239841984332e-9  # hc


def read_poni(file: str | PathLike[str], kind: Any = Geometry) -> Any:
    """A .poni file as a pyFAI geometry of some kind; pyFAI itself would take an empty one, and stand the detector at 1 m.

    Raises
    ------
    InputError
        No such file, or a file without distance, PONI and rotations: one that was cut short; a detector of more than 2^28 pixels.
    """
    if not path.exists(file):
        raise InputError(f"no such file: {file}")
    if path.isdir(file):
        raise InputError(f"cannot read {file} as a .poni file: it is a folder")
    check_sensor(file)
    place = {"Distance": "dist", "Poni1": "poni1", "Poni2": "poni2", "Rot1": "rot1", "Rot2": "rot2", "Rot3": "rot3"}
    found = kind(**dict.fromkeys(place.values(), np.nan))
    found.auto_gc = False  # pyFAI would look through all objects of the process for garbage, which takes longer than the file
    try:
        with without_warnings_of_pyfai():
            found.load(str(file))
    except Exception as error:  # of any kind: a file that is no .poni may trip the reader anywhere
        raise InputError(f"cannot read {file} as a .poni file: {shorten(str(error), 200)}") from error
    absent = [key for key, name in place.items() if not np.isfinite(getattr(found, name))]
    if absent:
        raise InputError(f"cannot read {file} as a .poni file: expected {', '.join(place)}, got no {', '.join(absent)}")
    if found.detector.shape is not None:
        check_pixels(found.detector.shape, f"a detector in {file}")
    return found


def check_sensor(file: str | PathLike[str]) -> None:
    """Raise if the file says of its detector's sensor what pyFAI would trip over.

    Raises
    ------
    InputError
        A sensor without a material, or with a thickness that is no number.
    """
    for sensor in sensors_in(Path(file).read_text(errors="replace")):
        if "material" not in sensor:
            raise InputError(
                f"expected a material of the sensor in the Detector_config of {file}, got {json.dumps(sensor)}: add it, as "
                '"material": "Si", or null where it is not known'
            )
        thickness = sensor.get("thickness")
        if not (thickness is None or isinstance(thickness, int | float)):
            raise InputError(f"expected the thickness in m of the sensor in the Detector_config of {file} as a number, got {thickness!r}")


def sensors_in(text: str) -> Iterator[dict[str, Any]]:
    """The sensors that a .poni file names: JSON as a whole, or lines "Detector_config: JSON"."""
    lines = re.findall(r"(?im)^\s*detector_config\s*:(.*)$", text)
    for written in [text, *lines]:
        try:
            found = json.loads(written)
        except ValueError:  # lines, or none: pyFAI says what is wrong with them
            continue
        config = found.get("detector_config", found) if isinstance(found, dict) else None
        sensor = config.get("sensor") if isinstance(config, dict) else None
        if isinstance(sensor, dict):
            yield sensor


@contextmanager
def without_warnings_of_pyfai() -> Iterator[None]:
    """Without what pyFAI has to say of its own code that is deprecated, with a stack of calls as a traceback has it: it reads .json so."""
    logger = getLogger("pyFAI.DEPRECATION")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def find_dummy(detector: Any) -> tuple[float, float] | None:
    """dummy and delta_dummy of a pyFAI detector, with which it flags pixels that were not measured; None if it has none."""
    if detector.dummy is None:
        return None
    return float(detector.dummy), float(detector.delta_dummy or 0)


def energy_of(geometry: Any) -> float | None:
    """Photon energy in keV of a geometry that has a wavelength."""
    wavelength: float | None = getattr(geometry, "wavelength", None)
    if wavelength is None:
        return None
    if not 0 < wavelength < np.inf:
        raise InputError(f"expected a positive wavelength in m, got {wavelength}: mend the geometry, or give energy_kev")
    return KEV_M / wavelength


def poni_text(geometry: Any) -> str:
    """A pyFAI geometry as JSON, with the keys of .poni files: lengths in m, rotations in rad."""
    known = {
        "Detector": geometry.detector.name, "Detector_config": dict(geometry.detector.get_config()),
        "Distance": geometry.dist, "Poni1": geometry.poni1, "Poni2": geometry.poni2,
        "Rot1": geometry.rot1, "Rot2": geometry.rot2, "Rot3": geometry.rot3, "Wavelength": geometry.wavelength,
    }  # fmt: skip
    return json.dumps({name: value for name, value in known.items() if value is not None}, default=str)
