"""What is no stack of frames is refused in one line."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from detcal import open_frames
from detcal.errors import InputError
from tests.stores.kinds import make_stack, write_edf, write_npy


def write_group(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/line"] = np.zeros(5)
        file["entry/none"] = np.zeros((0, 2, 2))
        file["entry/text"] = [["a", "b"]]
    return folder / "a.h5"


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("/entry/gone", "no dataset /entry/gone in .*; `detcal tree .*a.h5` lists"),
        (["/entry"], "no dataset /entry in .*a.h5: that is a group"),
        ("/entry/line", r"expected an array of shape \(frame, y, x\) or \(y, x\), or .*, got \(5,\)"),
        ("/entry/none", r"expected frames of numbers, got shape \(0, 2, 2\)"),
        ("/entry/text", "expected frames of numbers, got shape .* of object"),
    ],
)
def test_a_dataset_that_is_no_stack_is_refused(dataset: str | list[str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        open_frames(write_group(tmp_path), dataset)


def test_a_file_without_a_stack_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spectrum"] = np.arange(5)
    with pytest.raises(InputError, match=r"no dataset of shape \(frame, y, x\) or .* in .*a\.h5"):
        open_frames(tmp_path / "a.h5")


@pytest.mark.parametrize("shape", [(5,), ()])
def test_npy_of_other_dimensions_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(InputError, match="expected an array of shape"):
        open_frames(tmp_path / "a.npy")


def test_colour_images_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 7, 3), "u1"), photometric="rgb")
    with pytest.raises(InputError, match=r"expected grey frames, got an image of shape \(5, 7, 3\)"):
        open_frames(tmp_path / "a.tif")


def test_names_that_match_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*gone\.h5$"):
        open_frames(tmp_path / "gone.h5")
    with pytest.raises(InputError, match=r"no file matches .*\*\.cbf$"):
        open_frames(tmp_path / "*.cbf")
    with pytest.raises(InputError, match="no file matches"):
        open_frames([])
    with pytest.raises(InputError, match=r"no such file: .*gone\.edf$"):
        open_frames([write_edf(tmp_path, make_stack("uint16")), tmp_path / "gone.edf"])
    with pytest.raises(InputError, match="got one with a NUL character"):
        open_frames("a\0.tif")


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        open_frames(tmp_path)


@pytest.mark.parametrize("chunks", [{"frame": 0}, {"frame": -1}, {"frames": 4}, {"frame": 4, "x": 8}, {"y": 0}, {"y": -2}])
def test_chunks_that_cannot_be_are_refused(chunks: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'expected chunks such as \{"frame": 16\}'):
        open_frames(write_npy(tmp_path, make_stack("uint16")), chunks=chunks)
