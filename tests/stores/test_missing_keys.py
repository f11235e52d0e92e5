"""What a file says of its own frames, where it was never written: keys, angles, masks and limits."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from detcal import open_frames
from detcal.errors import InputError, MissingWarning
from tests.stores.losses import STACK


def written_in_part(group: h5py.Group, name: str, values: Any, written: int) -> None:
    """A dataset of which only the first chunk, of so many rows, was written."""
    values = np.asarray(values)
    chunks = None if written == 0 else (written, *values.shape[1:])
    stored = group.create_dataset(name, values.shape, values.dtype, chunks=chunks)
    if written:
        stored[:written] = values[:written]


@pytest.mark.parametrize("name", ["image_key", "image_key_control"])
def test_keys_that_were_never_written_are_no_projections(name: str, tmp_path: Path) -> None:
    keys = np.repeat([2, 0, 1], 2)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"] = STACK
        if name != "image_key":
            group["image_key"] = keys
        written_in_part(group, name, keys, 4)
    with pytest.raises(InputError, match=rf"{name} .*a\.nxs, but it is damaged: .*{name} 2 of 6 rows \(4–5\) are not there"):
        open_frames(tmp_path / "a.nxs")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.nxs", frames=":").values, STACK)


def test_angles_that_were_never_written_are_nan(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"], group["image_key"] = STACK, np.repeat([2, 0], 3)
        written_in_part(group, "rotation_angle", np.arange(6.0) + 10, 4)
    with pytest.warns(MissingWarning, match=r"rotation_angle lacks 2 of 6 values \(4–5\)"):
        frames = open_frames(tmp_path / "a.nxs", frames="projections")
    np.testing.assert_array_equal(frames.rotation_angle, [13, np.nan, np.nan])


def test_a_detectors_mask_and_limits_that_were_never_written_are_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/detector")
        group["data"] = STACK
        written_in_part(group, "saturation_value", 0, 0)
    with pytest.warns(MissingWarning, match="saturation_value lacks 1 of 1 values"):
        assert "valid_max" not in open_frames(tmp_path / "a.nxs").attrs
    with h5py.File(tmp_path / "a.nxs", "r+") as file:
        del file["entry/detector/saturation_value"]
        written_in_part(file["entry/detector"], "pixel_mask", np.zeros((20, 30), np.uint32), 10)
    with pytest.raises(InputError, match=r"all of .*pixel_mask in .*a\.nxs, but it is damaged: .*10 of 20 rows \(10–19\) are not there"):
        open_frames(tmp_path / "a.nxs")
