"""Readers under the guard of a run: what they note, what they leave out, and the files that they name."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from detcal import open_frames
from detcal.stores.damage import Guard, guarding, read_notes
from tests.faults.conftest import SIDE
from tests.faults.damaged import DEPTH, stack, write_gzip, write_hdf5, write_tiffs


def test_tasks_that_are_done_twice_note_damage_once(folder: Path) -> None:
    path = write_gzip(folder, [3, 4, 9])
    notes = folder / "notes"
    with guarding(Guard(str(notes), found=True)):
        frames = open_frames(folder / path, chunks={"frame": DEPTH})
    for _ in range(2):
        assert np.flatnonzero(np.isnan(frames.compute()).all(axis=(1, 2))).tolist() == [3, 4, 9]
    assert [note["frames"] for note in read_notes(notes)] == [[3, 4], [9, 9]]


def test_frames_that_are_not_to_be_read_are_not(folder: Path) -> None:
    path = write_hdf5(folder)
    with guarding(Guard(str(folder / "notes"), found=True, unread=((2, 4), (38, 39)))):
        frames = open_frames(folder / path, chunks={"frame": DEPTH})
    assert np.flatnonzero(np.isnan(frames.compute()).all(axis=(1, 2))).tolist() == [2, 3, 4, 38, 39]
    assert not (folder / "notes").exists()


def test_every_reader_names_its_files(folder: Path) -> None:
    """Of each frame, through whatever lies around a reader."""
    frames = stack()
    for name, part in (("a.h5", frames[:10]), ("b.h5", frames[10:])):
        with h5py.File(folder / name, "w") as file:
            file["data"] = part
    layout = h5py.VirtualLayout(frames.shape, np.uint16)
    layout[:10], layout[10:] = (
        h5py.VirtualSource(folder / "a.h5", "data", (10, SIDE, SIDE)),
        h5py.VirtualSource(folder / "b.h5", "data", (30, SIDE, SIDE)),
    )
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    write_tiffs(folder, [])
    zarr.save_array(folder / "z.zarr", frames)
    np.save(folder / "n.npy", frames)
    cases: dict[Any, tuple[list[str], list[str]]] = {  # of frames 9, and 12
        (folder / "a.h5", folder / "b.h5"): (["a.h5"], ["b.h5"]),
        folder / "v.h5": (["a.h5", "v.h5"], ["b.h5", "v.h5"]),
        str(folder / "scan_*.tif"): (["scan_009.tif"], ["scan_012.tif"]),
        folder / "z.zarr": (["z.zarr", "zarr.json"],) * 2,
        folder / "n.npy": (["n.npy"],) * 2,
    }
    for path, expected in cases.items():
        for options in ({}, {"frames": slice(1, None)}, {"flip": "both"}):
            shift = 1 if "frames" in options else 0
            with guarding(Guard(str(folder / "notes"))):
                found = open_frames(list(path) if isinstance(path, tuple) else path, **options)
            layers = found.data.__dask_graph__().layers
            reader = next(layer[key].reader for name, layer in layers.items() if name.startswith("original-") for key in layer)
            for number, files in zip((9, 12), expected, strict=True):
                assert [Path(file).name for file in reader.files(number - shift, number - shift + 1)] == files
            assert set(reader.states) >= set(reader.files(0, 20))
