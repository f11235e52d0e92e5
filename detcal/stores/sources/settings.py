"""Settings of an instrument, as HDF5 files keep them: texts as arrays of letters, numbers as arrays of one."""

from typing import Any

import numpy as np

from detcal.stores.sources.attributes import own_type


def setting_of(value: Any) -> Any:
    """A setting as a number or text."""
    if isinstance(value, np.ndarray) and value.dtype == "S1":
        return text_of(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufS":
        return own_type(value.ravel()[0]) if value.size == 1 else value.tolist()
    return own_type(value) if isinstance(value, np.generic | bytes) else str(value)


def text_of(letters: Any) -> str:
    """A text from an array of letters."""
    return b"".join(np.ravel(letters).astype("S").tolist()).decode(errors="replace").strip("\0")
