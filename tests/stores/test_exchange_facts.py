"""What Data Exchange files say of the instrument, in /measurement beside the data, as attributes of the frames."""

import h5py
import numpy as np
import pytest

import detcal


def write(path, **said):
    with h5py.File(path, "w") as file:
        for name, number in (("data", 6), ("data_white", 2), ("data_dark", 2)):
            file[f"exchange/{name}"] = np.ones((number, 4, 5), np.uint16)
        for name, (value, units) in said.items():
            place = f"measurement/instrument/{name}"
            file[place] = value
            if units:
                file[place].attrs["units"] = units
    return path


@pytest.mark.parametrize("sizes", [{"x_pixel_size": 2.0, "y_pixel_size": 3.0}, {"pixel_size": 2.0}], ids=["x and y", "one"])
@pytest.mark.parametrize("distance", ["detector/distance", "detector/sample_detector_distance", "detector/detector_distance"])
def test_energy_pixel_size_and_distance_come_along(tmp_path, sizes, distance):
    said = {f"detector/{name}": (np.float64(value), "um") for name, value in sizes.items()}
    energy = {"source/energy": (7.0, "keV"), "monochromator/energy": (np.array([24.5]), "keV")}
    path = write(tmp_path / "a.h5", **said, **energy, **{distance: (35.0, "mm")})
    attrs = detcal.open_frames(path, frames="projections").attrs
    assert attrs["energy_kev"] == 24.5  # not that of the ring
    assert attrs["detector_distance_m"] == pytest.approx(0.035)
    assert attrs["pixel_size_x_m"] == pytest.approx(2e-6)
    assert attrs["pixel_size_y_m"] == pytest.approx(sizes.get("y_pixel_size", 2.0) * 1e-6)


def test_a_file_that_has_no_instrument_or_sizes_that_are_none(tmp_path):
    frames = detcal.open_frames(write(tmp_path / "a.h5", **{"detector/pixel_size": (2.0, None)}))
    assert frames.shape == (6, 4, 5)
    assert "pixel_size_x_m" not in frames.attrs  # two metres
