"""What `tree` tells of a file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from detcal import save
from detcal.errors import InputError
from detcal.stores.sources.listing import tree
from tests.stores.samples import make_frames


def test_tree_of_a_zarr_store(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.zarr", shards={"frame": 4}, attrs={"note": "long " * 30})
    lines = tree(tmp_path / "a.zarr").splitlines()
    assert lines[0] == str(tmp_path / "a.zarr")
    assert "  frames  (7, 6, 5) float32, chunks (1, 6, 5), shards (4, 6, 5)" in lines
    assert "    @units = counts" in lines
    note = next(line for line in lines if "@note" in line)
    assert note.endswith("…")
    assert len(note) < 80


def test_tree_of_an_hdf5_file(tmp_path: Path) -> None:
    save(make_frames(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/up"] = file["entry"]
        file["entry/plot"] = h5py.SoftLink("/entry/frames/frames")
        file["entry/raw"] = h5py.ExternalLink("gone.h5", "/data")
        file.create_dataset("entry/chunked", data=np.zeros((4, 4)), chunks=(2, 4))
    lines = tree(tmp_path / "a.h5").splitlines()
    assert lines[:3] == [str(tmp_path / "a.h5"), "  @default = entry", "  entry/"]
    assert "      frames  (7, 6, 5) float32" in lines
    assert "        @units = counts" in lines
    assert "    chunked  (4, 4) float64, chunks (2, 4)" in lines
    assert "    up → /entry" in lines
    assert "    plot → /entry/frames/frames" in lines
    assert "    raw → missing" in lines


def test_tree_of_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("nonsense")
    with pytest.raises(InputError, match=r"cannot read .*a\.h5"):
        tree(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"cannot read .*"):
        tree(tmp_path)
    with pytest.raises(InputError, match=r"no such file: .*gone\.h5"):
        tree(tmp_path / "gone.h5")
