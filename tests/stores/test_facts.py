"""How frames were recorded, as their files say: attributes with units in their names."""

import bz2
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from detcal import open_frames, save
from detcal.stores.sources.facts import FACTS
from tests.stores.kinds import write_cbf

STACK = np.ones((3, 20, 31), np.int32)
HEADER = """# Detector: {detector}, S/N 60-0119
# Pixel_size 172e-6 m x 171e-6 m
# Silicon sensor, thickness 0.000450 m
# Exposure_time 0.0190000 s
# Exposure_period 0.0200000 s
# Count_cutoff 115897 counts
# Wavelength 0.96859 A
# Detector_distance 0.35100 m
# Beam_xy (1261.61, 1306.96) pixels
"""
FOUND = {
    "sensor_material": "Si", "sensor_thickness_m": 450e-6, "pixel_size_x_m": 172e-6, "pixel_size_y_m": 171e-6, "exposure_time_s": 0.019,
    "frame_time_s": 0.02, "wavelength_m": 0.96859e-10, "detector_distance_m": 0.351, "beam_center_x_px": 1261.61,
    "beam_center_y_px": 1306.96,
}  # fmt: skip


def facts(frames: Any) -> dict[str, Any]:
    return {name: value for name, value in frames.attrs.items() if name in FACTS}


def with_header(path: Path, header: str) -> Path:
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"_array_data.data", b"_array_data.header_contents\r\n;\r\n" + header.encode() + b";\r\n_array_data.data", 1)
    )
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bz2"])
def test_the_header_of_a_cbf_file(tmp_path: Path, packed: bool) -> None:
    path = with_header(write_cbf(tmp_path, STACK), HEADER.format(detector="PILATUS3 6M"))
    if packed:
        (tmp_path / "a.cbf.bz2").write_bytes(bz2.compress(path.read_bytes()))
        path = tmp_path / "a.cbf.bz2"
    frames = open_frames(path)
    assert facts(frames) == pytest.approx(FOUND)
    assert (frames.valid_max, frames.missing_value) == (115897, [-2, -1])
    np.testing.assert_array_equal(frames.values, STACK[:1])


@pytest.mark.parametrize("sign", [":", " =", ""])
def test_the_header_of_a_tiff_file(tmp_path: Path, sign: str) -> None:
    header = (
        HEADER.format(detector="EIGER2 X 1M").replace("Wavelength", f"Wavelength{sign}").replace("Exposure_time", f"Exposure_time{sign}")
    )
    tifffile.imwrite(tmp_path / "a.tif", STACK[0].astype(np.uint16), description=header, metadata=None)
    frames = open_frames(tmp_path / "a.tif")
    assert facts(frames) == pytest.approx(FOUND)
    assert "valid_max" not in frames.attrs  # beyond the type, whose largest number still says "no reading"


def test_what_a_detector_does_not_know_is_left_out(tmp_path: Path) -> None:
    header = "# Detector: PILATUS\n# Wavelength 0.0000 A\n# Detector_distance -1 m\n# Beam_xy (0, 0) pixels\n# Exposure_time x s\n"
    assert facts(open_frames(with_header(write_cbf(tmp_path, STACK), header))) == {}


def test_another_detectors_header_says_nothing(tmp_path: Path) -> None:
    assert facts(open_frames(with_header(write_cbf(tmp_path, STACK), HEADER.format(detector="other")))) == {}


def write_nexus(path: Path, values: dict[str, Any], units: dict[str, str]) -> Path:
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = STACK
        for name, value in values.items():
            file[f"entry/{name}"] = value
            if name in units:
                file[f"entry/{name}"].attrs["units"] = units[name]
    return path


DETECTOR = "instrument/detector"
EIGER: dict[str, Any] = {
    f"{DETECTOR}/sensor_material": b"Si", f"{DETECTOR}/sensor_thickness": 450e-6, f"{DETECTOR}/x_pixel_size": 172e-6,
    f"{DETECTOR}/y_pixel_size": np.array([171e-6]), f"{DETECTOR}/count_time": 0.019, f"{DETECTOR}/frame_time": 0.02,
    "instrument/beam/incident_wavelength": 0.96859, f"{DETECTOR}/detector_distance": 0.351, f"{DETECTOR}/beam_center_x": 1261.61,
    f"{DETECTOR}/beam_center_y": 1306.96,
}  # fmt: skip
OTHERS = {
    f"{DETECTOR}/sensor_thickness": (450.0, "um"), f"{DETECTOR}/frame_time": (20, "ms"), f"{DETECTOR}/detector_distance": (351.0, b"mm"),
    "instrument/beam/incident_wavelength": (0.096859, "nm"),
}  # fmt: skip


