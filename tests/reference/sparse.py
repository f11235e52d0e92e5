"""Files that would be large."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def allocate(path: Path, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...] | None = None) -> None:
    """An HDF5 file of which all is allocated and nothing written: a file system that knows holes keeps none of it."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    if chunks is not None:
        created.set_chunk(chunks)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"data", h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape), created)
