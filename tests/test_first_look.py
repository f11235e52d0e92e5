"""The first look at a file: how little it reads, and what it says."""

import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal

import detcal
from detcal.errors import InputError
from detcal.first_look import SAMPLE_BYTES, few, look_at
from detcal.frames.stack import DIMS
from detcal.stores.sources.hdf5 import Hdf5Reader
from tests.pipelines.commands import detcal as command
from tests.pipelines.commands import fails


@pytest.fixture
def path(tmp_path):
    """Eleven projections of 16 bits between two darks and three flats; of each pixel a quarter is zero, a row is saturated."""
    keys = [2, 2, 1, *[0] * 11, 1, 1]
    frames = np.full((16, 4, 8), 100, np.uint16) + np.arange(16, dtype=np.uint16)[:, None, None]
    frames[:, 3, :], frames[:, :2, :4] = 65535, 0
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file.create_dataset("entry/instrument/detector/data", data=frames, chunks=(1, 4, 8))
        file["entry/instrument/detector/image_key"] = keys
        file["entry/sample/rotation_angle"] = np.linspace(0, 180, 16)
        file["entry/sample/rotation_angle"].attrs["units"] = "degree"
    return tmp_path / "scan.nxs"


@pytest.mark.filterwarnings("error")
def test_what_was_measured_and_what_there_is_beside(path):
    sample = look_at(path)
    assert sample.readings.shape == (9, 4, 8)
    assert_array_equal(sample.readings[4, :2, 4:], 108)  # the projection in the middle is frame 8 of the file
    said = sample.lines
    assert said["frames"] == "11 of 4 x 8 pixels (y, x), uint16, counts"
    assert (said["not measured"], said["saturated"], said["zero"]) == ("25 %", "25 % (65535 or more)", "25 %")
    assert said["beside them"] == "3 flats, 2 darks"
    assert said["rotation_angle"] == "36 to 156 degree"
    assert said["readings"] == "0 to 113, half of them up to 105"


@pytest.mark.parametrize("given", [np.asarray, da.from_array])
def test_arrays_without_names_are_looked_at_too(given):
    frames = np.full((5, 4, 8), 100.0)
    frames[2, 0, 0] = np.nan
    found = look_at(given(frames))
    assert_array_equal(found.numbers, np.arange(5))
    assert_array_equal(found.readings, frames)
    assert isinstance(detcal.preview(given(frames)), Figure)


@pytest.mark.parametrize("opened", [lambda path: path, detcal.open_frames, lambda path: detcal.open_frames(path, chunks={"frame": 16})])
def test_nine_frames_are_read_and_no_more(tmp_path, monkeypatch, opened):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=np.ones((1000, 4, 4), np.float32), chunks=(1, 4, 4))
    read, original = [], Hdf5Reader.read_rows

    def note(self, frames, rows):
        read.extend(range(*frames))
        return original(self, frames, rows)

    monkeypatch.setattr(Hdf5Reader, "read_rows", note)
    sample = look_at(opened(tmp_path / "a.h5"))
    assert sorted(read) == sample.numbers.tolist() == [0, 125, 250, 375, 500, 625, 750, 875, 999]


@pytest.mark.parametrize(("length", "expected"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (1000, [0, 500, 999])])
def test_of_large_frames_three_are_looked_at(length, expected):
    assert few(length, SAMPLE_BYTES // 8).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 12])
def test_the_figure_has_the_first_the_middle_and_the_last(tmp_path, length):
    frames = np.arange(length * 20.0).reshape(length, 4, 5)
    frames[0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", frames)
    figure = detcal.preview(tmp_path / "a.npy")
    assert isinstance(figure, Figure)
    images = [axis.get_images()[0].get_array().filled(np.nan) for axis in figure.axes if axis.get_images()]
    drawn = sorted({0, length // 2, length - 1})
    assert [axis.get_title() for axis in figure.axes[: len(drawn)]] == [f"frame {number}" for number in drawn]
    assert_array_equal(images[: len(drawn)], frames[drawn])


@pytest.mark.parametrize("frames", [np.full((2, 3, 3), np.nan), np.full((2, 3, 3), 7), np.zeros((2, 3, 3)), np.eye(300)[None] * 1e6 + 1])
def test_whatever_the_readings_are_they_can_be_drawn(frames):
    known = np.isfinite(frames)
    figure = detcal.preview(xr.DataArray(frames, dims=DIMS))
    (histogram,) = [axis for axis in figure.axes if "measured" in axis.get_title() or axis.get_xlabel() == "reading"]
    assert bool(histogram.patches) == known.any()
    figure.canvas.draw()


def test_on_the_command_line(path):
    folder = path.parent
    assert "beside them     3 flats, 2 darks" in command(folder, "preview", "scan.nxs").output
    assert (folder / "scan.nxs.preview.png").read_bytes().startswith(b"\x89PNG")
    assert "exists already" in fails(folder, "preview", "scan.nxs")
    command(folder, "preview", "scan.nxs", "--overwrite", "--dataset", "/entry/instrument/detector/data")
    assert "would take the place of" in fails(folder, "preview", "scan.nxs", "--overwrite", "--output", "scan.nxs")


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        detcal.preview(tmp_path / "gone.h5")