@pytest.mark.parametrize("other", [False, True], ids=["usual units", "other units"])
def test_a_nexus_file(tmp_path: Path, other: bool) -> None:
    values = EIGER | ({name: value for name, (value, _) in OTHERS.items()} if other else {})
    units = {name: unit for name, (_, unit) in OTHERS.items()} if other else {}
    frames = open_frames(write_nexus(tmp_path / "a.h5", values, units))
    assert facts(frames) == pytest.approx(FOUND)
    assert frames.dtype == np.int32


@pytest.mark.parametrize(
    ("thickness", "wavelength"),
    [((0.45, "millimeters"), (0.96859, "Angstrom")), ((450, "Microns"), (96.859, "pm")), ((450e-6, "metre"), (0.96859, "Å"))],
)
def test_units_are_known_however_they_are_spelled(tmp_path: Path, thickness: tuple[float, str], wavelength: tuple[float, str]) -> None:
    said = {f"{DETECTOR}/sensor_thickness": thickness, "instrument/beam/incident_wavelength": wavelength}
    values, units = ({name: pair[place] for name, pair in said.items()} for place in (0, 1))
    assert facts(open_frames(write_nexus(tmp_path / "a.h5", values, units))) == pytest.approx(
        {"sensor_thickness_m": 450e-6, "wavelength_m": 0.96859e-10}
    )


def test_the_photon_energy_of_an_eiger_is_in_electronvolts(tmp_path: Path) -> None:
    values = {f"{DETECTOR}/detectorSpecific/photon_energy": 12800.0, f"{DETECTOR}/sensor_thickness": 450e-6}
    assert facts(open_frames(write_nexus(tmp_path / "a.h5", values, {}))) == pytest.approx(
        {"energy_kev": 12.8, "sensor_thickness_m": 450e-6}
    )


@pytest.mark.parametrize("unit", ["Mm", "MS", "as", "Ms"])
def test_large_and_small_letters_of_a_sign_are_two_units(tmp_path: Path, unit: str) -> None:
    path = write_nexus(tmp_path / "a.h5", EIGER, {f"{DETECTOR}/detector_distance": unit, f"{DETECTOR}/count_time": unit})
    assert not {"detector_distance_m", "exposure_time_s"} & set(open_frames(path).attrs)


def test_numbers_in_units_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    path = write_nexus(tmp_path / "a.h5", EIGER, {f"{DETECTOR}/detector_distance": "furlong"})
    assert "detector_distance_m" not in open_frames(path).attrs


def test_millimetres_without_units_are_no_metres(tmp_path: Path) -> None:
    """As EPICS' area detector writes what it is told; a distance of 5 without units may be one in metres."""
    frames = open_frames(write_nexus(tmp_path / "a.h5", {"x_pixel_size": 0.172, "y_pixel_size": 172e-6, "distance": 513.8}, {}))
    assert frames.attrs["pixel_size_y_m"] == 172e-6
    assert not {"pixel_size_x_m", "detector_distance_m"} & set(frames.attrs)


def test_the_energy_of_a_tomography_file(tmp_path: Path) -> None:
    values = {"instrument/beam/energy": 25000.0, f"{DETECTOR}/distance": 80.0, f"{DETECTOR}/x_pixel_size": 3.2}
    path = write_nexus(tmp_path / "a.h5", values, dict(zip(values, ("eV", "mm", "um"), strict=True)))
    assert facts(open_frames(path)) == pytest.approx({"energy_kev": 25.0, "detector_distance_m": 0.08, "pixel_size_x_m": 3.2e-6})


@pytest.mark.parametrize("name", ["a.zarr", "b.h5"])
def test_facts_stay_with_frames_through_our_own_files(tmp_path: Path, name: str) -> None:
    save(open_frames(write_nexus(tmp_path / "a.h5", EIGER, {})), tmp_path / name)
    assert facts(open_frames(tmp_path / name)) == pytest.approx(FOUND)
