"""A stack of which parts are missing, and how it is to be read."""

from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest

from detcal import get_array, open_frames, save
from detcal.distortion import DistortionMap
from detcal.errors import MissingWarning

SHAPE = (6, 20, 30)
STACK = np.random.default_rng(1).integers(1, 60000, SHAPE, np.uint16)


def without(*frames: int) -> np.ndarray[Any, Any]:
    """The stack as it is to be read where some of its frames are missing."""
    stack = STACK.astype(np.float32)
    stack[list(frames)] = np.nan
    return stack


def check_frames(path: Path, wanted: np.ndarray[Any, Any], told: str, dataset: str | None = None) -> None:
    """Each way to read it gives NaN where something is missing, and says so once."""
    with pytest.warns(MissingWarning, match=told) as warned:
        frames = open_frames(path, dataset)
    assert len(warned) == 1
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames.values, wanted)
    np.testing.assert_array_equal(frames[4, 3:7].values, wanted[4, 3:7])
    name = frames.source.partition("::")[2]
    for compute in (True, False):
        with pytest.warns(MissingWarning, match=told.replace("frames", "rows")):
            found = get_array(path, name, compute=compute)
        np.testing.assert_array_equal(np.asarray(found), wanted)


def save_frames(path: Path, **options: Any) -> Path:
    return save(da.from_array(STACK, chunks=(2, 20, 30)), path, **options)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def write(path: Path, values: Any, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=values, **options)


def make_map() -> DistortionMap:
    corners = np.stack(np.meshgrid(np.arange(21.0), np.arange(31.0), indexing="ij"), axis=-1)
    return DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((20, 30), np.bool_))
