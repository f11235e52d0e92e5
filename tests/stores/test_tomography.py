"""Frames with rotation angles are written as NXtomo again."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from detcal import load, open_frames, save
from tests.stores.test_selection import ANGLES, KEY, STACK, write_tomo


def write(path: Path) -> Path:
    write_tomo(path)
    with h5py.File(path, "a") as file:
        for name, value, units in (("x_pixel_size", 3.2, "um"), ("y_pixel_size", 3.3e-6, "m"), ("distance", 80, "mm")):
            file[f"entry/instrument/detector/{name}"] = value
            file[f"entry/instrument/detector/{name}"].attrs["units"] = units
        file["entry/instrument/beam/incident_energy"] = 25.0
        file["entry/instrument/beam/incident_energy"].attrs["units"] = "keV"
    return path


@pytest.mark.parametrize("suffix", [".nxs", ".h5"])
def test_a_tomography_file_keeps_its_keys_angles_and_distances(tmp_path: Path, suffix: str) -> None:
    raw = write(tmp_path / "raw.nxs")
    again = tmp_path / f"again{suffix}"
    save(open_frames(raw, frames=":"), again)
    with h5py.File(again) as file:
        entry = file["entry"]
        assert entry["definition"].asstr()[()] == "NXtomo"
        np.testing.assert_array_equal(entry["instrument/detector/data"], STACK)
        np.testing.assert_array_equal(entry["instrument/detector/image_key"], KEY)
        np.testing.assert_array_equal(entry["sample/rotation_angle"], ANGLES)
        for group in ("data", "instrument/detector"):
            assert {"data", "image_key"} <= set(entry[group])
        np.testing.assert_array_equal(entry["data/rotation_angle"], ANGLES)  # where HTTomo looks if it is told "auto"
        assert entry["sample/rotation_angle"].attrs["units"] == "degree"
        found = {name: (entry[f"instrument/detector/{name}"][()], entry[f"instrument/detector/{name}"].attrs["units"])
                 for name in ("x_pixel_size", "y_pixel_size", "distance")}  # fmt: skip
        assert {name: units for name, (_, units) in found.items()} == dict.fromkeys(found, "m")
        assert [value for value, _ in found.values()] == pytest.approx([3.2e-6, 3.3e-6, 0.08])
        assert entry["instrument/beam/incident_energy"][()] == 25.0
        assert {each: entry[each].attrs["NX_class"] for each in ("instrument", "instrument/detector", "sample", "data")} == {
            "instrument": "NXinstrument", "instrument/detector": "NXdetector", "sample": "NXsample", "data": "NXdata",
        }  # fmt: skip
    for role in ("projections", "flats", "darks", ":"):
        before, after = open_frames(raw, frames=role), open_frames(again, frames=role)
        np.testing.assert_array_equal(after.values, before.values)
        np.testing.assert_array_equal(after.rotation_angle, before.rotation_angle)
        assert after.detector_distance_m == pytest.approx(0.08)


def test_projections_alone_are_all_projections(tmp_path: Path) -> None:
    save(open_frames(write(tmp_path / "raw.nxs"), frames="projections"), tmp_path / "again.nxs")
    with h5py.File(tmp_path / "again.nxs") as file:
        np.testing.assert_array_equal(file["entry/instrument/detector/image_key"], np.zeros(5))
    frames = open_frames(tmp_path / "again.nxs")  # without a warning: nothing is left out
    np.testing.assert_array_equal(frames.values, STACK[KEY == 0])
    np.testing.assert_array_equal(frames.rotation_angle, ANGLES[KEY == 0])
    assert list(load(tmp_path / "again.nxs")) == ["frames"]


def test_frames_without_angles_are_no_tomography(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    save(open_frames(tmp_path / "a.npy"), tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        assert "definition" not in file["entry"]


def test_the_nxtomo_package_opens_it(tmp_path: Path) -> None:
    nxtomo = pytest.importorskip("nxtomo", reason="the package nxtomo is not installed")
    save(open_frames(write(tmp_path / "raw.nxs"), frames=":"), tmp_path / "again.nxs")
    found = nxtomo.NXtomo().load(str(tmp_path / "again.nxs"), "entry", detector_data_as="as_numpy_array")
    np.testing.assert_array_equal(found.instrument.detector.data, STACK)
    np.testing.assert_array_equal([int(key.value) for key in found.instrument.detector.image_key_control], KEY)
    np.testing.assert_allclose(np.asarray(found.sample.rotation_angle.to("degree").magnitude), ANGLES)
    assert float(found.instrument.detector.distance.to("m").magnitude) == pytest.approx(0.08)
