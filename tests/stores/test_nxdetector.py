"""What a NeXus or Eiger file says of its detector decides which of its numbers are readings."""

import h5py
import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.stores.sources.opening import open_reader

SHAPE = (3, 5, 6)


def write(path, dtype=np.uint32, group="entry/instrument/detector", data="entry/data/data", **said):
    frames = np.full(SHAPE, 7, dtype)
    frames[0, 0, 0], frames[1, 1, 1] = 120, 99
    with h5py.File(path, "w") as file:
        file[data] = frames
        for name, value in said.items():
            file[f"{group}/{name}"] = value
    return frames


def bad():
    """A mask in which bits above the 16th describe pixels that are good."""
    mask = np.zeros(SHAPE[1:], np.uint32)
    mask[2, 3], mask[4, 0], mask[0, 5] = 1, 8, 1 << 31
    return mask


def test_equal_masks_of_many_files_are_held_once(tmp_path):
    for name, mask in (("a", bad()), ("b", bad()), ("c", bad() * 0 + 1), ("d", bad())):
        write(tmp_path / f"{name}.h5", pixel_mask=mask)
    reader, _ = open_reader([tmp_path / f"{name}.h5" for name in "abcd"], "entry/data/data")
    first, second, third, last = (each.says.detector.mask for each in reader.readers)
    assert first is second
    assert not np.array_equal(second, third)
    np.testing.assert_array_equal(last, first)


@pytest.mark.parametrize("group", ["entry/instrument/detector", "entry/instrument/detector/detectorSpecific", "entry/data"])
@pytest.mark.parametrize("flip", [None, "ud", "lr", "both"])
def test_masked_pixels_are_nan(tmp_path, group, flip):
    frames = write(tmp_path / "a.h5", group=group, pixel_mask=bad())
    opened = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data", flip=flip, frames=[2, 0])
    wanted = np.where(bad() & 0xFFFF, np.nan, frames)[[2, 0]]
    np.testing.assert_array_equal(opened, wanted[:, :: -1 if flip in ("ud", "both") else 1, :: -1 if flip in ("lr", "both") else 1])


def test_masks_of_the_file_and_of_its_user_add_up(tmp_path):
    write(tmp_path / "a.h5", pixel_mask=bad())
    own = np.zeros(SHAPE[1:], bool)
    own[3, 3] = True
    opened = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data", mask=own)
    np.testing.assert_array_equal(np.isnan(opened[0]), own | (bad() & 0xFFFF > 0))
    write(tmp_path / "b.h5", pixel_mask=own.astype(np.int8))
    with pytest.warns(UserWarning, match="mask different pixels"):
        both = detcal.open_frames([tmp_path / "a.h5", tmp_path / "b.h5"], dataset="entry/data/data")
    np.testing.assert_array_equal(np.isnan(both[0]), own | (bad() & 0xFFFF > 0))


@pytest.mark.parametrize(
    ("dtype", "said", "attrs"),
    [
        (np.uint32, {"saturation_value": 100}, {"valid_max": 100}),
        (np.uint32, {"countrate_correction_count_cutoff": np.array([100])}, {"valid_max": 100}),
        (np.int32, {"underload_value": 0}, {"valid_min": 0}),
        (np.uint16, {"underload_value": 0}, {}),  # which the type says already
        (np.uint16, {"saturation_value": 65535}, {}),
        (np.float32, {"saturation_value": np.nan}, {}),
        (np.uint32, {"saturation_value": np.arange(3)}, {}),
    ],
)
def test_limits_of_the_detector_are_attributes(tmp_path, dtype, said, attrs):
    write(tmp_path / "a.h5", dtype, **said)
    opened = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data")
    assert opened.dtype == dtype
    assert {name: value for name, value in opened.attrs.items() if name.startswith("valid")} == attrs
    assert (find_readings(as_stack(opened))[1].most == 100) == ("valid_max" in attrs)
    ours = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data", valid_range=(-5, 50))
    assert (ours.valid_min, ours.valid_max) == (-5, 50)


def test_attributes_of_the_frames_come_before_their_detectors(tmp_path):
    write(tmp_path / "a.h5", saturation_value=100)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["entry/data/data"].attrs["missing_value"] = 99
    opened = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data")
    assert opened.missing_value == 99
    assert "valid_max" not in opened.attrs


def test_of_several_detectors_only_that_of_the_frames_counts(tmp_path):
    write(tmp_path / "a.h5", group="entry/instrument/other", pixel_mask=bad(), saturation_value=100)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["entry/instrument/detector/saturation_value"] = 110
    opened = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data")
    assert opened.dtype == np.uint32
    assert "valid_max" not in opened.attrs
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["entry/instrument/detector/data"] = file["entry/data/data"]
    assert detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data").valid_max == 110


def test_a_mask_of_other_pixels_is_none_of_the_frames(tmp_path):
    write(tmp_path / "a.h5", pixel_mask=np.ones((9, 9), np.uint8))
    assert detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data").dtype == np.uint32


def test_rings_are_free_of_what_the_detector_masks(tmp_path):

    write(tmp_path / "a.h5", pixel_mask=bad(), saturation_value=98)
    geometry = Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=SHAPE[1:]))
    frames = detcal.open_frames(tmp_path / "a.h5", dataset="entry/data/data")
    found = azimuthal.integrate(frames, azimuthal.build_bins(geometry, npt=1, unit="r_mm", solid_angle=False)).compute()
    np.testing.assert_array_equal(found["count"].values.ravel(), [27, 27, 28])
    np.testing.assert_array_equal(found.intensity, 7)
