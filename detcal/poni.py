"""Reading .poni files, which say where a detector stands."""

from os import PathLike, path
from textwrap import shorten
from typing import Any

import numpy as np
from pyFAI.geometry import Geometry

from detcal.errors import InputError


def read_poni(file: str | PathLike[str], kind: Any = Geometry) -> Any:
    """A .poni file as a pyFAI geometry of some kind; pyFAI itself would take an empty one, and stand the detector at 1 m.

    Raises
    ------
    InputError
        No such file, or a file without distance and PONI.
    """
    if not path.exists(file):
        raise InputError(f"no such file: {file}")
    if path.isdir(file):
        raise InputError(f"cannot read {file} as a .poni file: it is a folder")
    found = kind(dist=np.nan, poni1=np.nan, poni2=np.nan)
    try:
        found.load(str(file))
    except Exception as error:  # of any kind: a file that is no .poni may trip the reader anywhere
        raise InputError(f"cannot read {file} as a .poni file: {shorten(str(error), 200)}") from error
    values = {"Distance": found.dist, "Poni1": found.poni1, "Poni2": found.poni2}
    absent = [name for name, value in values.items() if not np.isfinite(value)]
    if absent:
        raise InputError(f"cannot read {file} as a .poni file: expected Distance, Poni1 and Poni2, got no {', '.join(absent)}")
    return found
