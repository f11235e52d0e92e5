"""What is no fault of a file is not called damage: files that are written meanwhile, locked, or in need of something else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from detcal import get_array, open_frames, tree
from detcal.errors import InputError
from detcal.stores.sources.readers import clear_errors

WRITER = """
import h5py, sys
with h5py.File("scan.h5", "w", libver="latest") as file:
    data = file.create_dataset("entry/data/data", (3, 4, 5), "u2", maxshape=(None, 4, 5), chunks=(1, 4, 5), {options})
    {swmr}
    for count in (3, 6):
        data.resize((count, 4, 5))
        data[:] = 7
        data.flush()
        print("ready", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def writing(folder: Path, *, swmr: bool, options: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that writes scan.h5: three frames, and three more when it gets a line."""
    code = WRITER.format(swmr="file.swmr_mode = True" if swmr else "", options=options)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("options", ["", 'compression="gzip"'], ids=["plain", "gzip"])
def test_a_scan_that_is_being_written_opens_with_the_frames_that_are_there(tmp_path: Path, options: str) -> None:
    with writing(tmp_path, swmr=True, options=options) as process:
        frames = open_frames(tmp_path / "scan.h5")
        np.testing.assert_array_equal(frames.values, np.full((3, 4, 5), 7))
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        np.testing.assert_array_equal(frames.values, np.full((3, 4, 5), 7))  # what was opened stays as it was
        assert open_frames(tmp_path / "scan.h5").shape == (6, 4, 5)
        assert "(6, 4, 5)" in tree(tmp_path / "scan.h5")
        assert get_array(tmp_path / "scan.h5", "entry/data/data").shape == (6, 4, 5)


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_a_file_that_is_locked_is_not_called_cut_short(tmp_path: Path) -> None:
    with writing(tmp_path, swmr=False):
        for read in (open_frames, tree):
            with pytest.raises(InputError, match=r"cannot read .*scan\.h5: .*locked: .*HDF5_USE_FILE_LOCKING=FALSE") as caught:
                read(tmp_path / "scan.h5")
            assert "cut short" not in str(caught.value)


def test_a_file_whose_writer_died_says_how_to_mend_it(tmp_path: Path) -> None:
    with writing(tmp_path, swmr=False):
        content = (tmp_path / "scan.h5").read_bytes()
    (tmp_path / "copy.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"copy\.h5 is open for writing, or its writer died: .*h5clear -s .*copy\.h5"):
        open_frames(tmp_path / "copy.h5")


def test_an_unknown_filter_is_not_called_damage(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((1, 4, 5))
        created.set_filter(299, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((2, 4, 5))
        dataset = h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, created)
        for number in range(2):
            dataset.write_direct_chunk((number, 0, 0), bytes(40))
    with pytest.raises(InputError, match="filter") as caught:
        open_frames(tmp_path / "a.h5").compute()
    assert "plugin" in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(5, "Input/output error"), "Input/output error.$"),
        (OSError(24, "Too many open files"), "Too many open files.$"),
        (OSError(37, "unable to lock file, errno = 37, 'No locks available'"), "HDF5_USE_FILE_LOCKING=FALSE"),
        (NotImplementedError("planar LZW"), "planar LZW.$"),
        (ValueError("bad magic"), "bad magic. It may be cut short, or of another kind"),
        (OSError("truncated"), "truncated. It may be cut short, or of another kind"),
    ],
    ids=repr,
)
def test_only_what_may_be_damage_is_called_that(error: Exception, hint: str, tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    with pytest.raises(InputError, match=hint), clear_errors(str(tmp_path / "a.h5")):
        raise error
