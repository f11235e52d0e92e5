"""What is read from a file that has changed has another name in dask graphs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detcal import open_frames
from tests.stores.kinds import Stack, make_stack, write_edf, write_edf_files, write_hdf5, write_npy, write_tiff, write_virtual, write_zarr


def names(*opened: Any) -> list[str]:
    return [open_frames(path).data.name for path in opened]


@pytest.mark.parametrize("write", [write_hdf5, write_npy, write_tiff, write_edf], ids=lambda write: write.__name__)
def test_a_file_that_has_changed_gets_another_dask_name(write: Callable[[Path, Stack], Path], tmp_path: Path) -> None:
    path = write(tmp_path, make_stack("uint16"))
    before, again = names(path, path)
    assert before == again
    assert before != open_frames(path, chunks={"frame": 2}).data.name
    os.utime(path, ns=(0, 0))
    assert names(path) != [before]


def test_a_source_that_has_changed_gives_a_virtual_dataset_another_dask_name(tmp_path: Path) -> None:
    path = write_virtual(tmp_path, make_stack("uint16"))
    before = names(path)
    os.utime(tmp_path / "part1.h5", ns=(0, 0))
    assert names(path) != before


def test_a_store_that_was_replaced_gets_another_dask_name(tmp_path: Path) -> None:
    stack = make_stack("uint16")
    path = write_zarr(tmp_path, stack)
    before = names(path)
    assert names(path) == before
    shutil.rmtree(path)
    write_zarr(tmp_path, stack)
    assert names(path) != before


def test_files_in_another_order_get_another_dask_name(tmp_path: Path) -> None:
    paths = write_edf_files(tmp_path, make_stack("uint16"))
    for path in paths:
        os.utime(path, ns=(0, 0))
    first, *middle, last = paths
    assert len({*names(paths, [first, *reversed(middle), last])}) == 2
